"""How fast the machine was over a recorded run, as a second engine measured it in turns with the run.

What a machine does in one minute need not be what it does in the next, by 5 % and more where it is shared. An average
speed then gives the right end of a run and wrong moments within it. The other engine's steps say how fast it was.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config_base import ConfigError
from experiments.validation.recorded_steps import Step, seconds_of
from reference_impl.core.fleet_events import Slow

if TYPE_CHECKING:
    from reference_impl.latency.measured import Measured

SPEED = "speed.csv"
_COLUMNS = ("t", "slowness")
_WINDOW_S = 10.0
"""Of real time: a turn each, so that each engine has about half of it."""


def slowness_over(turns: Sequence[Step], run: Sequence[Step], cost: Measured, start_s: float) -> list[Slow]:
    """What the other engine's steps took over what they should, in each few seconds.

    ``run`` puts the seconds of real time on the run's clock, which counts from ``start_s`` on.
    """
    import numpy as np

    taken: dict[int, float] = defaultdict(float)
    modelled: dict[int, float] = defaultdict(float)
    for step, seconds in zip(turns, seconds_of(turns), strict=True):
        window = int(step.real_s // _WINDOW_S)
        taken[window] += seconds
        modelled[window] += cost.iteration_s(step.work)
    real_s, clock_s = [step.real_s for step in run], [step.done_s - start_s for step in run]
    begins_s = np.interp([window * _WINDOW_S for window in taken], real_s, clock_s).tolist()
    return [
        Slow(max(begin_s, 0.0), 0, taken[window] / modelled[window])
        for begin_s, window in zip(begins_s, taken, strict=True)
    ]


def write_speed(path: Path, slowness: Iterable[Slow]) -> None:
    """One line for each few seconds: from when on, in seconds of the run, and how many times as long a step takes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        table.writerows((round(each.at_s, 6), round(each.factor, 6)) for each in slowness)


def read_speed(path: Path) -> tuple[Slow, ...]:
    """Empty where the folder has no such file. Raises ConfigError naming file, line and what is allowed."""
    if not path.exists():
        return ()
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV with the columns {', '.join(_COLUMNS)}") from error
    if tuple(header) != _COLUMNS:
        raise ConfigError(f"{path}: the columns are {', '.join(header)}; allowed: {', '.join(_COLUMNS)}")
    return tuple(_slow(path, number, row) for number, row in enumerate(rows, start=2))


def _slow(path: Path, number: int, row: Sequence[str]) -> Slow:
    try:
        at_s, factor = map(float, row)
    except ValueError:
        at_s = factor = -1.0
    if not (isfinite(at_s) and isfinite(factor) and at_s >= 0 and factor > 0):
        raise ConfigError(f"{path}, line {number}: {','.join(row)}; allowed: seconds from 0 on, and a factor above 0")
    return Slow(at_s, 0, factor)
