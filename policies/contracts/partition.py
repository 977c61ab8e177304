"""The contract of partition policies."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from policies.api import Partition, PartitionView, PolicyKind
from policies.contracts.base import Handover, PolicyContract, keep


class PartitionContract(PolicyContract):
    kind: ClassVar[PolicyKind] = "partition"

    def decisions(self, policy: Any, seed: int, handover: Handover = keep) -> list[object]:
        rng = random.Random(seed)
        shares = policy.initial()
        made: list[object] = [shares]
        check_partition(shares)
        for window in range(1, 41):
            view = random_window(rng, shares, now_s=window * (policy.window_s or 1.0))
            policy = handover(policy)
            shares = policy.partition(view)
            check_partition(shares)
            made.append(shares)
        return made

    def test_the_window_is_a_positive_time_or_none(self) -> None:
        window_s = self.make(0).window_s
        assert window_s is None or window_s > 0, f"window_s = {window_s}: seconds above 0, or None"


def check_partition(shares: object) -> None:
    """A ``Partition`` of whole percentages from 1 to 100."""
    assert isinstance(shares, Partition), f"{shares!r}: a Partition"
    for pct in shares:
        assert type(pct) is int, f"{shares}: shares are whole percentages"
        assert 1 <= pct <= 100, f"{shares}: each share is 1 to 100"


def random_window(rng: random.Random, shares: Partition, now_s: float) -> PartitionView:
    """A window that may be idle, fine, overloaded, or without samples or targets."""
    arrivals = rng.choice((0, 5, 50, 500))
    tightness = rng.choice((0.1, 1.0, 10.0))
    return PartitionView(
        now_s=now_s,
        instance_id=0,
        partition=shares,
        window_s=10.0,
        ttft_s=tuple(rng.expovariate(tightness) for _ in range(rng.choice((0, arrivals)))),
        tpot_s=tuple(rng.expovariate(10 * tightness) for _ in range(rng.choice((0, arrivals)))),
        arrivals=arrivals,
        prefill_busy_s=rng.uniform(0, 10) if arrivals else 0.0,
        prefilled_requests=rng.choice((0, arrivals)),
        waiting_requests=rng.randrange(20),
        running_requests=rng.randrange(60),
        ttft_target_s=rng.choice((None, 1.0)),
        tpot_target_s=rng.choice((None, 0.1)),
        kv_use=rng.random(),
    )
