"""``semiflow demo``: the README's main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.progress import progress


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page and the finished cases go.")] = Path("demo"),
) -> None:
    """Compare four ways to serve chat traffic with four devices; prints tables, writes a page. Under a minute."""
    from experiments.demo import as_text, run_demo

    with progress("simulating") as report:
        found = run_demo(out, report)
    typer.echo(as_text(found))
    typer.echo(f"page: {found.page}")
