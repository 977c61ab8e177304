"""The recorded vLLM runs that are kept with the results, simulated again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.validate import validate_vllm_run

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
