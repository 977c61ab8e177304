"""What ``record_in_vllm.py`` wrote down of vLLM's steps: for the fit of iteration times, and as the run's course."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.profiling.live import LiveIteration, live_samples
from reference_impl.latency.api import Work

if TYPE_CHECKING:
    from reference_impl.latency.measured import Measured
    from reference_impl.latency.measured_fit import Fit, Sample

_WINDOW_S, _ROUNDS = 5.0, 4
_Window = tuple[int, int]
"""Phase, and place in it."""


class Step(NamedTuple):
    """One iteration of vLLM."""

    planned_s: float
    done_s: float
    """When its tokens were known."""
    real_s: float
    """That moment by a clock that never stands still, the same for all engines of a recording."""
    work: Work
    running: int
    waiting: int
    used_blocks: int
    """The last three as vLLM counted them when the iteration had been planned."""
    preempted: int
    left: int
    """Requests in the engine when it was done."""


def steps_of(rows: Sequence[Mapping[str, Any]], kv_blocks: int) -> list[Step]:
    """As they were written; ``kv_blocks``: all that requests can use."""
    found = []
    for row in rows:
        contexts = row["contexts"]
        low, high = (min(contexts), max(contexts)) if contexts else (0, 0)
        work = Work(tuple(map(tuple, row["chunks"])), len(contexts), sum(contexts), low, high)
        used = kv_blocks - row["free_blocks"]
        counts = (row["running"], row["waiting"], used, row["preempted"], row["left"])
        found.append(Step(row["planned_s"], row["done_s"], row["real_s"], work, *counts))
    return found


def seconds_of(steps: Sequence[Step]) -> list[float]:
    """What each took: from the end of the one before where the engine was at work, so that all that it does between two
    iterations is in it."""
    befores = [None, *steps[:-1]]
    return [
        step.done_s - (before.done_s if before is not None and before.left else step.planned_s)
        for before, step in zip(befores, steps, strict=True)
    ]


def fitted(phases: Sequence[Sequence[Step]]) -> Fit:
    """The cost model of the phases that measure, of a machine as fast as theirs was on average.

    Steps of one size come close together in time, so a machine that is slow for seconds would make that size look slow:
    the speed of each few seconds is a factor of its own, found together with the coefficients from all sizes in them.
    """
    from reference_impl.latency.measured import Measured
    from reference_impl.latency.measured_fit import coefficients_of, fit

    windows, pairs = _windows(phases)
    slowness = dict.fromkeys(windows, 1.0)
    for _ in range(_ROUNDS):
        cost = Measured(coefficients_of(_samples(windows, pairs, slowness)), "fitted")
        slowness = _slowness(windows, pairs, cost)
    return fit(_samples(windows, pairs, slowness))


def _windows(phases: Sequence[Sequence[Step]]) -> tuple[list[_Window], list[tuple[Step, float]]]:
    """Of each step of all phases: the few seconds that it lies in; and it with its seconds."""
    windows, pairs = [], []
    for number, steps in enumerate(phases):
        windows += [(number, int(step.done_s // _WINDOW_S)) for step in steps]
        pairs += list(zip(steps, seconds_of(steps), strict=True))
    return windows, pairs


def _slowness(windows: Sequence[_Window], pairs: Sequence[tuple[Step, float]], cost: Measured) -> dict[_Window, float]:
    """What the steps of each window took over what they should; 1 where all of them are taken together."""
    taken: dict[_Window, float] = defaultdict(float)
    modelled: dict[_Window, float] = defaultdict(float)
    for window, (step, seconds) in zip(windows, pairs, strict=True):
        taken[window] += seconds
        modelled[window] += cost.iteration_s(step.work)
    level = sum(taken.values()) / sum(modelled.values())
    return {window: taken[window] / modelled[window] / level for window in taken}


def _samples(
    windows: Sequence[_Window], pairs: Sequence[tuple[Step, float]], slowness: Mapping[_Window, float]
) -> list[Sample]:
    """Grouped by size, a group weighing by the time that was spent in it."""
    at_speed = [
        LiveIteration(step.work, seconds / slowness[window])
        for window, (step, seconds) in zip(windows, pairs, strict=True)
    ]
    return live_samples(at_speed, 1.0)


def spent(coefficients: Mapping[str, Any], steps: Sequence[Step]) -> dict[str, dict[str, float]]:
    """By kind of step: how many, what they took, and what the cost model says of them."""
    from reference_impl.latency.measured import Coefficients, Measured
    from reference_impl.latency.measured_fit import KINDS, Sample

    cost = Measured(Coefficients(**coefficients), "fitted")
    samples = [Sample(step.work, seconds, 0) for step, seconds in zip(steps, seconds_of(steps), strict=True)]
    kinds = {kind: [sample for sample in samples if sample.kind == kind] for kind in KINDS}
    return {
        kind: {
            "steps": len(mine),
            "seconds": round(sum(sample.seconds for sample in mine), 3),
            "modelled_seconds": round(sum(cost.iteration_s(sample.work) for sample in mine), 3),
        }
        for kind, mine in kinds.items()
        if mine
    }


def course(
    requests: Sequence[Mapping[str, Any]], steps: Sequence[Step], kv_blocks: int, tick_s: float
) -> Iterator[dict[str, float]]:
    """Rows of ``timeseries.csv``: vLLM's counts at the end of each tick, of the iteration that is under way then, and
    what came to pass in the tick. Requests are in the order of arrival, the first one begins the first tick."""
    start_s = requests[0]["arrival_ts"]

    def per_tick(events: Sequence[tuple[float, int]]) -> Counter[int]:
        found: Counter[int] = Counter()
        for at_s, count in events:
            found[int((at_s - start_s) // tick_s)] += count
        return found

    prompts = per_tick([(row["first_token_ts"], row["input_toks"]) for row in requests])
    preempted = per_tick([(step.planned_s, step.preempted) for step in steps])
    planned_s = [step.planned_s for step in steps]
    for tick in range(int((steps[-1].done_s - start_s) // tick_s) + 1):
        end_s = start_s + (tick + 1) * tick_s
        step = steps[max(0, bisect_right(planned_s, end_s) - 1)]
        at_work = step.planned_s <= end_s and (end_s < step.done_s or step.left)
        counts = (step.running, step.waiting, 100 * step.used_blocks / kv_blocks) if at_work else (0, 0, 0.0)
        yield {
            "t": round((tick + 1) * tick_s, 6),
            "prompt_throughput": prompts[tick] / tick_s,
            "running": counts[0],
            "waiting": counts[1],
            "kv_cache_pct": round(counts[2], 3),
            "preemptions": preempted[tick],
        }
