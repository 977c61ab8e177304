"""What a step of an instance says to whom: one frame for each front door, events for observing dispatch policies."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from policies.api import PolicyEvent
from reference_impl.engine.step import Step
from reference_impl.serve.channel import Channel
from reference_impl.serve.messages import Failed, Named, Progress, Ready, Tokens
from reference_impl.serve.spool import LogRows

_TIMED = ("run", "prefilled", "finish", "transfer")


@dataclass(slots=True)
class Served:
    """A request that a front door has on an instance."""

    channel: Channel
    attempt: int
    position: int
    """How many of its tokens were generated when the next one comes."""


@dataclass(slots=True)
class _Frame:
    """A :class:`Progress` in the making."""

    tokens: list[Tokens] = field(default_factory=list)
    ready: list[Ready] = field(default_factory=list)
    adopted: list[Named] = field(default_factory=list)
    dropped: list[Named] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    cached: list[tuple[int, int]] = field(default_factory=list)


def frames(step: Step, rows: LogRows, served: MutableMapping[int, Served], at_s: float) -> dict[Channel, Progress]:
    """The step by front door; requests that ended here leave ``served``."""
    found: dict[Channel, _Frame] = {}
    for request_id, cached_tokens in _admitted(rows):
        if request_id in served:
            _frame(found, served[request_id]).cached.append((request_id, cached_tokens))
    for output in step.outputs:
        request_id = output.request_id
        here = served.get(request_id)
        if here is not None:
            tokens = Tokens(request_id, here.attempt, here.position, output.tokens, output.finish)
            _frame(found, here).tokens.append(tokens)
            here.position += len(output.tokens)
            if output.finish is not None:
                del served[request_id]
    for parcel in step.parcels:
        here = served.get(parcel.request_id)
        if here is not None:
            _frame(found, here).ready.append(Ready(here.attempt, parcel))
    for request_id in step.adopted:
        here = served.get(request_id)
        if here is not None:
            _frame(found, here).adopted.append(Named(request_id, here.attempt))
    _add_losses(found, step, served)
    return {channel: _progress(at_s, frame) for channel, frame in found.items()}


def _add_losses(found: dict[Channel, _Frame], step: Step, served: MutableMapping[int, Served]) -> None:
    for request_id in step.dropped:
        here = served.pop(request_id, None)
        if here is not None:
            _frame(found, here).dropped.append(Named(request_id, here.attempt))
    for failure in step.failed:
        here = served.pop(failure.request_id, None)
        if here is not None:
            failed = Failed(failure.request_id, here.attempt, failure.reason, failure.retry)
            _frame(found, here).failed.append(failed)


def _frame(found: dict[Channel, _Frame], here: Served) -> _Frame:
    frame = found.get(here.channel)
    if frame is None:
        frame = found[here.channel] = _Frame()
    return frame


def _progress(at_s: float, frame: _Frame) -> Progress:
    return Progress(
        at_s,
        tuple(frame.tokens),
        tuple(frame.ready),
        tuple(frame.adopted),
        tuple(frame.dropped),
        tuple(frame.failed),
        tuple(frame.cached),
    )


def _admitted(rows: LogRows) -> list[tuple[int, int]]:
    """(request, prompt tokens found in the prefix cache)."""
    return [(request_id, tokens) for _, request_id, _, _, tokens in rows.get("admit", ())]


def end_of(rows: Mapping[str, list[tuple[object, ...]]], now_s: float) -> float:
    """When the iterations of a step ended; ``now_s`` where there was none."""
    times = [row[0] for kind in _TIMED for row in rows.get(kind, ())]
    return max((time_s for time_s in times if isinstance(time_s, float)), default=now_s)


def policy_events(rows: LogRows) -> tuple[PolicyEvent, ...]:
    """What an observing dispatch policy is told, in order of time."""
    events = [
        PolicyEvent("first_token", at_s, request_id, instance_id, 1)
        for at_s, request_id, instance_id, _, tokens in rows.get("prefilled", ())
        if tokens == 1
    ]
    events += [
        PolicyEvent("finished", at_s, request_id, instance_id, tokens)
        for at_s, request_id, instance_id, _, tokens in rows.get("finish", ())
    ]
    events += [
        PolicyEvent("preempted", at_s, request_id, instance_id, tokens)
        for at_s, kind, request_id, instance_id, _, tokens, _ in rows.get("change", ())
        if kind == "preempt"
    ]
    return tuple(sorted(events, key=lambda event: event.at_s))
