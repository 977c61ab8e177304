"""From logits to tokens: greedy, or drawn with one number per (seed, position)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from reference_impl.engine.api import SampledToken, SamplingParams

COLDEST = 1e-6
"""A lower temperature is greedy."""
_NUMBERS_AT_ONCE = 1 << 20
"""Probabilities that are worked on together: a few MB, so that they stay in a CPU's cache."""
_MASK = (1 << 64) - 1


class Wanted(NamedTuple):
    """One token to choose."""

    request_id: int
    position: int
    """Of the token to choose, counted from 0."""
    params: SamplingParams


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides the token at ``position``: the same in every process, at any time.

    Counter-based: two rounds of SplitMix64's finaliser over seed and position.
    """
    return (_mix(_mix(seed & _MASK) + position + 1) >> 11) * 2.0**-53


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def sample(logits: torch.Tensor, wanted: Sequence[Wanted]) -> list[SampledToken]:
    """One token per row of ``logits``.

    Temperature, then the top_k likeliest, then of those the fewest with a probability of top_p together; the log
    probabilities that are reported are the model's own, before any of that.
    """
    tokens = logits.argmax(-1)
    drawn = [row for row, want in enumerate(wanted) if want.params.temperature >= COLDEST]
    together = max(1, _NUMBERS_AT_ONCE // logits.shape[-1])
    for first in range(0, len(drawn), together):
        some = drawn[first : first + together]
        rows = torch.tensor(some, device=logits.device)
        tokens[rows] = _draw(logits[rows], [wanted[row] for row in some])
    chosen = tokens.tolist()
    if all(want.params.logprobs is None for want in wanted):
        return [SampledToken(want.request_id, token) for want, token in zip(wanted, chosen, strict=True)]
    return [_with_logprobs(logits[row], want, chosen[row]) for row, want in enumerate(wanted)]


def _draw(logits: torch.Tensor, wanted: Sequence[Wanted]) -> torch.Tensor:
    """Tokens by inverting the cumulated probabilities, in the order of token ids."""
    temperature = torch.tensor([[want.params.temperature] for want in wanted], device=logits.device)
    scores = logits.float()
    chances = torch.softmax((scores - scores.amax(-1, keepdim=True)) / temperature, -1)
    cut = [row for row, want in enumerate(wanted) if want.params.top_k is not None or want.params.top_p < 1]
    if cut:
        rows = torch.tensor(cut, device=logits.device)
        few = chances[rows]
        threshold = _thresholds(few, [wanted[row].params for row in cut])
        chances[rows] = few.masked_fill(few < threshold, 0.0)
    total = chances.cumsum(-1, dtype=torch.float64)
    end = total[:, -1:]
    draws = total.new_tensor([[uniform(want.params.seed, want.position)] for want in wanted]) * end
    return torch.searchsorted(total, draws.minimum(end.nextafter(torch.zeros_like(end))), right=True)[:, 0]


def _thresholds(chances: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """[rows, 1]: the smallest probability that each row keeps; equally likely tokens stay or go together."""
    ordered = _descending(chances)
    size = chances.shape[-1]
    top_k = torch.tensor([[min(one.top_k or size, size)] for one in params], device=chances.device)
    top_p = torch.tensor([[one.top_p] for one in params], dtype=torch.float64, device=chances.device)
    cumulated = ordered.cumsum(-1, dtype=torch.float64)
    before = (cumulated - ordered).masked_fill_(torch.arange(size, device=chances.device) >= top_k, torch.inf)
    kept = before < top_p * cumulated.gather(-1, top_k - 1)
    return ordered.gather(-1, kept.sum(-1, keepdim=True).clamp_(min=1) - 1)


def _descending(chances: torch.Tensor) -> torch.Tensor:
    """Each row sorted; on a CPU by numpy, whose sort of values alone is ten times as fast as torch's."""
    if chances.device.type != "cpu":
        return chances.sort(dim=-1, descending=True).values
    return torch.from_numpy(np.sort(chances.numpy(), axis=-1)).flip(-1)


def _with_logprobs(logits: torch.Tensor, want: Wanted, token: int) -> SampledToken:
    count = want.params.logprobs
    if count is None:
        return SampledToken(want.request_id, token)
    logprobs = torch.log_softmax(logits.double(), -1)
    values, ids = logprobs.topk(min(count, logprobs.shape[-1]))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return SampledToken(want.request_id, token, float(logprobs[token]), top)
