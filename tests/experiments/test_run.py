"""A run's folder tells what ran, on what, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.config import RunConfig, SloConfig
from experiments.config_base import ConfigError
from experiments.config_build import build_trace
from experiments.config_file import load, parse
from experiments.run import CONFIG, EVENTS, MANIFEST, METRICS, VLLM_BENCH, execute
from reference_impl.metrics import read
from workloads.storage import save
from workloads.transform import derive

SMALL: dict[str, Any] = {
    "workload": {"trace": "bundled:sharegpt-like", "max_requests": 15, "rate_rps": 5},
    "fleet": {"groups": [{"count": 2, "role": "semi_pd"}], "model": "llama-3-8b"},
    "slo": {"ttft_s": 1.0},
    "seed": 4,
}


@pytest.fixture
def config() -> RunConfig:
    return parse(RunConfig, SMALL, source="test")


def test_the_folder_holds_configuration_events_metrics_and_manifest(config: RunConfig, tmp_path: Path) -> None:
    result = execute(config, tmp_path / "run")
    assert sorted(path.name for path in result.folder.iterdir()) == sorted(
        [CONFIG, EVENTS, MANIFEST, METRICS, VLLM_BENCH]
    )
    assert load(result.folder / CONFIG, RunConfig) == config
    assert json.loads((result.folder / METRICS).read_text(encoding="utf-8")) == result.metrics
    assert json.loads((result.folder / VLLM_BENCH).read_text(encoding="utf-8"))["completed"] == 15


def test_the_manifest_names_versions_seed_time_and_cost_model(config: RunConfig, tmp_path: Path) -> None:
    manifest = json.loads((execute(config, tmp_path / "run").folder / MANIFEST).read_text(encoding="utf-8"))
    assert {"semiflow", "python", "platform", "packages", "created_at", "wall_s", "cpu_s"} <= set(manifest)
    assert manifest["seed"] == 4
    assert manifest["outcome"]["finished"] == 15
    assert any("roofline" in name for name in manifest["cost_models"])
    assert "assumed" in manifest["cost_models"]["lanes that share a device"]


def test_the_event_log_tells_what_it_records(config: RunConfig, tmp_path: Path) -> None:
    metadata = read(execute(config, tmp_path / "run").folder / EVENTS).metadata
    assert metadata["trace"]["requests"] == 15
    assert metadata["slo"] == {"ttft_s": 1.0, "tpot_s": None}
    assert [(instance["id"], instance["role"]) for instance in metadata["instances"]] == [
        (0, "semi_pd"),
        (1, "semi_pd"),
    ]
    assert metadata["policies"]["partition"] == "none"


def test_labels_and_a_price_reach_the_log_and_the_figures(config: RunConfig, tmp_path: Path) -> None:
    bare = read(execute(config, tmp_path / "bare").folder / EVENTS).metadata
    assert not {"labels", "price_per_device_hour"} & set(bare)
    drawn = build_trace(config.workload, config.seed)
    save(derive(drawn, None, tenant=("chat", "jobs", "chat") * 5), tmp_path / "labelled.parquet")
    workload = {"trace": str(tmp_path / "labelled.parquet"), "slo_classes": {"jobs": "batch"}}
    slo = {"ttft_s": 1e-9, "classes": {"batch": {"ttft_s": 1e3}}}
    fleet = {**SMALL["fleet"], "price_per_device_hour": 2.5}
    result = execute(parse(RunConfig, {"workload": workload, "fleet": fleet, "slo": slo}, "test"), tmp_path / "run")
    assert result.metrics["attainment"] == result.metrics["attainment[class=batch]"] / 3 == 1 / 3
    assert (result.metrics["arrived[tenant=chat]"], result.metrics["attainment[tenant=chat]"]) == (10, 0.0)
    assert result.metrics["cost"] == pytest.approx(result.metrics["device_held_s"] / 3600 * 2.5)
    metadata = read(result.folder / EVENTS).metadata
    assert metadata["slo"]["classes"] == {"batch": {"ttft_s": 1e3, "tpot_s": None}}
    assert load(result.folder / CONFIG, RunConfig).slo == parse(SloConfig, slo, "test")


def test_equal_configurations_give_equal_bytes(config: RunConfig, tmp_path: Path) -> None:
    logs = [(execute(config, tmp_path / name).folder / EVENTS).read_bytes() for name in ("a", "b")]
    assert logs[0] == logs[1]


def test_another_seed_gives_other_traffic(config: RunConfig, tmp_path: Path) -> None:
    other = config.model_copy(update={"seed": 5})
    logs = [(execute(c, tmp_path / str(c.seed)).folder / EVENTS).read_bytes() for c in (config, other)]
    assert logs[0] != logs[1]


def test_a_taken_folder_is_refused_before_anything_is_simulated(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("opened the trace first")

    monkeypatch.setattr("experiments.run.build_trace", refuse)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        execute(config, tmp_path)


def test_progress_counts_up_to_all_requests(tmp_path: Path) -> None:
    content = {**SMALL, "workload": {"trace": "bundled:sharegpt-like", "max_requests": 1500, "rate_rps": 50}}
    seen: list[tuple[int, int]] = []
    execute(parse(RunConfig, content, source="test"), tmp_path / "run", lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen
    assert all(done <= total == 1500 for done, total in seen)
