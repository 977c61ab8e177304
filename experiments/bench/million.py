"""A process of its own, so that its peak memory is its own: 1,000,000 requests over 64 instances.

``python -m experiments.bench.million RATE_PER_INSTANCE_RPS [REQUESTS]`` prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys

from experiments.bench.measure import colocated, measure
from experiments.bench.scale import BATCH, DISPATCH, Load, poisson
from experiments.bench.workload import conversations

INSTANCES = 64
REQUESTS = 1_000_000


def main(per_instance_rps: float, requests: int) -> None:
    """Simulate and print CPU seconds, peak resident memory and what ran."""
    workload, _ = conversations(10_000, 1.0, 4096)
    trace = poisson(Load(per_instance_rps, workload.trace), INSTANCES, requests)
    sample = measure(colocated(INSTANCES, DISPATCH, BATCH), trace)
    answer = {
        **sample._asdict(),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "note": f"Poisson at 70 % of capacity, lengths of {workload.label}; {DISPATCH}; {BATCH}",
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else REQUESTS)
