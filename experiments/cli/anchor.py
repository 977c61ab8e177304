"""``semiflow anchor``: a published result, simulated anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.progress import progress
from experiments.cli.resumable import resumable
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from experiments.anchors.anchor import Claim


def anchor(
    name: Annotated[str, typer.Argument(help="distserve or splitwise.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where NAME.csv, NAME.png and NAME.json go.")] = Path(),
    seeds: Annotated[int, typer.Option(help="Runs of each kind, with seeds 0, 1, ...", min=1, max=100)] = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite them.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """Reproduce a published result and say of each of its claims whether it holds.

    distserve: the placement search for OPT-13B. splitwise: clusters of equal power or cost (its table is looked for in
    the folder that SEMIFLOW_CALIBRATION names). Interrupted, the same command goes on where it was.
    """
    from experiments.anchors import ANCHORS
    from experiments.anchors.anchor import keep
    from experiments.figures.study import check_free

    if name not in ANCHORS:
        raise ConfigError(f"no anchor {name!r}; allowed: {', '.join(ANCHORS)}")
    chosen = ANCHORS[name]
    check_free(name, out, force=force)
    with resumable(out / f".{name}.runs") as answers:
        with progress("simulating") as report:
            shown = (lambda _runs, _label: None) if report is None else lambda runs, label: report(runs, 0, label)
            rows = chosen.measure(range(seeds), shown, answers)
        claims = keep(chosen, rows, out, range(seeds))
    if json_:
        typer.echo(json.dumps([{**claim._asdict(), "verdict": claim.verdict} for claim in claims], indent=2))
        return
    for claim in claims:
        typer.echo(_line(claim))


def _line(claim: Claim) -> str:
    return f"{claim.value:>9.3f}  {claim.verdict:<14}  {claim.statement}  [published: {claim.published}]"
