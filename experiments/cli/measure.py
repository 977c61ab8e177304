"""``semiflow bench`` and ``semiflow validate``: how fast, and how true."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.vllm_record import vllm_record
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from experiments.validate import Validated

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


@bench.command("policies")
def policies(
    quick: Annotated[bool, typer.Option("--quick", help="1,000 requests, each case once: for a glance.")] = False,
    json_: Json = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Instead: the first slice's figures of this version over those of REF."),
    ] = None,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Cases whose name contains this.")] = "",
) -> None:
    """Requests per CPU second with every dispatch, batch and partition policy (bar: 3,000)."""
    from experiments.bench import as_json, as_text
    from experiments.bench.base import run_against
    from experiments.bench.policies import run_policies

    def report(step: str) -> None:
        print(f"measuring: {step}", file=sys.stderr)

    figures = run_policies(quick, report, only) if base is None else run_against(base, quick, report)
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
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="requests.jsonl, meta.json, profile. Several: recordings of one run."),
    ],
    json_: Json = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the run's course (.svg, .png, .pdf); its .csv and .json go beside it."),
    ] = None,
) -> None:
    """Simulate a recorded vLLM run from its requests, engine settings and hardware profile, and print the errors.

    Nothing is fitted to the run. Times count from a request's arrival; percentiles are linear. Where the folder has a
    timeseries.csv, running and waiting requests and KV use over time are compared too; where it has a speed.csv, which
    another engine measured, the simulated instance is as fast as the machine was. Several recordings of one run give
    the mean errors too: what is left of a machine's noise is their standard error.
    """
    from experiments.validate import as_json, as_text, validate_vllm_run
    from experiments.validation.repeated import repeated_json, repeated_text, validate_vllm_runs

    if len(folders) == 1:
        found = validate_vllm_run(folders[0])
        facts, text = as_json(found), as_text(found)
        if plot is not None:
            _draw(found, plot, folders[0], facts)
    elif plot is not None:
        raise ConfigError(f"--plot draws one run, and {len(folders)} folders are given; leave it out, or give one")
    else:
        repeated = validate_vllm_runs(folders)
        facts, text = repeated_json(repeated), repeated_text(repeated)
    typer.echo(json.dumps(facts, indent=2) if json_ else text)


def _draw(found: Validated, plot: Path, folder: Path, facts: dict[str, Any]) -> None:
    from experiments.validation.figure import write

    if found.over_time is None:
        raise ConfigError(f"nothing to draw: {folder} has no timeseries.csv")
    write(found.over_time, plot, {"command": " ".join(("semiflow", *sys.argv[1:])), **facts})


validate.command("vllm-record")(vllm_record)


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


@validate.command("vllm-scheduler")
def vllm_scheduler(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="requests.jsonl, meta.json, hardware profile.")],
    python: Annotated[str, typer.Option(metavar="PATH", help="An interpreter that has vLLM (no GPU is needed).")],
    kv_blocks: Annotated[int | None, typer.Option(min=1, help="KV pool; small enough, it fills and preempts.")] = None,
    prefix_caching: Annotated[bool | None, typer.Option(help="Default: as the run.")] = None,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="vLLM plans one iteration ahead; ours does not.")
    ] = False,
    steps: Annotated[Path | None, typer.Option(metavar="FILE", help="Write vLLM's steps as CSV.")] = None,
    json_: Json = False,
) -> None:
    """Our unified_budget beside vLLM's own scheduler, step by step: running, waiting, KV blocks, tokens, preemptions.

    A request arrives before the same iteration in both, so no cost model is part of what is compared.
    """
    from experiments.validation.scheduler import lockstep, write_steps

    found = lockstep(folder, python, kv_blocks=kv_blocks, prefix_caching=prefix_caching, asynchronous=asynchronous)
    if steps is not None:
        write_steps(found.vllm, steps)
    facts = found.facts()
    typer.echo(json.dumps(facts, indent=2) if json_ else "\n".join(f"{key}: {value}" for key, value in facts.items()))
