"""What a figure is made of: what is asked, how it is measured, what was expected, how it is drawn and kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.cases.answers import Answers
from experiments.config_base import ConfigError
from experiments.manifest import environment
from experiments.report.template import write_whole
from experiments.report.theme import save
from experiments.run_folder import check_can_hold, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, float | int | str]
"""One line of a figure's data; all lines of a figure have the same columns."""
Progress = Callable[[int, int], None]
"""Called now and then with (runs done, runs in all)."""


class Band(NamedTuple):
    """A number that the figure is about, and the range that it was expected in before measuring, if there was one."""

    claim: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the number is in the range; None: nothing was expected."""
        return within(self.value, self.low, self.high)


def within(value: float, low: float | None, high: float | None) -> bool | None:
    """Whether ``value`` is in a range that may be open on a side; None: it is open on both."""
    if low is None and high is None:
        return None
    return (low is None or value >= low) and (high is None or value <= high)


@dataclass(frozen=True)
class Study:
    """One figure."""

    name: str
    question: str
    setup: Mapping[str, Any]
    """Everything that was simulated, in words and numbers; ``source`` says where it comes from."""
    measure: Callable[[Sequence[int], Progress, Answers], list[Row]]
    """Seeds -> the data. Simulates what is not answered yet."""
    bands: Callable[[Sequence[Row]], list[Band]]
    draw: Callable[[Sequence[Row]], Figure]


class Made(NamedTuple):
    """The files of a figure."""

    files: tuple[Path, ...]
    bands: list[Band]


def make(study: Study, folder: Path, seeds: Sequence[int], progress: Progress, answers: Answers) -> Made:
    """Measure ``study`` and write NAME.csv, NAME.png and NAME.json (the manifest) into ``folder``.

    Equal seeds and code give equal data and pictures.
    """
    rows = study.measure(seeds, progress, answers)
    bands = study.bands(rows)
    told = [{**band._asdict(), "met": band.met} for band in bands]
    content = {"figure": study.name, "question": study.question, "seeds": list(seeds), "setup": study.setup}
    return Made(write(study.name, folder, rows, study.draw(rows), {**content, "bands": told}), bands)


def check_free(name: str, folder: Path, *, force: bool) -> None:
    """Raises ConfigError where ``folder`` cannot hold files, or holds one of this name that may not be overwritten."""
    check_can_hold(folder, told=folder)
    taken = [path for path in _paths(name, folder) if path.exists()]
    if taken and not force:
        raise ConfigError(f"{taken[0]}: exists already; choose another folder with --out or overwrite it with --force")


def write(
    name: str, folder: Path, rows: Sequence[Row], figure: Figure, content: Mapping[str, Any]
) -> tuple[Path, Path, Path]:
    """Write NAME.csv (the rows), NAME.png and NAME.json (``content`` and the environment); returns their paths.

    What takes a while comes first: interrupted in it, no file is there yet, and the same command goes on.
    """
    data, picture, manifest = _paths(name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = {**environment(), **content}
    save(figure, picture, name)
    write_whole(data, _as_csv(rows))
    write_json(manifest, told)
    return data, picture, manifest


def _paths(name: str, folder: Path) -> tuple[Path, Path, Path]:
    data, picture, manifest = (folder / f"{name}.{ending}" for ending in ("csv", "png", "json"))
    return data, picture, manifest


def column(rows: Sequence[Row], name: str, **where: float | str) -> list[float]:
    """A numeric column of the rows that have these values."""
    return [float(row[name]) for row in rows if all(row[key] == value for key, value in where.items())]


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
