"""Splitwise's nine slowdown targets, and whether one run keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.anchors.splitwise_clusters import A100, MODEL, TABLE, TP
from experiments.config import RunConfig
from experiments.run import simulated_log

if TYPE_CHECKING:
    from reference_impl.metrics import RequestTable

TARGETS = {
    "ttft": {0.5: 2.0, 0.9: 3.0, 0.99: 6.0},
    "tbt": {0.5: 1.25, 0.9: 1.5, 0.99: 5.0},
    "e2e": {0.5: 1.25, 0.9: 1.5, 0.99: 5.0},
}
"""Slowdown against an unloaded A100 machine at P50, P90, P99: table VI; splitwise-sim's plots.ipynb, get_slo."""


def keeps_targets(config: RunConfig) -> bool:
    """Simulate one run; whether all requests finish and all nine slowdown targets are kept."""
    import numpy as np

    from experiments.config_build import build_cluster, build_trace
    from reference_impl.metrics import per_request

    table = per_request(simulated_log(build_cluster(config), build_trace(config.workload, config.seed), {}))
    if not table.finished.all():
        return False
    found = slowdowns(table)
    return all(
        float(np.quantile(found[name], quantile)) < limit
        for name, limits in TARGETS.items()
        for quantile, limit in limits.items()
    )


def slowdowns(table: RequestTable) -> dict[str, list[float]]:
    """Per request: TTFT, mean time per token and E2E, each over that of the same request alone on an A100 machine.

    As in plots.ipynb: the time per token is that of a machine whose batch has as many tokens as the prompt, and a
    request's own is (E2E - TTFT) / output tokens.
    """
    from reference_impl.latency import Work
    from reference_impl.latency.published import open_published

    alone = open_published(f"{TABLE}:{A100}", MODEL, TP)
    assert alone is not None
    found: dict[str, list[float]] = {"ttft": [], "tbt": [], "e2e": []}
    columns = (table.prompt_tokens, table.output_tokens, table.ttft_s, table.e2e_s)
    for prompt, output, ttft_s, e2e_s in zip(*(column.tolist() for column in columns), strict=True):
        prompt_s = alone.latency.iteration_s(Work(((prompt, 0),), 0, 0))
        token_s = alone.latency.iteration_s(Work((), 1, prompt))
        found["ttft"].append(ttft_s / prompt_s)
        found["tbt"].append((e2e_s - ttft_s) / output / token_s)
        found["e2e"].append(e2e_s / (prompt_s + token_s * (output - 1)))
    return found
