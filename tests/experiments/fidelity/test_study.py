"""A study finds what is true, says what is not, and goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.fidelity.config import FidelityConfig
from experiments.fidelity.page import write_study
from experiments.fidelity.study import run_study
from experiments.fidelity.table import as_text

Build = Callable[..., FidelityConfig]
Profiler = Callable[[RunConfig, Path], None]


def test_a_true_simulation_reaches_every_bar(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    live = host()
    study = run_study(build(), tmp_path / "out", live, profiler)
    assert len(live.served) == (1 + 2 * 6) * 3, "a calibration; two traces, six pairs of policies; three repeats"
    assert {config.seed for config in live.served} == {99, 0}
    assert study.reached, as_text(study)
    assert max(abs(row.error) for row in study.rows if "mean" in row.figure) < 0.1
    assert study.profile["fit"]["gap_s"] == 0.0
    assert study.profile["live"]["iterations"] == 0, "this live run was not recorded"
    simulated = tmp_path / "out" / "prefixes" / "round_robin+prefill_first" / "simulated" / "config.yaml"
    assert f"hardware_profile: {tmp_path / 'out' / 'calibrated.json'}" in simulated.read_text()


def test_a_simulation_that_is_off_is_told(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    study = run_study(build(repeats=1), tmp_path / "out", host(slower=1.5), profiler)
    assert not study.reached
    missed = {bar.demand.split()[1] for bar in study.bars if not bar.reached}
    assert {"TPOT", "E2E"} <= missed
    errors = {row.error for row in study.rows if row.figure == "e2e_mean_ms"}
    assert max(errors) < -0.15, "the simulation is too fast everywhere"
    said = as_text(study)
    assert "MISSED" in said
    assert "mean TPOT within 10%" in said


def test_the_decisions_of_live_runs_are_made_again(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    config = build(repeats=1, traces={"prefixes": {}}, calibration={})
    study = run_study(config, tmp_path / "out", host(decisions="all"), profiler)
    (bar,) = (bar for bar in study.bars if "decide the same" in bar.demand)
    assert bar.reached
    assert int(bar.found.split()[0]) > 6 * (60 + 3 * 60)


def test_recorded_live_runs_correct_a_profile_that_is_off(
    build: Build, host: Any, profiler: Profiler, tmp_path: Path
) -> None:
    """The workers by themselves were a third faster than in the deployment."""
    config = build(repeats=1, traces={"prefixes": {}}, calibration={"others": {"seed": 99}})
    off = run_study(config, tmp_path / "off", host(slower=1.5), profiler)
    study = run_study(config, tmp_path / "out", host(slower=1.5, decisions="all"), profiler)
    before, after = (mean(abs(row.error) for row in each.rows if row.figure == "tpot_mean_ms") for each in (off, study))
    assert before > 0.2
    assert after < 0.06
    live = study.profile["live"]
    assert live["iterations"] > 200
    assert live["errors_of_shapes_alone"]["decode"]["bias"] < -0.15
    assert abs(live["errors_unseen"]["decode"]["bias"]) < 0.05


def test_one_live_run_each_separates_by_effect_alone(
    build: Build, host: Any, profiler: Profiler, tmp_path: Path
) -> None:
    study = run_study(build(repeats=1, min_effect=10.0), tmp_path / "out", host(), profiler)
    assert not any(pair.separated for pair in study.pairs)
    assert not study.reached


def test_an_interrupted_study_goes_on_where_it_was(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    config, out = build(repeats=2), tmp_path / "out"
    first = host(fails_at=9)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, out, first, profiler)
    kept = sorted(path.parent for path in out.rglob("measures.json"))
    assert len(kept) == 9
    second = host()
    study = run_study(config, out, second, profiler)
    assert len(second.served) == 2 * (1 + 12) - 9
    third = host()
    again = run_study(config, out, third, profiler)
    assert third.served == []
    assert again.rows == study.rows


def test_another_configuration_is_run_again_and_another_profile_only_simulated(
    build: Build, host: Any, profiler: Profiler, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_study(build(repeats=1), out, host(), profiler)
    profile = tmp_path / "given.json"
    content = json.loads((out / "calibrated.json").read_text())
    content["fit"]["iteration_s"] *= 2
    profile.write_text(json.dumps(content))
    idle = host()
    slower = run_study(build(repeats=1), out, idle, profiler, profile=profile)
    assert idle.served == []
    assert min(row.error for row in slower.rows if row.figure == "tpot_mean_ms") > 0.1
    busy = host()
    base = build().base
    changed = {**base, "fleet": {**base["fleet"], "max_sequences": 11}}
    run_study(build(repeats=1, base=changed, calibration={}), out, busy, profiler)
    assert len(busy.served) == 12


def test_a_profile_of_another_engine_is_refused(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_study(build(repeats=1), out, host(), profiler)
    base = build().base
    shared = {**base, "serve": {"cpu_share": 0.5}}
    live = host()
    with pytest.raises(ConfigError, match=r"is a profile of cpu_share None, the study runs cpu_share 0\.5"):
        run_study(build(repeats=1, base=shared), out, live, profiler)
    assert live.served == []


def test_traces_on_different_engines_are_refused(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    fewer = {"fleet": {**build().base["fleet"], "groups": [{"count": 2, "role": "colocated"}]}}
    with pytest.raises(ConfigError, match="share one profile, but have workers 3 and 2"):
        run_study(build(traces={"prefixes": {}, "fewer": fewer}), tmp_path / "out", host(), profiler)


def test_prefix_ids_that_live_policies_would_not_see_are_refused(
    build: Build, host: Any, profiler: Profiler, tmp_path: Path
) -> None:
    coarse = {"workload": {"synthetic": {"prefix": {"groups": 12, "tokens": 256, "block_tokens": 32}}}}
    with pytest.raises(ConfigError, match=r"of 32 tokens, .* set serve\.prefix_block_tokens: 32"):
        run_study(build(traces={"coarse": coarse}), tmp_path / "out", host(), profiler)


def test_the_files_of_a_study(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = run_study(build(repeats=2), out, host(), profiler)
    content = json.loads((out / "fidelity.json").read_text())
    assert content["reached"] == study.reached
    assert len(content["figures"]) == 2 * 6 * 10
    assert {"trace", "dispatch", "batch", "figure", "live", "simulated", "error", "spread"} == set(
        content["figures"][0]
    )
    assert len(content["runs"]) == 12
    assert all(len(runs["live"]) == 2 for runs in content["runs"].values())
    write_study(out / "fidelity.html", study)
    page = (out / "fidelity.html").read_text()
    assert page.count("<svg") == 3
    assert "no prefixes" in page
    assert "<script" not in page
    write_study(out / "again.html", study)
    assert (out / "again.html").read_text() == page


def test_what_cannot_run_is_told_before_anything_runs(
    build: Build, host: Any, profiler: Profiler, tmp_path: Path
) -> None:
    live = host()
    base = build().base
    small = {**base, "fleet": {**base["fleet"], "kv_blocks": 20}}
    with pytest.raises(ConfigError, match=r"trace 'prefixes': a request has \d+ tokens; allowed: at most 321"):
        run_study(build(base=small), tmp_path / "out", live, profiler)
    with pytest.raises(ValueError, match="unknown dispatch policy 'nearest'"):
        run_study(build(dispatch=["nearest"]), tmp_path / "out", live, profiler)
    with pytest.raises(ConfigError, match=r"trace 'odd'.*workload"):
        run_study(build(traces={"odd": {"workload": {"rate": 1}}}), tmp_path / "out", live, profiler)
    assert live.served == []
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_spared(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    foreign = tmp_path / "out" / "prefixes" / "round_robin+prefill_first" / "live-1"
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no run of semiflow fidelity"):
        run_study(build(), tmp_path / "out", host(), profiler)
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_refused_requests_are_no_measurement(build: Build, host: Any, profiler: Profiler, tmp_path: Path) -> None:
    class Refusing(host):  # type: ignore[misc]  # a fixture is no type
        def run(self, config: RunConfig, folder: Path) -> None:
            fleet = config.fleet.model_copy(update={"kv_blocks": 24})
            super().run(config.model_copy(update={"fleet": fleet}), folder)

    with pytest.raises(ConfigError, match=r"\d+ of 60 requests did not finish"):
        run_study(build(), tmp_path / "out", Refusing(), profiler)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dispatch": ["random", "random"]}, "every policy may stand once"),
        ({"traces": {"a b": {}, "a/b": {}}}, "too alike"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"trace": {}}, "Extra inputs"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(build: Build, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(**changes)
