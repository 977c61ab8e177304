"""Exact plans of the batch policies."""

from __future__ import annotations

import pytest

from policies.api import DECODE_ALL, BatchPlan, Chunk
from policies.registry import PolicySpec
from policies.testing import FakeLane, FakeSequence, fake_request, fake_sequence

ALL = ("prefill_first", "unified_budget", "chunked_prefill", "decode_first")


def plan(spec: str, lane: FakeLane) -> BatchPlan:
    made = PolicySpec.parse(spec, "batch").build(0).plan(lane)
    assert isinstance(made, BatchPlan)
    lane.check(made)
    return made


def waiting(*prompts: int) -> list[FakeSequence]:
    return [fake_sequence(i, prompt) for i, prompt in enumerate(prompts)]


def decoding(count: int, context: int = 100) -> list[FakeSequence]:
    return [fake_sequence(1000 + i, context, computed=context) for i in range(count)]


def chunks(made: BatchPlan) -> list[tuple[int, int]]:
    return [(chunk.request_id, chunk.tokens) for chunk in made.prefills]


@pytest.mark.parametrize("spec", ALL)
def test_only_decodes_is_the_shared_plan_that_holds(spec: str) -> None:
    assert plan(spec, FakeLane(decodes=decoding(3))) is DECODE_ALL
    assert plan(spec, FakeLane("decode", decodes=decoding(3))) is DECODE_ALL


@pytest.mark.parametrize("spec", ALL)
def test_admission_stops_at_the_sequence_limit(spec: str) -> None:
    assert len(plan(spec, FakeLane(max_sequences=2, waiting=waiting(10, 10, 10))).prefills) == 2
    full = FakeLane(max_sequences=2, waiting=waiting(10), prefilling=[], decodes=decoding(2))
    assert plan(spec, full) is DECODE_ALL


@pytest.mark.parametrize("spec", ALL)
def test_nobody_overtakes_a_head_that_does_not_fit(spec: str) -> None:
    lane = FakeLane(total_blocks=20, waiting=waiting(16 * 19, 16), decodes=decoding(1, context=30))
    assert plan(spec, lane) is DECODE_ALL


@pytest.mark.parametrize("spec", ALL)
def test_a_prefix_hit_counts_neither_as_tokens_nor_as_blocks(spec: str) -> None:
    head = FakeSequence(fake_request(0, 320), hit_tokens=304)
    assert chunks(plan(spec, FakeLane(total_blocks=1, waiting=[head]))) == [(0, 16)]


def test_prefill_first_stops_decodes_for_whole_prompts_within_the_budget() -> None:
    made = plan("prefill_first:token_budget=100", FakeLane(waiting=waiting(60, 30, 20), decodes=decoding(2)))
    assert made == BatchPlan((Chunk(0, 60), Chunk(1, 30)), decode=False)


@pytest.mark.parametrize("spec", ["prefill_first", "decode_first:refill_below=9"])
def test_nobody_is_admitted_who_could_not_decode_within_the_engine_limit(spec: str) -> None:
    lane = FakeLane(max_batch_tokens=2, waiting=waiting(1, 1), decodes=decoding(1))
    assert chunks(plan(spec, lane)) == [(0, 1)]


@pytest.mark.parametrize("spec", ["prefill_first", "decode_first:refill_below=9"])
def test_decodes_run_while_a_cut_prompt_finds_no_blocks(spec: str) -> None:
    cut = fake_sequence(7, 500, computed=96)
    lane = FakeLane(total_blocks=20, max_batch_tokens=100, prefilling=[cut], decodes=decoding(1, context=16 * 8))
    assert plan(spec, lane) is DECODE_ALL
    lane.total_blocks = 21
    assert plan(spec, lane) == BatchPlan((Chunk(7, 100),), decode=False, holds=True)


def test_prefill_first_leaves_the_watermark_free() -> None:
    lane = FakeLane(total_blocks=100, waiting=waiting(16 * 90), decodes=decoding(1, context=16 * 9))
    assert plan("prefill_first:watermark=0.02", lane) is DECODE_ALL
    assert chunks(plan("prefill_first:watermark=0.01", lane)) == [(0, 16 * 90)]


def test_prefill_first_ignores_the_watermark_when_nothing_runs() -> None:
    assert chunks(plan("prefill_first", FakeLane(total_blocks=100, waiting=waiting(1600)))) == [(0, 1600)]


