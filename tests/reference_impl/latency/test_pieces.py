"""Every model keeps the promise of a piece: repeat j is what the model says of the j-th repeat's work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_impl.latency.api import LatencyModel, Work
from reference_impl.latency.devices import hardware
from reference_impl.latency.hf_config import model
from reference_impl.latency.linear import DecodeFit, Linear, constant
from reference_impl.latency.measured import Coefficients, Measured
from reference_impl.latency.operators.model import Composed
from reference_impl.latency.operators.profile import open_operators
from reference_impl.latency.profile import profile
from reference_impl.latency.roofline import Roofline, roofline
from reference_impl.latency.table import Table

CHUNKS = st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 20_000)), max_size=3).map(tuple)


@st.composite
def works(draw: st.DrawFn) -> Work:
    """A work whose shortest, mean and longest context belong together."""
    chunks = draw(CHUNKS)
    decodes = draw(st.integers(0 if chunks else 1, 300))
    if decodes == 0:
        return Work(chunks, 0, 0)
    least = draw(st.integers(1, 20_000))
    if decodes == 1:
        return Work(chunks, 1, least, least, least)
    largest = least + draw(st.integers(0, 20_000))
    rest = draw(st.integers(least * (decodes - 2), largest * (decodes - 2)))
    return Work(chunks, decodes, least + largest + rest, least, largest)


def repeated(work: Work, times: int) -> Work:
    """The work of the repeat number ``times``: contexts one token longer each time, chunks one chunk further."""
    chunks = tuple((new, computed + times * new) for new, computed in work.chunks)
    spread = (times, times) if work.decodes else (0, 0)
    context = work.decode_context_tokens + times * work.decodes
    return Work(
        chunks,
        work.decodes,
        context,
        work.decode_context_min_tokens + spread[0],
        work.decode_context_max_tokens + spread[1],
    )


def assert_piece_holds(cost: LatencyModel, work: Work) -> None:
    now_s = cost.iteration_s(work)
    assert now_s > 0
    piece = cost.piece(work)
    if piece is None:
        return
    assert piece.iterations >= 1
    assert piece.first_s == now_s
    last = min(piece.iterations, 30_000) - 1
    for times in {0, 1, 2, last // 3, last // 2, last - 1, last}:
        if 0 <= times <= last:
            expected_s = cost.iteration_s(repeated(work, times))
            assert piece.first_s + times * piece.growth_s == pytest.approx(expected_s, rel=1e-9)


def shipped(name: str, of: str, tp: int) -> Composed:
    found = open_operators(name)
    assert found is not None
    return Composed(found[0], model(of), tp, found[1])


BENT = Coefficients(0.01, (0, 8, 64), (2e-3, 1e-3, 4e-4), 1e-4, 5e-4, 1e-7, 1e-6, 3e-6, gap_s=1e-3, gap_sequence_s=1e-5)
MODELS: list[LatencyModel] = [
    Measured(BENT, "tiny"),
    Measured(replace(BENT, padded_context_s=2e-6), "tiny", name="measured, padded"),
    *(roofline(hardware(name), model("llama-3-8b")) for name in ("h100", "rtx-pro-6000", "ascend-910b")),
    roofline(hardware("l40s"), model("deepseek-v2-lite")),
    roofline(hardware("h200"), model("deepseek-v3"), tp=8, expert_parallel=True),
    roofline(hardware("h100"), model("llama-3-70b"), tp=4, backend="vllm-v0"),
    roofline(hardware("a100-80g"), model("opt-13b"), backend="none"),
    Linear(0.01, 1e-4, 1e-9, (DecodeFit(0.02, 6e-7, 4e-5, below=95), DecodeFit(0.007, 5.8e-7, 1.6e-4))),
    shipped("a100", "llama-3-8b", 1),
    shipped("h200:fp8", "llama-3-70b", 4),
    constant(prefill_s=1.0, decode_s=0.5),
    Table(
        "measured",
        {
            (sequences, prefill, read): 0.01 + 1e-4 * sequences + 2e-5 * prefill + 1e-7 * read**1.1
            for sequences in (1, 8, 64)
            for prefill in (0, 256, 2048)
            for read in (0, 100, 1000, 10_000, 100_000)
        },
    ),
]


@pytest.mark.parametrize("cost", MODELS, ids=lambda cost: cost.name)
@given(work=works())
@settings(max_examples=60)
def test_a_piece_is_exact(cost: LatencyModel, work: Work) -> None:
    assert_piece_holds(cost, work)


@given(work=works())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_piece_of_a_profile_is_exact(session_profile: Path, work: Work) -> None:
    assert_piece_holds(_opened(session_profile), work)


@given(work=works())
@settings(max_examples=200)
def test_a_piece_of_the_real_profile_is_exact(calibration: Path, work: Work) -> None:
    assert_piece_holds(_opened(calibration / "vllm_runs" / "rtxpro6000_llama-3.1-8b"), work)


_OPENED: dict[Path, LatencyModel] = {}


def _opened(folder: Path) -> LatencyModel:
    if folder not in _OPENED:
        _OPENED[folder] = profile(folder)
    return _OPENED[folder]


def test_a_piece_ends_where_the_table_bends() -> None:
    table = Table("bent", {(1, 0, 0): 1.0, (1, 0, 10): 2.0, (1, 0, 20): 5.0})
    piece = table.piece(Work((), 1, 4))
    assert piece.first_s == pytest.approx(1.4)
    assert piece.growth_s == pytest.approx(0.1)
    assert piece.iterations == 7
    beyond = table.piece(Work((), 1, 11))
    assert beyond.growth_s == pytest.approx(0.3)


def test_a_profiled_piece_ends_at_a_skew_bucket(session_profile: Path) -> None:
    cost = _opened(session_profile)
    piece = cost.piece(Work((), 2, 1500, 500, 1000))
    assert piece is not None
    assert piece.iterations == 25  # the largest context passes 1024 tokens


def test_a_profile_has_no_piece_beside_a_chunk(session_profile: Path) -> None:
    assert _opened(session_profile).piece(Work(((16, 0),), 1, 20, 20, 20)) is None


def test_decode_runs_of_a_roofline_never_end() -> None:
    cost: Roofline = roofline(hardware("h200"), model("llama-2-7b"))
    assert cost.piece(Work((), 8, 800)).iterations >= 1_000_000_000
