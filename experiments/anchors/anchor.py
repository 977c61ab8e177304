"""What an anchor is made of: rows that are measured, claims that they are held against, a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.cases.answers import Answers
from experiments.figures.study import Row, within, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[[int, str], None]
"""Called after each simulated run with (runs done, what is being measured)."""


class Claim(NamedTuple):
    """A published statement, what we found, and from where to where it counts as reproduced."""

    statement: str
    published: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """``reproduced`` or ``not reproduced``; ``told`` where no range was set."""
        inside = within(self.value, self.low, self.high)
        return "told" if inside is None else "reproduced" if inside else "not reproduced"


@dataclass(frozen=True)
class Anchor:
    """One published result."""

    name: str
    setup: Mapping[str, Any]
    """What was simulated; what is calibrated and what predicted; the sources."""
    measure: Callable[[Sequence[int], Progress, Answers], list[Row]]
    """Seeds -> the data. Simulates what is not answered yet."""
    claims: Callable[[Sequence[Row]], list[Claim]]
    draw: Callable[[Sequence[Row]], Figure]


def keep(anchor: Anchor, rows: Sequence[Row], folder: Path, seeds: Sequence[int]) -> list[Claim]:
    """Write NAME.csv, NAME.png and NAME.json (claims and manifest) into ``folder``; returns the claims."""
    claims = anchor.claims(rows)
    told = [{**claim._asdict(), "verdict": claim.verdict} for claim in claims]
    command = f"semiflow anchor {anchor.name} --seeds {len(seeds)}"
    content = {"anchor": anchor.name, "command": command, "seeds": list(seeds), "setup": anchor.setup, "claims": told}
    write(anchor.name, folder, rows, anchor.draw(rows), content)
    return claims
