"""What the deployment's processes tell each other. Plain named tuples; their place in :data:`MESSAGES` is their code.

A request is named by its id and by its *attempt*: the front door counts anew whenever it starts over after a failure,
so that what an instance still says of an earlier attempt is told from the present one.
Times are seconds on the run's clock.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from policies.api import Dispatch, InstanceState, InstanceView, Phase, PolicyEvent, RequestView, Role
from reference_impl.core.tally import NONE, Counts
from reference_impl.engine.api import EngineRequest, FinishReason, SampledToken
from reference_impl.engine.step import Parcel

PROTOCOL = 3
"""Changes with anything in this file."""
Kind = Literal["front_door", "job_executor", "task_executor", "operator"]
MemberState = InstanceState


class Hello(NamedTuple):
    """Opens a connection."""

    kind: Kind
    seat: int
    """Which of its kind: of a task executor its instance id. -1 while it has none."""
    observes: bool = False
    """Of a job executor: its policy wants events, not only reports."""
    protocol: int = PROTOCOL
    token: str = ""
    """Filled in by the network."""


class Bye(NamedTuple):
    """Ends a connection that is meant to end."""

    reason: str


# ------------------------------------------------------------------------------------- front door and job executor


class Ask(NamedTuple):
    """Which instance serves this request?"""

    attempt: int
    phase: Phase
    request: RequestView


class Withdraw(NamedTuple):
    """No answer is wanted any more."""

    request_id: int


class Answer(NamedTuple):
    """The decision; one of the three is set."""

    request_id: int
    attempt: int
    phase: Phase
    dispatch: Dispatch | None
    reject: str | None = None
    """The policy refuses it."""
    failure: str | None = None
    """There is no decision: the policy failed, or no instance has been there for long."""


class News(NamedTuple):
    """What a task executor, or a front door, lets job executors know."""

    view: InstanceView | None
    events: tuple[PolicyEvent, ...] = ()


# ------------------------------------------------------------------------------------ front door and task executor


class Submit(NamedTuple):
    """Serve this request, or prefill it."""

    attempt: int
    request: EngineRequest


class Adopt(NamedTuple):
    """Pull this request's KV and go on decoding it; with an early parcel: begin to, a second one follows.

    To the instance where the KV is: it stays.
    """

    attempt: int
    request: EngineRequest
    parcel: Parcel


class Release(NamedTuple):
    """The parcel was pulled, or is not wanted."""

    request_id: int


class Cancel(NamedTuple):
    """Nobody wants its tokens any more."""

    request_id: int
    reason: str | None
    """None: it goes on elsewhere."""


class End(NamedTuple):
    """Finished as it stands."""

    request_id: int


class Tokens(NamedTuple):
    """New tokens of one request."""

    request_id: int
    attempt: int
    position: int
    """Of the first of them among all generated tokens, counted from 0."""
    tokens: tuple[SampledToken, ...]
    finish: FinishReason | None


class Ready(NamedTuple):
    """A request is prefilled and its KV waits; with an early parcel: it is about to be; said again: it might stay."""

    attempt: int
    parcel: Parcel


class Named(NamedTuple):
    """A request at one attempt."""

    request_id: int
    attempt: int


class Failed(NamedTuple):
    """An instance does not serve a request any more."""

    request_id: int
    attempt: int
    reason: str
    retry: bool
    """Whether another instance, or this one later, may."""


class Progress(NamedTuple):
    """Everything of one step of an instance that concerns one front door."""

    at_s: float
    tokens: tuple[Tokens, ...]
    ready: tuple[Ready, ...] = ()
    adopted: tuple[Named, ...] = ()
    """Their KV has arrived: its source can release it."""
    dropped: tuple[Named, ...] = ()
    """Preempted where nobody can prefill them again."""
    failed: tuple[Failed, ...] = ()
    cached: tuple[tuple[int, int], ...] = ()
    """(request, prompt tokens found in the prefix cache) of those admitted."""


# ----------------------------------------------------------------------------------------------- cluster manager


class Join(NamedTuple):
    """A process reports for duty, or again after the connection broke."""

    kind: Kind
    seat: int
    """What it had before, or -1."""
    generation: int
    address: str
    """Where it listens; empty: it does not."""
    pid: int
    role: Role | None = None
    rows_sent: int = 0
    """Number of its last batch of rows that was acknowledged."""


class Welcome(NamedTuple):
    """Its place."""

    seat: int
    generation: int
    """Counts who has had this seat."""
    first_request_id: int
    """A front door's ids start here, in steps of the number of front doors."""


class Beat(NamedTuple):
    """Still alive."""

    state: MemberState
    detail: str = ""
    view: InstanceView | None = None
    next_request_id: int = 0
    counts: Counts = NONE
    """Of a front door, since its start."""
    in_flight: int = 0
    record_error: str = ""
    """What it cannot record of its part of the run any more, and why."""


class Member(NamedTuple):
    """One line of the registry."""

    kind: Kind
    seat: int
    generation: int
    address: str
    state: MemberState
    role: Role | None
    pid: int


class Members(NamedTuple):
    """Everybody there is; who is not listed is gone."""

    members: tuple[Member, ...]
    log_error: str = ""
    """Why the event log ended early; empty: it did not."""


class Fence(NamedTuple):
    """You were given up: stop, your seat is somebody else's."""

    reason: str


class Rows(NamedTuple):
    """A batch of log rows (``reference_impl.serve.spool``), numbered by its sender."""

    number: int
    content: bytes


class RowsKept(NamedTuple):
    """All batches up to this one are safe, or will never be."""

    number: int


class Drain(NamedTuple):
    """Take nothing new in, finish what runs within this time, then send the last rows."""

    seconds: float


class Drained(NamedTuple):
    """All is done and every row sent."""


class Status(NamedTuple):
    """What the operator is shown."""

    members: tuple[Member, ...]
    details: tuple[str, ...]
    """Of those members that have failed, or are starting, what they say."""
    drained: bool
    log_error: str
    manager_pid: int


MESSAGES: tuple[type[tuple[object, ...]], ...] = (
    *(Hello, Bye, Ask, Withdraw, Answer, News),
    *(Submit, Adopt, Release, Cancel, End, Progress),
    *(Join, Welcome, Beat, Members, Fence, Rows, RowsKept, Drain, Drained, Status),
)
