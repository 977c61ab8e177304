"""KV hand-over between a prefill and a decode instance: choose, reserve, transfer, join."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.api import Dispatch, Reject
from reference_impl.core.instance import Instance
from reference_impl.core.sequence import Sequence
from reference_impl.core.standstill import gives_way, stands_still, stay
from reference_impl.simulator.executors import JobExecutor
from reference_impl.simulator.fleet import NOBODY
from reference_impl.simulator.order import ARRIVALS

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


@dataclass(slots=True)
class Parcel:
    """A prefilled sequence whose KV still lies on the instance that computed it."""

    sequence: Sequence
    source: Instance
    destination: Instance | None = None
    """Where it is on its way to."""


class Handovers:
    """Prefilled sequences on their way to a decode instance.

    The decode instance pulls: the KV stays where it was computed until the destination has blocks for it, so a full
    decode pool backs up into the prefill instances.  Each sending instance transfers one sequence at a time.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._routed: dict[int, Parcel] = {}
        """Parcels with a destination that have not arrived, by request."""
        self._inbox: dict[int, deque[Parcel]] = {}
        self._link_free_at_s: dict[int, float] = {}

    def collect(self, instance: Instance) -> None:
        """Take what ``instance`` hands over; the decode instances are chosen when the policy is asked next."""
        for sequence in instance.handovers:
            self._sim.executors.of(sequence.request_id).unrouted.append(Parcel(sequence, instance))
        instance.handovers.clear()
        self._sim.asking.soon()

    def offer(self, now_s: float) -> None:
        """Ask the policies for the decode instances, first come first."""
        for executor in self._sim.executors:
            if executor.unrouted and not executor.router.serves("decode"):
                self._send_back(executor, now_s)
            self._offer(executor, now_s)

    def _offer(self, executor: JobExecutor, now_s: float) -> None:
        while executor.unrouted:
            parcel = executor.unrouted[0]
            sequence = parcel.sequence
            destination = sequence.decode_instance_id
            if destination is None or not executor.router.decodes_on(destination):
                decision = executor.router.route(sequence.request, "decode", now_s)
                if decision is None and self._begins_anew(parcel, executor):
                    executor.unrouted.popleft()
                    self._leave(parcel, now_s)
                    self._sim.front_door.lose(sequence, parcel.source, now_s, "was to hand over to one that is gone")
                    continue
                if decision is None and self._sim.fleet.hopeless("decode"):
                    decision = NOBODY
                if decision is None:
                    return
                if type(decision) is Reject:
                    executor.unrouted.popleft()
                    self._drop(parcel, decision.reason, now_s)
                    continue
                assert type(decision) is Dispatch
                destination = decision.instance_id
            executor.unrouted.popleft()
            instance = self._sim.instances[destination]
            total = sequence.request.prompt_tokens + self._sim.outputs[sequence.request_id]
            if total > instance.spec.max_request_tokens:
                self._drop(parcel, f"its {total} tokens exceed decode instance {destination}", now_s)
                continue
            instance.expect(sequence)
            parcel.destination = instance
            self._routed[sequence.request_id] = parcel
            self._inbox.setdefault(destination, deque()).append(parcel)
            self.accept(instance, now_s)
            self._sim.touch(instance)

    def _begins_anew(self, parcel: Parcel, executor: JobExecutor) -> bool:
        """Whether it was for another colocated instance, which is gone, and there is no decode instance to ask for."""
        return parcel.source.decode_lane is not None and not executor.router.serves("decode")

    def _drop(self, parcel: Parcel, reason: str, now_s: float) -> None:
        self._leave(parcel, now_s)
        self._sim.front_door.reject(parcel.sequence.request, reason, now_s)

    def _send_back(self, executor: JobExecutor, now_s: float) -> None:
        """What draining instances hold begins anew: they may be the very decode instances that it would wait for."""
        for parcel in [parcel for parcel in executor.unrouted if parcel.source.state == "draining"]:
            executor.unrouted.remove(parcel)
            self._leave(parcel, now_s)
            self._sim.front_door.lose(parcel.sequence, parcel.source, now_s, "drains, and no decode instance is there")

    def _leave(self, parcel: Parcel, now_s: float) -> None:
        """The source gets its blocks back and may go on with what waits for them, hand-overs to it included."""
        source = parcel.source
        self._sim.settle(source, now_s)
        source.dismiss(parcel.sequence)
        self._sim.wake(self._sim.runs[source.instance_id][0], now_s)
        self.accept(source, now_s)
        self._sim.touch(source)

    def accept(self, destination: Instance, now_s: float) -> None:
        """Start the transfers that ``destination`` has blocks for, first come first."""
        inbox = self._inbox.get(destination.instance_id)
        while inbox:
            parcel = inbox[0]
            self._sim.settle(destination, now_s)
            if not destination.reserve(parcel.sequence):
                if stands_still(destination):
                    self._break_circle(now_s)
                return
            self._sim.keep_within(destination)
            inbox.popleft()
            self._transfer(parcel, destination, now_s)
            self._sim.touch(destination)

    def _transfer(self, parcel: Parcel, destination: Instance, now_s: float) -> None:
        source_id = parcel.source.instance_id
        start_s = max(now_s, self._link_free_at_s.get(source_id, 0.0))
        size_bytes = parcel.sequence.computed_tokens * parcel.source.spec.kv_bytes_per_token
        end_s = start_s + self._sim.spec.link.transfer_s(size_bytes)
        self._link_free_at_s[source_id] = end_s
        self._sim.at(end_s, ARRIVALS, lambda: self._deliver(parcel, destination, start_s, end_s))

    def _deliver(self, parcel: Parcel, destination: Instance, start_s: float, end_s: float) -> None:
        if parcel.destination is not destination:
            return  # one of the two failed meanwhile
        sequence = parcel.sequence
        del self._routed[sequence.request_id]
        self._leave(parcel, end_s)
        destination.receive(sequence, start_s, end_s)
        self._sim.wake(self._sim.runs[destination.instance_id][-1], end_s)
        self._sim.touch(destination)

    # ------------------------------------------------------------------------------------- waiting for one another

    def _break_circle(self, now_s: float) -> None:
        """Where instances wait for one another in a circle, one hand-over is given up."""
        candidates = [sequence for sequence in map(gives_way, self._circle()) if sequence is not None]
        if not candidates:
            return
        parcel = self._routed[max(sequence.request_id for sequence in candidates)]
        sequence, source = parcel.sequence, parcel.source
        destination = self._recall(parcel, now_s)
        if sequence.request.prompt_tokens + self._sim.outputs[sequence.request_id] > source.spec.max_request_tokens:
            self._leave(parcel, now_s)
            self._sim.front_door.lose(
                sequence, source, now_s, "has no room for its decodes, nor has its other instance"
            )
        else:
            stay(source, sequence, now_s)
            self._sim.wake(self._sim.runs[source.instance_id][-1], now_s)
            self._sim.touch(source)
        self.accept(destination, now_s)
        self._sim.touch(destination)

    def _circle(self) -> list[Instance]:
        """The instances that wait for nobody but one another: whatever is to leave them is to go to one of them."""
        goals: dict[int, list[Instance | None]] = defaultdict(list)
        for parcel in (parcel for inbox in self._inbox.values() for parcel in inbox):
            goals[parcel.source.instance_id].append(parcel.destination)
        still = [instance for instance in self._sim.instances if self._idle(instance)]
        circle = [instance for instance in still if len(goals[instance.instance_id]) == len(instance.outbound)]
        before: list[Instance] = []
        while circle != before:
            before = circle
            circle = [instance for instance in before if all(goal in before for goal in goals[instance.instance_id])]
        return circle

    def _idle(self, instance: Instance) -> bool:
        """Whether it stands still, and is not about to be asked for its next iteration."""
        runs = self._sim.runs[instance.instance_id]
        return stands_still(instance) and all(run.idle_until_s is None for run in runs)

    # --------------------------------------------------------------------------------------------- an instance fails

    def lose(self, instance: Instance, now_s: float) -> None:
        """``instance`` fails: what it was to send is lost with it, what it was to get goes elsewhere."""
        for executor in self._sim.executors:
            kept = [parcel for parcel in executor.unrouted if parcel.source is not instance]
            executor.unrouted.clear()
            executor.unrouted.extend(kept)
        for parcel in [parcel for parcel in self._routed.values() if parcel.source is instance]:
            destination = self._recall(parcel, now_s)
            self.accept(destination, now_s)
            self._sim.touch(destination)
        for parcel in [parcel for parcel in self._routed.values() if parcel.destination is instance]:
            self._recall(parcel, now_s)
            parcel.sequence.decode_instance_id = None
            self._sim.executors.of(parcel.sequence.request_id).unrouted.append(parcel)
        self._inbox.pop(instance.instance_id, None)
        self._link_free_at_s.pop(instance.instance_id, None)

    def _recall(self, parcel: Parcel, now_s: float) -> Instance:
        """It does not arrive; returns where it would have."""
        destination, parcel.destination = parcel.destination, None
        assert destination is not None
        del self._routed[parcel.sequence.request_id]
        inbox = self._inbox[destination.instance_id]
        if parcel in inbox:
            inbox.remove(parcel)
        self._sim.settle(destination, now_s)
        destination.withdraw(parcel.sequence.request_id)
        return destination
