"""Iteration times from a measured profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reference_impl.latency.api import LatencyModel, Work
from reference_impl.latency.collective import all_reduce_s
from reference_impl.latency.devices import hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.interpolate import value
from reference_impl.latency.llmservingsim import read_profile
from reference_impl.latency.profile import profile
from reference_impl.latency.profiled import Profiled, equivalent_context, skew_rate

Write = Callable[..., Path]
AttentionUs = Callable[[int, int, int, int], float]
LAYERS = 32


def base_s(cost: Profiled, tokens: int, sequences: int) -> float:
    """Everything but attention, by hand."""
    tables = cost.profile
    return LAYERS * value(tables.layer, tokens) + value(tables.once, tokens) + value(tables.head, sequences)


@pytest.fixture
def plain(small_profile: Write) -> Profiled:
    """The small profile without skew."""
    return Profiled(read_profile(small_profile(skew=False)))


@pytest.mark.parametrize(("decodes", "context"), [(1, 16), (8, 1024), (64, 4096)])
def test_measured_decodes_come_back(
    plain: Profiled, small_attention_us: AttentionUs, decodes: int, context: int
) -> None:
    expected = base_s(plain, decodes, decodes) + LAYERS * 1e-6 * small_attention_us(0, 0, decodes, context)
    assert plain.iteration_s(Work((), decodes, decodes * context, context, context)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("chunk", "before", "decodes", "context"), [(16, 0, 1, 16), (256, 1024, 8, 256), (2048, 64, 0, 0)]
)
def test_measured_mixed_batches_come_back(
    plain: Profiled, small_attention_us: AttentionUs, chunk: int, before: int, decodes: int, context: int
) -> None:
    attention = 1e-6 * small_attention_us(chunk, before, decodes, context)
    expected = base_s(plain, chunk + decodes, 1 + decodes) + LAYERS * attention
    work = Work(((chunk, before),), decodes, decodes * context, context, context)
    assert plain.iteration_s(work) == pytest.approx(expected)


def test_between_measured_points_attention_is_linear(plain: Profiled, small_attention_us: AttentionUs) -> None:
    halves = [small_attention_us(256, before, 8, context) for before in (64, 1024) for context in (256, 1024)]
    expected = base_s(plain, 264, 9) + LAYERS * 1e-6 * sum(halves) / 4
    assert plain.iteration_s(Work(((256, 544),), 8, 8 * 640, 640, 640)) == pytest.approx(expected)


def test_several_chunks_count_as_one_with_as_many_pairs(plain: Profiled) -> None:
    chunks = ((100, 700), (156, 1000))
    pairs = sum(new * computed + new * new / 2 for new, computed in chunks)
    before = equivalent_context(chunks)
    assert 256 * before + 256 * 256 / 2 == pytest.approx(pairs)
    both = plain.iteration_s(Work(chunks, 0, 0))
    one = plain.iteration_s(Work(((256, round(before)),), 0, 0))
    head = value(plain.profile.head, 2) - value(plain.profile.head, 1)
    assert both - head == pytest.approx(one, rel=1e-4)


def test_two_fresh_prompts_cost_less_than_one_of_both_lengths(plain: Profiled) -> None:
    chunks = ((1024, 0), (1024, 0))
    assert equivalent_context(chunks) == -512
    two = plain.iteration_s(Work(chunks, 0, 0)) - value(plain.profile.head, 2)
    one = plain.iteration_s(Work(((2048, 0),), 0, 0)) - value(plain.profile.head, 1)
    assert base_s(plain, 2048, 1) - value(plain.profile.head, 1) < two < one


def test_unequal_contexts_cost_alpha_of_the_way_to_the_largest(small_profile: Write) -> None:
    skewed = Profiled(read_profile(small_profile()))
    assert skewed.needs_spread
    even = skewed.iteration_s(Work((), 2, 1024, 512, 512))
    largest = skewed.iteration_s(Work((), 2, 2000, 1000, 1000))
    between = skewed.iteration_s(Work((), 2, 1024, 24, 1000))
    assert between == pytest.approx(even + 0.2 * (largest - even))


def test_alpha_beside_a_chunk_lies_between_the_profiled_sizes(small_profile: Write) -> None:
    skew = read_profile(small_profile()).skew
    assert skew is not None
    assert skew.alpha(16, 4, 0.5, 500, 0) == pytest.approx(0.4)
    assert skew.alpha(64, 4, 0.5, 500, 0) == pytest.approx(0.6)  # 64 is halfway from 16 to 256 by ratio
    assert skew.alpha(2048, 4, 0.5, 500, 0) == 0.0  # a negative alpha is noise
    assert skew.alpha(16, 4, 0.5, 500, 9) == pytest.approx(0.05)  # no such bucket: the default of this degree


def test_skew_rate_does_not_move_while_contexts_grow() -> None:
    rates = {skew_rate(7, 1234 + 7 * times, 10 + times, 999 + times) for times in range(5000)}
    assert len(rates) == 1


def test_tensor_parallelism_adds_two_all_reduces_a_layer(small_profile: Write) -> None:
    single = profile(small_profile(skew=False))
    double = profile(small_profile(skew=False, tp=2), tp=2)
    work = Work((), 8, 8000, 1000, 1000)
    reduce_s = all_reduce_s(hardware("rtx-pro-6000"), 2, 8 * 4096 * 2)
    assert double.iteration_s(work) - single.iteration_s(work) == pytest.approx(2 * LAYERS * reduce_s)
    assert "all-reduce analytic" in double.provenance


def test_the_profile_of_another_degree_is_refused(small_profile: Write) -> None:
    with pytest.raises(ProfileError, match=r"measured at tensor parallelism 1 \(2 samples\), not 2"):
        profile(small_profile(tp=1), tp=2)


def test_an_unknown_device_has_no_all_reduce(small_profile: Write) -> None:
    folder = small_profile(skew=False)
    meta = folder / "profile_meta.yaml"
    meta.write_text(meta.read_text(encoding="utf-8").replace("RTXPRO6000", "X1"), encoding="utf-8")
    assert profile(folder).iteration_s(Work((), 1, 9, 9, 9)) > 0
    with pytest.raises(ProfileError, match=r"hardware 'X1' is unknown, so the all-reduce .* cannot be added"):
        profile(folder, tp=2)


def test_another_model_may_be_named(small_profile: Write) -> None:
    folder = small_profile(skew=False)
    eight, thirty_two = profile(folder), profile(folder / "profile_meta.yaml", model=model("qwen3-32b"))
    work = Work((), 8, 8000, 1000, 1000)
    assert thirty_two.iteration_s(work) > 1.5 * eight.iteration_s(work)


def test_provenance_says_what_is_in_and_what_is_not(small_profile: Write) -> None:
    cost: LatencyModel = profile(small_profile(skew=False))
    assert "without a skew table" in cost.provenance
    assert "no step overhead" in cost.provenance
