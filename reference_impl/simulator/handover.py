"""KV hand-over between a prefill and a decode instance: choose, reserve, transfer, join."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.api import Dispatch, Reject
from reference_impl.core.instance import Instance
from reference_impl.core.prefix import Node
from reference_impl.core.sequence import Sequence

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation

_ARRIVALS = 0


@dataclass(slots=True)
class _Parcel:
    """A prefilled sequence whose KV still lies on the instance that computed it."""

    sequence: Sequence
    source: Instance
    path: list[Node]
    named: list[int]
    own_blocks: int

    def release(self) -> None:
        """Its blocks on the source are not needed any more."""
        self.source.dismiss(self.sequence.computed_tokens, self.path, self.named, self.own_blocks)


def _parcel(sequence: Sequence, source: Instance) -> _Parcel:
    return _Parcel(sequence, source, sequence.path, sequence.blocks, sequence.own_blocks)


class Handovers:
    """Prefilled sequences on their way to a decode instance.

    The decode instance pulls: the KV stays where it was computed until the destination has blocks for it, so a full
    decode pool backs up into the prefill instances.  Each sending instance transfers one sequence at a time.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._unrouted: deque[_Parcel] = deque()
        self._inbox: dict[int, deque[_Parcel]] = {}
        self._link_free_at_s: dict[int, float] = {}
        self.waiting = 0
        """Parcels that have no place yet."""

    def after(self, instance: Instance, now_s: float) -> None:
        """Something ended on ``instance``: take what it hands over, and give waiting parcels the room it made."""
        for sequence in instance.handovers:
            self._unrouted.append(_parcel(sequence, instance))
            self.waiting += 1
        instance.handovers.clear()
        returned = list(instance.returned)
        instance.returned.clear()
        self._route(now_s)
        self._accept(instance, now_s)
        for sequence in returned:
            self._sim.front_door.submit(sequence, now_s)

    def _route(self, now_s: float) -> None:
        """Choose the decode instances, first come first."""
        while self._unrouted:
            parcel = self._unrouted[0]
            sequence = parcel.sequence
            destination = sequence.decode_instance_id
            if destination is None:
                decision = self._sim.router.route(sequence.request, "decode", now_s)
                if decision is None:
                    return
                if type(decision) is Reject:
                    self._drop(parcel, decision.reason, now_s)
                    continue
                assert type(decision) is Dispatch
                destination = decision.instance_id
            instance = self._sim.instances[destination]
            total = sequence.request.prompt_tokens + self._sim.outputs[sequence.request_id]
            if total > instance.spec.max_request_tokens:
                self._drop(parcel, f"its {total} tokens exceed decode instance {destination}", now_s)
                continue
            self._unrouted.popleft()
            self._inbox.setdefault(destination, deque()).append(parcel)
            self._accept(instance, now_s)

    def _drop(self, parcel: _Parcel, reason: str, now_s: float) -> None:
        self._unrouted.popleft()
        self.waiting -= 1
        parcel.release()
        self._sim.front_door.reject(parcel.sequence.request, reason, now_s)

    def _accept(self, destination: Instance, now_s: float) -> None:
        """Start the transfers that ``destination`` has blocks for, first come first."""
        inbox = self._inbox.get(destination.instance_id)
        while inbox:
            parcel = inbox[0]
            tokens = parcel.sequence.computed_tokens
            self._sim.settle(destination, now_s)
            if not destination.reserve(tokens):
                return
            self._sim.keep_within(destination)
            self._sim.touch(destination)
            inbox.popleft()
            self.waiting -= 1
            self._transfer(parcel, destination, now_s)

    def _transfer(self, parcel: _Parcel, destination: Instance, now_s: float) -> None:
        source_id = parcel.source.instance_id
        start_s = max(now_s, self._link_free_at_s.get(source_id, 0.0))
        size_bytes = parcel.sequence.computed_tokens * parcel.source.spec.kv_bytes_per_token
        end_s = start_s + self._sim.spec.link.transfer_s(size_bytes)
        self._link_free_at_s[source_id] = end_s
        self._sim.at(end_s, _ARRIVALS, lambda: self._deliver(parcel, destination, start_s, end_s))

    def _deliver(self, parcel: _Parcel, destination: Instance, start_s: float, end_s: float) -> None:
        sim = self._sim
        sim.now_s = end_s
        sequence, source = parcel.sequence, parcel.source
        tokens = sequence.computed_tokens
        sim.settle(source, end_s)
        parcel.release()
        destination.receive(sequence)
        sim.log.transfer.append((end_s, sequence.request_id, destination.instance_id, "decode", tokens, start_s))
        sim.wake(sim.runs[destination.instance_id][-1], end_s)
        sim.wake(sim.runs[source.instance_id][0], end_s)
        sim.touch(source)
        sim.touch(destination)
