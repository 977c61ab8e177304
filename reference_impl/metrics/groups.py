"""The figures of each SLO class and each tenant: ``attainment[class=interactive]``, ``goodput_rps[tenant=a]``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from reference_impl.metrics.log import Bools, RunLog
from reference_impl.metrics.requests import RequestTable
from reference_impl.request_labels import unpacked

GROUPS: Mapping[str, str] = {"class": "slo_class", "tenant": "tenant"}
"""Kind of group as figures name it -> as the log does."""
FIGURES = ("arrived", "attainment", "goodput_rps", "ttft_p99_ms", "tpot_p99_ms")
MOST_GROUPS = 32
_NAME = re.compile(r"(?P<figure>\w+)\[(?P<kind>class|tenant)=(?P<name>.*)\]", re.DOTALL)


def group_of(key: str) -> tuple[str, str, str] | None:
    """``("attainment", "class", "interactive")`` of ``attainment[class=interactive]``; None: no figure of a group."""
    found = _NAME.fullmatch(key)
    return (found["figure"], found["kind"], found["name"]) if found else None


def joined(figure: str, kind: str, name: str) -> str:
    """The key of a group's figure."""
    return f"{figure}[{kind}={name}]"


def members(run: RunLog, table: RequestTable, kind: str) -> Iterator[tuple[str, Bools]]:
    """Each named group of a kind with its rows of the table, by name; of very many those with the most requests."""
    labels = unpacked(run.metadata, GROUPS[kind], table.request)
    if labels is None:
        return
    names, codes = labels
    sizes = np.bincount(codes, minlength=len(names))
    present = [code for code in np.argsort(-sizes, kind="stable").tolist() if names[code] and sizes[code]]
    for code in sorted(present[:MOST_GROUPS], key=lambda code: names[code]):
        yield names[code], codes == code


def by_group(run: RunLog, table: RequestTable, good: Bools | None) -> dict[str, float]:
    """The figures of all groups; ``good``: requests that met every target, None where there are no targets."""
    found: dict[str, float] = {}
    for kind in GROUPS:
        for name, inside in members(run, table, kind):
            figures = _figures(run, table, inside, good)
            found |= {joined(figure, kind, name): value for figure, value in figures.items()}
    return found


def _figures(run: RunLog, table: RequestTable, inside: Bools, good: Bools | None) -> dict[str, float]:
    found = {"arrived": float(inside.sum())}
    if good is not None:
        found["attainment"] = int((good & inside).sum()) / found["arrived"]
        if run.makespan_s > 0:
            found["goodput_rps"] = int((good & inside).sum()) / run.makespan_s
    for family, values in (("ttft", table.ttft_s), ("tpot", table.tpot_s)):
        known = values[inside & ~np.isnan(values)]
        if len(known):
            found[f"{family}_p99_ms"] = float(np.percentile(known, 99)) * 1e3
    return found
