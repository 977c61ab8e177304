"""The story of one request of a finished run, as plain values: what became of it, who decided what, where time went."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from experiments.config_base import ConfigError
from experiments.insight.again import Again
from experiments.insight.counterfactual import questions, try_all
from experiments.insight.lanes import prompt_iterations, ran, waits
from experiments.insight.saved_run import SavedRun, open_run
from experiments.insight.seen import Seen, seen_again, seen_in_recordings

if TYPE_CHECKING:
    from reference_impl.metrics.phases import Phase
    from reference_impl.recording.hearing import Asked

_SLOWEST_GAPS = 5


class Report(Protocol):
    """Shows how far the work is; see ``experiments.cli.progress``."""

    def __call__(self, done: int, total: int, label: str | None = None) -> None: ...


def explain(
    folder: Path,
    request: int,
    *,
    counterfactual: bool = True,
    instances: Sequence[int] | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Everything that the run tells of the request, ready for JSON.

    A simulated run is simulated again to hear what the policies saw, and once for every other instance that its
    decisions could have named (``instances``: only for these). Raises ConfigError for a folder that is no finished
    run's, an unknown request, an instance that could not have been asked.
    """
    saved = open_run(folder)
    saved.position(request)
    if saved.host != "simulated":
        if instances is not None:
            raise ConfigError(
                f"--instances: {folder} is a {saved.host} run; only simulated runs can be forced elsewhere"
            )
        return _story(saved, request, seen_in_recordings(saved, request))
    asked = questions(saved.log, request, instances)
    with tempfile.TemporaryDirectory(prefix="semiflow-") as scratch:
        try:
            again = Again(saved, Path(scratch))
        except _not_again() as error:
            missing = f"what the policies saw is not known: the run cannot be simulated again ({error})"
            return _story(saved, request, Seen(notes=[missing]))
        told = None if report is None else lambda done, total: report(done, total, "simulating again")
        seen = seen_again(saved, again, request, told)
        story = _story(saved, request, seen)
        if counterfactual:
            base = seen.again if seen.notes and seen.again is not None else saved.log
            tried = try_all(again, base, asked, instances, _elsewhere(report))
            story["counterfactual"] = [outcome._asdict() for outcome in tried.outcomes]
            story["counterfactual_left_out"] = tried.left_out
    return story


def _elsewhere(report: Report | None) -> Any:
    return None if report is None else lambda done, total: report(done, total, "sending it elsewhere")


def _not_again() -> tuple[type[Exception], ...]:
    """Why a saved run cannot be simulated any more: what it names is gone, or means something else."""
    from policies.api import PolicyError
    from policies.registry import ParameterError, UnknownPolicy
    from reference_impl.latency.errors import ProfileError
    from workloads.errors import TraceError

    return (ConfigError, TraceError, ParameterError, UnknownPolicy, ProfileError, PolicyError, OSError)


def _story(saved: SavedRun, request: int, seen: Seen) -> dict[str, Any]:
    phases = saved.phases.of(request)
    parts = saved.phases.breakdown_ns(request)
    ahead = bool(saved.config.get("host", {}).get("plan_ahead"))
    plans = [] if ahead else seen.plans
    notes = list(seen.notes)
    prompt = prompt_iterations(saved, phases, request, plans)
    if prompt and not plans:
        notes.append("whose prompts its iterations computed is read from the event log: others may have been skipped")
    return {
        "run": str(saved.folder),
        "host": saved.host,
        "request": request,
        **_facts(saved, request),
        "slo": _slo(saved, request),
        "phases": [phase._asdict() for phase in phases],
        "breakdown_ns": parts,
        "total_ns": sum(parts.values()),
        "decisions": _decisions(seen),
        "waits": waits(saved, phases, request),
        "prompt": prompt,
        "decode": _decode(saved, request, phases),
        "drops": [step._asdict() for step in saved.phases.steps(request) if step.kind in ("preempt", "lost")],
        "notes": notes,
    }


