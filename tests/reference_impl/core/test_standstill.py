"""Which instances stand still, who gives way, and what that leaves behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from reference_impl.core.instance import Instance
from reference_impl.core.sequence import Sequence
from reference_impl.core.standstill import gives_way, stands_still, stay

Prefilled = Callable[..., Instance]
COMING = 9


@pytest.fixture
def prefilled(make_station: Any, new_job: Any) -> Prefilled:
    """Instance 1 of 12 blocks, full of prompts of 16 tokens; by request, who is to decode them. One more is to come."""

    def build(*decode_instances: int | None, coming: int = 16) -> Instance:
        instance: Instance = make_station("colocated", "prefill_first", 1, random.Random(0), kv_blocks=12).instance
        for number, decodes in enumerate(decode_instances):
            sequence = Sequence(new_job(number, 16, 4).request)
            sequence.decode_instance_id = decodes
            instance.enqueue(sequence)
        iteration = instance.plan(instance.lanes[0], 0.0)
        assert iteration is not None
        promised = Sequence.handed_over(new_job(COMING, coming, 4).request, 1)
        instance.expect(promised)
        assert not stands_still(instance), "it computes"
        instance.complete(iteration, (), 1.0)
        instance.handovers.clear()  # its host has taken them
        return instance

    return build


def test_an_instance_full_of_what_waits_to_leave_stands_still(prefilled: Prefilled) -> None:
    instance = prefilled(0, 0, 2)
    assert stands_still(instance)
    instance.withdraw(COMING)
    assert not stands_still(instance), "nobody waits to come"


def test_an_instance_with_decodes_or_arrivals_goes_on(prefilled: Prefilled) -> None:
    assert not stands_still(prefilled(0, None, 0))
    arriving = prefilled(0, 0)
    assert arriving.reserve(arriving.promises[COMING].sequence)
    assert not stands_still(arriving)


def test_the_latest_that_goes_to_a_lower_id_gives_way(prefilled: Prefilled) -> None:
    latest = gives_way(prefilled(0, 0, 2))
    assert latest is not None
    assert latest.request_id == 1
    assert gives_way(prefilled(2, 2)) is None


def test_who_stays_decodes_in_the_blocks_that_it_has(prefilled: Prefilled) -> None:
    instance = prefilled(0, 0, 2)
    blocks = {sequence.request_id: instance.name_blocks(sequence) for sequence in instance.outbound.values()}
    sequence = gives_way(instance)
    assert sequence is not None
    instance.dismiss(instance.outbound[0])
    stay(instance, sequence, 3.0)
    instance.check_integrity()
    assert instance.log.transfer == [(3.0, 1, 1, "decode", 16, 1.0)]
    iteration = instance.plan(instance.lanes[0], 3.0)
    assert iteration is not None
    assert (iteration.decodes, list(instance.outbound)) == (1, [2])
    assert instance.name_blocks(sequence)[:4] == blocks[1]
    instance.complete(iteration, (1,), 4.0)
    instance.check_integrity()


def test_who_stays_and_is_preempted_is_prefilled_and_decoded_there(prefilled: Prefilled) -> None:
    instance = prefilled(0, 0, 2)
    sequence = gives_way(instance)
    assert sequence is not None
    stay(instance, sequence, 3.0)
    assert instance.plan(instance.lanes[0], 3.0) is None, "no block is left for its next token"
    assert [waiting.request_id for waiting in instance.lanes[0].waiting] == [1]
    assert not instance.decodes_elsewhere(sequence)
    instance.check_integrity()
