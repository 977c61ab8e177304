"""What the live host asks for, and what a simulation takes over from a profile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from experiments import replay, serve
from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_file import parse
from experiments.config_replay import ReplayConfig
from experiments.fidelity.hosts import Deployed, simulated_config
from experiments.profiling.overheads import Overheads
from reference_impl.serve import ray_cluster


@dataclass
class Running:
    """As much of a deployment as a client needs."""

    url: str


def run_config(**content: Any) -> RunConfig:
    return parse(RunConfig, content, source="test")


def test_the_replay_runs_against_the_deployment_while_it_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    @contextmanager
    def live_deployment(config: RunConfig, out: Path, report: Any, *, cluster: object) -> Iterator[Running]:
        assert out == tmp_path / "run"
        assert cluster == "Ray"
        assert config.policies.dispatch == "random"
        report("up")
        yield Running("http://127.0.0.1:8123")
        happened.append("down")

    def execute_replay(config: ReplayConfig, out: Path) -> None:
        assert out == tmp_path / "client"
        assert (config.client.url, config.client.cores) == ("http://127.0.0.1:8123", (0,))
        assert not config.client.trial, "the deployment would serve a request that the simulator does not"
        assert (config.client.warmup_requests, config.client.max_concurrency) == (0, None)
        assert (config.workload.max_requests, config.seed) == (7, 3)
        happened.append("replayed")

    @contextmanager
    def serve_cluster() -> Iterator[str]:
        yield "Ray"
        happened.append("Ray is gone")

    monkeypatch.setattr(serve, "live_deployment", live_deployment)
    monkeypatch.setattr(replay, "execute_replay", execute_replay)
    monkeypatch.setattr(ray_cluster, "serve_cluster", serve_cluster)
    config = run_config(
        workload={"max_requests": 7}, policies={"dispatch": "random"}, serve={"other_cores": [0]}, seed=3
    )
    with Deployed(happened.append) as host:
        assert happened == []
        for _ in range(2):
            host.run(config, tmp_path)
    assert happened == ["starting Ray", *["up", "replayed", "down"] * 2, "Ray is gone"]


def test_without_a_serve_section_nothing_is_deployed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a serve section"):
        Deployed(print).run(run_config(), tmp_path)


def test_a_simulation_takes_over_what_was_measured() -> None:
    config = run_config(host={"report_delay_s": 0.5}, link={"kind": "nvlink"})
    bare = simulated_config(config, Path("here.json"), None)
    assert bare.fleet.hardware_profile == "here.json"
    assert (bare.host, bare.link) == (config.host, config.link)
    found = Overheads(0.001, 0.0, 0.007, 0.003, 1e9, 100)
    measured = simulated_config(config, Path("here.json"), found)
    assert (measured.host.dispatch_delay_s, measured.host.report_delay_s) == (0.007, 0.5)
    assert (measured.link.bandwidth_bytes_per_s, measured.link.latency_s) == (1e9, 0.003)
    assert RunConfig.model_validate(measured.model_dump()) == measured
