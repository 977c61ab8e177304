"""Small simulated runs to look into, each simulated once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.config import RunConfig
from experiments.run import execute

Simulated = Callable[..., Path]
BASE: dict[str, Any] = {
    "workload": {"trace": "bundled:shared-prefix", "max_requests": 30, "rate_rps": 40.0},
    "fleet": {"model": "llama-2-7b", "kv_blocks": 400},
    "slo": {"ttft_s": 0.1, "tpot_s": 0.05},
}
FLEETS = {
    "colocated": [{"count": 3, "role": "colocated"}],
    "disaggregated": [{"count": 2, "role": "prefill"}, {"count": 2, "role": "decode"}],
    "semi_pd": [{"count": 2, "role": "semi_pd"}],
}


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """The folder of a run: ``simulated(roles, name=..., decisions=..., policies=..., seed=...)``."""
    known: dict[str, Path] = {}

    def run(roles: str = "colocated", name: str = "run", decisions: Any = "none", **more: Any) -> Path:
        key = repr((roles, name, decisions, more))
        if key not in known:
            content = {**BASE, **more}
            config = RunConfig.model_validate({**content, "fleet": {**content["fleet"], "groups": FLEETS[roles]}})
            out = tmp_path_factory.mktemp(roles) / name
            execute(config, out, decisions=decisions)
            known[key] = out
        return known[key]

    return run
