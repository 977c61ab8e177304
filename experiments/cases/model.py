"""One run among many, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from experiments.cases.fingerprint import fingerprint
from experiments.config import RunConfig

_RESULT_VERSION = 1
"""Raise when the meaning of a stored outcome changes, so that old ones are not reused."""


def config_key(config: RunConfig) -> str:
    """Equal for equal resolved configurations and equal code, files included."""
    content = {"result": _RESULT_VERSION, "code": fingerprint(config), **config.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Case:
    """One cell of a comparison: which policy met which traffic."""

    variant: str
    workload: str
    rate: float | None
    seed: int
    config: RunConfig

    @cached_property
    def key(self) -> str:
        """Name of the stored outcome."""
        return config_key(self.config)


@dataclass(frozen=True)
class Outcome:
    """What a finished case leaves behind; small, so that thousands can be kept. All of it is ready for JSON."""

    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Per latency (``ttft_ms``, ...) its quantiles at even steps from 0 to 1: enough to draw a distribution."""
    timeline: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Columns ``time_s``, ``running``, ``waiting`` and, where known, ``kv_use``."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Cost models, trace, environment."""


Runner = Callable[[Case], Outcome]
"""Runs one case. To be used with several processes it must survive pickle."""
