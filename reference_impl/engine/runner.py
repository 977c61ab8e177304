"""The synchronous executor of one lane: batches in, sampled tokens out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from reference_impl.engine.api import EngineError, ForwardBatch, Outcome, SampledToken, SamplingParams
from reference_impl.engine.batch import Arrangement, arrange
from reference_impl.engine.device.choice import check_device, make_device
from reference_impl.engine.kv_cache import KvPool
from reference_impl.engine.model import load_model
from reference_impl.engine.model_facts import read_facts
from reference_impl.engine.sampling import Wanted, sample
from reference_impl.engine.share import Share, Throttle
from reference_impl.engine.weights import ModelSource
from reference_impl.engine.yardstick import Yardstick


class Runner:
    """Computes one iteration after the other over a KV pool. Not thread-safe; one per lane, one lane per process."""

    def __init__(
        self,
        model_dir: Path,
        source: ModelSource,
        pool: KvPool,
        *,
        share: Share | None = None,
        steady: bool = False,
        on_layer: Callable[[int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``steady``: the share is one of a standard core. ``on_layer`` is told each layer whose keys and values an
        iteration has written.
        """
        check_device(source.device)
        torch.set_num_threads(1)
        self.facts = read_facts(model_dir)
        self.eos_token_ids = self.facts.eos_token_ids
        self._block_tokens = pool.layout.block_tokens
        self._clock = clock
        self._throttle = Throttle(share, Yardstick() if steady else None) if share is not None else None
        self._after_layer = _chained(on_layer, self._throttle)
        self._params: dict[int, SamplingParams] = {}
        self._last: dict[int, int] = {}
        self._device = make_device(load_model(model_dir, source), self.facts, source, pool)

    def admit(self, request_id: int, params: SamplingParams) -> None:
        """Make a request's sampling parameters known; needed before its first row."""
        self._params[request_id] = params

    def forget(self, request_ids: Sequence[int]) -> None:
        """They will not be computed again, until they are admitted again."""
        for request_id in request_ids:
            self._params.pop(request_id, None)
            self._last.pop(request_id, None)

    def run(self, batch: ForwardBatch) -> Outcome:
        """Compute an iteration. Raises EngineError for rows that were not prepared."""
        start_s = self._clock()
        if self._throttle is not None:
            self._throttle.begin()
        with torch.inference_mode():
            arrangement = arrange(batch, self._block_tokens, self._last_token)
            tokens = self._sample(arrangement, self._device.logits(arrangement, self._after_layer))
        for token in tokens:
            self._last[token.request_id] = token.token
        if self._throttle is not None:
            self._throttle()
        return Outcome(batch.ordinal, start_s, self._clock(), tuple(tokens))

    def _sample(self, arrangement: Arrangement, logits: torch.Tensor) -> list[SampledToken]:
        if not arrangement.keep:
            return []
        positions = arrangement.positions
        wanted = [
            Wanted(request_id, positions[row] + 1, self._params_of(request_id))
            for request_id, row in zip(arrangement.yields, arrangement.keep, strict=True)
        ]
        return sample(logits, wanted)

    def _params_of(self, request_id: int) -> SamplingParams:
        found = self._params.get(request_id)
        if found is None:
            raise EngineError(f"request {request_id} was not admitted to this runner; call admit before its first row")
        return found

    def _last_token(self, request_id: int) -> int:
        found = self._last.get(request_id)
        if found is None:
            raise EngineError(f"request {request_id} has no token here yet; its decode row must name its input")
        return found


def _chained(*calls: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """One callback of several; None where there is none."""
    given = [call for call in calls if call is not None]
    if len(given) < 2:
        return given[0] if given else None

    def every(layer: int) -> None:
        for call in given:
            call(layer)

    return every
