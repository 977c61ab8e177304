"""Distributions of prompt and output lengths, in whole tokens from 1 on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from workloads.errors import TraceError
from workloads.synthetic import checks
from workloads.validate import MAX_TOKENS

Points = tuple[tuple[float, float], ...]


class Lengths(Protocol):
    """How long prompts or outputs are."""

    kind: ClassVar[str]

    def tokens(self, requests: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """``requests`` independent lengths in tokens, >= 1."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Every length the same."""

    kind: ClassVar[str] = "fixed"
    tokens_each: int

    def __post_init__(self) -> None:
        checks.whole(self, 1, MAX_TOKENS, tokens_each=self.tokens_each)

    def tokens(self, requests: int, rng: np.random.Generator) -> NDArray[np.int32]:  # noqa: ARG002 - the protocol's signature
        """See :class:`Lengths`. Draws nothing."""
        return np.full(requests, self.tokens_each, dtype=np.int32)


@dataclass(frozen=True)
class Lognormal:
    """Lognormal lengths, rounded; ``mean_tokens`` and ``sigma`` (of the logarithm) are those before the clip.

    Lengths over ``max_tokens`` become ``max_tokens``, which lowers the mean.
    """

    kind: ClassVar[str] = "lognormal"
    mean_tokens: float
    sigma: float
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        checks.positive(self, mean_tokens=self.mean_tokens)
        checks.between(self, 0.0, 10.0, sigma=self.sigma)
        checks.whole(self, 1, MAX_TOKENS, max_tokens=self.max_tokens)

    def tokens(self, requests: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """See :class:`Lengths`."""
        location = math.log(self.mean_tokens) - self.sigma**2 / 2.0
        return _whole(location + self.sigma * rng.standard_normal(requests), self.max_tokens)


@dataclass(frozen=True)
class Normal:
    """Normal lengths, rounded; what falls under 1 becomes 1 and over ``max_tokens`` becomes ``max_tokens``."""

    kind: ClassVar[str] = "normal"
    mean_tokens: float
    sd_tokens: float
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        checks.between(self, 1.0, MAX_TOKENS, mean_tokens=self.mean_tokens)
        checks.between(self, 0.0, MAX_TOKENS, sd_tokens=self.sd_tokens)
        checks.whole(self, 1, MAX_TOKENS, max_tokens=self.max_tokens)

    def tokens(self, requests: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """See :class:`Lengths`."""
        drawn = np.rint(rng.normal(self.mean_tokens, self.sd_tokens, size=requests))
        return np.clip(drawn, 1, self.max_tokens).astype(np.int32)


@dataclass(frozen=True)
class Uniform:
    """Every whole length from ``low_tokens`` to ``high_tokens`` as likely, both included."""

    kind: ClassVar[str] = "uniform"
    low_tokens: int
    high_tokens: int

    def __post_init__(self) -> None:
        checks.whole(self, 1, MAX_TOKENS, low_tokens=self.low_tokens)
        checks.whole(self, self.low_tokens, MAX_TOKENS, high_tokens=self.high_tokens)

    def tokens(self, requests: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """See :class:`Lengths`."""
        return rng.integers(self.low_tokens, self.high_tokens, size=requests, endpoint=True).astype(np.int32)


@dataclass(frozen=True)
class QuantileTable:
    """Lengths by inverse transform from (probability, tokens) points, interpolated on a logarithmic scale of tokens.

    Exactly one of ``table`` (the name of a shipped table, such as ``sharegpt-like.prompt``) and ``points``. Equal
    probabilities in a row make a step. Lengths over ``max_tokens`` become ``max_tokens``.
    """

    kind: ClassVar[str] = "table"
    table: str | None = None
    points: Points | None = None
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        checks.whole(self, 1, MAX_TOKENS, max_tokens=self.max_tokens)
        if (self.table is None) == (self.points is None):
            raise TraceError("QuantileTable: give either table or points")
        if self.points is not None:
            object.__setattr__(self, "points", _checked(self.points))
        self.quantiles()

    def quantiles(self) -> Points:
        """The (probability, tokens) points that are drawn from."""
        return self.points if self.points is not None else shipped_table(str(self.table))

    def tokens(self, requests: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """See :class:`Lengths`."""
        probability, tokens = np.array(self.quantiles()).T
        return _whole(np.interp(rng.random(requests), probability, np.log(tokens)), self.max_tokens)


@dataclass(frozen=True)
class Recorded:
    """The lengths in one column of another trace (a path or a name), each drawn with replacement.

    Prompts and outputs drawn so are independent of each other, whatever they were in the trace; requests as a whole
    are drawn by :meth:`workloads.trace.Trace.bootstrap`.
    """

    kind: ClassVar[str] = "recorded"
    trace: str
    column: Literal["prompt", "output"]

    def __post_init__(self) -> None:
        if not isinstance(self.trace, str) or not self.trace:
            raise TraceError(f"Recorded: trace={self.trace!r} (allowed: the path or the name of a trace)")
        if self.column not in ("prompt", "output"):
            raise TraceError(f"Recorded: column={self.column!r} (allowed: prompt, output)")

    def tokens(self, requests: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """See :class:`Lengths`."""
        from workloads.catalog import open_trace  # the catalogue generates bundled workloads with this module

        recorded = open_trace(self.trace)
        lengths = recorded.prompt_tokens if self.column == "prompt" else recorded.output_tokens
        return rng.choice(lengths, size=requests)


def _whole(log_tokens: NDArray[np.float64], max_tokens: int) -> NDArray[np.int32]:
    """Rounded lengths from 1 to ``max_tokens``; capped before the exponential so that nothing overflows."""
    tokens = np.rint(np.exp(np.minimum(log_tokens, math.log(MAX_TOKENS))))
    return np.clip(tokens, 1, max_tokens).astype(np.int32)


def shipped_table(name: str) -> Points:
    """The points of a table that comes with semiflow. Raises TraceError that shows the choices."""
    tables = _tables()
    if name not in tables:
        raise TraceError(f"QuantileTable: table={name!r} (allowed: {', '.join(tables)})")
    return tables[name]


def shipped_tables() -> list[str]:
    """The names that :func:`shipped_table` knows."""
    return list(_tables())


@cache
def _tables() -> dict[str, Points]:
    text = (Path(__file__).parent.parent / "data" / "length_tables.json").read_text(encoding="utf-8")
    return {
        f"{name}.{column}": tuple((probability, tokens) for probability, tokens in table[column])
        for name, table in json.loads(text).items()
        for column in ("prompt", "output")
    }


def _checked(points: object) -> Points:
    allowed = "pairs of probability and tokens, from probability 0 to 1, both ascending, tokens >= 1"
    try:
        table = np.array(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TraceError(f"QuantileTable: points={points!r} (allowed: {allowed})") from error
    shaped = table.ndim == 2 and table.shape[0] >= 2 and table.shape[1] == 2 and bool(np.isfinite(table).all())
    if not shaped or (np.diff(table, axis=0) < 0).any() or table[0, 0] != 0.0 or table[-1, 0] != 1.0 or table[0, 1] < 1:
        raise TraceError(f"QuantileTable: points={points!r} (allowed: {allowed})")
    return tuple((probability, tokens) for probability, tokens in table.tolist())


LENGTHS: dict[str, type[Lengths]] = {
    kind.kind: kind for kind in (Fixed, Lognormal, Normal, Uniform, QuantileTable, Recorded)
}
