"""What one simulated run is made of: frozen, strict, complete. Building it touches nothing on disk.

Flags and YAML both end in one :class:`RunConfig`; :mod:`experiments.config_file` reads and writes it,
:mod:`experiments.config_build` turns it into a trace and a cluster. Keys carry their units.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from experiments.config_base import (
    MAX_INSTANCES,
    Gamma,
    Period,
    PositiveSeconds,
    Rate,
    RoleName,
    Seconds,
    Seed,
    StrictModel,
    count_field,
)
from experiments.config_fleet_events import FleetEventConfig
from experiments.config_serve import ServeConfig


class WorkloadConfig(StrictModel):
    """Which requests arrive when. Applied in this order: window, resampling, first requests, rate, clipping."""

    trace: str = "bundled:sharegpt-like"
    """A file, a name in the catalogue, or ``bundled:NAME``. A bundled one is generated: the seed draws it, and it has
    ``max_requests`` requests, unless its text says otherwise (``bundled:NAME:requests=..,seed=..``)."""
    synthetic: dict[str, Any] | None = None
    """In place of ``trace``: a ``workloads.synthetic.SyntheticSpec``, drawn by the seed."""
    invalid: Literal["error", "drop"] = "error"
    """What happens to rows that no serving system can have produced."""
    window_s: Annotated[tuple[Seconds, PositiveSeconds] | None, Field(strict=False)] = None
    """Only arrivals in [start, end), shifted to start at 0."""
    resample_block_s: Period | None = None
    """Block bootstrap in time: blocks of this length, drawn by the seed, so that recorded arrivals vary with it."""
    closed_loop: bool = False
    """A turn of a session comes its think time after the answer before it (or after that one's error), whenever that
    is; first turns keep their times. ``window_s`` and ``max_requests`` then choose whole sessions, by their first
    turns; ``rate_scale`` divides the times of first turns, think times stay."""
    max_requests: Annotated[int, count_field(10_000_000)] | None = None
    rate_scale: Rate | None = None
    """Divides the arrival times."""
    rate_rps: Rate | None = None
    """Poisson re-timing at this rate, drawn by the seed; lengths and order stay."""
    slo_classes: dict[str, str] | None = None
    """Tenant -> the SLO class of its requests, in place of what the trace says."""
    max_total_tokens: Annotated[int, Field(ge=2, le=2**31 - 1)] | None = None
    """Clips prompts; without it a request over the model's context is rejected and counts as a miss."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.rate_scale is not None and self.rate_rps is not None:
            raise ValueError("rate_scale and rate_rps exclude each other; give one of them")
        if self.window_s is not None and self.window_s[0] >= self.window_s[1]:
            raise ValueError(f"window_s must end after it starts, got {list(self.window_s)}")
        if self.closed_loop:
            self._check_closed_loop()
        return self

    def _check_closed_loop(self) -> None:
        if self.synthetic is not None:
            raise ValueError("closed_loop needs sessions with think times, which synthetic has none of; leave one out")
        retimed = {"rate_rps": self.rate_rps, "resample_block_s": self.resample_block_s}
        given = [name for name, value in retimed.items() if value is not None]
        if given:
            raise ValueError(
                f"closed_loop and {given[0]} exclude each other: it would part turns from their sessions; change the"
                " rate with rate_scale, choose sessions with window_s"
            )


class GroupConfig(StrictModel):
    """Instances of one role. What else is given replaces that of the fleet for them (simulated only).

    A hand-over of KV costs the same whatever ``tp`` and ``pp`` the two instances have: all its bytes over one ``link``,
    nothing for splitting it anew.
    """

    count: Annotated[int, count_field(MAX_INSTANCES)]
    role: RoleName
    hardware: str | None = None
    tp: Annotated[int, count_field(1024)] | None = None
    pp: Annotated[int, count_field(1024)] | None = None
    hardware_profile: str | None = None
    kv_blocks: Annotated[int, count_field(10**9)] | None = None


class FleetConfig(StrictModel):
    """The instances and their hardware, equal for all groups but for what a group says itself."""

    groups: Annotated[tuple[GroupConfig, ...], Field(min_length=1, strict=False)] = (
        GroupConfig(count=1, role="colocated"),
    )
    hardware: str | None = None
    """None: that of the ``hardware_profile`` if there is one, else :data:`DEFAULT_HARDWARE`."""
    model: str = "llama-2-7b"
    tp: Annotated[int, count_field(1024)] = 1
    pp: Annotated[int, count_field(1024)] = 1
    """Pipeline-parallel stages of an instance, each of ``tp`` devices. Policies see ``pp`` virtual engines in place of
    the instance, each with its own queue and batch, ``kv_blocks / pp``, and one iteration in the stages at a time;
    ``max_sequences`` and ``max_batch_tokens`` are of an iteration, so of each. Simulated only; not with semi_pd."""
    pp_link: str | None = None
    """Between two stages, a name of ``reference_impl.latency.links``; None: the device's own link."""
    expert_parallel: bool = False
    """Of a mixture of experts: whole experts on each of the ``tp`` devices, else a part of every expert. Simulated
    only."""
    backend: str = "vllm"
    hardware_profile: str | None = None
    """In place of the roofline: a measured table, a shipped profile (``h100``, ``h200:fp8``), or a published cost model
    (``reference_impl.latency.published``)."""
    kv_blocks: Annotated[int, count_field(10**9)] | None = None
    """KV blocks of an instance; None: what the hardware has left beside the weights."""
    block_tokens: Annotated[int, count_field(65_536)] = 16
    memory_fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.9
    """Part of the devices' memory that the engine may use."""
    max_sequences: Annotated[int, count_field(1_000_000)] = 256
    max_batch_tokens: Annotated[int, count_field(100_000_000)] = 8192
    prefix_caching: bool = True
    price_per_device_hour: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    """What a device costs, in any currency; None: figures of cost are left out. It decides nothing."""
    events: Annotated[tuple[FleetEventConfig, ...], Field(strict=False)] = ()
    """Failures, recoveries, slow instances and changes of role, in the simulator."""
    startup_s: Seconds = 0.0
    """From the decision to have another instance until it serves, in the simulator."""
    max_instances: Annotated[int, count_field(MAX_INSTANCES)] | None = None
    """Of one role, whatever the scaling policy wants; None: no bound."""
    convertible: bool = False
    """Scaling drains instances of a role that has too many and turns them into those that another role lacks."""

    @model_validator(mode="after")
    def _both_phases(self) -> Self:
        roles = {group.role for group in self.groups}
        if ("prefill" in roles) != ("decode" in roles):
            raise ValueError("prefill instances need decode instances and vice versa, e.g. 2:prefill,6:decode")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        stages = [self.of(group).pp for group in self.groups]
        engines = sum(group.count * pp for group, pp in zip(self.groups, stages, strict=True))
        if engines > MAX_INSTANCES:
            degrees = " and ".join(map(str, sorted(set(stages))))
            what = "instances" if degrees == "1" else f"instances of pp {degrees}"
            raise ValueError(f"{self.instances} {what} are not allowed; allowed: at most {MAX_INSTANCES} in all")
        roles = [group.role for group in self.groups for _ in range(group.count)]
        if self.max_instances is not None and any(roles.count(role) > self.max_instances for role in set(roles)):
            raise ValueError(f"max_instances is {self.max_instances}, below the configured number of a role; raise it")
        if self.max_sequences > self.max_batch_tokens and any(group.role != "prefill" for group in self.groups):
            raise ValueError(
                f"max_sequences {self.max_sequences} is over max_batch_tokens {self.max_batch_tokens}, but each "
                "sequence that runs takes one token of an iteration; lower --max-sequences or raise --max-batch-tokens"
            )
        return self

    @model_validator(mode="after")
    def _pipeline(self) -> Self:
        for place, group in enumerate(self.groups):
            own, key = self.of(group), "pp" if group.pp is None else f"groups[{place}].pp"
            if own.pp > 1 and group.role == "semi_pd":
                raise ValueError(f"{key} {own.pp} is not modelled for semi_pd instances; set it to 1, or another role")
            if own.kv_blocks is not None and own.kv_blocks < own.pp:
                raise ValueError(f"kv_blocks {own.kv_blocks} leaves none for some of {key} {own.pp}; raise kv_blocks")
        return self

    @property
    def instances(self) -> int:
        """Instances of all groups."""
        return sum(group.count for group in self.groups)

    def of(self, group: GroupConfig) -> FleetConfig:
        """The fleet as the instances of ``group`` have it."""
        own = group.model_dump(exclude={"count", "role"}, exclude_none=True)
        return self.model_copy(update=own) if own else self


class PoliciesConfig(StrictModel):
    """One policy of each kind, each ``name``, ``name:key=value,key=value`` or ``module:Class``."""

    dispatch: str = "least_loaded:metric=tokens"
    batch: str = "unified_budget"
    partition: str = "none"
    """Of semi_pd instances; simulated only, but ``none``."""
    scaling: str = "fixed"
    predictor: str = "none"


class SloTargets(StrictModel):
    """Targets of one request; it attains the SLO if it meets every one that is given."""

    ttft_s: PositiveSeconds | None = None
    tpot_s: PositiveSeconds | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.ttft_s is None and self.tpot_s is None:
            raise ValueError("an SLO needs ttft_s, tpot_s or both; leave it out for none")
        return self


class SloConfig(SloTargets):
    """The targets of every request, and of some SLO classes others in their place."""

    classes: dict[str, SloTargets] | None = None
    """SLO class -> its targets; what a class does not give is not judged. A request's class is its column
    ``slo_class`` in the trace, or that of its tenant (``workload.slo_classes``). Partition policies are told the
    general targets."""

    def logged(self) -> dict[str, Any]:
        """As event logs hold it: without classes where there are none."""
        return self.model_dump(exclude=None if self.classes else {"classes"})


class ContentionConfig(StrictModel):
    """Assumed slow-down of a semi-PD lane while the other lane computes: an iteration takes 1 + gamma as long."""

    gamma_prefill: Gamma = 0.1
    gamma_decode: Gamma = 0.1


class LinkConfig(StrictModel):
    """Between two instances: KV hand-over of disaggregated serving."""

    kind: str = "roce-200g"
    """A name of ``reference_impl.latency.links``."""
    bandwidth_bytes_per_s: Annotated[float, Field(ge=1, le=1e15, allow_inf_nan=False)] | None = None
    """In place of the named link's."""
    latency_s: Seconds | None = None
    """In place of the named link's."""


class HostConfig(StrictModel):
    """What the policies' host delays."""

    report_period_s: Period | None = None
    """An instance reports its state this often; None: whenever its batch changes."""
    report_delay_s: Seconds = 0.0
    partition_switch_s: Seconds = 0.0
    plan_ahead: bool = False
    """A lane's next iteration is planned when the one before it starts; else when that one has ended."""
    dispatch_delay_s: Seconds = 0.0
    """From the dispatch decision to the instance's queue."""
    job_executors: Annotated[int, count_field(64)] = 1
    """Each with a dispatch policy object and a view of the instances of its own. New requests take turns with them; a
    request's later decisions stay with its job executor. Reports go to all of them."""


class RunConfig(StrictModel):
    """One run. Equal configurations give byte-identical event logs."""

    workload: WorkloadConfig = WorkloadConfig()
    fleet: FleetConfig = FleetConfig()
    policies: PoliciesConfig = PoliciesConfig()
    slo: SloConfig | None = None
    contention: ContentionConfig = ContentionConfig()
    link: LinkConfig = LinkConfig()
    host: HostConfig = HostConfig()
    serve: ServeConfig | None = None
    """What only the live deployment needs; the simulator does not look at it."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _partition_has_a_lane(self) -> Self:
        shares = any(group.role == "semi_pd" for group in self.fleet.groups)
        if self.policies.partition != "none" and not shares:
            raise ValueError(f"policies.partition {self.policies.partition!r} needs an instance of role semi_pd")
        return self
