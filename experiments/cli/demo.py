"""``semiflow demo``: the README's main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.progress import progress


def demo(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the page and the finished runs go; default: demo or demo_live."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Serve real tokens on this machine, and simulate the same. Three minutes.")
    ] = False,
) -> None:
    """Compare four ways to serve chat traffic with four devices; prints tables, writes a page. Under a minute.

    With --live: deploy a small model on two cores, replay a workload under three policies, simulate the same.
    """
    if live:
        _live(out or Path("demo_live"))
        return
    from experiments.demo import as_text, run_demo

    with progress("simulating") as report:
        found = run_demo(out or Path("demo"), report)
    typer.echo(as_text(found))
    typer.echo(f"page: {found.page}")


def _live(out: Path) -> None:
    from experiments.demo_live import run_demo_live
    from experiments.fidelity.table import as_text

    study, page = run_demo_live(out, lambda line: print(line, file=sys.stderr, flush=True))
    typer.echo(as_text(study))
    typer.echo(f"page: {page}")
