"""A replay's folder, and the way back from a live run to a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config import FleetConfig, RunConfig, WorkloadConfig
from experiments.config_base import ConfigError
from experiments.config_replay import ClientConfig, ReplayConfig
from experiments.record import record
from experiments.replay import execute_replay
from experiments.run import execute
from reference_impl.engine.prefix_ids import prefix_ids
from reference_impl.metrics import per_request, read, summarise
from workloads.storage import save
from workloads.trace import Trace

Serving = Callable[..., Any]
BLOCK = 8
LAG_S = 2.0
"""Far above any lag, far below the trace's shape: a machine under load must not fail a test."""


def recorded_trace() -> Trace:
    ids = ((1, 2), (3,), (1, 2, 4), (), (1, 5))
    return Trace(
        "recorded",
        np.array([1.0, 1.05, 1.1, 1.1, 1.2]),
        np.array([20, 9, 30, 5, 16]),
        np.array([3, 1, 4, 2, 5]),
        prefix_ids=ids,
        prefix_block_tokens=BLOCK,
        tenant=("a", "b", "a", "", "b"),
        session_id=("s", "s", "t", "t", "u"),
    )


def config_for(server: Any, tmp_path: Path, **client: Any) -> ReplayConfig:
    save(recorded_trace(), tmp_path / "trace.parquet")
    workload = WorkloadConfig(trace=str(tmp_path / "trace.parquet"))
    return ReplayConfig(workload=workload, client=ClientConfig(url=server.url, **client), seed=3)


def content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_folder_looks_like_a_simulated_runs(serving: Serving, tmp_path: Path) -> None:
    result = execute_replay(config_for(serving(), tmp_path), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("config.yaml", "events.parquet", "manifest.json", "metrics.json", "requests.jsonl", "vllm_bench.json")
    ]
    assert content(tmp_path / "run" / "metrics.json") == result.metrics
    assert result.metrics["completed"] == 5
    assert result.metrics["ttft_mean_ms_client"] > 0
    assert result.metrics["client_lag_max_ms"] >= result.metrics["client_lag_p99_ms"] >= 0
    assert result.metrics["client_cpu_us_per_token"] > 0
    manifest = content(tmp_path / "run" / "manifest.json")
    assert (manifest["clock"], manifest["open_loop"], manifest["model"]) == ("client", True, "tiny")
    assert manifest["prompt_lengths"] == "exact: token ids"
    assert manifest["prompts_of_another_length"]["requests"] == 0


def test_the_event_log_has_every_token_in_order(serving: Serving, tmp_path: Path) -> None:
    execute_replay(config_for(serving(), tmp_path), tmp_path / "run")
    run = read(tmp_path / "run" / "events.parquet")
    table = per_request(run)
    by_request = dict(zip(table.request.tolist(), table.output_tokens.tolist(), strict=True))
    assert by_request == {0: 3, 1: 1, 2: 4, 3: 2, 4: 5}
    assert run.metadata["clock"] == "client"
    assert summarise(run)["arrived[tenant=a]"] == 2
    assert (table.ttft_s >= 0).all()
    assert (table.finish_s >= table.first_token_s).all()


def test_the_requests_file_tells_schedule_and_outcome(serving: Serving, tmp_path: Path) -> None:
    execute_replay(config_for(serving(), tmp_path), tmp_path / "run")
    found = lines(tmp_path / "run" / "requests.jsonl")
    assert [line["request"] for line in found] == [0, 1, 2, 3, 4]
    assert [line["scheduled_s"] for line in found] == pytest.approx([0.0, 0.05, 0.1, 0.1, 0.2])
    assert all(line["sent_s"] == line["arrival_s"] >= line["scheduled_s"] - 1e-6 for line in found)
    assert all(line["first_token_s"] <= line["last_token_s"] <= line["ended_s"] for line in found)
    first = found[0]
    assert (first["prefix_ids"], first["tenant"], first["slo_class"], first["outcome"]) == (
        [1, 2],
        "a",
        None,
        "finished",
    )
    assert first["usage"] == {"prompt_tokens": 20, "completion_tokens": 3}


def test_what_is_recorded_of_a_replay_is_what_was_replayed(serving: Serving, tmp_path: Path) -> None:
    execute_replay(config_for(serving(), tmp_path), tmp_path / "run")
    before, after = recorded_trace(), record(tmp_path / "run")
    # two requests of one moment may change places, so rows are compared by what they are
    rows = sorted(zip(after.prompt_tokens, after.output_tokens, after.prefix_ids or (), strict=True))
    assert rows == sorted(zip(before.prompt_tokens, before.output_tokens, before.prefix_ids or (), strict=True))
    assert after.prefix_block_tokens == BLOCK
    assert sorted(after.tenant or ()) == sorted(before.tenant or ())
    np.testing.assert_allclose(after.arrival_s, before.arrival_s - before.arrival_s[0], atol=LAG_S)
    again = ReplayConfig(
        workload=WorkloadConfig(trace=str(tmp_path / "run" / "requests.jsonl")), client=ClientConfig(url=serving().url)
    )
    assert execute_replay(again, tmp_path / "again").metrics["completed"] == 5
    fleet = FleetConfig(block_tokens=BLOCK)
    simulated = execute(RunConfig(workload=again.workload, fleet=fleet), tmp_path / "simulated")
    assert simulated.metrics["completed"] == 5


