"""Partition policies at work on one semi-PD instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reference_impl.core.spec import ClusterSpec, Slo
from reference_impl.events import EventLog
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]


@pytest.fixture
def shares(deploy: Deploy, affine: Any, requests: Callable[..., Trace]) -> Callable[..., list[tuple[int, int]]]:
    """The shares that a policy sets one after the other: ten seconds of traffic, ten of one long answer."""

    def run(partition: str, slo: Slo | None = None, **options: Any) -> list[tuple[int, int]]:
        rows = [(0.1 * i, 200, 60) for i in range(100)]
        log = EventLog(None)
        spec = deploy(
            "semi_pd",
            partition=partition,
            latency=affine(base_s=0.01, per_chunk_token_s=1e-4),
            spec={"slo": slo},
            **options,
        )
        simulate(spec, requests(*rows, (10.0, 10, 1000)), log)
        return [(prefill_pct, decode_pct) for _, _, prefill_pct, decode_pct, _ in log.partition]

    return run


def test_pdmux_goes_from_prefill_to_a_mixed_group_and_ends_with_decode(shares: Callable[..., Any]) -> None:
    made = shares("pdmux_table")
    assert made[0] == (100, 15)
    assert (85, 15) in made
    assert made[-1] == (55, 100)


def test_duet_splits_only_where_decoding_misses_its_target(shares: Callable[..., Any]) -> None:
    assert shares("duet_on_demand:window_s=1", Slo(tpot_s=1.0)) == [(100, 100)]
    made = shares("duet_on_demand:window_s=1", Slo(tpot_s=0.012))
    assert made[0] == (100, 100)
    assert any(sum(split) == 100 for split in made)
    assert made[-1] == (100, 100), "no prefill any more"


def test_nexus_turns_to_decode_when_kv_is_tight(shares: Callable[..., Any]) -> None:
    roomy, tight = (shares("nexus_greedy", kv_blocks=blocks) for blocks in (10_000, 120))
    assert max(decode for _, decode in roomy) == 50, "prefill is favoured from the start"
    assert max(decode for _, decode in tight) == 70
