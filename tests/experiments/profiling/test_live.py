"""The iterations of a recorded run, read back, are those that ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.config import RunConfig
from experiments.config_file import parse
from experiments.profiling.live import FIRST_GROUP, LiveIteration, live_iterations, live_samples
from experiments.run import execute
from reference_impl.latency.api import Work
from reference_impl.latency.profile import profile


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Simulate a recorded run on a known cost model, every iteration asked for; returns its folder and the model."""

    def simulated(name: str, batch: str, roles: str = "colocated", **changes: Any) -> tuple[Path, Any]:
        model = tmp_path / "known.json"
        fit = {"iteration_s": 0.01, "knots": [0, 8], "token_s": [2e-3, 1e-3], "decode_context_s": 1e-5, "pair_s": 1e-6}
        told = {"model": "tiny", "dtype": "float32", "provenance": "known"}
        model.write_text(json.dumps({"format": "semiflow-profile", "version": 1, **told, "fit": fit}))
        groups = [{"count": 1, "role": role} for role in roles.split(",")]
        fleet = {
            "model": "tiny",
            "hardware_profile": str(model),
            "kv_blocks": 200,
            "max_sequences": 8,
            "groups": groups,
        }
        workload = {"trace": "bundled:shared-prefix", "max_requests": 40, "rate_rps": 2.0, "max_total_tokens": 1400}
        content = {"fleet": {**fleet, "groups": groups}, "workload": workload, "policies": {"batch": batch}, **changes}
        execute(parse(RunConfig, content, source="test"), tmp_path / name, decisions="all")
        return tmp_path / name, profile(model)

    return simulated


@pytest.mark.parametrize("roles", ["colocated,colocated", "prefill,decode", "semi_pd"])
def test_content_and_duration_of_every_iteration_that_ran_alone_are_found(run: Any, roles: str) -> None:
    folder, cost = run("run", "unified_budget:token_budget=96", roles)
    found = live_iterations(folder)
    assert len(found) > 20
    if roles != "semi_pd":  # there the lanes slow each other
        for work, seconds in found:
            assert seconds == pytest.approx(cost.iteration_s(work), rel=1e-6)


def test_prefix_hits_count_as_computed(run: Any) -> None:
    folder, _ = run("run", "prefill_first")
    chunks = [chunk for iteration in live_iterations(folder) for chunk in iteration.work.chunks]
    assert any(before >= 1024 for _, before in chunks), "the shared prefix was not computed again"


def test_iterations_without_a_plan_are_left_out(run: Any) -> None:
    folder, cost = run("run", "unified_budget:token_budget=96")
    whole = live_iterations(folder)
    path = folder / "decisions.jsonl"
    lines = path.read_text().splitlines()
    plans = [number for number, line in enumerate(lines) if '"plan"' in line]
    lost = set(plans[20:40])
    path.write_text("".join(f"{line}\n" for number, line in enumerate(lines) if number not in lost))
    found = live_iterations(folder)
    assert 0 < len(whole) - len(found) <= 20
    assert all(seconds == pytest.approx(cost.iteration_s(work), rel=1e-6) for work, seconds in found)
    path.write_text("".join(f"{line}\n" for line in lines[: plans[30]]) + lines[plans[30]][:50])
    assert 0 < len(live_iterations(folder)) <= 30, "a line that was cut short is none"
    path.unlink()
    assert live_iterations(folder) == []


def test_groups_weigh_by_the_time_spent_in_them() -> None:
    decode, prefill = Work((), 2, 100, 50, 50), Work(((100, 0),), 0, 0)
    iterations = [LiveIteration(decode, 0.1)] * 5 + [LiveIteration(prefill, 0.75)] * 2
    samples = live_samples(iterations, 10.0)
    weights = {sample.work: sample.weight for sample in samples}
    assert weights == {decode: pytest.approx(2.5), prefill: pytest.approx(7.5)}
    assert {sample.group for sample in samples} == {FIRST_GROUP, FIRST_GROUP + 1}
    assert live_samples([], 10.0) == []
