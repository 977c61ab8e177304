"""Read a real vLLM run in LLMServingSim's format.

A folder with ``meta.json`` (engine settings), ``requests.jsonl`` (lengths and times of each request) and the hardware
profile that goes with it (see ``reference_impl/latency/llmservingsim.py``), or the measured steps of the same engine
(``profile.json``, see ``validation/recording.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config_base import ConfigError
from reference_impl.latency.errors import reason

if TYPE_CHECKING:
    from numpy import float64, int32
    from numpy.typing import NDArray

_TIMES = ("queued_ts", "first_token_ts", "last_token_ts")
_LENGTHS = ("input_toks", "output_toks")
_WANTED = "a recorded run is a folder with meta.json, requests.jsonl and a hardware profile"
_UNMODELLED = {
    "data_parallel_size": (None, 1),
    "pipeline_parallel_size": (None, 1),
    "enable_expert_parallel": (None, False),
}


@dataclass(frozen=True)
class EngineSettings:
    """What the simulation takes over from ``meta.json``."""

    tensor_parallel_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int | None
    """None: the model's own context."""
    block_tokens: int
    kv_blocks: int | None
    """KV blocks that requests can use; None: not recorded, to be computed from the memory."""
    memory_fraction: float
    prefix_caching: bool


@dataclass(frozen=True)
class Record:
    """``requests.jsonl`` in the order of arrival: arrays of equal length, the first request queued at 0 s."""

    queued_s: NDArray[float64]
    """When it was sent (``arrival_ts``), where that was recorded: vLLM queues between two iterations only."""
    scheduled_s: NDArray[float64]
    """First admission to the batch; NaN where it was not recorded."""
    first_token_s: NDArray[float64]
    last_token_s: NDArray[float64]
    prompt_tokens: NDArray[int32]
    output_tokens: NDArray[int32]


def read_settings(path: Path) -> EngineSettings:
    """Read ``meta.json``. Raises ConfigError naming file, key and value, and for settings that are not modelled."""
    meta = _mapping(path)
    engine, cache = _section(meta, "engine_kwargs"), _section(meta, "kv_cache")
    resolved = _section(meta, "resolved_config")
    scheduler = _section(resolved, "scheduler_config")
    for key, allowed in _UNMODELLED.items():
        if engine.get(key) not in allowed:
            raise ConfigError(f"{path}: {key} is {engine[key]!r}, which is not modelled; allowed: {allowed[1]!r}")
    if engine.get("kv_cache_dtype", "auto") not in ("auto", "bfloat16"):
        raise ConfigError(f"{path}: kv_cache_dtype is {engine['kv_cache_dtype']!r}; allowed: 'auto' (as the weights)")
    recorded = _count(path, cache, "num_gpu_blocks")
    fraction = cache.get("gpu_memory_utilization", engine.get("gpu_memory_utilization", 0.9))
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise ConfigError(f"{path}: gpu_memory_utilization is {fraction!r}; it must be a number in (0, 1]")
    return EngineSettings(
        tensor_parallel_size=_count(path, engine, "tensor_parallel_size") or 1,
        max_num_seqs=_needed(path, engine, scheduler, "max_num_seqs"),
        max_num_batched_tokens=_needed(path, engine, scheduler, "max_num_batched_tokens"),
        max_model_len=_count(path, _section(resolved, "model_config"), "max_model_len")
        or _count(path, engine, "max_model_len"),
        block_tokens=_count(path, cache, "block_size") or _count(path, engine, "block_size") or 16,
        kv_blocks=recorded - 1 if recorded else None,  # vLLM keeps one block as a placeholder
        memory_fraction=float(fraction),
        prefix_caching=bool(cache.get("enable_prefix_caching", engine.get("enable_prefix_caching", True))),
    )


def read_requests(path: Path) -> Record:
    """Read ``requests.jsonl``. Raises ConfigError naming file, line, key and value."""
    import numpy as np

    rows = [_request(path, number, line) for number, line in _lines(path)]
    if not rows:
        raise ConfigError(f"{path} has no requests")
    rows.sort(key=lambda row: row[0])
    columns = np.array(rows, np.float64)
    start_s = columns[0, 0]
    return Record(
        queued_s=columns[:, 0] - start_s,
        scheduled_s=columns[:, 5] - start_s,
        first_token_s=columns[:, 1] - start_s,
        last_token_s=columns[:, 2] - start_s,
        prompt_tokens=columns[:, 3].astype(np.int32),
        output_tokens=columns[:, 4].astype(np.int32),
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {reason(error)}; {_WANTED}") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _request(path: Path, number: int, line: str) -> tuple[float, ...]:
    """Times and lengths of one line, in the order of ``_TIMES`` and ``_LENGTHS``, then the time of admission."""
    try:
        data: Any = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}, line {number} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}, line {number} must hold an object, not {type(data).__name__}")
    for key in (*_TIMES, *_LENGTHS):
        value = data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            raise ConfigError(f"{path}, line {number}: {key} is {value!r}; it must be a number")
        if key in _LENGTHS and (value != int(value) or not 1 <= value < 2**31):
            raise ConfigError(f"{path}, line {number}: {key} is {value!r}; it must be a whole number of 1 or more")
    times = [float(data[key]) for key in _TIMES]
    if times != sorted(times):
        raise ConfigError(f"{path}, line {number}: {', '.join(_TIMES)} are {times}; they must not decrease")
    admission = _admission(path, number, data.get("scheduled_ts"), times)
    times[0] = _arrival(path, number, data.get("arrival_ts", times[0]), times[0])
    return (*times, *(float(data[key]) for key in _LENGTHS), admission)


def _arrival(path: Path, number: int, value: Any, queued_s: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value <= queued_s:
        raise ConfigError(f"{path}, line {number}: arrival_ts is {value!r}; it must be a number up to queued_ts")
    return float(value)


def _admission(path: Path, number: int, value: Any, times: list[float]) -> float:
    """Of a recording without it: NaN."""
    if value is None:
        return nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not times[0] <= value <= times[1]:
        raise ConfigError(
            f"{path}, line {number}: scheduled_ts is {value!r}; it must be a number from queued_ts to first_token_ts"
        )
    return float(value)


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {reason(error)}; {_WANTED}") from error
    if not isinstance(data, dict) or not isinstance(data.get("engine_kwargs"), dict):
        raise ConfigError(f"{path} must hold an object with the key 'engine_kwargs'")
    return data


def _section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An optional part of ``meta.json``; empty where it is absent (older recordings)."""
    section = data.get(key)
    return section if isinstance(section, dict) else {}


def _needed(path: Path, engine: Mapping[str, Any], resolved: Mapping[str, Any], key: str) -> int:
    value = _count(path, engine, key) or _count(path, resolved, key)
    if value is None:
        raise ConfigError(f"{path}: engine_kwargs has no {key!r}; vLLM's default depends on the device, so give it")
    return value


def _count(path: Path, section: Mapping[str, Any], key: str) -> int | None:
    value = section.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{path}: {key} is {value!r}; it must be a whole number of 1 or more")
    return value
