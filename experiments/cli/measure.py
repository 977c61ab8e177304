"""``semiflow bench`` and ``semiflow validate``: how fast, and how true."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(help="Measure semiflow itself.", no_args_is_help=True)
validate = typer.Typer(help="Compare simulated runs with recorded real ones.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


@bench.callback()
def _bench() -> None:
    """A callback keeps `simulator` a subcommand of its own."""


@bench.command("simulator")
def simulator(
    quick: Annotated[bool, typer.Option("--quick", help="1,000 requests and no million: for a glance.")] = False,
    json_: Json = False,
) -> None:
    """How fast the simulator is: requests per CPU second, cost against fleet size, memory, start-up."""
    from experiments.bench import as_json, as_text, run_suite

    figures = run_suite(quick, lambda step: print(f"measuring: {step}", file=sys.stderr))
    typer.echo(json.dumps(as_json(figures), indent=2) if json_ else as_text(figures))


@bench.command("engine")
def engine(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer requests, one round: for a glance.")] = False,
    json_: Json = False,
) -> None:
    """The live engine on one CPU thread: same tokens as `generate`, tokens per second, overhead, memory."""
    from experiments.bench import as_json, as_text
    from experiments.bench.engine import run_engine_suite

    figures = run_engine_suite(quick, lambda step: print(f"measuring: {step}", file=sys.stderr))
    typer.echo(json.dumps(as_json(figures), indent=2) if json_ else as_text(figures))


@bench.command("serve")
def serve(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter rounds: for a glance.")] = False,
    json_: Json = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="start, ttft, tokens, streams or weights; can be given again. Default: all."),
    ] = None,
) -> None:
    """The live deployment beyond its engine: start, first token, streamed tokens, 200 streams, shared weights."""
    from experiments.bench import as_json, as_text
    from experiments.bench.serve import ROWS, chosen, run_serve_suite

    rows = chosen(only) if only else ROWS
    figures = run_serve_suite(quick, lambda step: print(f"measuring: {step}", file=sys.stderr), rows)
    typer.echo(json.dumps(as_json(figures), indent=2) if json_ else as_text(figures))


@validate.callback()
def _validate() -> None:
    """A callback keeps `vllm-run` a subcommand of its own."""


@validate.command("vllm-run")
def vllm_run(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="requests.jsonl, meta.json, hardware profile.")],
    json_: Json = False,
) -> None:
    """Simulate a recorded vLLM run from its requests, engine settings and hardware profile, and print the errors.

    Nothing is fitted to the run. Times count from a request's queueing; percentiles are linear.
    """
    from experiments.validate import validate_vllm_run

    found = validate_vllm_run(folder)
    if json_:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{'figure':<12} {'real':>10} {'simulated':>10} unit  error")
    for row in found:
        name = f"{row['metric']} {row['statistic']}"
        typer.echo(
            f"{name:<12} {row['real']:>10.4g} {row['simulated']:>10.4g} {row['unit']:<4} {row['relative_error']:+.2%}"
        )


@validate.command("table")
def table(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Measured TTFT and TPOT at fixed concurrency.")],
    json_: Json = False,
) -> None:
    """Predict measured benchmarks of vLLM, SGLang and TensorRT-LLM from the shipped operator profiles.

    One overhead constant per backend and precision is fitted on half of the groups (backend, model, TP); the errors
    are those of the other half. Takes about two minutes.
    """
    from experiments.cli.progress import progress
    from experiments.manifest import environment
    from experiments.table_validation import validate_table

    with progress("fitting") as report:
        found = validate_table(file, report)
    if json_:
        command = f"semiflow validate table {file} --json"
        typer.echo(json.dumps({"manifest": {"command": command, **environment()}, **found}, indent=2))
        return
    coverage = found["coverage"]
    typer.echo(f"{coverage['covered']} of {coverage['rows']} rows covered")
    for reason, rows in coverage["uncovered"].items():
        typer.echo(f"  {rows} not: {reason}")
    for name, part in (("fit", found["fit"]), ("test", found["test"]), *found["test_by_backend"].items()):
        tpot, ttft = part["tpot_error"], part["ttft_error"]
        typer.echo(
            f"{name:<14} {part['rows']:>4} rows  TPOT median {tpot['median']:6.1%} P90 {tpot['p90']:6.1%}  "
            f"TTFT median {ttft['median']:6.1%}"
        )
