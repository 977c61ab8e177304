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
    max_requests: Annotated[int, count_field(10_000_000)] | None = None
    rate_scale: Rate | None = None
    """Divides the arrival times."""
    rate_rps: Rate | None = None
    """Poisson re-timing at this rate, drawn by the seed; lengths and order stay."""
    max_total_tokens: Annotated[int, Field(ge=2, le=2**31 - 1)] | None = None
    """Clips prompts; without it a request over the model's context is rejected and counts as a miss."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.rate_scale is not None and self.rate_rps is not None:
            raise ValueError("rate_scale and rate_rps exclude each other; give one of them")
        if self.window_s is not None and self.window_s[0] >= self.window_s[1]:
            raise ValueError(f"window_s must end after it starts, got {list(self.window_s)}")
        return self


class GroupConfig(StrictModel):
    """Instances of one role. What else is given replaces that of the fleet for them (simulated only)."""

    count: Annotated[int, count_field(MAX_INSTANCES)]
    role: RoleName
    hardware: str | None = None
    tp: Annotated[int, count_field(1024)] | None = None
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
    backend: str = "vllm"
    hardware_profile: str | None = None
    """A measured table in place of the roofline, or a published one (``reference_impl.latency.published``)."""
    kv_blocks: Annotated[int, count_field(10**9)] | None = None
    """KV blocks of an instance; None: what the hardware has left beside the weights."""
    block_tokens: Annotated[int, count_field(65_536)] = 16
    memory_fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.9
    """Part of the devices' memory that the engine may use."""
    max_sequences: Annotated[int, count_field(1_000_000)] = 256
    max_batch_tokens: Annotated[int, count_field(100_000_000)] = 8192
    prefix_caching: bool = True

    @model_validator(mode="after")
    def _both_phases(self) -> Self:
        roles = {group.role for group in self.groups}
        if ("prefill" in roles) != ("decode" in roles):
            raise ValueError("prefill instances need decode instances and vice versa, e.g. 2:prefill,6:decode")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.instances > MAX_INSTANCES:
            raise ValueError(f"{self.instances} instances are not allowed; allowed: at most {MAX_INSTANCES} in all")
        if self.max_sequences > self.max_batch_tokens and any(group.role != "prefill" for group in self.groups):
            raise ValueError(
                f"max_sequences {self.max_sequences} is over max_batch_tokens {self.max_batch_tokens}, but each "
                "sequence that runs takes one token of an iteration; lower --max-sequences or raise --max-batch-tokens"
            )
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
    """Of semi_pd instances."""
    scaling: str = "fixed"
    predictor: str = "none"


class SloConfig(StrictModel):
    """Targets of one request; it attains the SLO if it meets every one that is given."""

    ttft_s: PositiveSeconds | None = None
    tpot_s: PositiveSeconds | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.ttft_s is None and self.tpot_s is None:
            raise ValueError("an SLO needs ttft_s, tpot_s or both; leave slo out for none")
        return self


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