def test_prefill_first_runs_a_prompt_over_the_budget_alone() -> None:
    made = plan("prefill_first:token_budget=100", FakeLane(max_batch_tokens=500, waiting=waiting(300, 10)))
    assert chunks(made) == [(0, 300)]
    made = plan("prefill_first:token_budget=400", FakeLane(max_batch_tokens=500, waiting=waiting(300, 300, 10)))
    assert chunks(made) == [(0, 300)], "in its turn, not at the end of others"


def test_prefill_first_cuts_a_prompt_over_the_engine_limit_and_continues_it_alone() -> None:
    lane = FakeLane(max_batch_tokens=200, waiting=waiting(500, 10), decodes=decoding(2))
    sizes = []
    for _ in range(3):
        made = plan("prefill_first", lane)
        assert not made.decode
        sizes += chunks(made)
        lane.apply(made)
    assert sizes == [(0, 200), (0, 200), (0, 100)]


def test_unified_budget_gives_decodes_one_token_each_and_cuts_the_last_prompt() -> None:
    lane = FakeLane(waiting=waiting(40, 40, 40), decodes=decoding(10))
    made = plan("unified_budget:token_budget=100", lane)
    assert made == BatchPlan((Chunk(0, 40), Chunk(1, 40), Chunk(2, 10)))


def test_unified_budget_takes_prefills_under_way_before_new_ones() -> None:
    lane = FakeLane(waiting=waiting(50), prefilling=[fake_sequence(7, 100, computed=60)])
    assert chunks(plan("unified_budget:token_budget=64", lane)) == [(7, 40), (0, 24)]


def test_unified_budget_bounds_the_chunk_of_a_long_prompt() -> None:
    lane = FakeLane(waiting=waiting(500, 500))
    made = plan("unified_budget:token_budget=100,long_prefill_token_threshold=60", lane)
    assert chunks(made) == [(0, 60), (1, 40)]


def test_unified_budget_without_a_budget_uses_the_engine_limit() -> None:
    assert chunks(plan("unified_budget", FakeLane(max_batch_tokens=300, waiting=waiting(500)))) == [(0, 300)]
    made = plan("unified_budget:token_budget=1000", FakeLane(max_batch_tokens=300, waiting=waiting(500)))
    assert chunks(made) == [(0, 300)]


def test_unified_budget_admits_nobody_while_decodes_use_the_budget_up() -> None:
    lane = FakeLane(waiting=waiting(50), decodes=decoding(8))
    assert plan("unified_budget:token_budget=8", lane) is DECODE_ALL
    assert chunks(plan("unified_budget:token_budget=9", lane)) == [(0, 1)]


@pytest.mark.parametrize("spec", ["unified_budget:token_budget=64", "chunked_prefill:chunk_tokens=64"])
def test_a_prompt_is_admitted_only_if_all_of_it_finds_blocks(spec: str) -> None:
    lane = FakeLane(total_blocks=20, waiting=waiting(16 * 14), decodes=decoding(1, context=16 * 6))
    assert plan(spec, lane) is DECODE_ALL, "13 blocks are free once the decode has taken its next one"
    lane.total_blocks = 21
    assert chunks(plan(spec, lane)) == [(0, 63)]


def test_blocks_that_a_prefill_under_way_still_needs_are_not_given_to_another() -> None:
    long = fake_sequence(7, 16 * 10, computed=32)
    lane = FakeLane(total_blocks=12, prefilling=[long], waiting=waiting(16 * 3))
    spec = "unified_budget:token_budget=500,long_prefill_token_threshold=32"
    assert chunks(plan(spec, lane)) == [(7, 32)]
    lane.total_blocks = 13
    assert chunks(plan(spec, lane)) == [(7, 32), (0, 32)]


def stuck_lane() -> FakeLane:
    """Decodes have taken all blocks but two, which the next iteration of one of them and a chunk cannot share."""
    prefilling = [fake_sequence(7, 160, computed=32), fake_sequence(8, 160, computed=32)]
    return FakeLane(total_blocks=16, prefilling=prefilling, decodes=decoding(1, context=160), waiting=waiting(5))


def test_a_prefill_without_blocks_is_preempted_by_unified_budget_and_waits_under_chunked_prefill() -> None:
    made = plan("unified_budget:token_budget=65", stuck_lane())
    assert made == BatchPlan(preempt=(8,), reason="no free KV block")
    assert plan("chunked_prefill:chunk_tokens=65", stuck_lane()) is DECODE_ALL


