"""The recorded vLLM runs that are kept with the results, simulated again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.validate import validate_vllm_run
from experiments.validation.simulated import instance_of, simulated
from experiments.vllm_run import read_requests, read_settings

RESULTS = Path(__file__).resolve().parents[3] / "results" / "validation"
RUNS = sorted(path.name for path in (RESULTS / "recorded").iterdir())


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_is_simulated_as_its_result_says(name: str) -> None:
    stated = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = validate_vllm_run(RESULTS / "recorded" / name)
    errors = [row["relative_error"] for row in stated["comparison"]]
    assert [row["relative_error"] for row in found.comparison] == pytest.approx(errors, abs=1e-6)
    assert found.over_time is not None
    courses = {row["series"]: row for row in found.over_time.agreement}
    assert courses["kv_use_pct"]["mean_simulated"] == pytest.approx(courses["kv_use_pct"]["mean_real"], rel=0.05)


@pytest.mark.parametrize("name", ["vllm_cpu_full_pool_1", "vllm_cpu_full_pool_2"])
def test_a_full_pool_takes_as_many_steps_of_each_kind_and_preempts_as_often_as_in_vllm(name: str) -> None:
    folder = RESULTS / "recorded" / name
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    instance = instance_of(folder, read_settings(folder / "meta.json"))
    run = simulated(instance, read_requests(folder / "requests.jsonl"), fast=False)
    tokens, decodes = run.rows["run"].ints("tokens"), run.rows["run"].ints("batch")
    kinds = {
        "prefill": int((decodes == 0).sum()),
        "decode": int((tokens == 0).sum()),
        "mixed": int(((tokens > 0) & (decodes > 0)).sum()),
    }
    assert kinds == {kind: row["steps"] for kind, row in meta["measured_steps"]["run"].items()}
    assert len(run.rows["preempt"]) == meta["preemptions"] == 91
