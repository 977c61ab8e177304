"""Iterations of a live run as samples for the fit: their content from the recorded plans, their duration from the
event log.

Workers measured by themselves lack what a deployment does to them: a front door at work on the other core, neighbours
that are idle now and then, the mix of sizes of real traffic.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.run import EVENTS
from experiments.run_folder import DECISIONS
from reference_impl.latency.api import Work

if TYPE_CHECKING:
    from reference_impl.latency.measured_fit import Sample

FIRST_GROUP = 1_000_000
"""Groups of live samples are numbered from here on."""
_LANES = ("mixed", "prefill", "decode")
_CLOCK_S = 1e-6
"""Clocks of an engine and of its workers agree to this."""
_Lane = tuple[int, str]
"""Instance and kind of lane."""


class LiveIteration(NamedTuple):
    """What one iteration held, and how long it took."""

    work: Work
    seconds: float


class _Row(NamedTuple):
    start_s: float
    seconds: float
    tokens: int
    decodes: int


class _Plan(NamedTuple):
    at_s: float
    tokens: int
    decodes: int
    work: Work | None
    """None: it is not known how much of a prompt was cached."""


def live_iterations(run: Path) -> list[LiveIteration]:
    """Those of a run whose batch policies were recorded; none where they were not.

    A plan made ahead may come to nothing, and a worker that is replaced takes its iteration along: an iteration belongs
    to the latest plan of its size that was made by its start. Left out are those that have none, or whose prefix hit no
    policy asked for.
    """
    plans: dict[_Lane, list[_Plan]] = defaultdict(list)
    for path in sorted(run.glob(DECISIONS)):
        for lane, plan in _plans(path):
            plans[lane].append(plan)
    found = []
    for lane, rows in _rows(run / EVENTS).items():
        for row, plan in _matched(rows, plans[lane]):
            if plan.work is not None:
                found.append(LiveIteration(plan.work, row.seconds))
    return found


def _matched(rows: Sequence[_Row], plans: Sequence[_Plan]) -> Iterator[tuple[_Row, _Plan]]:
    """Both in the order of time."""
    times_s = [plan.at_s for plan in plans]
    unused = 0
    for row in rows:
        made = bisect_right(times_s, row.start_s + _CLOCK_S)
        for place in range(made - 1, unused - 1, -1):
            if (plans[place].tokens, plans[place].decodes) == (row.tokens, row.decodes):
                yield row, plans[place]
                unused = place + 1
                break


def live_samples(iterations: Sequence[LiveIteration], weight: float) -> list[Sample]:
    """Grouped by size; a group weighs by its part of the time that was spent, all of them together ``weight``."""
    from reference_impl.latency.measured_fit import Sample

    groups: dict[tuple[int, int, int], list[LiveIteration]] = defaultdict(list)
    for iteration in iterations:
        chunks, decodes = iteration.work[:2]
        groups[len(chunks), sum(new for new, _ in chunks).bit_length(), decodes].append(iteration)
    total_s = sum(iteration.seconds for iteration in iterations)
    found = []
    for number, key in enumerate(sorted(groups), FIRST_GROUP):
        share = sum(iteration.seconds for iteration in groups[key]) / total_s
        found += [Sample(work, seconds, number, weight * share) for work, seconds in groups[key]]
    return found


def _rows(events: Path) -> dict[_Lane, list[_Row]]:
    """The iterations of each lane; a simulation's rows that stand for several of them are left out."""
    from reference_impl.metrics import read

    rows = read(events).rows["run"]
    starts, ends = rows.floats("start_s"), rows.floats("time_s")
    found: dict[_Lane, list[_Row]] = defaultdict(list)
    for place in starts.argsort(kind="stable"):
        if rows.ints("iterations")[place] > 1:
            continue
        lane = int(rows.ints("instance")[place]), _LANES[rows.ints("lane")[place]]
        times = float(starts[place]), float(ends[place] - starts[place])
        found[lane].append(_Row(*times, int(rows.ints("tokens")[place]), int(rows.ints("batch")[place])))
    return found


def _plans(path: Path) -> Iterator[tuple[_Lane, _Plan]]:
    """Every recorded plan that had something to run."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if '"plan"' not in line or not line.endswith("\n"):
                continue
            _, _, totals, waiting, prefilling, decoding, paused, answers, decision = json.loads(line)
            if not isinstance(decision, list):
                continue
            _, chunks, decode, skip, *_ = decision
            contexts = [row[3] + 1 for row in (*decoding, *paused) if row[0] not in skip] if decode else []
            if chunks or contexts:
                work = _work(chunks, contexts, [*waiting, *prefilling], answers)
                size = sum(tokens for _, tokens in chunks), len(contexts)
                yield (totals[2], totals[1]), _Plan(totals[0], *size, work)


def _work(chunks: Sequence[Any], contexts: list[int], sequences: Sequence[Any], answers: Sequence[Any]) -> Work | None:
    left = {answer[1]: answer[2] for answer in answers if answer[0] == "uncomputed_tokens"}
    targets = {row[0]: row[1] for row in sequences}
    if any(request_id not in left for request_id, _ in chunks):
        return None
    parts = tuple((tokens, targets[request_id] - left[request_id]) for request_id, tokens in chunks)
    low, high = (min(contexts), max(contexts)) if contexts else (0, 0)
    return Work(parts, len(contexts), sum(contexts), low, high)
