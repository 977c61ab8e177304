"""Which commands there are. Each imports what it needs when it runs, so that starting stays fast."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.cli import (
    anchor,
    calibrate,
    decisions,
    demo,
    fidelity,
    figures,
    insight,
    judge,
    lists,
    measure,
    propose,
    record,
    replay,
    serve,
    simulate,
    workloads,
)

HELP = """Judge LLM-serving policies on recorded traffic, against service-level objectives.

Start with `semiflow demo`; then `semiflow simulate --help` for one run, `semiflow compare CONFIG.yaml` for a verdict.
Traces are found in the folder that the environment variable SEMIFLOW_TRACES names.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Options of every command."""
    if version:
        from experiments.manifest import semiflow_version

        typer.echo(f"semiflow {semiflow_version()}")
        raise typer.Exit


root.__doc__ = HELP
app.command("simulate")(simulate.simulate)
app.command("compare")(judge.compare)
app.command("capacity")(judge.capacity)
app.command("serve")(serve.serve)
app.command("replay")(replay.replay)
app.command("record")(record.record)
app.command("profile")(fidelity.profile)
app.command("calibrate")(calibrate.calibrate)
app.command("fidelity")(fidelity.fidelity)
app.command("explain")(insight.explain)
app.command("export")(insight.export)
app.command("diff")(insight.diff)
app.command("replay-decisions")(decisions.replay_decisions)
app.command("anchor")(anchor.anchor)
app.command("demo")(demo.demo)
app.command("figure")(figures.figure)
app.command("policies")(lists.policies)
app.command("hardware")(lists.hardware)
app.command("models")(lists.models)
app.command("metrics")(lists.metrics)
app.add_typer(workloads.workloads, name="workloads")
app.add_typer(propose.propose, name="propose")
measure.bench.command("fidelity")(fidelity.bench_fidelity)
app.add_typer(measure.bench, name="bench")
app.add_typer(measure.validate, name="validate")
