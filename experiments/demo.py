"""``semiflow demo``: four ways to serve chat traffic with four devices, and what the verdict on semi-PD rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.compare import Comparison, compare
from experiments.compare_config import CompareConfig
from experiments.config_file import load

_CONFIGS = Path(__file__).with_name("configs")
_NAMES = ("demo.yaml", "demo_contention.yaml")
_PROCESSES = 2
REPORT = "report.html"
TITLE = "Four ways to use four devices, and what the verdict on semi-PD rests on"
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
    wanted = [_smaller(load(_CONFIGS / name, CompareConfig), seeds, requests) for name in _NAMES]
    policies, contention = (
        compare(config, out, processes=_PROCESSES, progress=progress, source=name)
        for config, name in zip(wanted, _NAMES, strict=True)
    )
    return Demo(policies, contention, _write_page(out, policies, contention))


def as_text(demo: Demo) -> str:
    """Two tables: attainment by policy and rate; the verdict on semi-PD by assumed contention."""
    rates = demo.policies.config.rates
    policies = [
        ["SLO attainment at requests/s", *(f"{rate:g}" for rate in rates)],
        *(
            [name, *(_mean(demo.policies, name, "default", rate) for rate in rates)]
            for name in demo.policies.config.variants
        ),
    ]
    return "\n".join(
        [_title(demo.policies), *_aligned(policies), "", *contention_lines(demo.contention), "", ASSUMPTION]
    )


def contention_lines(found: Comparison) -> list[str]:
    """The sweep as text, one line per assumed value, the title first."""
    semi_pd, rate = found.config.baseline_name, found.config.rates[0]
    others = [name for name in found.config.variants if name != semi_pd]
    against = [f"{semi_pd} against {name}" for name in others]
    rows = [["assumed gamma", semi_pd, *others, *against]]
    for workload in found.config.workloads:
        means = [_mean(found, name, workload, rate) for name in (semi_pd, *others)]
        verdicts = [_seen_from_semi_pd(found, workload, name) for name in others]
        rows.append([_gamma(workload), *means, *verdicts])
    return [_title(found), *_aligned(rows)]


def _seen_from_semi_pd(found: Comparison, workload: str, other: str) -> str:
    """The comparison judges the others against semi-PD, so that one run of it serves both; here the view is turned."""
    (judgement,) = (j for j in found.judgements if (j.workload, j.variant) == (workload, other))
    verdict = {"better": "worse", "worse": "better"}.get(judgement.verdict, judgement.verdict)
    difference = judgement.difference
    if difference is None:
        return verdict
    return f"{verdict} {-difference.mean:+.3f} [{-difference.high:+.3f}, {-difference.low:+.3f}]"


def _gamma(workload: str) -> str:
    return workload.removeprefix("gamma ")


def _smaller(config: CompareConfig, seeds: int | None, requests: int | None) -> CompareConfig:
    content = config.model_dump()
    if seeds is not None:
        content["seeds"] = config.seeds[:seeds]
    if requests is not None:
        content["base"]["workload"]["max_requests"] = requests
    return CompareConfig.model_validate(content)


def _write_page(out: Path, policies: Comparison, contention: Comparison) -> Path:
    from experiments.report import Note, Part, write_report

    page = out / REPORT
    assumption = Note("What the verdict on semi-PD rests on", f"{ASSUMPTION} The second part sweeps it.")
    verdict = Note("The verdict on semi-PD, by assumed contention", _swept(contention))
    write_report(page, Part(policies, (assumption,)), Part(contention, (verdict,)), title=TITLE)
    return page


def _swept(found: Comparison) -> str:
    """The verdicts on semi-PD in words, a line for each policy that it is compared with."""
    lines = [f"Difference in SLO attainment, semi-PD minus the other, at {found.config.rates[0]:g} requests/s."]
    for name in found.config.variants:
        if name != found.config.baseline_name:
            verdicts = (f"gamma {_gamma(w)} {_seen_from_semi_pd(found, w, name)}" for w in found.config.workloads)
            lines.append(f"Against {name}: {', '.join(verdicts)}.")
    return "\n".join(lines)


def _title(found: Comparison) -> str:
    case = found.cases[0].config
    slo = "" if case.slo is None else f"; SLO: TTFT {case.slo.ttft_s} s, TPOT {case.slo.tpot_s} s"
    return f"{found.config.title} ({case.workload.trace}, {case.fleet.model}, {case.fleet.hardware}{slo})"


def _mean(found: Comparison, variant: str, workload: str, rate: float | None) -> str:
    values = list(found.values("attainment", variant, workload, rate).values())
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
