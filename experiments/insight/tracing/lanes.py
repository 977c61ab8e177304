"""Slices: what each lane of each instance ran."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.insight.lanes import iteration_ends
from experiments.insight.saved_run import SavedRun
from experiments.insight.tracing.window import THREADS, Event, Window, process


class Lane(NamedTuple):
    """The run rows of one lane, by start."""

    rows: NDArray[np.int64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


Lanes = dict[tuple[int, str], Lane]
"""By instance and kind."""


def lanes(saved: SavedRun) -> Lanes:
    """Every lane that ran anything."""
    from reference_impl.metrics.log import LANES

    runs = saved.log.rows["run"]
    instance, lane = runs.ints("instance"), runs.ints("lane")
    start_s, end_s = runs.floats("start_s"), runs.floats("time_s")
    found = {}
    for number, place in sorted(set(zip(instance.tolist(), lane.tolist(), strict=True))):
        here = np.flatnonzero((instance == number) & (lane == place))
        here = here[np.argsort(start_s[here], kind="stable")]
        found[number, LANES[place]] = Lane(here, start_s[here], end_s[here])
    return found


def iterations(saved: SavedRun, window: Window, lanes: Lanes, expand: bool) -> Iterator[Event]:
    """A slice per run of equal iterations, or per iteration."""
    runs = saved.log.rows["run"]
    for (instance, kind), lane in lanes.items():
        where = {"cat": "iteration", "pid": process(instance), "tid": THREADS[kind]}
        inside = (lane.end_s > window.from_s) & (lane.start_s < window.to_s)
        for row, start_s in zip(lane.rows[inside].tolist(), lane.start_s[inside].tolist(), strict=True):
            ends = iteration_ends(saved, row).tolist()
            shown = ends if expand else ends[-1:]
            tokens, decodes, blocks = (int(runs.ints(name)[row]) for name in ("tokens", "batch", "kv_blocks"))
            args = {
                "iterations": len(ends) // len(shown),
                "prompt_tokens": max(tokens, 0) // len(shown),
                "decodes": decodes,
                **({"kv_blocks": blocks} if blocks >= 0 else {}),
            }
            name = "decode" if tokens <= 0 else "mixed" if decodes else "prefill"
            for begun_s, end_s in zip([start_s, *shown], shown, strict=False):
                if window.shows(begun_s, end_s):
                    yield {"ph": "X", "name": name, **where, **window.span(begun_s, end_s), "args": args}
