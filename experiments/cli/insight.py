"""``semiflow explain``, ``export`` and ``diff``: looking into finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.out_file import check_new
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


def export(
    run: Run,
    perfetto: Annotated[
        Path, typer.Option(metavar="FILE.json[.gz]", help="A trace for ui.perfetto.dev or chrome://tracing.")
    ],
    from_s: Annotated[float | None, typer.Option(metavar="S", help="Only from this time of the run on.")] = None,
    to_s: Annotated[float | None, typer.Option(metavar="S", help="Only up to this time.")] = None,
    iterations: Annotated[
        bool, typer.Option("--iterations", help="A slice for each iteration; else one for each run of equal ones.")
    ] = False,
    max_mb: Annotated[float, typer.Option(help="Give up where the trace grows over this, uncompressed.", min=1)] = 500,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Write a run as a trace: lanes with their iterations, requests with their phases, hand-overs, counters, events.

    Example: semiflow export runs/first --perfetto first.json.gz --to-s 60
    """
    from experiments.insight.tracing.export import export as exported

    check_new("--perfetto", perfetto, (".json", ".json.gz"), force)
    with progress("writing") as report:
        written = exported(run, perfetto, from_s=from_s, to_s=to_s, expand=iterations, max_mb=max_mb, progress=report)
    typer.echo(f"{written.path}: {written.events} events, {written.size_bytes / 1e6:.1f} MB uncompressed")


def diff(
    first: Run,
    second: Run,
    top: Annotated[int, typer.Option(help="So many of the most regressed requests.", min=0)] = 5,
    json_: Json = False,
) -> None:
    """What differs between two runs: configuration, versions, metrics, paired requests, the first diverging decision.

    Also between a live and a simulated run of one trace. Differences are second - first; the exit code is 0 whatever
    they are (a gate is `semiflow compare --gate`).
    """
    from experiments.insight.diff import diff as compared
    from experiments.insight.diff_text import as_text

    found = compared(first, second, top=top)
    typer.echo(json.dumps(found, indent=2, allow_nan=False) if json_ else as_text(found))
