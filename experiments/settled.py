"""Which points of a comparison had not settled: their figures depend on how long the runs are."""

from __future__ import annotations

from experiments.compare import Comparison, Judgement

MARK = "*"
LEGEND = f"{MARK} load still growing at the last arrival: the figures depend on how long the run is"


def still_growing(found: Comparison, variant: str, workload: str, rate: float | None) -> bool:
    """Whether the load was still growing at the last arrival in at least half of the seeds."""
    seeds = found.values("load_growing", variant, workload, rate).values()
    return bool(seeds) and 2 * sum(seeds) >= len(seeds)


def is_marked(found: Comparison, judgement: Judgement) -> bool:
    """Whether either side of a judgement had not settled."""
    sides = (judgement.variant, judgement.baseline)
    return any(still_growing(found, side, judgement.workload, judgement.rate) for side in sides)


def any_growing(found: Comparison) -> bool:
    """Whether any point of the comparison had not settled."""
    return any(still_growing(found, case.variant, case.workload, case.rate) for case in found.cases)
