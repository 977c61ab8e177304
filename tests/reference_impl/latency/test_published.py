"""Cost models that others published: what ships, what is read by path, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_impl.latency import ProfileError, Work
from reference_impl.latency.published import open_published, published_file

HEADER = "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"
ROWS = [
    *["llama2-70b,h100-80gb,128,1,64,50,30,8", "llama2-70b,h100-80gb,128,1,64,52,30,8"],
    *["llama2-70b,h100-80gb,128,1,64,90,30,8", "llama2-70b,h100-80gb,512,2,64,100,34,8"],
    "llama2-70b,h100-80gb,2048,1,64,228,42,8",
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "perf_model.csv"
    path.write_text(HEADER + "\n".join(ROWS) + "\n", encoding="utf-8")
    return path


def seconds(text: str, work: Work, model: str = "llama-2-70b", tp: int = 8) -> float:
    found = open_published(text, model, tp)
    assert found is not None
    piece = found.latency.piece(work)
    assert piece is not None
    assert piece.first_s == found.latency.iteration_s(work)
    return piece.first_s


def test_the_shipped_fits_are_distserves_with_the_overheads_of_its_simulator() -> None:
    found = open_published("distserve-a100", "opt-13b", 2)
    assert found is not None
    assert (found.hardware.name, found.kv_tokens) == ("a100-80g", 163_008)
    prefill_ms = 14.742973695171262 + 0.06857720739764 * 1000 + 2.4495727400243586e-06 * (600**2 + 400**2)
    took = found.latency.iteration_s(Work(((600, 0), (400, 0)), 0, 0))
    assert took == pytest.approx(1e-3 * (prefill_ms + 1.0 + 2.0 + 1e-4 * 1000), rel=1e-12)
    decode_ms = 13.294796350285385 + 0.00034109219700723494 * 9000 + 0.06296393225243659 * 10
    assert found.latency.iteration_s(Work((), 10, 9000)) == pytest.approx(1e-3 * (decode_ms + 2.9), rel=1e-12)


def test_stages_cost_what_distserves_simulator_adds_and_have_its_kv_tokens() -> None:
    """Of two stages each takes half of the fit and 2 ms of a prefill; Ray's overhead comes once."""
    whole, staged = (open_published("distserve-a100", "opt-13b", 1, pp) for pp in (1, 2))
    assert whole is not None
    assert staged is not None
    assert (whole.kv_tokens, staged.kv_tokens, staged.counts_stages) == (66_144, 163_008, True)
    prompt, decodes = Work(((600, 0),), 0, 0), Work((), 10, 9000)
    assert staged.latency.iteration_s(prompt) == pytest.approx(whole.latency.iteration_s(prompt) + 3e-3)
    assert staged.latency.iteration_s(decodes) == whole.latency.iteration_s(decodes)


def test_the_coefficients_alone_have_no_overheads(calibration: Path) -> None:
    shipped, plain = (
        seconds(text, Work((), 1, 0), "opt-66b", 4)
        for text in ("distserve-a100", str(calibration / "distserve_a100_80g.json"))
    )
    assert shipped == pytest.approx(plain + 2e-3)


def test_medians_are_interpolated_over_the_tokens_of_a_batch(table: Path) -> None:
    text = f"{table}:h100-80gb"
    assert seconds(text, Work(((128, 0),), 0, 0)) == pytest.approx(0.052)
    assert seconds(text, Work(((300, 0), (276, 0)), 0, 0)) == pytest.approx(0.076)
    assert seconds(text, Work(((3072, 0),), 0, 0)) == pytest.approx(0.356), "extrapolated beyond the last point"


def test_decodes_make_an_iteration_of_prompts_a_tenth_longer(table: Path) -> None:
    assert seconds(f"{table}:h100-80gb", Work(((1000, 0),), 24, 30_000)) == pytest.approx(0.1 * 1.1)


def test_decodes_are_looked_up_by_their_context_or_as_splitwise_sim_does_by_their_number(table: Path) -> None:
    work = Work((), 4, 1536)
    assert seconds(f"{table}:h100-80gb", work) == pytest.approx(0.038)
    assert seconds(f"{table}:h100-80gb:sequences", work) == pytest.approx(0.030 - 4e-3 / 896 * 124)


def test_a_run_of_decodes_is_linear_up_to_the_next_measured_context(table: Path) -> None:
    found = open_published(f"{table}:h100-80gb", "llama-2-70b", 8)
    assert found is not None
    piece = found.latency.piece(Work((), 4, 1000))
    assert piece is not None
    assert piece.iterations == 7, "contexts 1000, 1004, ..., 1024"
    for j in range(piece.iterations):
        assert piece.first_s + j * piece.growth_s == pytest.approx(
            found.latency.iteration_s(Work((), 4, 1000 + 4 * j)), rel=1e-9
        )


@pytest.mark.parametrize(
    ("suffix", "model", "message"),
    [
        (":a100-80gb", "llama-2-70b", "has no llama-2-70b on a100-80gb with tp 8; it has llama2-70b on h100-80gb"),
        (":h100-80gb", "bloom-176b", "has no bloom-176b on h100-80gb"),
        (":tpu", "llama-2-70b", "one of a100-80gb, h100-80gb, h100-80gb-pcap"),
        (":h100-80gb:batch", "llama-2-70b", ":sequences or nothing"),
    ],
)
def test_what_is_not_in_the_table_is_refused_with_the_choices(
    table: Path, suffix: str, model: str, message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        open_published(f"{table}{suffix}", model, 8)


def test_a_bad_cell_is_named(table: Path) -> None:
    table.write_text(HEADER + "llama2-70b,h100-80gb,128,1,64,fast,30,8\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="line 2: prompt_time is 'fast'"):
        open_published(f"{table}:h100-80gb", "llama-2-70b", 8)


def test_a_file_is_looked_for_in_the_calibration_folder(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMIFLOW_CALIBRATION", str(table.parent))
    assert published_file("perf_model.csv:h100-80gb") == table
    monkeypatch.delenv("SEMIFLOW_CALIBRATION")
    with pytest.raises(ProfileError, match="cannot read perf_model"):
        open_published("perf_model.csv:h100-80gb", "llama-2-70b", 8)


def test_other_profiles_are_none_of_these(tmp_path: Path) -> None:
    (tmp_path / "measured.json").write_text(json.dumps({"format": "semiflow-profile"}), encoding="utf-8")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    for name in ("measured.json", "list.json", "absent.json", "iterations.csv", "."):
        assert open_published(str(tmp_path / name), "opt-13b", 1) is None