def _facts(saved: SavedRun, request: int) -> dict[str, Any]:
    table, at = saved.table, saved.position(request)
    return {
        "outcome": table.outcome(at),
        "reasons": _reasons(saved, request),
        "arrival_s": float(table.arrival_s[at]),
        "prompt_tokens": int(table.prompt_tokens[at]),
        "output_tokens": int(table.output_tokens[at]),
        "cached_tokens": int(table.cached_tokens[at]),
        "preemptions": int(table.preemptions[at]),
        "path": list(table.path(at)),
        "ttft_s": _number(table.ttft_s[at]),
        "tpot_s": _number(table.tpot_s[at]),
        "e2e_s": _number(table.e2e_s[at]),
    }


def _reasons(saved: SavedRun, request: int) -> list[dict[str, Any]]:
    """What policies and hosts said of the request, in order."""
    import pyarrow.parquet as pq

    columns = ["time_s", "kind", "instance", "reason"]
    rows = pq.read_table(saved.events, columns=columns, filters=[("request", "=", request)]).to_pylist()
    return [row for row in rows if row["reason"]]


def _slo(saved: SavedRun, request: int) -> dict[str, Any] | None:
    """Per target: the figure, whether it is met, and what is left of the target (negative: over)."""
    from reference_impl.metrics.slo import LoggedSlo, met

    slo = LoggedSlo.of(saved.log.metadata)
    if slo is None:
        return None
    table, at = saved.table, saved.position(request)
    found: dict[str, Any] = {"met": bool(met(table, slo)[at])}
    for name, target_s, value in (("ttft", slo.ttft_s, table.ttft_s[at]), ("tpot", slo.tpot_s, table.tpot_s[at])):
        if target_s is not None:
            value_s = _number(value)
            left_s = None if value_s is None else target_s - value_s
            found[name] = {"target_s": target_s, "value_s": value_s, "left_s": left_s}
    return found


def _decisions(seen: Seen) -> list[dict[str, Any]]:
    hits = [*seen.prefix_hits, *({} for _ in seen.asked)]
    return [_decision(asked, known) for asked, known in zip(seen.asked, hits, strict=False)]


def _decision(asked: Asked, prefix_hits: dict[int, int]) -> dict[str, Any]:
    return {
        "phase": asked.phase,
        "now_s": asked.now_s,
        "decision": asked.decision,
        "instances": [
            {
                **view._asdict(),
                "age_s": asked.now_s - view.observed_at_s,
                "kv_use": view.kv_use,
                **({"prefix_hit_tokens": prefix_hits.get(view.instance_id, 0)} if prefix_hits else {}),
            }
            for view in asked.instances
        ],
        "estimates": [list(answer) for answer in asked.answers],
    }


def _decode(saved: SavedRun, request: int, phases: Sequence[Phase]) -> dict[str, Any]:
    """The gaps between its tokens, and what its instance ran in the longest ones."""
    from reference_impl.metrics import rebuild

    times_s = rebuild(saved.log).moments_s(request)
    gaps_s = np.diff(times_s)
    longest = np.sort(np.argsort(-gaps_s, kind="stable")[:_SLOWEST_GAPS])
    return {
        "gaps": len(gaps_s),
        "gap_p50_s": float(np.median(gaps_s)) if len(gaps_s) else None,
        "gap_max_s": float(gaps_s.max()) if len(gaps_s) else None,
        "longest": [_gap(saved, phases, float(times_s[i]), float(times_s[i + 1]), int(i) + 2) for i in longest],
    }


def _gap(saved: SavedRun, phases: Sequence[Phase], start_s: float, end_s: float, token: int) -> dict[str, Any]:
    here = [phase for phase in phases if phase.start_s < end_s and phase.end_s > start_s]
    instance = here[-1].instance if here else None
    iterations = ran(saved, instance, start_s, end_s)
    return {
        "token": token,
        "start_s": start_s,
        "duration_s": end_s - start_s,
        "phases": list(dict.fromkeys(phase.name for phase in here)),
        "instance": instance,
        "iterations": sum(part.iterations for part in iterations),
        "prompt_tokens": sum(part.prompt_tokens for part in iterations),
        "most_decodes": max((part.decodes for part in iterations), default=0),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
