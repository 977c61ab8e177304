"""Dynamo's planner: replicas from the forecast rate and what an engine can do, or a step at a time from its load.

Idea
    ``throughput``: the next interval is taken to be like the last one (the constant predictor). Prefill replicas =
    ceil(rate x ISL x min(1, c_p) / prefill tokens/s of an engine); decode replicas = ceil(rate x OSL / decode tokens/s
    of an engine at the largest batch whose ITL, at context ISL + OSL / 2, is within itl_s / c_d). c_p and c_d are the
    measured TTFT and ITL over the expected ones. Where an instance does both phases: the larger of the two.
    ``load``: one replica more where the TTFT (of prefill) or ITL (of decode) that the next request would get is over
    its target on all instances; one fewer where it is below target x sensitivity on all. Where an instance does both:
    more if either says so, fewer if both do. Nothing while an earlier step has not been carried out. ``consolidate``:
    one fewer only where the others, with its load on top, would stay below; of TTFT, what queueing adds counts.
Reads
    Arrival rate, mean lengths and latencies of the interval, the instances' reports, the host's latency model.
Parameters
    mode: ``throughput`` or ``load``.
    ttft_s: target of the time to first token.
    itl_s: target of the time between two tokens.
    sensitivity: part of a target that all instances have to stay below for one fewer.
    correct: use c_p and c_d.
    consolidate: see above; without it a step down may cause the next step up.
    max_batch_tokens: tokens of an engine's iteration at most.
    max_sequences: sequences of an engine at most.
    throughput_interval_s: seconds between two decisions by throughput.
    load_interval_s: seconds between two decisions by load.
Source
    NVIDIA Dynamo: sla_planner.md and planner-design.md for the rules, planner/core for what an engine can do and for
    the estimates (defaults: 180 s, 5 s, 500 ms, 50 ms, 80 %). Later versions drop the corrections and consolidate. Its
    regressions and interpolators are replaced by the host's latency model, as in later versions (AIC); prefill beside
    decodes counts as the sum of both iterations, on average by the part of its time that an instance prefills. The
    ARIMA, Kalman and Prophet forecasts, and both modes at once, are not built.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Annotated, ClassVar

from policies.api import Choice, FleetView, InstanceView, PolicyKind, Range, Role, ScalePlan
from policies.scaling.engine_capacity import EngineCapacity


@dataclass
class DynamoPlanner:
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "dynamo_planner"
    mode: Annotated[str, Choice("throughput", "load")] = "throughput"
    ttft_s: Annotated[float, Range(1e-3, 100, log=True)] = 0.5
    itl_s: Annotated[float, Range(1e-4, 10, log=True)] = 0.05
    sensitivity: Annotated[float, Range(0, 1)] = 0.8
    correct: bool = True
    consolidate: bool = False
    max_batch_tokens: Annotated[int, Range(1, 10_000_000)] = 8192
    max_sequences: Annotated[int, Range(1, 1_000_000)] = 256
    throughput_interval_s: Annotated[float, Range(0.1, 3600, log=True)] = 180.0
    load_interval_s: Annotated[float, Range(0.1, 3600, log=True)] = 5.0
    rng: random.Random = field(init=False, repr=False)

    @property
    def interval_s(self) -> float:
        return self.throughput_interval_s if self.mode == "throughput" else self.load_interval_s

    def scale(self, fleet: FleetView) -> ScalePlan:
        if fleet.estimate is None:
            return ScalePlan({}, "the host has no latency model")
        engine = EngineCapacity(fleet.estimate, self.max_batch_tokens, self.max_sequences)
        decide = self._by_throughput if self.mode == "throughput" else self._by_load
        return ScalePlan({role: max(decide(fleet, engine, role), 1) for role in fleet.configured})

    # -------------------------------------------------------------------------------------------------- by throughput

    def _by_throughput(self, fleet: FleetView, engine: EngineCapacity, role: Role) -> int:
        isl, osl = fleet.served.prompt_tokens, fleet.served.output_tokens
        if not isl or not osl or not fleet.arrival_rate_rps:
            return fleet.target(role)
        prefill, decode = 1, 1
        if role != "decode":
            load = fleet.arrival_rate_rps * isl * min(1.0, self._prefill_correction(fleet, engine, isl))
            prefill = ceil(load / engine.prefill_tokens_per_s(isl))
        if role != "prefill":
            itl_s = self.itl_s / self._decode_correction(fleet, engine, isl, osl, role)
            tokens_per_s = engine.decode_tokens_per_s(itl_s, isl + osl / 2, self._kv_tokens(fleet, role))
            decode = ceil(fleet.arrival_rate_rps * osl / tokens_per_s)
        return max(prefill, decode)

    def _prefill_correction(self, fleet: FleetView, engine: EngineCapacity, isl: float) -> float:
        ttft_s = fleet.served.ttft_s
        return ttft_s / engine.prefill_s(isl) if self.correct and ttft_s else 1.0

    def _decode_correction(self, fleet: FleetView, engine: EngineCapacity, isl: float, osl: float, role: Role) -> float:
        """Measured ITL over that of as many sequences as an instance had on average (Little's law)."""
        itl_s, engines = fleet.served.tpot_s, len(fleet.ready(role))
        if not self.correct or not itl_s or not engines:
            return 1.0
        sequences = fleet.arrival_rate_rps * itl_s * osl / engines
        return itl_s / engine.decode_s(max(sequences, 1.0), max(sequences, 1.0) * (isl + osl / 2))

    def _kv_tokens(self, fleet: FleetView, role: Role) -> int:
        return min((view.total_blocks * view.block_tokens for view in fleet.ready(role)), default=0)

    # --------------------------------------------------------------------------------------------------------- by load

    def _by_load(self, fleet: FleetView, engine: EngineCapacity, role: Role) -> int:
        ready, current = fleet.ready(role), fleet.target(role)
        if len(ready) != current:
            return current
        isl, osl = fleet.served.prompt_tokens or 0.0, fleet.served.output_tokens or 0.0
        prefill_share = fleet.arrival_rate_rps * engine.prefill_s(isl) / current if role != "decode" else 0.0
        fewer = current / (current - 1) if self.consolidate and current > 1 else 1.0
        steps = []
        if role != "decode":
            steps.append(self._prefill_step(engine, ready, isl, fewer, both=role != "prefill"))
        if role != "prefill":
            steps.append(self._decode_step(engine, ready, isl + osl / 2, fewer, prefill_share))
        return current + (1 if max(steps) > 0 else max(steps))

    def _prefill_step(
        self, engine: EngineCapacity, ready: Sequence[InstanceView], isl: float, fewer: float, *, both: bool
    ) -> int:
        if all(engine.next_ttft_s(view, isl, beside_decodes=both) > self.ttft_s for view in ready):
            return 1
        for view in (_with_more(view, fewer) for view in ready):
            own_s = engine.next_ttft_s(view._replace(waiting_tokens=0), isl, beside_decodes=both)
            fixed_s = own_s if self.consolidate else 0.0
            queued_s = engine.next_ttft_s(view, isl, beside_decodes=both) - fixed_s
            if queued_s >= (self.ttft_s - fixed_s) * self.sensitivity:
                return 0
        return -1

    def _decode_step(
        self, engine: EngineCapacity, ready: Sequence[InstanceView], context: float, fewer: float, prefill_share: float
    ) -> int:
        if all(engine.next_itl_s(view, context, prefill_share) > self.itl_s for view in ready):
            return 1
        for view in (_with_more(view, fewer) for view in ready):
            full = self.consolidate and view.kv_use >= 1
            if full or engine.next_itl_s(view, context, prefill_share * fewer) >= self.itl_s * self.sensitivity:
                return 0
        return -1


def _with_more(view: InstanceView, times: float) -> InstanceView:
    """An instance with so many times its load; ``kv_use`` follows."""
    blocks = int((view.total_blocks - view.free_blocks) * times)
    return view._replace(
        waiting_requests=int(view.waiting_requests * times),
        running_requests=int(view.running_requests * times),
        waiting_tokens=int(view.waiting_tokens * times),
        context_tokens=int(view.context_tokens * times),
        free_blocks=view.total_blocks - blocks,
    )
