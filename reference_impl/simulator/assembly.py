"""From a deployment's description to instances, lanes and policies in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

from policies.api import FleetView, PolicyError, Role
from reference_impl.core.instance import LANES, Instance
from reference_impl.core.seeds import policy_seed
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.simulator.run import LaneRun
from reference_impl.simulator.stages import Stages
from workloads.trace import Trace


def build_instances(spec: ClusterSpec, trace: Trace, log: EventLog) -> list[Instance]:
    """One instance per description, each lane with a batch policy of its own."""
    built = []
    for i, instance in enumerate(spec.instances):
        places = range(len(LANES[instance.role]))
        policies = tuple(instance.batch(policy_seed(spec.seed, i, place)) for place in places)
        estimate = ModelEstimate(instance.latency)
        built.append(Instance(i, instance, policies, estimate, log, trace.prefix_block_tokens))
    return built


def build_runs(instances: Sequence[Instance]) -> dict[int, tuple[LaneRun, ...]]:
    """What each instance's lanes execute, by instance id; the two lanes of a semi-PD instance know each other, the
    virtual engines of a pipeline have its stages in common."""
    runs: dict[int, tuple[LaneRun, ...]] = {}
    stages: dict[int, Stages] = {}
    order = 0
    for instance in instances:
        made = []
        for lane in instance.lanes:
            made.append(LaneRun(lane, order, 100))
            pipeline = instance.spec.pipeline
            if pipeline is not None:
                made[-1].stages = stages.setdefault(pipeline.number, Stages(pipeline))
            order += 1
        if len(made) == 2:
            made[0].other, made[1].other = made[1], made[0]
        runs[instance.instance_id] = tuple(made)
    return runs


def check_scaling(spec: ClusterSpec, trace: Trace, instances: Sequence[Instance]) -> None:
    """Ask the scaling policy once; raise PolicyError unless it wants the fleet that is configured."""
    policy = spec.scaling
    configured: dict[Role, int] = {}
    for instance in instances:
        role = instance.spec.role
        configured[role] = configured.get(role, 0) + 1
    views = tuple(instance.view(0.0) for instance in instances)
    plan = policy.scale(FleetView(0.0, views, trace.mean_rate_rps or 0.0, None, configured))
    if policy.interval_s is not None or dict(plan.targets) != configured:
        raise PolicyError(
            f"scaling policy {policy.name!r} decided {plan}; allowed in this version: the configured fleet"
            f" {configured}, once (interval_s None)"
        )
