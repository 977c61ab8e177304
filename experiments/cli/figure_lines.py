"""A run's figures as text: one a line, then a table of the SLO classes and one of the tenants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.config import SloConfig


def figure_lines(metrics: Mapping[str, float]) -> list[str]:
    """Lines to print, aligned."""
    from reference_impl.metrics import GROUPS, group_of

    plain = {key: value for key, value in metrics.items() if group_of(key) is None}
    width = max(map(len, plain), default=0)
    lines = [f"{key:<{width}}  {_number(value)}" for key, value in plain.items()]
    for kind in GROUPS:
        lines += _table(kind, {found[1:]: value for key, value in metrics.items() if (found := _in(kind, key))})
    return lines


def class_notes(slo: SloConfig | None, metrics: Mapping[str, float]) -> Iterator[str]:
    """Remarks on SLO classes with targets that no request has."""
    for name in slo.classes or () if slo is not None else ():
        if f"arrived[class={name}]" not in metrics:
            yield f"no request is of SLO class {name!r} (slo.classes): see the trace, or workload.slo_classes"


def _in(kind: str, key: str) -> tuple[str, str, str] | None:
    """(kind, name, figure) of a group of this kind."""
    from reference_impl.metrics import group_of

    found = group_of(key)
    return (kind, found[2], found[0]) if found is not None and found[1] == kind else None


def _table(kind: str, cells: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """``cells``: (name, figure) -> value."""
    if not cells:
        return
    names, figures = (list(dict.fromkeys(pair[place] for pair in cells)) for place in (0, 1))
    shown = {name: " ".join(name.split()) for name in names}
    width = max(len(kind), *map(len, shown.values()))
    yield ""
    yield "  ".join([f"{kind:<{width}}", *figures])
    for name in names:
        values = [_number(cells[name, figure]) if (name, figure) in cells else "-" for figure in figures]
        yield "  ".join([f"{shown[name]:<{width}}", *(f"{v:>{len(f)}}" for v, f in zip(values, figures, strict=True))])


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else format(value, ".6g")
