"""The benchmark's figures as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from experiments.bench.figures import Figure

_HEAD = ("figure", "value", "unit", "loops", "runs", "floor", "aim", "reached")


def as_text(figures: Sequence[Figure]) -> str:
    """An aligned table; ``loops`` is CPU time in units of the reference loop interleaved with it."""
    rows = [_HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = dict.fromkeys(f"{figure.name}: {figure.note}" for figure in figures if figure.note)
    return "\n".join([*table, "", "Medians; CPU seconds. loops: CPU time over that of a fixed loop beside it.", *notes])


def as_json(figures: Sequence[Figure]) -> dict[str, Any]:
    """Ready for ``json.dumps``."""
    return {"figures": [{**asdict(figure), "reached": figure.reached} for figure in figures]}


def _row(figure: Figure) -> tuple[str, ...]:
    loops = "" if figure.reference_loops is None else f"{figure.reference_loops:.3g}"
    numbers = (_number(figure.value), figure.unit, loops, str(figure.runs), _number(figure.floor), _number(figure.aim))
    return (figure.name, *numbers, figure.reached or "")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
