"""From a deployment's description to instances, lanes and policies in virtual time."""

from __future__ import annotations

from policies.api import InstanceState
from reference_impl.core.instance import LANES, Instance
from reference_impl.core.seeds import policy_seed
from reference_impl.core.spec import ClusterSpec, InstanceSpec
from reference_impl.events import EventLog
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.simulator.run import LaneRun
from reference_impl.simulator.stages import Stages
from workloads.trace import Trace


class Assembly:
    """Builds instances and what their lanes execute; those of the start, and those that come later."""

    def __init__(self, spec: ClusterSpec, trace: Trace, log: EventLog) -> None:
        self._seed = spec.seed
        self._prefix_block_tokens = trace.prefix_block_tokens
        self._log = log
        self._lanes = 0
        self._stages: dict[int, Stages] = {}
        """By the number of their pipeline."""

    def instance(self, instance_id: int, spec: InstanceSpec, state: InstanceState = "ready") -> Instance:
        """One instance; each of its lanes has a batch policy of its own."""
        places = range(len(LANES[spec.role]))
        policies = tuple(spec.batch(policy_seed(self._seed, instance_id, place)) for place in places)
        estimate = ModelEstimate(spec.latency)
        built = Instance(instance_id, spec, policies, estimate, self._log, self._prefix_block_tokens)
        built.state = state
        return built

    def runs(self, instance: Instance, speed: float = 1.0) -> tuple[LaneRun, ...]:
        """What an instance's lanes execute; the two lanes of a semi-PD instance know each other, the
        virtual engines of a pipeline have its stages in common."""
        made = tuple(LaneRun(lane, self._lanes + place, 100, speed) for place, lane in enumerate(instance.lanes))
        self._lanes += len(made)
        pipeline = instance.spec.pipeline
        if pipeline is not None:
            made[0].stages = self._stages.setdefault(pipeline.number, Stages(pipeline))
        if len(made) == 2:
            made[0].other, made[1].other = made[1], made[0]
        return made