@pytest.mark.parametrize("spec", ["unified_budget", "chunked_prefill"])
def test_nobody_is_admitted_while_decodes_do_not_fit(spec: str) -> None:
    lane = FakeLane(total_blocks=10, waiting=waiting(1), decodes=decoding(2, context=80))
    assert plan(spec, lane) is DECODE_ALL
    lane = FakeLane(total_blocks=11, prefilling=[fake_sequence(7, 9, computed=1)], decodes=decoding(2, context=80))
    assert plan(spec, lane) is DECODE_ALL, "whom to preempt for decodes is the host's business"


def test_chunked_prefill_decodes_everybody_and_fills_the_rest_of_the_chunk() -> None:
    lane = FakeLane(prefilling=[fake_sequence(7, 300, computed=280)], waiting=waiting(500), decodes=decoding(12))
    made = plan("chunked_prefill:chunk_tokens=64", lane)
    assert made.decode
    assert chunks(made) == [(7, 20), (0, 32)]


def test_chunked_prefill_obeys_the_engine_limit() -> None:
    lane = FakeLane(max_batch_tokens=100, waiting=waiting(500), decodes=decoding(10))
    assert chunks(plan("chunked_prefill", lane)) == [(0, 90)]


@pytest.mark.parametrize("spec", ["unified_budget:token_budget=64", "chunked_prefill:chunk_tokens=64"])
def test_the_chunks_of_one_long_prompt_hold_whoever_waits_behind_it(spec: str) -> None:
    lane = FakeLane(waiting=waiting(1000, 10), decodes=decoding(4))
    first = plan(spec, lane)
    assert first == BatchPlan((Chunk(0, 60),), holds=True)
    lane.apply(first)
    assert plan(spec, lane) == first


def test_chunks_of_several_prompts_do_not_hold() -> None:
    assert not plan("unified_budget:long_prefill_token_threshold=20", FakeLane(waiting=waiting(100, 100))).holds


def test_a_chunk_beside_unused_tokens_does_not_hold_while_somebody_waits() -> None:
    spec = "unified_budget:long_prefill_token_threshold=20"
    lane = FakeLane(total_blocks=30, waiting=waiting(400, 400))
    assert not plan(spec, lane).holds
    lane.waiting.pop()
    assert plan(spec, lane).holds


def test_decode_first_prefills_only_below_its_mark() -> None:
    lane = FakeLane(waiting=waiting(100, 100), decodes=decoding(4))
    assert plan("decode_first", lane) is DECODE_ALL
    assert plan("decode_first:refill_below=4", lane) is DECODE_ALL
    made = plan("decode_first:refill_below=5,token_budget=150", lane)
    assert made == BatchPlan((Chunk(0, 100),), decode=False, holds=True)


def test_decode_first_refills_an_empty_batch() -> None:
    assert chunks(plan("decode_first", FakeLane(waiting=waiting(100, 100)))) == [(0, 100), (1, 100)]


def test_whole_prompts_has_decodes_beside_prompts_as_far_as_the_budget_goes() -> None:
    spec = "whole_prompts:token_budget=100,max_pauses=1"
    assert plan(spec, FakeLane(decodes=decoding(3))) is DECODE_ALL
    beside = plan(spec, FakeLane(waiting=waiting(60, 30, 20), decodes=decoding(10)))
    assert beside == BatchPlan((Chunk(0, 60), Chunk(1, 30)))
    crowded = plan(spec, FakeLane(waiting=waiting(60, 30, 20), decodes=decoding(11)))
    assert crowded == BatchPlan((Chunk(0, 60), Chunk(1, 30)), decode=False)
    assert plan(spec, FakeLane(waiting=waiting(250))) == BatchPlan((Chunk(0, 250),), decode=False, holds=True)


def test_whole_prompts_lets_paused_decodes_go_first_after_a_few_iterations() -> None:
    policy = PolicySpec.parse("whole_prompts:token_budget=100,max_pauses=2", "batch").build(0)
    made = [policy.plan(FakeLane(waiting=waiting(150, 150), decodes=decoding(2))) for _ in range(6)]
    assert [each.decode for each in made] == [False, False, True, False, False, True]
    assert made[2] == BatchPlan()
