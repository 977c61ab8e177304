"""What policies see: read-only views of requests, instances, lanes, partitions and the fleet.

Import these from :mod:`policies.api`. Hot-path views (:class:`LaneView`, :class:`SequenceView`, :class:`ClusterView`)
are read-only protocols that the host's live objects satisfy; the others are immutable. Units: seconds, tokens, blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Reversible, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeVar

from policies.decisions import Partition, Role

LaneKind = Literal["mixed", "prefill", "decode"]
Phase = Literal["prefill", "decode"]
InstanceState = Literal["starting", "ready", "draining", "failed", "stopped"]


class RequestView(NamedTuple):
    """What is known of a request before it runs. Never its true output length, unless an oracle predictor runs."""

    request_id: int
    arrival_s: float
    prompt_tokens: int
    prefix_ids: tuple[int, ...] = ()
    """Chained ids of the prompt's leading blocks: equal ids at position i mean an equal prefix up to block i."""
    prefix_block_tokens: int = 0
    """Tokens per prefix id (0 where there are none); the last block may be partial."""
    predicted_output_tokens: int | None = None
    oracle_output_tokens: int | None = None
    """The true length; set only while a predictor whose name says ``oracle`` is in use."""
    tenant: str | None = None
    slo_class: str | None = None
    session_id: str | None = None


