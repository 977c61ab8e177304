"""``semiflow explain``, ``export`` and ``diff``: looking into finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.progress import progress
from experiments.config_base import ConfigError

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder: simulated, live or a replay's.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def explain(
    run: Run,
    request: Annotated[int, typer.Option(metavar="ID", help="The request: its row in the trace.", min=0)],
    instances: Annotated[
        str | None, typer.Option(metavar="ID,ID", help="Try only these instances; default: all, up to 16.")
    ] = None,
    counterfactual: Annotated[
        bool, typer.Option("--counterfactual/--no-counterfactual", help="Simulate it on other instances too.")
    ] = True,
    json_: Json = False,
) -> None:
    """The story of one request: what its policies saw and chose, why it waited, where its time went, and where it would
    have finished on each other instance (simulated runs).

    Example: semiflow explain runs/first --request 17
    """
    from experiments.insight.explain import explain as explained
    from experiments.insight.story_text import as_text

    wanted = None if instances is None else _ids(instances)
    with progress("simulating again") as report:
        story = explained(run, request, counterfactual=counterfactual, instances=wanted, report=report)
    typer.echo(json.dumps(story, indent=2, allow_nan=False) if json_ else as_text(story))


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--instances {text}: allowed: ids of instances, such as 0,3") from None
