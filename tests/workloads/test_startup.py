"""Reading a trace must stay light: a whole run of ten requests has 0.8 s."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workloads.storage import save
from workloads.trace import Trace

READ = """
import sys
from workloads.catalog import open_trace
before = set(sys.modules)
assert not {"pandas", "pyarrow"} & before, "imported before it is needed"
open_trace(sys.argv[1])
assert not {"pandas", "pyarrow.compute"} & set(sys.modules), "reading imported more than it needs"
"""


def test_reading_a_trace_imports_pyarrow_late_and_nothing_slow(small_trace: Trace, tmp_path: Path) -> None:
    save(small_trace, tmp_path / "t.parquet")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", READ, str(tmp_path / "t.parquet")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
