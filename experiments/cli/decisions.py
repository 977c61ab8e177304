"""``semiflow replay-decisions``: is a policy's word its own?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

DIFFERENT = 1
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def replay_decisions(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or one of its decisions*.jsonl.")],
    json_: Json = False,
) -> None:
    """Show a recorded run's views to fresh policies of the same seeds; exit with 1 unless they decide the same.

    A policy that reads a clock, draws luck of its own or depends on anything but its views is caught. Record with
    `semiflow simulate --record-decisions all --out RUN`, or live with serve.record.decisions.
    """
    from experiments.decisions import any_differs, as_json, as_text, replay_run

    files = replay_run(run)
    typer.echo(json.dumps(as_json(files), indent=2) if json_ else as_text(files))
    if any_differs(files):
        raise typer.Exit(DIFFERENT)
