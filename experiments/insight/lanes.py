"""What an instance's lanes ran in some stretch of time: why a request waited, who shared its iterations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.insight.saved_run import SavedRun

if TYPE_CHECKING:
    from reference_impl.metrics.phases import Phase
    from reference_impl.metrics.requests import RequestTable
    from reference_impl.recording.hearing import Planned

_NAMED = 8
"""So many requests are named; of more, the first."""
_WAITING = ("dispatch_wait", "queue", "preempted", "lost", "handover_wait")
_PROMPT = ("prefill", "recompute")


class Iteration(NamedTuple):
    """Iterations of one lane, one after the other and alike."""

    instance: int
    lane: str
    start_s: float
    end_s: float
    iterations: int
    prompt_tokens: int
    """In all of them."""
    decodes: int
    """In each."""
    kv_blocks: int


def ran(saved: SavedRun, instance: int | None, start_s: float, end_s: float) -> list[Iteration]:
    """Iterations of any lane of the instance that were under way in ``(start_s, end_s)``, by start. Of a row of many
    only those that were."""
    from reference_impl.metrics.log import LANES

    runs = saved.log.rows["run"]
    start, end = runs.floats("start_s"), runs.floats("time_s")
    here = np.flatnonzero((runs.ints("instance") == instance) & (end > start_s + 1e-9) & (start < end_s - 1e-9))
    here = here[np.argsort(start[here], kind="stable")]
    found = []
    for i in here.tolist():
        ends = iteration_ends(saved, i)
        first = int(np.searchsorted(ends, start_s + 1e-9, "right"))
        last = min(int(np.searchsorted(ends, end_s - 1e-9, "left")), len(ends) - 1)
        count = last - first + 1
        begins = float(ends[first - 1]) if first else float(start[i])
        tokens = int(runs.ints("tokens")[i]) * count // len(ends)
        lane, decodes, blocks = (int(runs.ints(name)[i]) for name in ("lane", "batch", "kv_blocks"))
        found.append(Iteration(instance or 0, LANES[lane], begins, float(ends[last]), count, tokens, decodes, blocks))
    return found


def iteration_ends(saved: SavedRun, row: int) -> NDArray[np.float64]:
    """When the iterations of one run row end."""
    from reference_impl.metrics.tokens import iteration_ends_s

    return iteration_ends_s(saved.log.rows["run"], np.array([row]))


def waits(saved: SavedRun, phases: Sequence[Phase], request: int) -> list[dict[str, Any]]:
    """Per phase in which the request waited: what happened meanwhile on the instance that it waited for."""
    return [
        _why_waited(saved, phase._replace(instance=_waited_for(phases, place)), request)
        for place, phase in enumerate(phases)
        if phase.name in _WAITING
    ]


def _waited_for(phases: Sequence[Phase], place: int) -> int | None:
    """Of a hand-over the instance that had no room yet, where it came to that."""
    phase, later = phases[place], phases[place + 1 :]
    if phase.name != "handover_wait":
        return phase.instance
    return next((other.instance for other in later if other.name == "decode"), phase.instance)


def _why_waited(saved: SavedRun, phase: Phase, request: int) -> dict[str, Any]:
    iterations = ran(saved, phase.instance, phase.start_s, phase.end_s)
    prompts = [part for part in iterations if part.prompt_tokens]
    admitted = _between(saved, "admit", phase)
    ahead = [other for other in admitted if other != request]
    return {
        "phase": phase.name,
        "instance": phase.instance,
        "start_s": phase.start_s,
        "duration_s": phase.end_s - phase.start_s,
        "iterations": sum(part.iterations for part in iterations),
        "iterations_with_prompts": sum(part.iterations for part in prompts),
        "prompt_tokens_computed": sum(part.prompt_tokens for part in prompts),
        "most_decodes": max((part.decodes for part in iterations), default=0),
        "admitted_before": len(ahead),
        "admitted_before_first": ahead[:_NAMED],
        "preemptions": len(_between(saved, "preempt", phase)),
        "kv_use_most": _kv_use(saved, iterations),
    }


def _between(saved: SavedRun, kind: str, phase: Phase) -> list[int]:
    """Requests with an event of this kind on the phase's instance, in the phase."""
    rows = saved.log.rows[kind]
    time_s = rows.floats("time_s")
    here = (rows.ints("instance") == phase.instance) & (time_s > phase.start_s - 1e-9) & (time_s < phase.end_s - 1e-9)
    return [int(request) for request in rows.ints("request")[here]]


def _kv_use(saved: SavedRun, iterations: Sequence[Iteration]) -> float | None:
    from reference_impl.metrics.fleet import presence

    pools = presence(saved.log).pools
    shares = [part.kv_blocks / pools[part.instance] for part in iterations if pools.get(part.instance)]
    return max(shares) if shares and min(shares) >= 0 else None


def prompt_iterations(
    saved: SavedRun, phases: Sequence[Phase], request: int, plans: Sequence[Planned]
) -> list[dict[str, Any]]:
    """The iterations that computed the request's prompt. Where no plan is known: those that may have, with whom."""
    return [
        part for phase in phases if phase.name in _PROMPT for part in _prompt_iterations(saved, phase, request, plans)
    ]


def _prompt_iterations(saved: SavedRun, phase: Phase, request: int, plans: Sequence[Planned]) -> list[dict[str, Any]]:
    found = []
    for part in ran(saved, phase.instance, phase.start_s, phase.end_s):
        plan = _in_force(part, plans)
        if part.lane == "decode" or not part.prompt_tokens or (plans and plan is None):
            continue
        others = [other for other, _ in plan.beside] if plan else _prefilling(saved, part, request)
        own = plan.tokens * part.iterations if plan else part.prompt_tokens if not others else None
        found.append(
            {
                **part._asdict(),
                "own_tokens": own,
                "prompts_beside": others[:_NAMED],
                "prompts_beside_count": len(others),
            }
        )
    return found


def _in_force(part: Iteration, plans: Sequence[Planned]) -> Planned | None:
    """The plan that the iterations follow; plans made ahead cannot be told apart by their time."""
    for plan in plans:
        here = plan.instance_id == part.instance and plan.lane == part.lane
        if here and plan.from_s <= part.start_s + 1e-9 and part.start_s < plan.until_s - 1e-9:
            return plan
    return None


def _prefilling(saved: SavedRun, part: Iteration, request: int) -> list[int]:
    """Other requests whose prompt was being computed on the instance in that time."""
    table: RequestTable = saved.table
    mid_s = (part.start_s + part.end_s) / 2
    near = np.flatnonzero((table.arrival_s < mid_s) & ~(table.first_token_s < part.start_s))
    found = []
    for other in table.request[near].tolist():
        phases = saved.phases.of(other) if other != request else []
        if any(p.instance == part.instance and p.name in _PROMPT and p.start_s < mid_s < p.end_s for p in phases):
            found.append(other)
    return found
