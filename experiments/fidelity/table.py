"""A study as text."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.fidelity.measures import MEANS
from experiments.fidelity.study import Study
from experiments.fidelity.verdict import Compared, Ranking

_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E"}


def as_text(study: Study) -> str:
    """Errors of the means by trace and policies, the rankings, and what was demanded."""
    lines = [study.config.title, f"cost model: {study.profile['provenance']}", ""]
    for trace in study.config.traces:
        what = f"means in ms, live (of {study.config.repeats} runs), simulated, error; spread of the live runs"
        lines.append(f"{trace}{paced(study, trace)}: {what}")
        lines += [*aligned(errors_table(study, trace)), ""]
    lines += [*aligned(ranking_table(study.rankings)), ""]
    lines += aligned([("demanded", "found", ""), *((bar.demand, bar.found, _said(bar.reached)) for bar in study.bars)])
    return "\n".join(lines)


def errors_table(study: Study, trace: str) -> list[tuple[str, ...]]:
    """Head and a line per pair of policies."""
    head = ["dispatch", "batch"]
    for figure in MEANS:
        head += [f"{_NAMES[figure.split('_')[0]]} live", "sim", "error", "spread"]
    rows = [tuple(head)]
    for dispatch, batch in dict.fromkeys((row.dispatch, row.batch) for row in study.rows if row.trace == trace):
        cells = [dispatch, batch]
        for figure in MEANS:
            cells += _cells(next(row for row in study.rows if row[:4] == (trace, dispatch, batch, figure)))
        rows.append(tuple(cells))
    return rows


def paced(study: Study, trace: str) -> str:
    """How fast its requests came, where that was found for this machine."""
    if study.config.utilisation is None:
        return ""
    busy = f"for lanes that are {study.config.utilisation:.0%} busy under the common policies"
    return f", {study.loads[trace]:g} times as fast as configured ({busy})"


def ranking_table(rankings: Sequence[Ranking]) -> list[tuple[str, ...]]:
    """Head and a line per trace, kind of policy and figure."""
    head = ("trace", "policies", "by", "pairs", "truly differ live", "of those in order", "Kendall's tau")
    return [
        head,
        *(
            (
                *(each.trace, each.kind, name(each.figure), str(each.pairs), str(each.separated), str(each.kept)),
                f"{each.kendall_tau:+.2f}",
            )
            for each in rankings
        ),
    ]


def name(figure: str) -> str:
    """``ttft_mean_ms`` as ``mean TTFT (ms)``."""
    family, statistic, unit = figure.rsplit("_", 2)
    return f"{statistic} {_NAMES[family]} ({unit})"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(row: Compared) -> list[str]:
    return [f"{row.live_mean:.4g}", f"{row.simulated:.4g}", f"{row.error:+.1%}", f"{row.spread:.1%}"]


def _said(reached: bool) -> str:
    return "reached" if reached else "MISSED"
