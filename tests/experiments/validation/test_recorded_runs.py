"""The recorded vLLM runs that are kept with the results, simulated again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.validate import validate_vllm_run

RESULTS = Path(__file__).resolve().parents[3] / "results" / "validation"
RUNS = sorted(path.name for path in (RESULTS / "runs").iterdir())


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_is_simulated_as_its_result_says(name: str) -> None:
    stated = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = validate_vllm_run(RESULTS / "runs" / name)
    assert found.comparison == [pytest.approx(row, rel=1e-6) for row in stated["comparison"]]
    assert found.over_time is not None
    courses = {row["series"]: row for row in found.over_time.agreement}
    assert courses["kv_use_pct"]["mean_simulated"] == pytest.approx(courses["kv_use_pct"]["mean_real"], rel=0.05)
