"""``semiflow demo``: four ways to serve chat traffic with four devices, and what the verdict on semi-PD rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.compare import Comparison, compare
from experiments.compare_config import CompareConfig
from experiments.config_file import load
from experiments.preflight import check_out
from experiments.report import Note, NoteRow, NoteTable, Part, horizon_text, metric_label
from experiments.settled import LEGEND, MARK, any_growing, still_growing
from experiments.stats import Verdict

_CONFIGS = Path(__file__).with_name("configs")
_NAMES = ("demo.yaml", "demo_contention.yaml")
_PROCESSES = 2
REPORT = "report.html"
TITLE = "Four ways to use four devices, and what the verdict on semi-PD rests on"
_TURNED: Mapping[Verdict, Verdict] = {"better": "worse", "worse": "better"}
ASSUMPTION = (
    "How much the two lanes of a semi-PD instance slow each other, beyond their shares, while both compute is an"
    " assumption of the cost model: no public measurement exists."
)


@dataclass(frozen=True)
class Demo:
    """Both comparisons, and the page that shows them."""

    policies: Comparison
    contention: Comparison
    page: Path


def run_demo(
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    seeds: int | None = None,
    requests: int | None = None,
) -> Demo:
    """Run both comparisons into ``out`` (finished cases there are not run again) and write the page.

    ``seeds`` and ``requests`` make it smaller than configured.
    """
    check_out(out, out / REPORT)
    wanted = [_smaller(load(_CONFIGS / name, CompareConfig), seeds, requests) for name in _NAMES]
    policies, contention = (
        compare(config, out, processes=_PROCESSES, progress=progress, source=name)
        for config, name in zip(wanted, _NAMES, strict=True)
    )
    return Demo(policies, contention, _write_page(out, policies, contention))


def as_text(demo: Demo) -> str:
    """Two tables, each with its horizon: attainment by policy and rate, and the verdict on semi-PD by contention."""
    rates = demo.policies.config.rates
    policies = [
        [f"{metric_label(demo.policies.config.primary_metric)}, at requests/s", *(f"{rate:g}" for rate in rates)],
        *(
            [name, *(_mean(demo.policies, name, "default", rate) for rate in rates)]
            for name in demo.policies.config.variants
        ),
    ]
    growing = [LEGEND, ""] if any_growing(demo.policies) or any_growing(demo.contention) else []
    return "\n".join(
        [*_title(demo.policies), *_aligned(policies), "", *contention_lines(demo.contention), "", *growing, ASSUMPTION]
    )


def contention_lines(found: Comparison) -> list[str]:
    """The sweep as text: two lines of title, then a line per assumed value."""
    table = _swept(found)
    rows = [[cell if isinstance(cell, str) else " ".join(cell).rstrip() for cell in row] for row in table.rows]
    return [*_title(found), *_aligned([list(table.head), *rows])]


def _swept(found: Comparison) -> NoteTable:
    """Per assumed value: the primary metric of semi-PD and of the others, and the verdict on it against each."""
    semi_pd, rate = found.config.baseline_name, found.config.rates[0]
    others = [name for name in found.config.variants if name != semi_pd]
    head = ("assumed gamma", semi_pd, *others, *(f"{semi_pd} against {name}" for name in others))
    rows: list[NoteRow] = [
        (
            workload.removeprefix("gamma "),
            *(_mean(found, name, workload, rate) for name in (semi_pd, *others)),
            *(_seen_from_semi_pd(found, workload, name) for name in others),
        )
        for workload in found.config.workloads
    ]
    return NoteTable(head, tuple(rows))


def _seen_from_semi_pd(found: Comparison, workload: str, other: str) -> tuple[Verdict, str]:
    """The comparison judges the others against semi-PD, so that one run of it serves both; here the view is turned."""
    cell = (found.config.primary_metric, workload, other)
    (judgement,) = (j for j in found.judgements if (j.metric, j.workload, j.variant) == cell)
    verdict = _TURNED.get(judgement.verdict, judgement.verdict)
    difference = judgement.difference
    if difference is None:
        return verdict, ""
    return verdict, f"{-difference.mean:+.3f} [{-difference.high:+.3f}, {-difference.low:+.3f}]"


def _smaller(config: CompareConfig, seeds: int | None, requests: int | None) -> CompareConfig:
    content = config.model_dump()
    if seeds is not None:
        content["seeds"] = config.seeds[:seeds]
    if requests is not None:
        content["base"]["workload"]["max_requests"] = requests
    return CompareConfig.model_validate(content)


def _write_page(out: Path, policies: Comparison, contention: Comparison) -> Path:
    from experiments.report import write_report

    page = out / REPORT
    assumption = Note("What the verdict on semi-PD rests on", f"{ASSUMPTION} The second part sweeps it.")
    metric = metric_label(contention.config.primary_metric)
    told = f"{metric}, at {contention.config.rates[0]:g} requests/s; the verdicts are on semi-PD."
    verdict = Note("The verdict on semi-PD, by assumed contention", told, _swept(contention))
    write_report(page, Part(policies, (assumption,)), Part(contention, (verdict,)), title=TITLE)
    return page


def _title(found: Comparison) -> list[str]:
    case = found.cases[0].config
    slo = "" if case.slo is None else f"; SLO: TTFT {case.slo.ttft_s} s, TPOT {case.slo.tpot_s} s"
    setting = f"{found.config.title} ({case.workload.trace}, {case.fleet.model}, {case.fleet.hardware}{slo})"
    return [setting, f"{horizon_text(found)}; mean of {len(found.config.seeds)} seeds"]


def _mean(found: Comparison, variant: str, workload: str, rate: float | None) -> str:
    values = list(found.values(found.config.primary_metric, variant, workload, rate).values())
    mark = MARK if still_growing(found, variant, workload, rate) else ""
    return f"{sum(values) / len(values):.3f}{mark}" if values else "-"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
