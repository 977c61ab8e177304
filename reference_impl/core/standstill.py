"""Hand-overs that wait for one another in a circle, and who gives way.

A prefilled sequence keeps its blocks until the instance that is to decode it has room.  Where colocated instances hand
over to one another, these waits can close to a circle in which nothing ever moves: each is full of what waits for the
next one.  Every circle has a hand-over to an instance of lower id.  So the rule is: where all stand still, of what
waits to leave for a lower id the latest request stays, and decodes where its KV is.  Nothing is computed twice, the
others still go where they were to go, and each time there is one hand-over less to wait for: nobody waits for ever.

Instances of other roles cannot take part: a decode instance hands nothing over, a prefill or semi-PD one receives
nothing.  The simulator sees the whole circle, and breaks it at once; an instance of the deployment sees itself only,
and gives way when it has stood still for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_impl.core.sequence import Sequence

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance


def stands_still(instance: Instance) -> bool:
    """Whether hand-overs wait to leave and to come in, none is arriving, and no lane computes."""
    if not instance.outbound or not instance.inbound or instance.inbound < len(instance.promises):
        return False
    return not any(lane.under_way or lane.incoming for lane in instance.lanes)


def gives_way(instance: Instance) -> Sequence | None:
    """Who stays if ``instance`` stands still for good; None: nobody waits to leave for an instance of lower id."""
    downwards = [
        sequence
        for sequence in instance.outbound.values()
        if sequence.decode_instance_id is not None and sequence.decode_instance_id < instance.instance_id
    ]
    return max(downwards, key=lambda sequence: sequence.request_id, default=None)


def stay(instance: Instance, sequence: Sequence, now_s: float) -> None:
    """A sequence that waited to leave decodes here from the next plan on, as if it had been handed over to here."""
    assert instance.decode_lane is not None, "a sequence was to stay where nothing decodes"
    del instance.outbound[sequence.request_id]
    sequence.decode_instance_id = instance.instance_id
    waits_since_s, sequence.ready_s = sequence.ready_s, now_s
    instance.decode_lane.incoming.append(sequence)
    instance.log_arrival(sequence, waits_since_s)
    instance.changed = True
