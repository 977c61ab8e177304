"""From operator tables to coefficients, and their error on rows that were kept aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.identified import Error, Flags, Floats, error_of, held_out, solve
from reference_impl.latency.interpolate import value
from reference_impl.latency.operators.costs import GEMM_TERMS, DecodeCosts, GemmCosts, PrefillCosts, gemm_terms
from reference_impl.latency.operators.tables import Columns

SMALLEST = 512
"""Fewest columns and fewest inner values of a GEMM that is fitted: no supported model's shard has less."""
KNOTS = (1, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768)
"""Rows at which a GEMM has coefficients, as far as the table has them. The table also has 17, 33, 65, ...: engines pad
their batches, so these are not fitted (an fp8 kernel takes up to twice as long for them)."""
_IN_CACHE, _FROM_MEMORY = 1 / 16, 2.0
"""KV of a decode batch over the L2 cache: below the first it is next to nothing, above the second it comes from memory.
A table's rows in between find it in the cache, since the same layer is measured again and again; a served model's do
not, since it reads all the others first."""
_BYTES = 2
"""Of a key or value: the tables are of bfloat16."""
RULE = (
    "a quarter of the groups, drawn by the seed, whole; a group is every row of one (n, k) for GEMM, and of one "
    "(heads, KV heads, batch size) for attention; decode attention without the rows that the L2 "
    "cache serves. The coefficients are of all rows, the errors of a fit without these"
)


T = TypeVar("T")


@dataclass(frozen=True)
class Fitted(Generic[T]):
    """Coefficients of all rows, and the error of those that a part of the rows gives on the others."""

    costs: T
    error: Error


def fit_gemm(table: Columns, dtype: str, sm_count: int, seed: int) -> Fitted[GemmCosts]:
    """Coefficients for each number of rows of :data:`KNOTS`.

    Raises :class:`ProfileError` where the table does not determine them.
    """
    used = (table["gemm_dtype"] == dtype) & (table["n"] >= SMALLEST) & (table["k"] >= SMALLEST)
    used &= np.isin(table["m"], KNOTS)
    rows = {name: column[used] for name, column in table.items()}
    if not used.any():
        raise ProfileError(
            f"gemm: no rows of {dtype!r} with {SMALLEST} columns and inner values or more; it has "
            f"{', '.join(sorted(set(table['gemm_dtype'])))}"
        )
    aside = held_out(f"gemm in {dtype}", zip(rows["n"].tolist(), rows["k"].tolist(), strict=True), seed)
    return _fitted(lambda part: _gemm(rows, part, dtype, sm_count), rows, aside, _gemm_seconds, ("n", "k"))


def fit_prefill(table: Columns, seed: int) -> Fitted[PrefillCosts]:
    """Four coefficients of prefill attention."""
    return _fitted(
        lambda part: _prefill(table, part),
        table,
        _lines_aside("prefill attention", table, seed),
        _prefill_seconds,
        _LINE,
    )


def fit_decode(table: Columns, l2_bytes: float, seed: int) -> Fitted[DecodeCosts]:
    """Three coefficients of decode attention, from rows of next to no KV and rows whose KV exceeds the L2 cache."""
    rows = {name: column[~_cached(table, l2_bytes)] for name, column in table.items()}
    return _fitted(
        lambda part: _decode(rows, part), rows, _lines_aside("decode attention", rows, seed), _decode_seconds, _LINE
    )


def cached_error(costs: DecodeCosts, table: Columns, l2_bytes: float) -> Error | None:
    """On the rows that were left out because the L2 cache serves them; None: there are none."""
    rows = {name: column[_cached(table, l2_bytes)] for name, column in table.items()}
    if not len(rows["seconds"]):
        return None
    return error_of(_decode_seconds(costs, rows), rows["seconds"], _groups(rows, _LINE))


def _cached(table: Columns, l2_bytes: float) -> Flags:
    kv_bytes = 2 * _BYTES * table["batch_size"] * _context(table) * _key_values(table)
    found: Flags = (kv_bytes > _IN_CACHE * l2_bytes) & (kv_bytes < _FROM_MEMORY * l2_bytes)
    return found


