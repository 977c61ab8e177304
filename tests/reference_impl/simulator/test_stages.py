"""Pipeline parallelism: virtual engines whose iterations overlap in the stages that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reference_impl.core.spec import ClusterSpec, Pipeline
from reference_impl.events import EventLog
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Requests = Callable[..., Trace]
HALVES = Pipeline(0, (0.5, 0.5))


def times_s(spec: ClusterSpec, trace: Trace, kind: str) -> list[float]:
    """When each request had its ``kind`` of event, by request."""
    log = EventLog(None)
    simulate(spec, trace, log)
    table = log.table()
    rows = table.filter(np.array(table.column("kind").to_pylist()) == kind)
    order = np.argsort(rows.column("request").to_numpy())
    found: list[float] = rows.column("time_s").to_numpy()[order].tolist()
    return found


def test_waiting_is_m_d_1_with_a_part_of_the_latency_as_service(deploy: Deploy, affine: Any) -> None:
    """DistServe (arXiv 2401.09670), section 3.1: two stages, TTFT = D + R D^2 / (4 (2 - R D)); exactly: a queue whose
    server is taken for D / 2 by a request that leaves after D."""
    latency_s, load = 0.1, 0.75
    arrivals_s = np.cumsum(np.random.default_rng(3).exponential(latency_s / 2 / load, 20_000))
    tokens = np.ones(len(arrivals_s), np.int32)
    trace = Trace("theory", arrivals_s, 10 * tokens, tokens)
    fleet = ("colocated", "colocated")
    cost = affine(base_s=latency_s, per_chunk_token_s=0.0)
    spec = deploy(*fleet, dispatch="round_robin", max_sequences=1, latency=cost, pipeline=HALVES)
    ttft_s = np.array(times_s(spec, trace, "prefilled")) - arrivals_s
    starts_s, free_s = [], 0.0
    for arrival_s in arrivals_s:
        starts_s.append(max(arrival_s, free_s))
        free_s = starts_s[-1] + latency_s / 2
    assert ttft_s == pytest.approx(np.array(starts_s) + latency_s - arrivals_s, abs=1e-6)
    rate = 2 * load / latency_s
    expected_s = latency_s + rate * latency_s**2 / (4 * (2 - rate * latency_s))
    assert ttft_s.mean() == pytest.approx(expected_s, rel=0.05)


def test_decodes_of_two_engines_take_turns_in_the_stages(deploy: Deploy, requests: Requests, affine: Any) -> None:
    """Each token after a whole pass of 100 ms, and a token of one or the other every 50 ms."""
    cost = affine(base_s=0.1, per_chunk_token_s=0.0)
    spec = deploy("colocated", "colocated", dispatch="round_robin", latency=cost, pipeline=HALVES)
    trace = requests((0.0, 5, 3), (0.0, 5, 3))
    assert times_s(spec, trace, "prefilled") == pytest.approx([0.1, 0.15])
    assert times_s(spec, trace, "finish") == pytest.approx([0.3, 0.35])


def test_a_short_iteration_waits_behind_a_long_one_in_every_stage(
    deploy: Deploy, requests: Requests, affine: Any
) -> None:
    cost = affine(base_s=0.0, per_chunk_token_s=1e-3)
    spec = deploy("colocated", "colocated", dispatch="round_robin", latency=cost, pipeline=HALVES)
    long_s, short_s = times_s(spec, requests((0.0, 1000, 1), (0.1, 100, 1)), "prefilled")
    assert (long_s, short_s) == pytest.approx((1.0, 1.05))  # the first stage is free at 0.5, the second one at 1.0


def test_pipelines_are_independent_of_each_other(deploy: Deploy, requests: Requests, affine: Any) -> None:
    cost = affine(base_s=0.1, per_chunk_token_s=0.0)
    one = deploy("colocated", dispatch="round_robin", latency=cost, pipeline=HALVES).instances[0]
    other = deploy("colocated", dispatch="round_robin", latency=cost, pipeline=Pipeline(1, (0.5, 0.5))).instances[0]
    spec = deploy("colocated", dispatch="round_robin", latency=cost)
    spec = ClusterSpec((one, other), spec.dispatch, spec.scaling, spec.link)
    assert times_s(spec, requests((0.0, 5, 1), (0.0, 5, 1)), "prefilled") == pytest.approx([0.1, 0.1])


def test_a_disaggregated_pair_of_pipelines_serves_all(deploy: Deploy, requests: Requests) -> None:
    prefills = deploy("prefill", "decode", pipeline=HALVES).instances[0]
    decodes = deploy("prefill", "decode", pipeline=Pipeline(1, (0.25, 0.75))).instances[1]
    spec = deploy("prefill", "decode", batch="unified_budget")
    spec = ClusterSpec((prefills, prefills, decodes, decodes), spec.dispatch, spec.scaling, spec.link)
    trace = requests(*[(0.01 * i, 50 + i, 1 + i % 7) for i in range(60)])
    assert len(times_s(spec, trace, "finish")) == 60


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.6), (1.5, -0.5)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"pipeline shares are .* that add up to 1"):
        Pipeline(0, shares)


def test_two_lanes_share_no_pipeline(deploy: Deploy) -> None:
    with pytest.raises(ValueError, match="a semi_pd instance has a pipeline; allowed: other roles"):
        deploy("semi_pd", pipeline=HALVES)
