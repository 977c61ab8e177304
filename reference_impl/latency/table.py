"""A cost model interpolated in a table of measured iterations."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import ClassVar

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.csv_table import number, rows
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.interpolate import Curve, blend, curve_of, line, weighted

_ENDLESS = 1 << 40
_COLUMNS = ("batch_size", "total_prefill_tokens", "total_kv_read_tokens", "latency_ms")
Point = tuple[int, int, int]
"""Sequences, prefill tokens, KV tokens read."""


class Table:
    """Iteration times over three totals: sequences, prefill tokens, and KV tokens that the iteration reads.

    The totals are those of AISimulate's forward-pass measurements. Linear in each axis between measured points, held
    below them and extrapolated above. KV tokens read: every decode's context, and every chunk's tokens with those
    before it. Only this axis moves when an iteration repeats, so a piece ends at the next measured point.
    """

    needs_spread: ClassVar[bool] = False

    def __init__(self, name: str, seconds: Mapping[Point, float], provenance: str = "measured table; uncalibrated"):
        if not seconds:
            raise ProfileError(f"table {name!r} has no rows")
        for point, duration_s in seconds.items():
            if not duration_s > 0:
                raise ProfileError(f"table {name!r} at {point} holds {duration_s!r} s; it must be positive")
        self.name, self.provenance = name, provenance
        self._curves = _curves(seconds)
        self._prefills = sorted({prefill for prefill, _ in self._curves})
        self._sequences = {
            prefill: sorted(count for other, count in self._curves if other == prefill) for prefill in self._prefills
        }
        self._columns: dict[tuple[int, int], Curve] = {}

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration."""
        return self.piece(work).first_s

    def piece(self, work: Work) -> Piece:
        """Linear until the KV tokens read pass the next measured point."""
        chunks, decodes, read, _, _ = work
        prefill = 0
        for new, computed in chunks:
            prefill += new
            read += new + computed
        column = self._columns.get((prefill, decodes + len(chunks)))
        if column is None:
            column = self._column(prefill, decodes + len(chunks))
        growth = prefill + decodes
        first_s, slope, end = line(column, read)
        iterations = _ENDLESS if end == inf else int((end - read) // growth) + 1
        return Piece(first_s, slope * growth, iterations)

    def _column(self, prefill: int, sequences: int) -> Curve:
        """Seconds over KV tokens read, at these two totals."""
        parts = []
        for index, outer in blend(self._prefills, prefill):
            counts = self._sequences[self._prefills[index]]
            for inner, weight in blend(counts, sequences):
                parts.append((self._curves[self._prefills[index], counts[inner]], outer * weight))
        column = self._columns[prefill, sequences] = weighted(parts)
        return column


def _curves(seconds: Mapping[Point, float]) -> dict[tuple[int, int], Curve]:
    points: dict[tuple[int, int], dict[float, float]] = {}
    for (sequences, prefill, read), duration_s in seconds.items():
        points.setdefault((prefill, sequences), {})[read] = duration_s
    return {totals: curve_of(by_read) for totals, by_read in points.items()}


def read_table(path: str | Path) -> Table:
    """Read a CSV file with batch_size, total_prefill_tokens, total_kv_read_tokens and latency_ms.

    Raises :class:`ProfileError` naming file, line and column.
    """
    source = Path(path)
    seconds: dict[Point, float] = {}
    for line_number, row in rows(source, *_COLUMNS):
        sequences, prefill, read = (int(number(source, line_number, row, column)) for column in _COLUMNS[:3])
        seconds[sequences, prefill, read] = number(source, line_number, row, "latency_ms", positive=True) * 1e-3
    return Table(source.stem, seconds, f"measured table {source.name}; uncalibrated against any run")