_LINE = ("num_heads", "num_key_value_heads", "batch_size")


def _fitted(
    fit: Callable[[Flags], T],
    rows: Columns,
    aside: Flags,
    seconds_of: Callable[[T, Columns], Floats],
    group: tuple[str, ...],
) -> Fitted[T]:
    whole, part = fit(np.ones(len(aside), np.bool_)), fit(~aside)
    unseen = {name: column[aside] for name, column in rows.items()}
    return Fitted(whole, error_of(seconds_of(part, unseen), unseen["seconds"], _groups(unseen, group)))


def _groups(rows: Columns, group: tuple[str, ...]) -> int:
    return len(set(zip(*(rows[name].tolist() for name in group), strict=True)))


def _lines_aside(what: str, table: Columns, seed: int) -> Flags:
    return held_out(what, zip(*(table[name].tolist() for name in _LINE), strict=True), seed)


def _gemm(rows: Columns, part: Flags, dtype: str, sm_count: int) -> GemmCosts:
    knots = [knot for knot in KNOTS if (rows["m"] == knot).any()]
    seconds = []
    for knot in knots:
        chosen = part & (rows["m"] == knot)
        shapes = zip(rows["n"][chosen].tolist(), rows["k"][chosen].tolist(), strict=True)
        terms = np.array([gemm_terms(knot, n, k, sm_count) for n, k in shapes]).reshape(-1, len(GEMM_TERMS))
        named = dict(zip(GEMM_TERMS, terms.T, strict=True))
        found = solve(f"gemm in {dtype} at m = {knot}", named, rows["seconds"][chosen])
        seconds.append(tuple(found.tolist()))
    return GemmCosts(tuple(knots), tuple(seconds), sm_count)


def _gemm_seconds(costs: GemmCosts, rows: Columns) -> Floats:
    curves: dict[tuple[int, int], Any] = {}
    found = []
    for m, n, k in zip(*(rows[name].tolist() for name in ("m", "n", "k")), strict=True):
        curve = curves.setdefault((n, k), costs.curve(n, k))
        found.append(value(curve, m))
    return np.array(found)


def _prefill_terms(table: Columns) -> dict[str, Floats]:
    tokens, queries = table["isl"].astype(np.float64), table["num_heads"] * table["head_dim"]
    total = table["batch_size"] * tokens
    return {
        "launch": np.ones(len(tokens)),
        "query": total * queries,
        "key": total * _key_values(table),
        "pair": total * (tokens + 1) / 2 * queries,
    }


def _prefill(table: Columns, part: Flags) -> PrefillCosts:
    terms = {name: column[part] for name, column in _prefill_terms(table).items()}
    return PrefillCosts(*solve("prefill attention", terms, table["seconds"][part]).tolist())


def _prefill_seconds(costs: PrefillCosts, rows: Columns) -> Floats:
    return _weighted(_prefill_terms(rows), (costs.launch_s, costs.query_s, costs.key_s, costs.pair_s))


def _decode_terms(table: Columns) -> dict[str, Floats]:
    sequences = table["batch_size"] * _key_values(table)
    return {"launch": np.ones(len(sequences)), "sequence": sequences, "context": sequences * _context(table)}


def _decode(table: Columns, part: Flags) -> DecodeCosts:
    terms = {name: column[part] for name, column in _decode_terms(table).items()}
    return DecodeCosts(*solve("decode attention", terms, table["seconds"][part]).tolist())


def _decode_seconds(costs: DecodeCosts, rows: Columns) -> Floats:
    return _weighted(_decode_terms(rows), (costs.launch_s, costs.sequence_s, costs.context_s))


def _weighted(terms: Mapping[str, Floats], costs: tuple[float, ...]) -> Floats:
    found: Floats = np.stack(list(terms.values()), axis=1) @ np.array(costs)
    return found


def _context(table: Columns) -> Floats:
    return (table["isl"] + table["step"]).astype(np.float64)


def _key_values(table: Columns) -> Floats:
    return (table["num_key_value_heads"] * table["head_dim"]).astype(np.float64)
