"""The seam between HTTP and the deployment: what the front door asks of whatever makes the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self

from policies.api import InstanceView
from reference_impl.engine.api import FinishReason, SampledToken, SamplingParams

TaskKind = Literal["serve", "prefill", "decode"]
TaskState = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. A call with n choices or several prompts makes several of them."""

    prompt: tuple[int, ...]
    params: SamplingParams
    arrival_s: float
    """By :meth:`Gateway.now_s`, before the body was read: what TTFT counts from."""
    tenant: str | None = None
    slo_class: str | None = None
    session_id: str | None = None


class Delta(NamedTuple):
    """Tokens that came since the delta before; the last one carries why it ended."""

    tokens: tuple[SampledToken, ...]
    finish: FinishReason | None = None
    """``stop``: the last token is an end-of-sequence or stop token, which is counted but is no text."""


class TaskView(NamedTuple):
    """One task of a job: its part on one instance."""

    kind: TaskKind
    instance_id: int | None
    """None: no instance chosen yet."""
    state: TaskState
    started_s: float
    ended_s: float | None = None


class GenerateStream(Protocol):
    """The tokens of one request, as they come. Raises ServingError where the deployment gives up on it."""

    @property
    def request_id(self) -> int: ...
    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens found in a prefix cache; None while, or where, it is not known."""
        ...

    @property
    def tasks(self) -> Sequence[TaskView]: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Delta: ...
    def end(self) -> None:
        """Finished as it stands (a stop string): the instance counts it as done. The iteration stops."""
        ...

    def cancel(self, reason: str) -> None:
        """Not wanted any more; of no effect once it has ended. The iteration stops, also one that waits."""
        ...


class Health(NamedTuple):
    """Whether requests can be served now."""

    ready: bool
    detail: str
    instances_ready: int
    instances: int


class GatewayStats(NamedTuple):
    """What ``/metrics`` shows of the deployment."""

    instances: tuple[InstanceView, ...]
    """As they last reported themselves here."""
    queued_requests: int = 0
    """Accepted, but no instance chosen yet."""
    redispatched_total: int = 0
    """Requests that were sent to another instance after a failure."""
    log_error: str = ""
    """Why the run's record ended early, or has a gap; empty: neither."""


class Gateway(Protocol):
    """The deployment as the front door sees it. Every method is called in the app's event loop."""

    def now_s(self) -> float:
        """The run's clock."""
        ...

    def generate(self, request: GenerateRequest) -> GenerateStream:
        """Accept a request without waiting. Raises ServingError where it cannot be accepted."""
        ...

    async def health(self) -> Health: ...
    def stats(self) -> GatewayStats: ...
