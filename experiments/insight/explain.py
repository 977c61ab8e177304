"""The story of one request of a finished run, as plain values: what became of it, who decided what, where time went."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config_base import ConfigError
from experiments.insight.again import Again
from experiments.insight.counterfactual import questions, try_all
from experiments.insight.facts import decode_gaps, facts, slo_margin
from experiments.insight.lanes import prompt_iterations, waits
from experiments.insight.saved_run import SavedRun, open_run
from experiments.insight.seen import Seen, seen_again, seen_in_recordings
from experiments.run import Progress

if TYPE_CHECKING:
    from reference_impl.recording.hearing import Asked


Report = Callable[[int, int, str], None]
"""Called now and then with (how much is done, how much in all, what is being done)."""


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
    questions(saved.log, request, instances)  # a mistake is told before anything runs
    with tempfile.TemporaryDirectory(prefix="semiflow-") as scratch:
        try:
            again = Again(saved, Path(scratch))
            seen = seen_again(saved, again, request, _told(report, "simulating again"))
        except _not_again() as error:
            missing = f"what the policies saw is not known: the run cannot be simulated again ({error})"
            return _story(saved, request, Seen(notes=[missing]))
        story = _story(saved, request, seen)
        base = seen.other or saved.log
        if counterfactual and request in base.rows["arrive"].ints("request"):
            asked = questions(base, request, instances, seen.asked)
            tried = try_all(again, base, asked, instances, _told(report, "sending it elsewhere"))
            story["counterfactual"] = [outcome._asdict() for outcome in tried.outcomes]
            story["counterfactual_left_out"] = tried.left_out
    return story


def _told(report: Report | None, label: str) -> Progress | None:
    return None if report is None else lambda done, total: report(done, total, label)


def _not_again() -> tuple[type[Exception], ...]:
    """Why a saved run cannot be simulated any more: what it names is gone, or means something else."""
    from policies.api import PolicyError
    from policies.registry import ParameterError, UnknownPolicy
    from reference_impl.latency.errors import ProfileError
    from workloads.errors import TraceError

    return (ConfigError, TraceError, ParameterError, UnknownPolicy, ProfileError, PolicyError, OSError)


def _story(saved: SavedRun, request: int, seen: Seen) -> dict[str, Any]:
    phases = saved.phases.of(request)
    parts = saved.breakdown.ns(request)
    ahead = bool(saved.config.get("host", {}).get("plan_ahead"))
    plans = [] if ahead else seen.plans
    notes = list(seen.notes)
    prompt = prompt_iterations(saved, phases, request, plans)
    if prompt and not plans:
        notes.append("no plans are known: what its iterations computed is inferred from the event log")
    return {
        "run": str(saved.folder),
        "host": saved.host,
        "request": request,
        **facts(saved, request),
        "slo": slo_margin(saved, request),
        "phases": [phase._asdict() for phase in phases],
        "breakdown_ns": parts,
        "total_ns": sum(parts.values()),
        "decisions": _decisions(seen),
        "waits": waits(saved, phases, request),
        "prompt": prompt,
        "decode": decode_gaps(saved, request, phases),
        "drops": [step._asdict() for step in saved.phases.steps(request) if step.kind in ("preempt", "lost")],
        "notes": notes,
    }


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
