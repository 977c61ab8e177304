"""Decide again: the recorded views, in their order, to a fresh policy object of the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from policies.api import InstanceView, Observer, Phase, PolicyEvent, PolicyKind, RequestView
from policies.registry import PolicySpec
from reference_impl.recording.answers import NotedEstimate, Notes
from reference_impl.recording.lane import ReplayedLane
from reference_impl.recording.rows import VERSION, Row, decision_row, plain, request_of

_RAISED = (Exception, SystemExit)
"""What a policy may raise; an interrupt is not the policy's."""


class RecordingError(ValueError):
    """A file that is no recording of this version: names the file, the line and the remedy."""


class Difference(NamedTuple):
    """Where the fresh policy first decided otherwise."""

    line: int
    """In the file, counted from 1."""
    asked: str
    recorded: object
    decided: object
    """The fresh policy's decision, or a text that says what kept it from one."""


class ReplayedCluster(NamedTuple):
    """One recorded moment; satisfies ``policies.api.ClusterView``."""

    now_s: float
    phase: Phase
    instances: tuple[InstanceView, ...]
    estimate: NotedEstimate


@dataclass
class Replayed:
    """One policy object of a recording, decided again. After its first difference it is asked no more."""

    kind: PolicyKind
    spec: str
    seed: int
    policy: Any
    decisions: int = 0
    """Compared, the one that differs included."""
    difference: Difference | None = None
    _views: dict[int, InstanceView] = field(default_factory=dict)
    _shown: tuple[int, ...] = ()
    _requests: dict[int, RequestView] = field(default_factory=dict)

    def feed(self, line: int, kind: str, cells: Row) -> None:
        """Take one line of the recording."""
        if self.difference is not None:
            return
        match kind:
            case "see":
                view = InstanceView(*cells[0])
                self._views[view.instance_id] = view
            case "observe":
                self._observe(line, PolicyEvent(*cells[0]))
            case "dispatch":
                self._dispatch(line, *cells)
            case "request":
                request = request_of(cells[0])
                self._requests[request.request_id] = request
            case "plan":
                self._plan(line, *cells)
            case _:
                raise ValueError(f"unknown kind {kind!r}")

    def _observe(self, line: int, event: PolicyEvent) -> None:
        if isinstance(self.policy, Observer):
            try:
                self.policy.observe(event)
            except _RAISED as error:
                self.difference = Difference(line, f"observing {event}", None, _raised(error))

    def _dispatch(
        self, line: int, fields: Row, phase: Phase, now_s: float, ids: list[int] | None, answers: list[Row], said: Any
    ) -> None:
        request = request_of(fields)
        if ids is not None:
            self._shown = tuple(ids)
        views = tuple(self._views[instance_id] for instance_id in self._shown)
        cluster = ReplayedCluster(now_s, phase, views, NotedEstimate(Notes(answers)))
        asked = f"request {request.request_id}, {phase}, at {now_s:.6f} s"
        self._compare(line, asked, said, lambda: self.policy.dispatch(request, cluster))

    def _plan(self, line: int, totals: Row, *rest: Any) -> None:
        *groups, answers, said = rest
        lane = ReplayedLane(totals, groups, self._requests, Notes(answers))
        here = [row[0] for group in groups for row in group]
        self._requests = {request_id: self._requests[request_id] for request_id in here}
        asked = f"{lane.kind} lane of instance {lane.instance_id} at {lane.now_s:.6f} s"
        self._compare(line, asked, said, lambda: self.policy.plan(lane))

    def _compare(self, line: int, asked: str, said: object, decide: Callable[[], object]) -> None:
        self.decisions += 1
        try:
            decided = plain(decision_row(decide()))
        except _RAISED as error:  # whatever a policy raises is its decision
            decided = _raised(error)
        if decided != said:
            self.difference = Difference(line, asked, said, decided)


def replay(path: Path) -> list[Replayed]:
    """Decide a recording again; one entry per policy object, in the order in which they were built.

    A last line that was cut short (its process was killed) is left out. Raises RecordingError, and UnknownPolicy or
    ParameterError for a policy that cannot be built here.
    """
    current: dict[int, Replayed] = {}
    done: list[Replayed] = []
    for line, row in lines(path):
        try:
            number, kind, *cells = row
            if kind == "policy":
                told = _Told.of(*cells)
            else:
                current[number].feed(line, kind, cells)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            raise RecordingError(f"{path}, line {line}: not a line of a recording ({error!r}); record anew") from error
        if kind == "policy":
            current[number] = _fresh(path, line, told)
            done.append(current[number])
    return done


class _Told(NamedTuple):
    """What a recording says of a policy object."""

    version: int
    kind: PolicyKind
    spec: str
    seed: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> _Told:
        """Raises KeyError, TypeError or ValueError where ``told`` is something else."""
        found = cls(told["version"], told["kind"], told["spec"], told["seed"])
        if not isinstance(found.spec, str) or type(found.seed) is not int:
            raise ValueError(f"spec {found.spec!r}, seed {found.seed!r}")
        return found


def _fresh(path: Path, line: int, told: _Told) -> Replayed:
    if told.version != VERSION:
        raise RecordingError(f"{path}, line {line}: version {told.version!r}; allowed: {VERSION}; record anew")
    policy = PolicySpec.parse(told.spec, told.kind).build(told.seed)
    return Replayed(told.kind, told.spec, told.seed, policy)


def lines(path: Path) -> Iterator[tuple[int, Row]]:
    """Number and content of every line that is whole."""
    with path.open(encoding="utf-8", errors="replace") as file:
        torn: int | None = None
        for line, text in enumerate(file, start=1):
            if text.isspace():
                torn = None
                continue
            if torn is not None:
                raise RecordingError(f"{path}, line {torn}: not JSON; record anew")
            try:
                yield line, json.loads(text)
            except ValueError:
                torn = line


def _raised(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
