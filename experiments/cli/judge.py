"""``semiflow compare`` and ``semiflow capacity``: verdicts."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.flags import takes_run_config
from experiments.cli.out_file import check_writable
from experiments.cli.progress import progress
from experiments.config import RunConfig
from experiments.config_base import MAX_RATE, ConfigError

if TYPE_CHECKING:
    from experiments.capacity import Capacity, Probe
    from experiments.compare_config import CompareConfig

GATE_FAILED = 1
Processes = Annotated[int, typer.Option(help="Worker processes, 1 or 2.", min=1, max=2)]


def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Variants, workloads, rates, seeds, metrics.")],
    baseline: Annotated[str | None, typer.Option(help="The variant that the others are compared with.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 if a variant regresses, for a CI.")] = False,
    min_effect: Annotated[
        str | None,
        typer.Option(metavar="SIZE|PERCENT%", help="Smallest effect that counts, of the gated metrics: 0.02 or 5%."),
    ] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write verdicts and metrics here; - is stdout.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a JUnit XML test report of the gated metrics here.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table for a comment here: verdict first.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture of all policies in all cells: .png or .svg.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Finished cases and report.html; default: CONFIG's name.")
    ] = None,
    processes: Processes = 2,
) -> None:
    """Compare policies over workloads, rates and seeds, in pairs of equal seeds; a verdict with its confidence.

    DIR keeps every finished case: an interrupted or extended comparison goes on where it was.

    A variant regresses where the interval of its paired difference leaves zero out on the bad side and the mean is at
    least the metric's smallest effect that counts (min_effect). Exit codes: 0 done, and with --gate no regression;
    1 the gate failed, and nothing else; 2 a mistake in the configuration; 70 a defect of semiflow.
    """
    from experiments import compare as comparison
    from experiments import settled
    from experiments.ci import junit_xml, markdown_text
    from experiments.preflight import check_gate, check_out
    from experiments.report import Part, write_report
    from experiments.report.matrix import save_matrix

    wanted = _configured(config, baseline, min_effect)
    folder = out if out is not None else Path(config.stem)
    page = folder / "report.html"
    check_out(folder, page)
    for flag, file in (("--json", json_), ("--junit", junit), ("--markdown", markdown), ("--plot", plot)):
        if file is not None and not (flag == "--json" and _is_stdout(file)):
            check_writable(flag, file)
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot {plot}: pictures are written as .png or .svg")
    if gate or junit is not None:
        check_gate(wanted)
    with progress("comparing") as report:
        found = comparison.compare(wanted, folder, processes=processes, progress=report, source=str(config))
    regressions = comparison.gate(found) if gate or junit is not None else []
    write_report(page, Part(found))
    if json_ is not None:
        _write_json(json_, {**found.to_json(), "regressions": [asdict(judgement) for judgement in regressions]})
    if junit is not None:
        junit.write_text(junit_xml(found, regressions), encoding="utf-8")
    if markdown is not None:
        markdown.write_text(markdown_text(found, regressions, gated=gate), encoding="utf-8")
    if plot is not None:
        save_matrix(found, plot)
    for judgement in found.judgements:
        mark = f" {settled.MARK}" if settled.is_marked(found, judgement) else ""
        typer.echo(f"{judgement.verdict:<13} {comparison.describe(judgement)}{mark}", err=_is_stdout(json_))
    if settled.any_growing(found):
        typer.echo(settled.LEGEND, err=_is_stdout(json_))
    typer.echo(f"report: {page}", err=_is_stdout(json_))
    if gate and regressions:
        typer.echo(f"gate: {len(regressions)} regression(s)", err=True)
        raise typer.Exit(GATE_FAILED)


@takes_run_config
def capacity(
    config: RunConfig,
    lowest: Annotated[float, typer.Option("--from", metavar="RPS", help="Lowest rate to try.")] = 0.5,
    highest: Annotated[float, typer.Option("--to", metavar="RPS", help="Highest rate to try.")] = 1000.0,
    target: Annotated[float, typer.Option(help="Share of requests that must attain the SLO.")] = 0.90,
    tolerance: Annotated[float, typer.Option(help="Width of the final bracket, relative.", min=0.001, max=0.5)] = 0.02,
    seeds: Annotated[int, typer.Option(help="Runs per rate, with seeds 0, 1, ...", min=1)] = 1,
    processes: Processes = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """The highest Poisson rate at which the fleet still meets its SLO (bracketing, then bisection).

    Example: semiflow capacity --trace bundled:sharegpt-like --instances 4 --max-requests 2000 --slo ttft=0.5,tpot=0.03
    """
    from experiments.capacity import find_capacity, seeded_sampler
    from experiments.cases.simulated import Simulated

    if config.workload.rate_rps is not None or config.workload.rate_scale is not None:
        raise ConfigError(
            "capacity sets the rate itself: leave out --rate and --rate-scale (in YAML: workload.rate_rps and "
            "workload.rate_scale); --from and --to bound the search"
        )
    if not 0 < lowest <= highest <= MAX_RATE:
        raise ConfigError(
            f"--from {lowest:g} --to {highest:g}: allowed: 0 < lowest <= highest <= {MAX_RATE:g} requests/s"
        )
    sample = seeded_sampler(config, Simulated(), seeds=range(seeds), processes=processes)
    expected = math.ceil(math.log2(max(highest / lowest, 2)) + math.log2(1 / tolerance))
    probes = count(1)
    with progress("searching") as report:
        found = find_capacity(
            sample,
            lowest=lowest,
            highest=highest,
            target=target,
            tolerance=tolerance,
            progress=lambda _: report(next(probes), expected) if report else None,
        )
    typer.echo(json.dumps(asdict(found), indent=2) if json_ else _as_text(found))


def _configured(path: Path, baseline: str | None, min_effect: str | None) -> CompareConfig:
    from experiments.compare_config import CompareConfig
    from experiments.config_file import parse, read_mapping

    content = read_mapping(path)
    config = parse(CompareConfig, content if baseline is None else {**content, "baseline": baseline}, source=str(path))
    return config if min_effect is None else config.with_min_effect(*_effect(min_effect))


def _effect(text: str) -> tuple[float, bool]:
    """``0.02``, or ``5%``: the size, and whether it is a share of the baseline's mean."""
    try:
        size = float(text.removesuffix("%"))
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise ConfigError(f"--min-effect: {text!r} is not allowed; allowed: 0 or more, in the metric's unit, or as 5%")
    return (size / 100, True) if text.endswith("%") else (size, False)


def _is_stdout(file: Path | None) -> bool:
    return file == Path("-")


def _write_json(file: Path, content: dict[str, object]) -> None:
    text = json.dumps(content, indent=2, allow_nan=False)
    if _is_stdout(file):
        typer.echo(text)
        return
    file.write_text(text + "\n", encoding="utf-8")


def _as_text(found: Capacity) -> str:
    lines = [f"{'rate':>10}  {'attainment':>10}"]
    lines += [_probe_line(probe) for probe in found.probes]
    answer = "none" if found.capacity_rps is None else f"{found.capacity_rps:.4g} requests/s"
    return "\n".join([*lines, f"capacity at {found.target:g} attainment: {answer} ({found.status})", *found.caveats])


def _probe_line(probe: Probe) -> str:
    said = "  load still growing" if probe.load_growing else ""
    return f"{probe.offered_rps:>10.4g}  {probe.attainment:>10.4f}{said}"
