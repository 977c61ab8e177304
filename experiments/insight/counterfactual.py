"""Where a request would have finished on each other instance: the run again, with that one decision forced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.config_base import ConfigError
from experiments.insight.again import Again
from experiments.insight.forced import Force, accompanied, in_every_executor
from experiments.run import Progress
from policies.api import Dispatch, PolicyError

if TYPE_CHECKING:
    from policies.api import Phase
    from reference_impl.core.spec import ClusterSpec
    from reference_impl.metrics import RunLog
    from reference_impl.recording.hearing import Asked

MAX_INSTANCES = 16
"""Tried where nobody says which."""
_NO_FIGURES = (None, None, None, 0, None, None, None, None)


class Outcome(NamedTuple):
    """What would have become of the request, and of the others against the run as it was. None: there is no figure."""

    phase: Phase
    instance: int
    chosen: bool
    """Whether the policy sent it there."""
    outcome: str
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    cached_tokens: int
    slo_met: bool | None
    others_ttft_mean_s: float | None
    """Change of the mean TTFT of all other requests that have one in both runs."""
    others_ttft_p99_s: float | None
    others_slo_met: int | None
    """Change of how many of them meet the SLO."""


@dataclass(frozen=True)
class Tried:
    """The table, and the instances for which there is none."""

    outcomes: list[Outcome]
    left_out: list[int]


@dataclass(frozen=True)
class Question:
    """One decision: ``chosen`` is what the policy made of it, None where it refused the request."""

    request: int
    phase: Phase
    chosen: int | None
    candidates: tuple[int, ...]


def questions(run: RunLog, request: int, wanted: Sequence[int] | None, heard: Sequence[Asked] = ()) -> list[Question]:
    """The first dispatch of the request, and its first hand-over; ``heard``: what its policy was asked and said, since
    a hand-over that a failure prevented has left no row. Raises ConfigError for a wanted instance that is none which
    could have been asked."""
    from reference_impl.core.router import PHASE_ROLES, TAKES_OVER
    from reference_impl.metrics.fleet import Roles

    roles = Roles(run)
    prefills, decodes = (roles.instances(PHASE_ROLES[phase]) for phase in ("prefill", "decode"))
    asked = [Question(request, "prefill", _first(run, "dispatch", request), prefills)]
    decodes_on = _decoder(heard) if heard else _first(run, "transfer", request)
    if decodes_on is not None:  # colocated instances decode for others only where dispatch says so
        takers = decodes if decodes_on in decodes else roles.instances(TAKES_OVER)
        asked.append(Question(request, "decode", decodes_on, takers))
    known = {instance for question in asked for instance in question.candidates}
    unknown = sorted(set(wanted or ()) - known)
    if unknown:
        raise ConfigError(f"--instances {unknown[0]}: request {request} could not go there; allowed: {sorted(known)}")
    return asked


def try_all(
    again: Again,
    base: RunLog,
    asked: Sequence[Question],
    wanted: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Tried:
    """Simulate once per candidate; the chosen one comes from ``base``, the run as it was."""
    chosen: list[tuple[Question, int]] = []
    left_out: list[int] = []
    for question in asked:
        others = [i for i in question.candidates if i != question.chosen and (wanted is None or i in wanted)]
        kept = others if wanted is not None else others[: MAX_INSTANCES - 1]
        left_out += others[len(kept) :]
        stays = [question.chosen] if question.chosen is not None else []
        chosen += [(question, instance) for instance in sorted([*stays, *kept])]
    outcomes = []
    for place, (question, instance) in enumerate(chosen):
        told = _part(progress, place, len(chosen))
        try:
            run = base if instance == question.chosen else again.run(forcing(question, instance), told)
        except PolicyError:  # no such instance was there to choose at that moment
            outcomes.append(Outcome(question.phase, instance, False, "impossible", *_NO_FIGURES))
        else:
            outcomes.append(_outcome(question, instance, base, run))
    return Tried(outcomes, left_out)


def _part(progress: Progress | None, place: int, parts: int) -> Progress | None:
    """Progress of one simulation out of ``parts``."""
    return None if progress is None else lambda done, total: progress(place * total + done, parts * total)


def forcing(question: Question, instance: int) -> Callable[[ClusterSpec], ClusterSpec]:
    """The cluster with this one decision forced to ``instance``."""

    def change(cluster: ClusterSpec) -> ClusterSpec:
        force = Force(question.request, question.phase, instance)
        return in_every_executor(cluster, lambda policy: accompanied(policy, force))

    return change


def _outcome(question: Question, instance: int, base: RunLog, run: RunLog) -> Outcome:
    from reference_impl.metrics import per_request
    from reference_impl.metrics.slo import LoggedSlo, met

    before, after = per_request(base), per_request(run)
    slo = LoggedSlo.of(base.metadata)
    at = int(np.flatnonzero(after.request == question.request)[0])
    ttft, tpot, e2e = (_number(column[at]) for column in (after.ttft_s, after.tpot_s, after.e2e_s))
    places = [np.argsort(table.request) for table in (before, after)]  # in a closed loop, arrivals move
    others = np.sort(after.request) != question.request
    by_request = [table.ttft_s[place] for table, place in zip((before, after), places, strict=True)]
    both = others & ~np.isnan(by_request[0]) & ~np.isnan(by_request[1])
    ttft_s = [column[both] for column in by_request]
    met_by = (
        None if slo is None else [met(log, slo).every[place] for log, place in zip((base, run), places, strict=True)]
    )
    return Outcome(
        question.phase,
        instance,
        instance == question.chosen,
        after.outcome(at),
        ttft,
        tpot,
        e2e,
        int(after.cached_tokens[at]),
        None if met_by is None else bool(met_by[1][~others][0]),
        float(ttft_s[1].mean() - ttft_s[0].mean()) if both.any() else None,
        float(np.percentile(ttft_s[1], 99) - np.percentile(ttft_s[0], 99)) if both.any() else None,
        None if met_by is None else int(met_by[1][others].sum()) - int(met_by[0][others].sum()),
    )


def _decoder(heard: Sequence[Asked]) -> int | None:
    """The decode instance of the first decision that named one."""
    for asked in heard:
        if isinstance(asked.decision, list) and asked.decision[0] == "dispatch":
            decided = Dispatch(*asked.decision[1:])
            instance = decided.instance_id if asked.phase == "decode" else decided.decode_instance_id
            if instance is not None:
                return instance
    return None


def _first(run: RunLog, kind: str, request: int) -> int | None:
    """The instance of the request's first row of this kind."""
    rows = run.rows[kind]
    here = np.flatnonzero(rows.ints("request") == request)
    return int(rows.ints("instance")[here[0]]) if len(here) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
