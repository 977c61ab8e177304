"""The cluster manager in virtual time: shows the scaling policy the fleet, and has instances started and stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.api import Estimate, FleetView, Phase, RequestView, Role
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.core.router import PHASE_ROLES
from reference_impl.core.scaling import Targets, check_interval, count_roles
from reference_impl.core.tally import NONE, finished, total
from reference_impl.simulator.order import TICKS

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


class Scaler:
    """Asks the scaling policy at the start and then every ``interval_s``; what it wants is begun at once."""

    def __init__(self, simulation: Simulation, estimate: Estimate) -> None:
        spec = simulation.spec
        self._sim = simulation
        self._estimate = estimate
        self._targets = Targets(spec.scaling, count_roles(i.role for i in spec.instances), spec.max_instances)
        self._interval_s = check_interval(spec.scaling)
        self.watches = self._interval_s is not None
        """Whether the policy is asked again, so that traffic has to be counted."""
        self._counts = self._before = NONE
        self._before_s = 0.0
        self._first_tokens: dict[int, tuple[RequestView, float]] = {}
        """Of requests that have not finished: when the first token came."""

    def start(self) -> None:
        """Ask for the first time; set the schedule of the fleet and the other calls going."""
        changed = self._asked(0.0)
        self._sim.fleet.start(scaled=changed or self.watches)
        if changed:
            self._enact(0.0)
        self._later(1)

    def may_bring(self, phase: Phase) -> bool:
        """Whether the policy may yet want an instance that serves this phase."""
        return self.watches and not PHASE_ROLES[phase].isdisjoint(self._targets.wanted)

    def completed(self, iteration: Iteration, ended: list[int], now_s: float) -> None:
        """Count the first tokens and the finishes of an iteration."""
        for sequence in iteration.ended:
            if sequence.tokens_out == 1:
                self._first_tokens[sequence.request_id] = sequence.request, now_s
        outputs, slo = self._sim.outputs, self._sim.spec.slo
        for request_id in ended:
            request, first_s = self._first_tokens.pop(request_id)
            since_arrival_s = first_s - request.arrival_s, now_s - request.arrival_s
            targets = slo and slo.of(request.slo_class)
            done = finished(request.prompt_tokens, outputs[request_id], *since_arrival_s, targets)
            self._counts = total(self._counts, done)

    def _later(self, number: int) -> None:
        if self._interval_s is not None:
            now_s = number * self._interval_s
            self._sim.at(now_s, TICKS, lambda: self._ask(number, now_s))

    def _ask(self, number: int, now_s: float) -> None:
        self._asked(now_s)
        self._enact(now_s)
        self._later(number + 1)

    def _asked(self, now_s: float) -> bool:
        """Ask the policy; whether it wants another fleet than before."""
        view = self._view(now_s)
        try:
            return self._targets.ask(view)
        except RAISED as error:
            raise policy_failure(self._targets.policy, f"scaling at {now_s:.6f} s", error) from error

    def _view(self, now_s: float) -> FleetView:
        sim, targets = self._sim, self._targets
        there = [instance for instance in sim.instances if instance.state not in ("failed", "stopped")]
        for instance in there:
            sim.settle(instance, now_s)
        now = self._counts._replace(arrived=sim.outstanding + sim.finished + sim.rejected)
        last, span_s = now.since(self._before), now_s - self._before_s
        self._before, self._before_s = now, now_s
        return FleetView(
            now_s,
            tuple(instance.view(now_s) for instance in there),
            last.arrived / span_s if span_s else 0.0,
            last.attainment,
            dict(targets.configured),
            dict(targets.wanted),
            last.served(),
            sim.outstanding,
            self._estimate,
        )

    # ------------------------------------------------------------------------------------------------ what it decided

    def _enact(self, now_s: float) -> None:
        """Convert what can be, then start what is missing and stop what is too much."""
        spec, fleet, reason = self._sim.spec, self._sim.fleet, self._targets.reason
        missing = self._missing()
        if spec.convertible:
            for role in missing:
                self._convert(role, missing, now_s)
        for role, count in missing.items():
            for _ in range(count):
                template = next(instance for instance in spec.instances if instance.role == role)
                fleet.launch(template, spec.startup_s, now_s, reason)
            for instance in self._dispensable(role)[: max(-count, 0)]:
                fleet.stop(instance, now_s, reason)

    def _missing(self) -> dict[Role, int]:
        """By role how many instances are to come; negative: to go."""
        roles = [self._sim.fleet.role(place) for place in range(len(self._sim.instances))]
        return {role: wanted - roles.count(role) for role, wanted in self._targets.wanted.items()}

    def _convert(self, role: Role, missing: dict[Role, int], now_s: float) -> None:
        """Have instances of roles that have too many take this one."""
        for other in missing:
            ready = [instance for instance in self._dispensable(other) if instance.state == "ready"]
            for instance in ready[: max(min(missing[role], -missing[other]), 0)]:
                self._sim.fleet.turn(instance.instance_id, role, 0.0, now_s)
                missing[role] -= 1
                missing[other] += 1

    def _dispensable(self, role: Role) -> list[Instance]:
        """Instances of a role, whom it loses first: those that only start, then the youngest places."""
        found = [i for i in self._sim.instances if i.spec.role == role and i.state in ("starting", "ready")]
        return sorted(found, key=lambda instance: (instance.state != "starting", -instance.instance_id))
