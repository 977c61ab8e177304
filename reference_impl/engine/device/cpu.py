"""The CPU: gathered attention, the model as it is. One thread, see ``runner.py``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from reference_impl.engine.batch import Arrangement
from reference_impl.engine.device.forward import logits_of
from reference_impl.engine.device.pool_views import PoolViews
from reference_impl.engine.device.ragged import gathered
from reference_impl.engine.kv_cache import KvPool


class CpuDevice:
    """Computes forwards of ``model`` over ``pool``."""

    def __init__(self, model: nn.Module, pool: KvPool) -> None:
        self._model = model
        self._views = PoolViews(pool)

    def logits(self, arrangement: Arrangement, after_layer: Callable[[int], None] | None) -> torch.Tensor:
        """See :class:`~reference_impl.engine.device.choice.Device`."""
        views = self._views
        return logits_of(self._model, arrangement, gathered(views, arrangement, after_layer), views.device)
