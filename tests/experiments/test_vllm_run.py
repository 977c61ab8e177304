"""Reading a recorded vLLM run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.config_base import ConfigError
from experiments.vllm_run import read_requests, read_settings

ENGINE = {"tensor_parallel_size": 2, "max_num_seqs": 128, "max_num_batched_tokens": 2048, "max_model_len": None}
ROW = {"input_toks": 10, "output_toks": 3, "queued_ts": 100.0, "first_token_ts": 101.0, "last_token_ts": 103.0}


@pytest.fixture
def meta(tmp_path: Path) -> Callable[..., Path]:
    """Write a meta.json with these engine settings and other sections."""

    def write(engine: dict[str, Any] | None = None, **sections: Any) -> Path:
        path = tmp_path / "meta.json"
        path.write_text(json.dumps({"engine_kwargs": ENGINE | (engine or {}), **sections}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def requests_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a requests.jsonl whose lines differ from ROW by these changes."""

    def write(*changes: dict[str, Any]) -> Path:
        path = tmp_path / "requests.jsonl"
        path.write_text("\n".join(json.dumps(ROW | change) for change in changes) + "\n", encoding="utf-8")
        return path

    return write


def test_an_old_recording_leaves_the_kv_pool_open(meta: Callable[..., Path]) -> None:
    settings = read_settings(meta())
    assert (settings.tensor_parallel_size, settings.max_num_seqs, settings.max_num_batched_tokens) == (2, 128, 2048)
    assert (settings.kv_blocks, settings.block_tokens, settings.memory_fraction) == (None, 16, 0.9)
    assert settings.max_model_len is None
    assert settings.prefix_caching


def test_a_recorded_kv_pool_is_taken_less_the_placeholder(meta: Callable[..., Path]) -> None:
    cache = {"num_gpu_blocks": 2884, "block_size": 32, "enable_prefix_caching": False, "gpu_memory_utilization": 0.92}
    settings = read_settings(meta(kv_cache=cache))
    assert (settings.kv_blocks, settings.block_tokens, settings.prefix_caching) == (2883, 32, False)
    assert settings.memory_fraction == 0.92


def test_what_vllm_resolved_fills_the_gaps(meta: Callable[..., Path]) -> None:
    resolved = {"scheduler_config": {"max_num_seqs": 64}, "model_config": {"max_model_len": 40960}}
    settings = read_settings(meta({"max_num_seqs": None}, resolved_config=resolved))
    assert (settings.max_num_seqs, settings.max_model_len) == (64, 40960)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"max_num_seqs": None}, "engine_kwargs has no 'max_num_seqs'"),
        ({"max_num_seqs": 0}, "max_num_seqs is 0; it must be a whole number of 1 or more"),
        ({"tensor_parallel_size": "two"}, "tensor_parallel_size is 'two'"),
        ({"data_parallel_size": 2}, "data_parallel_size is 2, which is not modelled; allowed: 1"),
        ({"enable_expert_parallel": True}, "enable_expert_parallel is True"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype is 'fp8'; allowed: 'auto'"),
        ({"gpu_memory_utilization": 9}, r"gpu_memory_utilization is 9; it must be a number in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be_simulated_are_refused(
    meta: Callable[..., Path], engine: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(meta(engine))


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_meta_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "meta.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"meta\.json"):
        read_settings(path)


def test_requests_come_in_the_order_of_queueing(requests_file: Callable[..., Path]) -> None:
    late = {"queued_ts": 100.5, "input_toks": 20}
    record = read_requests(requests_file(late, {}))
    assert record.queued_s.tolist() == [0.0, 0.5]
    assert record.prompt_tokens.tolist() == [10, 20]
    assert record.last_token_s.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_toks": 0}, "line 2: input_toks is 0; it must be a whole number of 1 or more"),
        ({"output_toks": 1.5}, "line 2: output_toks is 1.5"),
        ({"first_token_ts": None}, "line 2: first_token_ts is None; it must be a number"),
        ({"queued_ts": float("nan")}, "line 2: queued_ts is nan"),
        ({"first_token_ts": 99.0}, "line 2: queued_ts, first_token_ts, last_token_ts .* must not decrease"),
    ],
)
def test_a_bad_request_names_its_line(requests_file: Callable[..., Path], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_requests(requests_file({}, change))


def test_truncated_and_empty_recordings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(ROW) + '\n{"input_toks": 3', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2 is no JSON"):
        read_requests(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no requests"):
        read_requests(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_requests(tmp_path / "other.jsonl")
