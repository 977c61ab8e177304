"""Which instances there are in virtual time: they fail, recover, become slow, start, drain, and change their role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.api import Phase, Reject, Role
from reference_impl.core.departure import evacuate
from reference_impl.core.fleet_events import ChangeRole, Fail, FleetEvent, Recover, Slow, in_turn
from reference_impl.core.instance import Instance
from reference_impl.core.spec import InstanceSpec
from reference_impl.simulator.beside import sync_rates
from reference_impl.simulator.order import ARRIVALS

if TYPE_CHECKING:
    from reference_impl.simulator.assembly import Assembly
    from reference_impl.simulator.simulation import Simulation

NOBODY = Reject("no instance is left that could serve it, and none is to come")


class Fleet:
    """Carries out the schedule of fleet events, and what the scaling policy wants.

    An id is a place: its instance keeps it through failures and changes of role, and so does the place its speed. A
    failure is known at once. An event that its instance is not there for (scaling stopped it) has no effect.
    """

    def __init__(self, simulation: Simulation, assembly: Assembly) -> None:
        self._sim = simulation
        self._assembly = assembly
        self._specs: list[InstanceSpec] = list(simulation.spec.instances)
        """By place: what its next instance is."""
        self._speed: dict[int, float] = {}
        self._turns: dict[int, float] = {}
        """Places whose instance drains to take another role, and how long that takes to start."""
        self._drained_from_s: dict[int, float] = {}
        """When the last request that was sent to a draining instance has reached it."""
        self._to_come = sum(not isinstance(event, Fail | Slow) for event in simulation.spec.events)
        """Events that may bring an instance, and instances that are about to be ready."""

    def start(self, *, scaled: bool) -> None:
        """Set the schedule going; ``scaled``: the scaling policy may change the fleet too."""
        events = self._sim.spec.events
        if events or scaled:
            for instance in self._sim.instances:
                self._log_ready(instance, 0.0)
        for event in in_turn(events):
            self._schedule(event)

    def hopeless(self, phase: Phase) -> bool:
        """Whether no instance serves this phase, and none ever will."""
        return not (self._sim.executors.serves(phase) or self._to_come or self._sim.scaler.may_bring(phase))

    def role(self, instance_id: int) -> Role | None:
        """What a place is there for: its instance serves in this role, or is about to; None: it is gone, or going."""
        state = self._sim.instances[instance_id].state
        there = state in ("starting", "ready") or instance_id in self._turns or self._will_recover(instance_id)
        return self._specs[instance_id].role if there else None

    # ------------------------------------------------------------------------------------------------- what happens

    def _schedule(self, event: FleetEvent) -> None:
        self._sim.at(event.at_s, ARRIVALS, lambda: self._happen(event))

    def _happen(self, event: FleetEvent) -> None:
        now_s, place = event.at_s, event.instance_id
        match event:
            case Fail():
                self._fail(self._sim.instances[place], now_s)
            case Recover():
                self._to_come -= 1
                if self._sim.instances[place].state == "failed":
                    self._place(place, event.startup_s, now_s, "it recovers")
            case Slow():
                self._slow(place, event.factor, now_s)
            case ChangeRole():
                self._to_come -= 1
                self.turn(place, event.role, event.startup_s, now_s)
        self._sim.asking.soon()  # where nobody serves any more, what is queued is refused

    def _fail(self, instance: Instance, now_s: float) -> None:
        if instance.state not in ("starting", "ready", "draining"):
            return
        self._to_come -= instance.state == "starting" or instance.instance_id in self._turns
        self._turns.pop(instance.instance_id, None)
        instance.state = "failed"
        self._log("fail", instance, now_s, None)
        self._sim.executors.leave(instance.instance_id)
        self._sim.partitioner.close(instance.instance_id)
        self._interrupt(instance, now_s)
        self._sim.handovers.lose(instance, now_s)
        for sequence in evacuate(instance, now_s):
            self._sim.front_door.lose(sequence, instance, now_s, "failed")

    def _interrupt(self, instance: Instance, now_s: float) -> None:
        """Its lanes stop where they are; the iterations that they have completed are logged."""
        sim = self._sim
        sim.settle(instance, now_s)
        for run in sim.runs[instance.instance_id]:
            if run.iteration is not None:
                completed = run.completed_by(now_s, sim.key, sim.rank)
                sim.iterations += completed
                sim.runs_logged += completed > run.done
                run.log_to(sim.log, completed, run.end_s(completed))
            run.abandon()

    def _slow(self, place: int, factor: float, now_s: float) -> None:
        instance = self._sim.instances[place]
        self._speed[place] = 1 / factor
        self._log("slow", instance, now_s, f"an iteration takes {factor:g} times as long")
        for run in self._sim.runs[place]:
            run.speed = self._speed[place]
            if run.iteration is None:
                run.rate = run.speed
        sync_rates(self._sim, instance, now_s)

    # ----------------------------------------------------------------------------------------------- coming and going

    def launch(self, spec: InstanceSpec, startup_s: float, now_s: float, reason: str | None) -> None:
        """Start an instance at a new place."""
        self._specs.append(spec)
        self._place(len(self._specs) - 1, startup_s, now_s, reason)

    def stop(self, instance: Instance, now_s: float, reason: str | None) -> None:
        """Have an instance drain and go; one that is only starting goes at once."""
        if instance.state == "starting":
            self._to_come -= 1
            self._gone(instance, now_s)
        else:
            self._drain(instance, now_s, reason)

    def turn(self, place: int, role: Role, startup_s: float, now_s: float) -> None:
        """Have an instance take another role once it has drained; what does not serve has it when it does next."""
        instance = self._sim.instances[place]
        before, self._specs[place] = self._specs[place], self._sim.spec.in_role(self._specs[place], role)
        if place in self._turns:
            self._turns[place] = startup_s
        elif instance.state == "starting":
            self._to_come -= 1
            self._place(place, startup_s, now_s, f"to be {role}")
        elif instance.state == "ready" and before.role != role:
            self._turns[place] = startup_s
            self._to_come += 1
            self._drain(instance, now_s, f"to be {role}")

    def _drain(self, instance: Instance, now_s: float, reason: str | None) -> None:
        instance.state = "draining"
        self._log("drain", instance, now_s, reason)
        self._sim.executors.leave(instance.instance_id)
        self._sim.asking.soon()
        delay_s = self._sim.spec.dispatch_delay_s
        self._drained_from_s[instance.instance_id] = now_s + delay_s
        if delay_s:
            self._sim.at(now_s + delay_s, ARRIVALS, lambda: self.drained(instance, now_s + delay_s))
        else:
            self.drained(instance, now_s)

    def drained(self, instance: Instance, now_s: float) -> None:
        """If nothing is left on a draining instance, or on its way there, it goes, or takes its new role."""
        place, lane = instance.instance_id, instance.prefill_lane
        busy = instance.running or instance.promises or (lane is not None and lane.waiting)
        if busy or instance.state != "draining" or now_s < self._drained_from_s[place]:
            return
        for run in self._sim.runs[place]:
            run.abandon()
        self._sim.partitioner.close(place)
        startup_s = self._turns.pop(place, None)
        if startup_s is None:
            self._gone(instance, now_s)
        else:
            instance.state = "stopped"
            self._to_come -= 1
            self._place(place, startup_s, now_s, f"to be {self._specs[place].role}")
            self._sim.asking.soon()

    def _gone(self, instance: Instance, now_s: float) -> None:
        instance.state = "stopped"
        self._log("stop", instance, now_s, None)

    def _place(self, place: int, startup_s: float, now_s: float, reason: str | None) -> None:
        """An instance begins to start at a place that is free."""
        sim = self._sim
        instance = self._assembly.instance(place, self._specs[place], "starting")
        if place < len(sim.instances):
            instance.preemptions = sim.instances[place].preemptions
            sim.instances[place] = instance
        else:
            sim.instances.append(instance)
        sim.runs[place] = self._assembly.runs(instance, self._speed.get(place, 1.0))
        self._to_come += 1
        self._log("start", instance, now_s, reason, instance.spec.devices)
        if startup_s:
            sim.at(now_s + startup_s, ARRIVALS, lambda: self._ready(instance, now_s + startup_s))
        else:
            self._ready(instance, now_s)

    def _ready(self, instance: Instance, now_s: float) -> None:
        sim = self._sim
        if sim.instances[instance.instance_id] is not instance or instance.state != "starting":
            return  # it failed, was stopped or given another role meanwhile
        instance.state = "ready"
        self._to_come -= 1
        self._log_ready(instance, now_s)
        sim.partitioner.open(instance, now_s)
        sim.executors.join(instance.view(now_s))
        sim.asking.soon()

    def _will_recover(self, place: int) -> bool:
        if self._sim.instances[place].state != "failed":
            return False
        events = self._sim.spec.events
        return any(isinstance(e, Recover) and e.instance_id == place and e.at_s > self._sim.now_s for e in events)

    # ---------------------------------------------------------------------------------------------------------- rows

    def _log(self, kind: str, instance: Instance, now_s: float, reason: str | None, devices: int | None = None) -> None:
        self._sim.log.fleet.append((now_s, kind, instance.instance_id, None, devices, None, reason))

    def _log_ready(self, instance: Instance, now_s: float) -> None:
        spec = instance.spec
        for lane in instance.lanes:
            row = (now_s, "ready", instance.instance_id, lane.kind, spec.devices, spec.kv_blocks, None)
            self._sim.log.fleet.append(row)
