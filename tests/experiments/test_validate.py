"""The simulator against real vLLM runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config_base import ConfigError
from experiments.validate import Latencies, compare, validate_vllm_run
from reference_impl.latency import ProfileError, Work
from reference_impl.latency.llmservingsim import read_profile
from reference_impl.latency.profile import profile
from reference_impl.latency.profiled import Profiled

RUN = "rtxpro6000_llama-3.1-8b"
LLMSERVINGSIM = {("ttft", "mean"): 0.040, ("ttft", "p90"): 0.044, ("tpot", "mean"): 0.010, ("e2e", "mean"): 0.018}
"""LLMServingSim 2's own errors on this run, which ours must stay under."""


@pytest.fixture
def real_run() -> Path:
    folder = Path(os.environ.get("SEMIFLOW_CALIBRATION", "")) / "vllm_runs" / RUN
    if not os.environ.get("SEMIFLOW_CALIBRATION") or not folder.is_dir():
        pytest.skip("SEMIFLOW_CALIBRATION does not name the folder of calibration data")
    return folder


@pytest.fixture
def copied_run(real_run: Path, tmp_path: Path) -> Path:
    """The real run, to be changed."""
    return Path(shutil.copytree(real_run, tmp_path / "run"))


def change_meta(folder: Path, **sections: Any) -> None:
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | sections), encoding="utf-8")


def write_csv(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """A run of one request (16 tokens in, 3 out) whose recorded times are what its profile says of it."""
    layers = ("layernorm", "qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    dense = [f"{layer},{n},{5 + n}" for layer in layers for n in (1, 64)]
    write_csv(tmp_path / "dense.csv", "layer,tokens,time_us", dense)
    write_csv(tmp_path / "per_sequence.csv", "layer,sequences,time_us", ["lm_head,1,700", "lm_head,8,710"])
    attention = ["0,0,1,16,5", "0,0,1,64,9", "16,0,0,0,7", "16,0,1,16,12"]
    write_csv(tmp_path / "attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", attention)
    (tmp_path / "meta.yaml").write_text("model: meta-llama/Llama-3.1-8B\nhardware: RTXPRO6000\n", encoding="utf-8")
    engine = {"tensor_parallel_size": 1, "max_num_seqs": 4, "max_num_batched_tokens": 64}
    (tmp_path / "meta.json").write_text(json.dumps({"engine_kwargs": engine}), encoding="utf-8")
    cost = profile(tmp_path)
    first_s = cost.iteration_s(Work(((16, 0),), 0, 0))
    rest_s = sum(cost.iteration_s(Work((), 1, context, context, context)) for context in (17, 18))
    times = {"queued_ts": 50.0, "first_token_ts": 50.0 + first_s, "last_token_ts": 50.0 + first_s + rest_s}
    row = {"input_toks": 16, "output_toks": 3, **times}
    (tmp_path / "requests.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return tmp_path


def test_the_real_run_is_met_better_than_by_llmservingsim(real_run: Path) -> None:
    figures = validate_vllm_run(real_run).comparison
    assert [(row["metric"], row["statistic"]) for row in figures] == list(LLMSERVINGSIM)
    assert [round(row["real"], 2) for row in figures] == [7.10, 16.85, 32.46, 28.20]
    errors = {(row["metric"], row["statistic"]): abs(row["relative_error"]) for row in figures}
    assert {key: error for key, error in errors.items() if error > LLMSERVINGSIM[key]} == {}


def test_the_error_that_the_profile_states_is_the_one_that_is_measured(real_run: Path) -> None:
    stated = Profiled(read_profile(real_run)).provenance
    for row in validate_vllm_run(real_run).comparison:
        name = row["metric"].upper()
        name = f"mean {name}" if row["statistic"] == "mean" else f"P90 {name}"
        assert f"{name} {100 * row['relative_error']:+.1f} %" in stated


def test_a_run_that_its_profile_explains_has_no_error(small_run: Path) -> None:
    figures = validate_vllm_run(small_run).comparison
    assert [row["unit"] for row in figures] == ["s", "s", "ms", "s"]
    for row in figures:
        assert row["simulated"] == pytest.approx(row["real"], rel=1e-9)
        assert abs(row["relative_error"]) < 1e-9


def test_a_small_kv_pool_makes_requests_wait(copied_run: Path) -> None:
    ample = {row["metric"]: row["simulated"] for row in validate_vllm_run(copied_run).comparison}
    change_meta(copied_run, kv_cache={"num_gpu_blocks": 3000, "block_size": 16})
    tight = {row["metric"]: row["simulated"] for row in validate_vllm_run(copied_run).comparison}
    assert tight["ttft"] > 2 * ample["ttft"]
    assert tight["tpot"] < ample["tpot"]


def test_a_pool_that_cannot_hold_a_request_is_refused(copied_run: Path) -> None:
    change_meta(copied_run, kv_cache={"num_gpu_blocks": 60, "block_size": 16})
    with pytest.raises(ConfigError, match=r"\d+ of the run's requests are refused .* exceed 945 tokens"):
        validate_vllm_run(copied_run)


def test_the_profile_of_another_degree_is_refused(copied_run: Path) -> None:
    meta = json.loads((copied_run / "meta.json").read_text(encoding="utf-8"))
    change_meta(copied_run, engine_kwargs=meta["engine_kwargs"] | {"tensor_parallel_size": 2})
    with pytest.raises(ProfileError, match="measured at tensor parallelism 1"):
        validate_vllm_run(copied_run)


def test_an_unknown_device_needs_recorded_kv_blocks(small_run: Path) -> None:
    text = (small_run / "meta.yaml").read_text(encoding="utf-8")
    (small_run / "meta.yaml").write_text(text.replace("RTXPRO6000", "X1"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no kv_cache.num_gpu_blocks.*'X1' is unknown"):
        validate_vllm_run(small_run)
    change_meta(small_run, kv_cache={"num_gpu_blocks": 100, "block_size": 16})
    assert len(validate_vllm_run(small_run).comparison) == 4


def test_errors_are_signed_fractions_and_percentiles_linear() -> None:
    queued, tokens = np.zeros(2), np.array([1, 3], np.int32)
    real = Latencies.of(queued, np.array([1.0, 2.0]), np.array([1.0, 6.0]), tokens)
    model = Latencies.of(queued, np.array([1.0, 1.0]), np.array([1.0, 4.0]), tokens)
    rows = {(row["metric"], row["statistic"]): row for row in compare(real, model)}
    assert rows["ttft", "p90"]["real"] == pytest.approx(1.9)
    assert rows["tpot", "mean"]["real"] == pytest.approx(2000.0)  # the request of one token has no TPOT
    assert rows["tpot", "mean"]["relative_error"] == pytest.approx(-0.25)
    assert rows["e2e", "mean"]["relative_error"] == pytest.approx(2.5 / 3.5 - 1)
