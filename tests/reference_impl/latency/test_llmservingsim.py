"""Reading a profile folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_impl.latency.api import Work
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.interpolate import value
from reference_impl.latency.llmservingsim import read_profile
from reference_impl.latency.profiled import Profiled

Write = Callable[..., Path]


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_layer_is_the_sum_of_its_operators_with_two_norms(small_profile: Write) -> None:
    read = read_profile(small_profile())
    bases = 2 * 2 + 30 + 3 + 20 + 150 + 3 + 80
    assert value(read.layer, 16) == pytest.approx(1e-6 * (bases + 8 * 1.6))
    assert value(read.once, 1) == pytest.approx(1e-6 * (3 + 2 + 2 * 0.1))
    assert value(read.head, 8) == pytest.approx(1e-6 * (720 + 8))


def test_files_need_no_prefix(small_profile: Write) -> None:
    folder = small_profile()
    for path in folder.iterdir():
        path.rename(folder / path.name.removeprefix("profile_"))
    assert read_profile(folder).model == "meta-llama/Llama-3.1-8B"


def test_the_real_profile_reads(calibration: Path) -> None:
    read = read_profile(calibration / "vllm_runs" / "rtxpro6000_llama-3.1-8b")
    assert (read.model, read.device) == ("meta-llama/Llama-3.1-8B", "RTXPRO6000")
    assert value(read.attention[0, 64][1][0], 1024) == pytest.approx(221.237e-6)
    assert read.skew is not None


def test_the_real_profile_is_of_one_device(calibration: Path) -> None:
    """Its meta file names two degrees, and the shape of the second; the samples are those of the first."""
    with pytest.raises(ProfileError, match=r"was measured at tensor parallelism 1 \(12984 samples\), not 2"):
        read_profile(calibration / "vllm_runs" / "rtxpro6000_llama-3.1-8b", tp=2)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("dense.csv", "o_proj", "moe_proj", "layer 'moe_proj' is not modelled; known: layernorm"),
        ("dense.csv", "o_proj", "qk_norm", "layer 'o_proj' is missing"),
        ("dense.csv", "embedding,1,", "embedding,0,", "line 2: tokens is '0'; it must be a number above 0"),
        ("per_sequence.csv", "lm_head", "head", "layer 'lm_head' is missing"),
        ("dense.csv", "layer,tokens", "layer,n", "column 'tokens' is missing"),
        ("dense.csv", "embedding,1,", "embedding,1,x", "line 2: time_us is 'x3.1'"),
        ("attention.csv", "\n16,0,0,0,", "\n16,1,0,0,x", "attention.csv, line"),
        ("attention.csv", "\n0,0,", "\n16,0,", "needs rows with prefill_chunk 0"),
        ("skew_fit.csv", "\n0,n<=8,sr<=40%,kvB<=1k,kp=0,0.2", "\n0,n<=8,sr<=40%,kvB<=1k,kp=0,?", r"alpha is '\?'"),
        ("meta.yaml", "kp_labels", "other", "needs kp_labels and one more kp_bins"),
        ("meta.yaml", "bucket_axes", "axes", "no bucket_axes"),
        ("meta.yaml", "skew_fit:", "skew_fit: [", "cannot read"),
    ],
)
def test_a_damaged_file_is_named(small_profile: Write, file: str, old: str, new: str, message: str) -> None:
    folder = small_profile()
    replace_text(folder / f"profile_{file}", old, new)
    with pytest.raises(ProfileError, match=message):
        read_profile(folder)


@pytest.mark.parametrize("file", ["dense.csv", "per_sequence.csv", "attention.csv", "skew_fit.csv", "meta.yaml"])
def test_a_missing_file_is_named(small_profile: Write, file: str) -> None:
    folder = small_profile()
    (folder / f"profile_{file}").unlink()
    with pytest.raises(ProfileError, match=f"has no {file}"):
        read_profile(folder)


def test_without_a_skew_measurement_there_is_no_table(small_profile: Write) -> None:
    assert read_profile(small_profile(skew=False)).skew is None


@given(
    junk=st.binary(max_size=80),
    where=st.floats(0, 1),
    name=st.sampled_from(["dense.csv", "attention.csv", "skew_fit.csv", "meta.yaml"]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_reads_or_is_a_profile_error(
    session_profile: Path, tmp_path: Path, junk: bytes, where: float, name: str
) -> None:
    for path in session_profile.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    target = tmp_path / f"profile_{name}"
    content = target.read_bytes()
    cut = int(where * len(content))
    target.write_bytes(content[:cut] + junk + content[cut + len(junk) :])
    with suppress(ProfileError):
        cost = Profiled(read_profile(tmp_path), model=model("llama-3.1-8b"))
        assert cost.iteration_s(Work(((100, 500),), 20, 20_000, 500, 2000)) > 0
        assert cost.iteration_s(Work((), 20, 20_000, 500, 2000)) > 0
