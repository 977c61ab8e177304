"""A cost model as policies see it."""

from __future__ import annotations

from dataclasses import dataclass

from reference_impl.latency.api import LatencyModel, Work


@dataclass(frozen=True)
class ModelEstimate:
    """Answers ``policies.api.Estimate`` from a latency model. Contexts of a decode batch count as equally long."""

    latency: LatencyModel

    def prefill_s(self, new_tokens: int, context_tokens: int = 0) -> float:
        """Seconds of one iteration that computes ``new_tokens`` on top of ``context_tokens`` cached ones."""
        return self.latency.iteration_s(Work(((new_tokens, context_tokens),), 0, 0))

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        """Seconds of one decode iteration over ``sequences`` whose contexts add up to ``context_tokens``."""
        low, rest = divmod(context_tokens, sequences)
        return self.latency.iteration_s(Work((), sequences, context_tokens, low, low + (1 if rest else 0)))
