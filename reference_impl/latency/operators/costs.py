"""What a matrix multiplication and attention cost on one device, as coefficients fitted to operator tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.interpolate import Curve

GEMM_TERMS = ("launch", "weight", "column", "inner", "wave")
_TILE = 128


def gemm_terms(rows: float, columns: float, inner: float, sm_count: int) -> tuple[float, ...]:
    """What the coefficients of ``rows x inner`` times ``inner x columns`` are multiplied by, as :data:`GEMM_TERMS`.

    A constant, the weights (their bytes, and their arithmetic at this number of rows), the columns, the inner
    dimension, and the inner dimension once for each wave of 128 x 128 tiles over the multiprocessors.
    """
    waves = -(-(-(-columns // _TILE) * -(-rows // _TILE)) // sm_count)
    return (1.0, columns * inner, columns, inner, waves * inner)


@dataclass(frozen=True)
class GemmCosts:
    """Seconds per term of :data:`GEMM_TERMS` at each number of rows (tokens); linear between them."""

    rows: tuple[int, ...]
    """Ascending."""
    seconds: tuple[tuple[float, ...], ...]
    sm_count: int

    def __post_init__(self) -> None:
        if not self.rows or list(self.rows) != sorted(set(self.rows)) or len(self.seconds) != len(self.rows):
            raise ProfileError("gemm: rows must ascend, with one list of seconds each")
        for costs in self.seconds:
            if len(costs) != len(GEMM_TERMS) or min(costs) < 0 or not max(costs) > 0:
                raise ProfileError(f"gemm: seconds are {list(costs)}; allowed: {len(GEMM_TERMS)} numbers of 0 or more")

    def curve(self, columns: float, inner: float) -> Curve:
        """Seconds over the number of rows."""
        return tuple(map(float, self.rows)), tuple(
            sum(c * x for c, x in zip(costs, gemm_terms(rows, columns, inner, self.sm_count), strict=True))
            for rows, costs in zip(self.rows, self.seconds, strict=True)
        )


@dataclass(frozen=True)
class PrefillCosts:
    """One layer of prefill attention: launch, then seconds per token and query value, per KV token and key value, and
    per pair of tokens and query value. A query value is one element of one head: heads x head dimension of them."""

    launch_s: float
    query_s: float
    key_s: float
    pair_s: float

    def __post_init__(self) -> None:
        _check("prefill attention", self)


@dataclass(frozen=True)
class DecodeCosts:
    """One layer of decode attention: launch, seconds per sequence and key value, and per KV token and key value."""

    launch_s: float
    sequence_s: float
    context_s: float

    def __post_init__(self) -> None:
        _check("decode attention", self)


def summed(curves: Sequence[Curve]) -> Curve:
    """Of curves on one grid."""
    return curves[0][0], tuple(map(sum, zip(*(values for _, values in curves), strict=True)))


def _check(what: str, costs: PrefillCosts | DecodeCosts) -> None:
    for field in fields(costs):
        value = getattr(costs, field.name)
        if not 0 <= value < 1:
            raise ProfileError(f"{what}: {field.name} is {value!r}; allowed: seconds of 0 or more")
