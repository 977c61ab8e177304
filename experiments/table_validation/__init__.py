"""``semiflow validate table``: measured benchmarks at fixed concurrency against their simulation."""

from experiments.table_validation.report import validate_table

__all__ = ["validate_table"]
