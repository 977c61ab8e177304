"""What the batch policies with an order of their own are for, on one crowded instance: orderings, not numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Floats = NDArray[np.float64]
COUNT = 800


@pytest.fixture
def crowd() -> Trace:
    """Heavy-tailed outputs at nearly the full load of eight places; every third request is interactive."""
    rng = np.random.default_rng(4)
    outputs = np.minimum(1 + rng.pareto(1.2, COUNT) * 20, 2000).astype(np.int32)
    return Trace(
        name="crowd",
        arrival_s=np.cumsum(rng.exponential(float(outputs.mean()) * 0.01 / 7, COUNT)),
        prompt_tokens=np.full(COUNT, 20, np.int32),
        output_tokens=outputs,
        slo_class=tuple("interactive" if i % 3 == 0 else "batch" for i in range(COUNT)),
        tenant=tuple("abc"[i % 3] for i in range(COUNT)),
    )


@pytest.fixture
def times(deploy: Deploy, affine: Any, crowd: Trace) -> Callable[..., Floats]:
    """Seconds from arrival to the first token or to the end, by request."""

    def run(batch: str, until: str = "finish", *, plan_ahead: bool = False, **options: Any) -> Floats:
        log = EventLog(None)
        options = {"max_sequences": 8, "kv_blocks": 4000, "latency": affine(0.01, 1e-5), **options}
        simulate(deploy("colocated", batch=batch, spec={"plan_ahead": plan_ahead}, **options), crowd, log)
        rows = [row for row in log.table().to_pylist() if row["kind"] == until]
        at_s = {row["request"]: row["time_s"] for row in reversed(rows)}
        return np.array([at_s[i] for i in range(COUNT)]) - crowd.arrival_s

    return run


def test_shortest_first_is_faster_on_average_and_aging_helps_the_longest(times: Callable[..., Floats]) -> None:
    fcfs = times("unified_budget")
    pure, aged = "sjf_predicted:aging_tokens_per_s=0", "sjf_predicted:aging_tokens_per_s=50"
    assert times(pure, predictor="oracle").mean() < times(aged, predictor="oracle").mean() < fcfs.mean()
    assert times(aged, "admit", predictor="oracle").max() < times(pure, "admit", predictor="oracle").max()


def test_a_predictor_that_errs_is_between_a_perfect_one_and_none(times: Callable[..., Floats]) -> None:
    perfect, bucketed, none = (
        times("sjf_predicted:aging_tokens_per_s=0", predictor=predictor).mean()
        for predictor in ("oracle", "bucketed_oracle", "mean")
    )
    assert perfect < bucketed < none


def test_multi_level_feedback_is_faster_on_average_without_knowing_lengths(times: Callable[..., Floats]) -> None:
    fcfs = times("unified_budget")
    mlfq = times("mlfq:batch_sequences=8", max_sequences=64)
    assert mlfq.mean() < 0.7 * fcfs.mean()


def test_classes_and_deadlines_favour_the_urgent(times: Callable[..., Floats]) -> None:
    urgent = np.arange(COUNT) % 3 == 0
    fcfs = times("unified_budget", "prefilled")
    for policy in ("priority", "edf_slack:class_ttft_s=interactive=1/batch=60"):
        ttft_s = times(policy, "prefilled")
        assert ttft_s[urgent].mean() < 0.5 * fcfs[urgent].mean()
        assert (ttft_s[urgent] <= 1).mean() > (fcfs[urgent] <= 1).mean()


@pytest.mark.parametrize("batch", ["edf_slack", "sjf_predicted", "priority", "mlfq:batch_sequences=4", "vtc"])
def test_all_are_served_when_iterations_are_planned_ahead(times: Callable[..., Floats], batch: str) -> None:
    assert (times(batch, plan_ahead=True) > 0).all()
    assert (times(batch, plan_ahead=True, kv_blocks=150) > 0).all(), "with preemptions"