def test_a_server_sees_the_traces_prefixes_in_the_tokens(serving: Serving, tmp_path: Path) -> None:
    server = serving()
    execute_replay(config_for(server, tmp_path), tmp_path / "run")
    seen = {len(asked["prompt"]): asked["prompt"] for asked in (exchange.json() for exchange in server.posts)}
    names: dict[int, int] = {}
    for length, ids in zip((20, 9, 30, 5, 16), recorded_trace().prefix_ids or (), strict=True):
        whole = min(len(ids), length // BLOCK)
        hashed = prefix_ids(seen[length], BLOCK)[:whole]
        for recorded, found in zip(ids[:whole], hashed, strict=True):
            assert names.setdefault(recorded, found) == found
    assert len(set(names.values())) == len(names) == 5


def test_the_vllm_file_carries_its_keys_and_the_lists_on_request(serving: Serving, tmp_path: Path) -> None:
    config = config_for(serving(), tmp_path)
    execute_replay(config, tmp_path / "plain")
    execute_replay(config, tmp_path / "detailed", detailed=True)
    plain, detailed = (content(tmp_path / name / "vllm_bench.json") for name in ("plain", "detailed"))
    assert {"date", "backend", "request_throughput", "mean_ttft_ms", "p99_itl_ms", "max_concurrency"} <= set(plain)
    assert (plain["endpoint_type"], plain["model_id"], plain["completed"]) == ("openai", "tiny", 5)
    lists = {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "generated_texts", "errors"}
    assert set(detailed) - set(plain) == lists
    assert {len(detailed[name]) for name in lists} == {5}
    assert sorted(map(len, detailed["generated_texts"])) == [1, 2, 3, 4, 5]


def test_errors_are_counted_with_an_example(serving: Serving, tmp_path: Path) -> None:
    async def breaks_some(exchange: Any) -> None:
        if exchange.json()["max_tokens"] % 2:
            await exchange.stream(exchange.chunk("x"), exchange.event({"error": {"message": "instance lost"}}))
        else:
            await exchange.tokens()

    result = execute_replay(config_for(serving(breaks_some), tmp_path), tmp_path / "run", detailed=True)
    assert (result.metrics["completed"], result.metrics["rejected"]) == (2, 3)
    assert result.manifest["errors"] == {"stream_error": 3}
    assert result.manifest["error_examples"] == {"stream_error": "instance lost"}
    errors = content(tmp_path / "run" / "vllm_bench.json")["errors"]
    assert sorted(errors) == ["", "", *["stream_error: instance lost"] * 3]
    assert len(record(tmp_path / "run")) == 2
    assert len(record(tmp_path / "run", keep_unfinished=True)) == 5


def test_a_run_of_nothing_but_refusals_is_a_run(serving: Serving, tmp_path: Path) -> None:
    server = serving(models={"data": [{"id": "tiny", "max_model_len": 4, "vocab_size": 512}]})
    result = execute_replay(config_for(server, tmp_path), tmp_path / "run", detailed=True)
    assert (result.metrics["arrived"], result.metrics["rejected"], result.metrics["completed"]) == (5, 5, 0)
    assert result.manifest["errors"] == {"too_long": 5}
    assert not {"client_lag_p99_ms", "client_cpu_us_per_token", "ttft_mean_ms_client"} & set(result.metrics)


def test_force_replaces_an_earlier_replay(serving: Serving, tmp_path: Path) -> None:
    config = config_for(serving(), tmp_path)
    execute_replay(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="not empty"):
        execute_replay(config, tmp_path / "run")
    execute_replay(config, tmp_path / "run", force=True)


def test_a_replay_that_cannot_start_leaves_nothing(serving: Serving, tmp_path: Path) -> None:
    server = serving(models_status=401, models={})
    with pytest.raises(ValueError, match="401"):
        execute_replay(config_for(server, tmp_path), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.parquet"]


def test_a_run_with_only_an_event_log_is_recorded_without_prefixes(tmp_path: Path) -> None:
    workload = WorkloadConfig(trace="bundled:sharegpt-like", max_requests=12)
    execute(RunConfig(workload=workload), tmp_path / "run")
    trace = record(tmp_path / "run")
    assert (len(trace), trace.prefix_ids, trace.name) == (12, None, "run")
    with pytest.raises(ConfigError, match="does not say what was asked for"):
        record(tmp_path / "run", keep_unfinished=True)


def test_arrivals_that_the_requests_file_lacks_are_counted(serving: Serving, tmp_path: Path) -> None:
    execute_replay(config_for(serving(), tmp_path), tmp_path / "run")
    path = tmp_path / "run" / "requests.jsonl"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:3]), encoding="utf-8")
    trace = record(tmp_path / "run")
    assert (len(trace), trace.metadata["arrivals_without_a_line"]) == (3, "2")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds neither requests\.jsonl nor events\.parquet"):
        record(tmp_path)
    (tmp_path / "events.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="not a readable parquet file"):
        record(tmp_path)
