"""``semiflow simulate`` starts fast: modules that would cost more than a small simulation stay out of the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workloads.catalog import open_trace
from workloads.storage import save

SLOW = ("pandas", "pyarrow.compute", "matplotlib", "scipy", "jinja2")
RUN = f"""
import atexit, sys
from experiments.cli import main
atexit.register(lambda: print("slow:", *(name for name in {SLOW!r} if name in sys.modules), file=sys.stderr))
main()
"""


@pytest.mark.parametrize("source", ["generated", "recorded"])
@pytest.mark.parametrize("fleet", [("--role", "colocated"), ("--role", "semi_pd", "--partition", "semi_pd")])
def test_simulate_imports_nothing_slow(source: str, fleet: tuple[str, ...], tmp_path: Path) -> None:
    trace = "bundled:shared-prefix"
    if source == "recorded":
        save(open_trace(trace).head(20), tmp_path / "t.parquet")
        trace = str(tmp_path / "t.parquet")
    command = [
        "simulate",
        "--trace",
        trace,
        "--max-requests",
        "12",
        "--slo",
        "ttft=1.0",
        *fleet,
        "--out",
        "run",
        "--json",
    ]
    ours = str(Path(__file__).parents[2])
    start = f"import sys; sys.path.insert(0, {ours!r}){RUN}"
    answer = subprocess.run(
        [sys.executable, "-c", start, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.stderr.splitlines()[-1] == "slow:"
    assert json.loads(answer.stdout)["metrics"]["completed"] == 12
