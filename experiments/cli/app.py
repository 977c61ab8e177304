"""Which commands there are. Only the module of the command that is called is imported, so that starting stays fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

HELP = """Judge LLM-serving policies on recorded traffic, against service-level objectives.

Start with `semiflow demo`; then `semiflow simulate --help` for one run, `semiflow compare CONFIG.yaml` for a verdict.
Traces are found in the folder that the environment variable SEMIFLOW_TRACES names.
"""
COMMANDS: Mapping[str, str] = {
    "simulate": "simulate.simulate",
    "compare": "judge.compare",
    "capacity": "judge.capacity",
    "serve": "serve.serve",
    "replay": "replay.replay",
    "record": "record.record",
    "profile": "fidelity.profile",
    "calibrate": "calibrate.calibrate",
    "fidelity": "fidelity.fidelity",
    "explain": "insight.explain",
    "export": "insight.export",
    "diff": "insight.diff",
    "replay-decisions": "decisions.replay_decisions",
    "anchor": "anchor.anchor",
    "demo": "demo.demo",
    "figure": "figures.figure",
    "policies": "lists.policies",
    "hardware": "lists.hardware",
    "models": "lists.models",
    "metrics": "lists.metrics",
}
"""Name -> module of this package and function, in the order of the help."""
GROUPS: Mapping[str, str] = {
    "workloads": "workloads.workloads",
    "propose": "propose.propose",
    "bench": "measure.bench",
    "validate": "measure.validate",
}
"""Name -> module of this package and its commands."""


def command_line(arguments: Sequence[str]) -> typer.Typer:
    """The command that ``arguments`` begin with; where that is none (a plea for help, a typo), all of them."""
    called = arguments[:1]
    return _built(tuple(called) if called and called[0] in {*COMMANDS, *GROUPS} else (*COMMANDS, *GROUPS))


@cache
def _built(names: tuple[str, ...]) -> typer.Typer:
    app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(root)
    for name in names:
        if name in COMMANDS:
            app.command(name)(_found(COMMANDS[name]))
        else:
            app.add_typer(_group(name), name=name)
    return app


def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Options of every command."""
    if version:
        from experiments.manifest import semiflow_version

        typer.echo(f"semiflow {semiflow_version()}")
        raise typer.Exit


root.__doc__ = HELP


@cache
def _group(name: str) -> typer.Typer:
    group: typer.Typer = _found(GROUPS[name])
    if name == "bench":  # it needs what starts deployments, which its module does not
        group.command("fidelity")(_found("fidelity.bench_fidelity"))
    return group


def _found(place: str) -> Any:  # a function, or a group of commands
    module, name = place.split(".")
    return getattr(import_module(f"experiments.cli.{module}"), name)
