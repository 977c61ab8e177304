"""What an anchor is made of: rows that are measured, claims that they are held against, a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.config_base import ConfigError
from experiments.manifest import environment
from experiments.run_folder import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, float | int | str]
"""One line of the data; all lines have the same columns."""
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
        if self.low is None and self.high is None:
            return "told"
        inside = (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)
        return "reproduced" if inside else "not reproduced"


@dataclass(frozen=True)
class Anchor:
    """One published result."""

    name: str
    setup: Mapping[str, Any]
    """What was simulated; what is calibrated and what predicted; the sources."""
    measure: Callable[[Sequence[int], Progress], list[Row]]
    """Seeds -> the data. Simulates."""
    claims: Callable[[Sequence[Row]], list[Claim]]
    draw: Callable[[Sequence[Row]], Figure]


def check_free(anchor: Anchor, folder: Path, force: bool) -> None:
    """Raises ConfigError where a file of this anchor is in ``folder`` already, unless it may be overwritten."""
    taken = [path for path in _paths(anchor, folder) if path.exists()]
    if taken and not force:
        raise ConfigError(f"{taken[0]}: exists already; choose another folder with --out or overwrite it with --force")


def keep(anchor: Anchor, rows: Sequence[Row], folder: Path, seeds: Sequence[int]) -> list[Claim]:
    """Write NAME.csv, NAME.png and NAME.json (claims and manifest) into ``folder``; returns the claims."""
    claims = anchor.claims(rows)
    data, picture, manifest = _paths(anchor, folder)
    folder.mkdir(parents=True, exist_ok=True)
    data.write_text(_as_csv(rows), encoding="utf-8")
    picture.write_bytes(_as_png(anchor.draw(rows)))
    told = [{**claim._asdict(), "verdict": claim.verdict} for claim in claims]
    command = f"semiflow anchor {anchor.name} --seeds {len(seeds)}"
    content = {"anchor": anchor.name, "command": command, "seeds": list(seeds), "setup": anchor.setup}
    write_json(manifest, {**environment(), **content, "claims": told})
    return claims


def _paths(anchor: Anchor, folder: Path) -> tuple[Path, Path, Path]:
    data, picture, manifest = (folder / f"{anchor.name}.{ending}" for ending in ("csv", "png", "json"))
    return data, picture, manifest


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _as_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
