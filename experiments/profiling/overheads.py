"""What a deployment adds to its workers' iterations, read from the event log of a live run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reference_impl.metrics import RunLog

    Floats = NDArray[np.float64]

_IDLE_S = 0.05
"""A longer pause is an instance without work, not a gap."""
_FEW = 20


class Overheads(NamedTuple):
    """Seconds; medians, but for the gaps."""

    gap_s: float
    """From the end of an iteration to the start of the next one of a busy lane: a mean, since a request meets hundreds
    of gaps and their long tail with them."""
    gap_sequence_s: float
    """The same per sequence of the iteration before."""
    dispatch_delay_s: float | None
    """From a request's arrival at the front door to the start of its first iteration, where its instance was idle;
    None: no request found one idle."""
    handover_latency_s: float | None
    handover_bytes_per_s: float | None
    """Of the KV's bytes; None: nothing was handed over."""
    iterations: int
    """How many gaps were seen."""


def overheads(runs: Sequence[RunLog], kv_bytes_per_token: float) -> Overheads | None:
    """Of several runs together; None where they are too short to tell."""
    import numpy as np

    found = [_gaps(run) for run in runs]
    gaps, sequences = (np.concatenate(column) for column in zip(*found, strict=True))
    if len(gaps) < _FEW:
        return None
    base, each = _line(sequences, gaps, np.mean)
    delays = np.concatenate([_idle_delays(run) for run in runs])
    latency_s, rate = _handover(runs, kv_bytes_per_token)
    delay_s = float(np.median(delays)) if len(delays) else None
    return Overheads(base, each, delay_s, latency_s, rate, len(gaps))


def _gaps(run: RunLog) -> tuple[Floats, Floats]:
    """Gaps, and the sequences of the iteration before each: its decodes, and 1 where it had prompts."""
    import numpy as np

    rows = run.rows["run"]
    gaps: list[Floats] = [np.empty(0)]
    sequences: list[Floats] = [np.empty(0)]
    for lane in sorted(set(zip(rows.ints("instance").tolist(), rows.ints("lane").tolist(), strict=True))):
        mine = np.flatnonzero((rows.ints("instance") == lane[0]) & (rows.ints("lane") == lane[1]))
        mine = mine[np.argsort(rows.floats("start_s")[mine], kind="stable")]
        gap = rows.floats("start_s")[mine[1:]] - rows.floats("time_s")[mine[:-1]]
        busy = (gap >= 0) & (gap < _IDLE_S)
        before = mine[:-1][busy]
        gaps.append(gap[busy])
        sequences.append((rows.ints("batch")[before] + (rows.ints("tokens")[before] > 0)).astype(np.float64))
    return np.concatenate(gaps), np.concatenate(sequences)


def _line(x: Floats, y: Floats, middle: Callable[[Floats], np.floating[Any]]) -> tuple[float, float]:
    """Base and slope, neither negative, through the ``middle`` of y at each x."""
    import numpy as np

    from reference_impl.latency.nnls import nnls

    places, counts = np.unique(x, return_counts=True)
    middles = np.array([middle(y[x == place]) for place in places])
    weights = np.sqrt(counts)
    matrix = np.stack([np.ones(len(places)), places], axis=1) * weights[:, None]
    base, slope = nnls(matrix, middles * weights)
    return float(base), float(slope)


def _idle_delays(run: RunLog) -> Floats:
    """Of each request's first admission to an idle instance: from its arrival to the start of that iteration."""
    import numpy as np

    runs, arrive, admit = run.rows["run"], run.rows["arrive"], run.rows["admit"]
    arrival_s = dict(zip(arrive.ints("request").tolist(), arrive.floats("time_s").tolist(), strict=True))
    found: list[float] = []
    for instance in np.unique(runs.ints("instance")):
        mine = runs.ints("instance") == instance
        starts, ends = np.sort(runs.floats("start_s")[mine]), np.sort(runs.floats("time_s")[mine])
        here = admit.ints("instance") == instance
        for request, at_s in zip(admit.ints("request")[here].tolist(), admit.floats("time_s")[here], strict=True):
            came_s = arrival_s.pop(request, None)
            if came_s is None:
                continue
            following = int(np.searchsorted(starts, at_s))
            idle = following == 0 or ends[following - 1] < came_s
            if idle and following < len(starts):
                found.append(float(starts[following]) - came_s)
    return np.array(found)


def _handover(runs: Sequence[RunLog], kv_bytes_per_token: float) -> tuple[float | None, float | None]:
    import numpy as np

    rows = [run.rows["transfer"] for run in runs]
    seconds = np.concatenate([each.floats("time_s") - each.floats("start_s") for each in rows])
    if len(seconds) < _FEW:
        return None, None
    moved = np.concatenate([each.ints("tokens") for each in rows]) * kv_bytes_per_token
    latency_s, per_byte_s = _line(moved, np.maximum(seconds, 0.0), np.median)
    return latency_s, 1.0 / per_byte_s if per_byte_s > 0 else None
