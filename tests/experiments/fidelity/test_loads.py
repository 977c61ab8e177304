"""Requests come as fast as keeps the lanes busy for the wanted part of the time, whatever the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.fidelity.config import FidelityConfig
from experiments.fidelity.loads import faster
from experiments.fidelity.study import Study, run_study
from experiments.fidelity.table import as_text

Build = Callable[..., FidelityConfig]
Profiler = Callable[[RunConfig, Path], None]
WANTED = 0.4


def common(study: Study, trace: str) -> dict[str, Any]:
    """The facts of a trace's runs under the common policies."""
    return dict(study.facts[f"{trace}: round_robin+prefill_first"])


def test_both_hosts_serve_the_trace_at_the_rate_that_was_found(
    build: Build, host: Any, profiler: Profiler, tmp_path: Path
) -> None:
    live = host(noise=0.0)
    study = run_study(build(repeats=1, utilisation=WANTED), tmp_path / "out", live, profiler)
    factors = {config.workload.rate_scale for config in live.served}
    assert factors == {*study.loads.values()}
    assert len(factors) == 3, "two traces and a calibration run, each with its own"
    for trace in ("prefixes", "no prefixes"):
        assert common(study, trace)["simulated"]["lane_utilisation"] == pytest.approx(WANTED, rel=0.02)
    assert study.to_json()["rate_factors"] == study.loads
    assert "times as fast as configured" in as_text(study)


def test_a_slower_machine_gets_its_requests_slower(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    config = build(repeats=1, utilisation=WANTED, calibration={})
    usual = run_study(config, tmp_path / "usual", host(), profiler)
    content = json.loads((tmp_path / "usual" / "profile.json").read_text())
    for cost in ("iteration_s", "sequence_s", "context_s"):
        content["fit"] |= {cost: 3 * content["fit"][cost]} if cost in content["fit"] else {}
    content["fit"]["token_s"] = [3 * cost for cost in content["fit"]["token_s"]]
    given = tmp_path / "slow.json"
    given.write_text(json.dumps(content))
    slow = run_study(config, tmp_path / "slow", host(slower=3.0), profiler, profile=given)
    for trace, factor in slow.loads.items():
        assert factor < 0.6 * usual.loads[trace]
        assert common(slow, trace)["simulated"]["lane_utilisation"] == pytest.approx(WANTED, rel=0.02)


def test_a_study_that_goes_on_keeps_its_rates(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    """Its profile has learnt from live runs since, so that another rate would be found now."""
    config = build(repeats=1, utilisation=WANTED)
    first = run_study(config, tmp_path / "out", host(slower=1.4, decisions="all"), profiler)
    idle = host()
    again = run_study(config, tmp_path / "out", idle, profiler)
    assert idle.served == []
    assert again.loads == first.loads
    busier = host()
    assert run_study(build(repeats=1, utilisation=0.6), tmp_path / "out", busier, profiler).loads != first.loads
    assert len(busier.served) == 1 + 12


def test_a_load_that_no_rate_gives_is_refused(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    live = host()
    with pytest.raises(ConfigError, match=r"utilisation 0\.999 of workload .* is out of reach"):
        run_study(build(utilisation=0.999), tmp_path / "out", live, profiler)
    assert live.served == []


def test_a_rate_that_is_configured_is_changed_not_replaced() -> None:
    timed = RunConfig.model_validate({"workload": {"rate_rps": 2.0}})
    assert faster(timed, 1.5).workload.rate_rps == 3.0
    scaled = RunConfig.model_validate({"workload": {"rate_scale": 2.0}})
    assert faster(scaled, 0.25).workload.rate_scale == 0.5
    assert faster(RunConfig(), 3.0).workload.rate_scale == 3.0
