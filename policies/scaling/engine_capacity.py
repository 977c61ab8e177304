"""What one engine can do under targets, from the host's latency model: Dynamo's performance models, restated.

Source: NVIDIA Dynamo v1.1, ``planner/core/perf_model/{prefill,decode,agg}.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from policies.api import Estimate, InstanceView


@dataclass(frozen=True)
class EngineCapacity:
    """One instance: its latency model and its limits. Lengths are means, hence fractions of tokens."""

    estimate: Estimate
    max_batch_tokens: int
    max_sequences: int

    def prefill_s(self, tokens: float) -> float:
        """Seconds to prefill so many tokens, in chunks of ``max_batch_tokens``."""
        whole, rest = divmod(ceil(tokens), self.max_batch_tokens)
        seconds = whole * self.estimate.prefill_s(self.max_batch_tokens) if whole else 0.0
        return seconds + (self.estimate.prefill_s(rest) if rest else 0.0)

    def decode_s(self, sequences: float, context_tokens: float) -> float:
        """Seconds of a decode iteration."""
        return self.estimate.decode_s(ceil(sequences), ceil(context_tokens))

    def prefill_tokens_per_s(self, prompt_tokens: float) -> float:
        """Of prompts of that length, one after the other."""
        return prompt_tokens / self.prefill_s(prompt_tokens)

    def decode_tokens_per_s(self, itl_s: float, context_tokens: float, kv_tokens: int) -> float:
        """At the largest batch of that context whose iteration is within ``itl_s`` and whose KV fits; one at least."""
        low, high = 1, max(min(int(kv_tokens / context_tokens), self.max_sequences), 1)
        while low < high:
            middle = (low + high + 1) // 2
            if self.decode_s(middle, middle * context_tokens) <= itl_s:
                low = middle
            else:
                high = middle - 1
        return low / self.decode_s(low, low * context_tokens)

    def next_ttft_s(self, view: InstanceView, prompt_tokens: float, *, beside_decodes: bool) -> float:
        """Of a request of that length that comes now: what waits is prefilled before it, chunk by chunk."""
        tokens = view.waiting_tokens + prompt_tokens
        decode_s = (
            self.decode_s(view.running_requests, view.context_tokens)
            if beside_decodes and view.running_requests
            else 0.0
        )
        return self.prefill_s(tokens) + ceil(tokens / self.max_batch_tokens) * decode_s

    def next_itl_s(self, view: InstanceView, context_tokens: float, prefill_share: float) -> float:
        """With one more request of that context: what is running, what is on its way, and that one; on average over
        iterations of an instance that prefills for a part of its time."""
        sequences = view.running_requests + view.waiting_requests + 1
        mean = view.context_tokens / view.running_requests if view.running_requests else context_tokens
        alone_s = self.decode_s(sequences, view.context_tokens + view.waiting_tokens + max(mean, 1.0))
        return alone_s / (1 - prefill_share) if prefill_share < 1 else inf
