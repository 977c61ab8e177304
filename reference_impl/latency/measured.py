"""A cost model fitted to measured iterations of a real engine: a sum of costs, each linear in what an iteration holds.

The dense layers cost by the number of tokens in the iteration, along a bent line (few tokens are bound by reading the
weights, many by arithmetic); attention costs by pairs of tokens, by the KV that is read, and by the KV that is read in
vain where the engine pads a decode batch to its longest context. ``measured_fit.py`` finds the coefficients.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.errors import ProfileError, reason

FORMAT = "semiflow-profile"
VERSION = 1
_ENDLESS = 1 << 40
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Coefficients:
    """Seconds, none negative. ``token_s[i]`` is the cost of each token between ``knots[i]`` and the next knot."""

    iteration_s: float
    knots: tuple[int, ...]
    """Ascending from 0: where the cost of a further token changes."""
    token_s: tuple[float, ...]
    sequence_s: float = 0.0
    """Per decode and per chunk."""
    chunk_s: float = 0.0
    """Per chunk, on top."""
    pair_s: float = 0.0
    """Per token of a chunk and token before it that it attends to (half of the chunk's own, on average)."""
    chunk_context_s: float = 0.0
    """Per KV token that a chunk reads, its own included."""
    decode_context_s: float = 0.0
    """Per KV token that a decode reads."""
    padded_context_s: float = 0.0
    """Per decode and token of the longest context."""
    gap_s: float = 0.0
    """From the end of an iteration to the start of the next: the engine's own work."""
    gap_sequence_s: float = 0.0
    """The same per sequence of the iteration."""

    def __post_init__(self) -> None:
        if not self.knots or self.knots[0] != 0 or sorted(set(self.knots)) != list(self.knots):
            raise ProfileError(f"knots are {list(self.knots)}; allowed: token counts ascending from 0")
        if len(self.token_s) != len(self.knots):
            raise ProfileError(f"token_s has {len(self.token_s)} entries for {len(self.knots)} knots; allowed: as many")
        costs = [getattr(self, field.name) for field in fields(self) if field.name.endswith("_s")]
        flat = [cost for each in costs for cost in (each if isinstance(each, tuple) else (each,))]
        if not min(flat) >= 0 or not max(flat) < 1e6:
            raise ProfileError(f"a coefficient is {min(flat)} or {max(flat)} s; allowed: finite, 0 or more")
        if not self.iteration_s + self.token_s[0] + self.sequence_s > 0:
            raise ProfileError("an iteration of one token would take no time; measure anew")


@dataclass(frozen=True)
class Measured:
    """Iteration times of one instance as its engine takes them, one after the other: forward, and gap to the next."""

    coefficients: Coefficients
    model: str
    dtype: str = "float32"
    name: str = "measured"
    provenance: str = "coefficients given; uncalibrated"

    @property
    def needs_spread(self) -> bool:
        """Only where the engine pads its decode batches."""
        return self.coefficients.padded_context_s > 0

    @property
    def bytes_per_value(self) -> int:
        """Of weights and KV."""
        return _BYTES[self.dtype]

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration."""
        chunks, decodes, context, _, longest = work
        c = self.coefficients
        tokens, sequences = decodes, decodes + len(chunks)
        total = c.decode_context_s * context + c.padded_context_s * decodes * longest + c.chunk_s * len(chunks)
        for new, computed in chunks:
            tokens += new
            total += c.pair_s * new * (computed + 0.5 * new) + c.chunk_context_s * (computed + new)
        return total + self._fixed_s(tokens) + (c.sequence_s + c.gap_sequence_s) * sequences

    def piece(self, work: Work) -> Piece:
        """Linear without end: only contexts grow while an iteration repeats, and costs are linear in them."""
        chunks, decodes, _, _, _ = work
        c = self.coefficients
        growth = (c.decode_context_s + c.padded_context_s) * decodes
        for new, _ in chunks:
            growth += c.pair_s * new * new + c.chunk_context_s * new
        return Piece(self.iteration_s(work), growth, _ENDLESS)

    def _fixed_s(self, tokens: int) -> float:
        """Dense layers of so many tokens, and what every iteration costs."""
        known = self._by_tokens.get(tokens)
        if known is None:
            c = self.coefficients
            known = c.iteration_s + c.gap_s
            for spent, cost in zip(along(c.knots, tokens), c.token_s, strict=True):
                known += spent * cost
            self._by_tokens[tokens] = known
        return known

    @cached_property
    def _by_tokens(self) -> dict[int, float]:
        return {}


def along(knots: tuple[int, ...], tokens: int) -> list[int]:
    """How many of ``tokens`` lie between each knot and the next (after the last: without end)."""
    ends = (*knots[1:], tokens if tokens > knots[-1] else knots[-1])
    return [max(0, min(tokens, end) - start) for start, end in zip(knots, ends, strict=True)]


def read_measured(path: str | Path) -> Measured:
    """The cost model in a file of ``semiflow profile``. Raises :class:`ProfileError` naming file and key."""
    source = Path(path)
    try:
        data: Any = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read {source}: {reason(error)}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise ProfileError(f"{source}: no profile of format {FORMAT}, version {VERSION}; make one: semiflow profile")
    try:
        fit = dict(data["fit"])
        fit["knots"], fit["token_s"] = tuple(map(int, fit["knots"])), tuple(map(float, fit["token_s"]))
        model, dtype, provenance = str(data["model"]), str(data["dtype"]), str(data["provenance"])
        if dtype not in _BYTES:
            raise ProfileError(f"{source}: dtype is {dtype!r}; allowed: {', '.join(_BYTES)}")
        return Measured(Coefficients(**fit), model, dtype, f"measured({source.stem}, {model})", provenance)
    except ProfileError as error:
        raise ProfileError(f"{source}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{source}: {error!r}: a key is missing, unknown or of the wrong type") from error
