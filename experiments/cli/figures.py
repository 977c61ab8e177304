"""``semiflow figure``: a known effect, simulated anew, as data and picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.progress import progress
from experiments.cli.resumable import resumable
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from experiments.figures.study import Band


def figure(
    name: Annotated[str, typer.Argument(help="herding or stale_views.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where NAME.csv, NAME.png and NAME.json go.")] = Path(),
    seeds: Annotated[int, typer.Option(help="Runs of each kind, with seeds 0, 1, ...", min=1, max=100)] = 5,
    force: Annotated[bool, typer.Option("--force", help="Overwrite them.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """Simulate a known effect, draw it, and compare its numbers with what was expected.

    herding: SGLang's cache-aware router, old and new rule. stale_views: P99 TTFT against the age of the views.
    Interrupted, the same command goes on where it was.
    """
    from experiments.figures import STUDIES
    from experiments.figures.study import check_free, make

    if name not in STUDIES:
        raise ConfigError(f"no figure {name!r}; allowed: {', '.join(STUDIES)}")
    check_free(name, out, force=force)
    with resumable(out / f".{name}.runs") as answers, progress("simulating") as report:
        made = make(STUDIES[name], out, range(seeds), report or (lambda _done, _total: None), answers)
    if json_:
        bands = [{**band._asdict(), "met": band.met} for band in made.bands]
        typer.echo(json.dumps({"files": [str(path) for path in made.files], "bands": bands}, indent=2))
        return
    for band in made.bands:
        typer.echo(_line(band))
    typer.echo(f"written: {', '.join(map(str, made.files))}")


def _line(band: Band) -> str:
    limits = (("at least", band.low), ("at most", band.high))
    wanted = " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)
    verdict = f"  ({'as expected' if band.met else 'NOT as expected'}: {wanted})" if wanted else ""
    return f"{band.value:>10.4g}  {band.claim}{verdict}"