class InstanceView(NamedTuple):
    """One instance as it last reported itself (a dispatch policy sees nothing fresher)."""

    instance_id: int
    role: Role
    state: InstanceState
    observed_at_s: float
    waiting_requests: int
    running_requests: int
    """Sequences that hold KV: partly prefilled, decoding, or being handed over."""
    waiting_tokens: int
    """Tokens of this instance's requests that have no KV here yet: not computed, or not handed over."""
    context_tokens: int
    """Tokens whose KV the running sequences hold."""
    free_blocks: int
    total_blocks: int
    block_tokens: int

    @property
    def outstanding_requests(self) -> int:
        """Requests sent here that have not finished."""
        return self.waiting_requests + self.running_requests

    @property
    def outstanding_tokens(self) -> int:
        """Prompt tokens still to compute plus context tokens held."""
        return self.waiting_tokens + self.context_tokens

    @property
    def kv_use(self) -> float:
        """Share of KV blocks in use plus those that the waiting prompts will need; may exceed 1."""
        waiting_blocks = -(-self.waiting_tokens // self.block_tokens)
        return (self.total_blocks - self.free_blocks + waiting_blocks) / self.total_blocks


class Estimate(Protocol):
    """The host's latency model for one instance, for policies that predict: seconds, whole device, nothing beside."""

    def prefill_s(self, new_tokens: int, context_tokens: int = 0) -> float:
        """Duration of one iteration that computes ``new_tokens`` on top of ``context_tokens`` cached ones."""
        ...

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        """Duration of one decode iteration over ``sequences`` whose contexts add up to ``context_tokens``."""
        ...


class ClusterView(Protocol):
    """What a job executor knows when it dispatches."""

    @property
    def now_s(self) -> float: ...
    @property
    def phase(self) -> Phase:
        """``prefill`` for a new request; ``decode`` for the second call at hand-over (disaggregated instances)."""
        ...

    @property
    def instances(self) -> Sequence[InstanceView]:
        """The ready instances that can serve this phase, by ascending id. Never empty."""
        ...

    @property
    def estimate(self) -> Estimate: ...


class SequenceView(Protocol):
    """A request admitted to an instance."""

    @property
    def request(self) -> RequestView: ...
    @property
    def request_id(self) -> int: ...
    @property
    def target_tokens(self) -> int:
        """Tokens to prefill before the next token comes: the prompt, plus what was generated before a preemption."""
        ...

    @property
    def computed_tokens(self) -> int:
        """Of :attr:`target_tokens`, those that are computed (prefix hits included); 0 while waiting."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV it holds; of a running decode, the iterations so far included."""
        ...

    @property
    def generated_tokens(self) -> int: ...


Item = TypeVar("Item", covariant=True)


class Queue(Collection[Item], Reversible[Item], Protocol[Item]):
    """In order, to be read from either end."""


class LaneView(Protocol):
    """One lane of an instance as its next iteration finds it; planned ahead: as far as the one under way is certain."""

    @property
    def now_s(self) -> float: ...
    @property
    def kind(self) -> LaneKind: ...
    @property
    def instance_id(self) -> int: ...
    @property
    def waiting(self) -> Queue[SequenceView]:
        """Not admitted yet, first come first (preempted ones come back at the front)."""
        ...

    @property
    def prefilling(self) -> Collection[SequenceView]:
        """Admitted, prompt partly computed, oldest first."""
        ...

    @property
    def decodes(self) -> Collection[SequenceView]:
        """Running decodes in the order of joining; all take part in the next iteration unless a plan skips some."""
        ...

    @property
    def paused(self) -> Collection[SequenceView]:
        """Decodes that the plan before skipped. They take part again unless this plan skips them too."""
        ...

    @property
    def free_blocks(self) -> int:
        """KV blocks that can be had now: unused, or cached for a prefix that nobody references."""
        ...

    @property
    def total_blocks(self) -> int: ...
    @property
    def block_tokens(self) -> int: ...
    @property
    def max_sequences(self) -> int:
        """Admission limit: sequences that may hold KV on this lane's instance (partly prefilled plus decoding)."""
        ...

    @property
    def running_sequences(self) -> int:
        """How many of :attr:`max_sequences` are taken."""
        ...

    @property
    def max_batch_tokens(self) -> int:
        """Engine limit on the tokens of one iteration, decodes included."""
        ...

    @property
    def decode_blocks(self) -> int:
        """KV blocks that the next decode iteration of all running decodes will take."""
        ...

    @property
    def decode_iterations(self) -> int:
        """Decode iterations that this lane has started so far, those under way included."""
        ...

    @property
    def estimate(self) -> Estimate: ...
    def uncomputed_tokens(self, sequence: SequenceView) -> int:
        """Prompt tokens left to compute: the target less what is computed, or less the prefix hit while waiting."""
        ...

    def blocks_needed(self, sequence: SequenceView, tokens: int) -> int:
        """Free blocks that computing the next ``tokens`` of ``sequence`` takes, prefix hit deducted."""
        ...


class PartitionView(NamedTuple):
    """One semi-PD instance over the last window."""

    now_s: float
    instance_id: int
    partition: Partition
    window_s: float
    ttft_s: tuple[float, ...]
    """TTFT of every request whose first token fell into the window, in order."""
    tpot_s: tuple[float, ...]
    """Mean TPOT of every request that finished in the window, in order."""
    arrivals: int
    prefill_busy_s: float
    """Time that the prefill lane computed in the window."""
    prefilled_requests: int
    waiting_requests: int
    running_requests: int
    ttft_target_s: float | None
    tpot_target_s: float | None
    kv_use: float = 0.0
    """Share of the instance's KV blocks that cannot be had at the end of the window."""


class ServedView(NamedTuple):
    """The requests that finished in an interval; None: there were none to tell from."""

    requests: int = 0
    attainment_ttft: float | None = None
    attainment_tpot: float | None = None
    prompt_tokens: float | None = None
    """Mean, as is each of the following."""
    output_tokens: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None


class FleetView(NamedTuple):
    """What the cluster manager knows when it decides how many instances of each role there should be."""

    now_s: float
    instances: tuple[InstanceView, ...]
    """All that are there, those that start or drain too (see their ``state``), by ascending id."""
    arrival_rate_rps: float
    """Of the last interval."""
    attainment: float | None
    """Share of the requests finished in the last interval that met their targets; None when there were none."""
    configured: Mapping[Role, int]
    targets: Mapping[Role, int] = MappingProxyType({})
    """How many there should be now: what was decided last, at first what is configured."""
    served: ServedView = ServedView()
    """The requests that finished in the last interval."""
    outstanding_requests: int = 0
    """That have arrived and are neither finished nor rejected, wherever they are."""
    estimate: Estimate | None = None
    """The host's latency model of an instance."""

    def target(self, role: Role) -> int:
        """How many instances of a role there should be now."""
        return self.targets.get(role, self.configured.get(role, 0))

    def ready(self, role: Role) -> tuple[InstanceView, ...]:
        """Those of a role that serve."""
        return tuple(view for view in self.instances if view.role == role and view.state == "ready")

    def missing(self, role: Role) -> int:
        """How many more should serve: they start, or are about to."""
        return max(self.target(role) - len(self.ready(role)), 0)


class PolicyEvent(NamedTuple):
    """What a policy that defines ``observe(event)`` is told, in order, with the host's report delay.

    A dispatch policy is told of the requests that its job executor decides for; a predictor, when they end.
    """

    kind: Literal["dispatched", "first_token", "finished", "preempted", "rejected"]
    at_s: float
    request_id: int
    instance_id: int | None
    tokens: int
    """Prompt tokens (dispatched), tokens generated (first_token, finished, preempted), 0 (rejected)."""
