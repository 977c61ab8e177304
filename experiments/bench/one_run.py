"""Run by ``base.py`` in a process of its own, on the packages of one version: a case of the first slice's bench.

``python -P one_run.py INSTANCES DISPATCH BATCH WORKLOAD REQUESTS`` prints CPU seconds of the run and of the reference
loop beside it. Uses only what every version since the first slice has.
"""

from __future__ import annotations

import json
import sys

from experiments.bench.measure import colocated, measure
from experiments.bench.workload import conversations, shared_prefixes

_RATE_SCALE, _MAX_TOTAL_TOKENS = 8.0, 4096
_WARM_UP_REQUESTS = 10


def main(instances: str, dispatch: str, batch: str, workload: str, requests: str) -> None:
    read = {"conversations": conversations, "prefixes": shared_prefixes}[workload]
    found, _ = read(int(requests), _RATE_SCALE, _MAX_TOTAL_TOKENS)
    config = colocated(int(instances), dispatch, batch)
    measure(config, found.trace.head(_WARM_UP_REQUESTS))  # what it imports is not of the run
    sample = measure(config, found.trace)
    sys.stdout.write(json.dumps([sample.cpu_s, sample.reference_s]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
