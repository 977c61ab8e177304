"""What a host runs: instances, policies, targets. Frozen, built once, free of any clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any, Protocol

from policies.api import DispatchPolicy, LaneKind, LengthPredictor, Role, ScalingPolicy
from reference_impl.core.fleet_events import ChangeRole, FleetEvent, check_schedule
from reference_impl.latency.api import LatencyModel

PolicyFactory = Callable[[int], Any]
"""Seed -> a new policy object; ``policies.registry.PolicySpec`` is one."""


class Contention(Protocol):
    """How fast a lane progresses beside the other lane of its instance."""

    def rate(self, lane: LaneKind, own_pct: int, other_pct: int, other_busy: bool) -> float:
        """Progress per second in (0, 1]; 1 is the whole device, alone."""
        ...


@dataclass(frozen=True)
class Slo:
    """Service-level objective of a request; None: not judged."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    classes: Mapping[str, Slo] = field(default_factory=dict)
    """Those of requests of these SLO classes, in place of the above."""

    def of(self, slo_class: str | None) -> Slo:
        """The targets of a request of this class."""
        return self.classes.get(slo_class or "", self)

    def __post_init__(self) -> None:
        for name, value in (("ttft_s", self.ttft_s), ("tpot_s", self.tpot_s)):
            if value is not None and not value > 0:
                raise ValueError(f"SLO {name} is {value}; allowed: a positive number of seconds, or none")


@dataclass(frozen=True)
class Link:
    """The way KV takes from a prefill to a decode instance; one hand-over at a time per sending instance."""

    bandwidth_bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        _check("bandwidth_bytes_per_s", self.bandwidth_bytes_per_s, positive=True)
        _check("latency_s", self.latency_s)

    def transfer_s(self, size_bytes: float) -> float:
        """Duration of moving ``size_bytes``."""
        return self.latency_s + size_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True)
class Pipeline:
    """Stages of layers on devices of their own, shared by as many instances, its virtual engines.

    Each engine has its own queue, batch and part of the KV blocks, and one iteration in the stages at a time; the
    stages work on the iterations of different engines at once. (vLLM's virtual engines.)
    """

    number: int
    """The engines of one pipeline have the same."""
    shares: tuple[float, ...]
    """Part of an iteration's time that it is in each stage."""

    def __post_init__(self) -> None:
        if len(self.shares) < 2 or min(self.shares) <= 0 or abs(sum(self.shares) - 1.0) > 1e-9:
            raise ValueError(f"pipeline shares are {self.shares}; allowed: two or more, above 0, that add up to 1")


@dataclass(frozen=True)
class InstanceSpec:
    """One serving instance (DeepFlow's task executor)."""

    role: Role
    latency: LatencyModel
    contention: Contention
    kv_blocks: int
    kv_bytes_per_token: float
    max_context_tokens: int
    batch: PolicyFactory
    partition: PolicyFactory | None = None
    block_tokens: int = 16
    max_sequences: int = 256
    max_batch_tokens: int = 8192
    prefix_caching: bool = True
    devices: int = 1
    pipeline: Pipeline | None = None
    """Whose virtual engine it is; None: its devices compute for it alone."""

    def __post_init__(self) -> None:
        for name in ("kv_blocks", "block_tokens", "max_sequences", "max_batch_tokens", "max_context_tokens"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} is {value}; allowed: 1 or more")
        if self.role != "prefill" and self.max_sequences > self.max_batch_tokens:
            raise ValueError(
                f"max_sequences is {self.max_sequences}; allowed: at most max_batch_tokens, {self.max_batch_tokens}"
                " (each decode is a token of its iteration)"
            )
        if self.role == "semi_pd" and self.partition is None:
            raise ValueError("a semi_pd instance needs a partition policy (for instance none or semi_pd)")
        if self.role == "semi_pd" and self.pipeline is not None:
            raise ValueError("a semi_pd instance has a pipeline; allowed: other roles (shares are of whole devices)")

    @cached_property
    def max_request_tokens(self) -> int:
        """The largest request (prompt and output) that can ever run here; the KV of its last token is never written."""
        return min(self.max_context_tokens, self.kv_blocks * self.block_tokens + 1)


@dataclass(frozen=True)
class ClusterSpec:
    """A deployment: what the simulator and ``serve`` both run."""

    instances: tuple[InstanceSpec, ...]
    dispatch: DispatchPolicy
    """Of the first job executor."""
    scaling: ScalingPolicy
    link: Link
    predictor: LengthPredictor | None = None
    slo: Slo | None = None
    report_period_s: float | None = None
    """Seconds between two reports of an instance; None: it reports whenever its queue or batch changes."""
    report_delay_s: float = 0.0
    """Age of a report when a job executor first sees it."""
    partition_switch_s: float = 0.0
    """Time from a partition decision to the new shares (semi-PD's delayed switch: the old ones stay in force)."""
    plan_ahead: bool = False
    """Whether a lane's next iteration is planned when the one before it starts, as an engine does that never waits
    between two; else when that one has ended."""
    dispatch_delay_s: float = 0.0
    """Time from the dispatch decision to the instance's queue."""
    seed: int = 0
    other_executors: tuple[DispatchPolicy, ...] = ()
    """Dispatch policies of the further job executors, each an object of its own."""
    events: tuple[FleetEvent, ...] = ()
    """What befalls the instances, and when."""
    startup_s: float = 0.0
    """From the decision to have another instance until it serves."""
    max_instances: int | None = None
    """Of one role, however many the scaling policy wants."""
    convertible: bool = False
    """Whether an instance that one role has too many of becomes one of a role that has too few."""

    def __post_init__(self) -> None:
        roles = {instance.role for instance in self.instances}
        if not roles - {"prefill", "decode"} and len(roles) < 2:
            raise ValueError(
                f"the fleet has {', '.join(sorted(roles)) or 'no'} instances only; allowed: one that does both phases"
                " (colocated, semi_pd), or at least one prefill and one decode instance"
            )
        if self.report_period_s is not None:
            _check("report_period_s", self.report_period_s, positive=True)
        _check("report_delay_s", self.report_delay_s)
        _check("partition_switch_s", self.partition_switch_s)
        _check("dispatch_delay_s", self.dispatch_delay_s)
        _check("startup_s", self.startup_s)
        check_schedule(self.events, len(self.instances))
        if self.changes and any(instance.pipeline is not None for instance in self.instances):
            raise ValueError(
                "fleet events and scaling are not modelled for pipelines, whose virtual engines share their stages; "
                "set fleet.pp and that of each group to 1, or leave the fleet as it is"
            )
        for event in self.events:
            if isinstance(event, ChangeRole):
                self.in_role(self.instances[event.instance_id], event.role)

    @property
    def changes(self) -> bool:
        """Whether the fleet may become another one."""
        return bool(self.events) or self.scaling.interval_s is not None

    def in_role(self, instance: InstanceSpec, role: Role) -> InstanceSpec:
        """The same hardware in another role. Raises ValueError where that cannot be."""
        if instance.role == role:
            return instance
        partitions = (other.partition for other in self.instances if other.role == role == "semi_pd")
        return replace(instance, role=role, partition=next(partitions, None))


def _check(name: str, value: float, *, positive: bool = False) -> None:
    if not isfinite(value) or value < 0 or (positive and not value):
        raise ValueError(f"{name} is {value}; allowed: a finite number, {'above 0' if positive else '0 or more'}")
