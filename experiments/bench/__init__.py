"""``semiflow bench simulator``: how fast the simulator is, in figures that can be compared across machines."""

from experiments.bench.figures import Figure
from experiments.bench.suite import run_suite
from experiments.bench.table import as_json, as_text

__all__ = ["Figure", "as_json", "as_text", "run_suite"]
