"""The contract of dispatch policies."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, ClassVar

from policies.api import Dispatch, Observer, PolicyEvent, PolicyKind, Reject
from policies.contracts.base import Handover, PolicyContract, keep
from policies.contracts.fakes import FakeCluster, fake_instance, fake_request, random_cluster, random_request


class DispatchContract(PolicyContract):
    kind: ClassVar[PolicyKind] = "dispatch"

    def decisions(self, policy: Any, seed: int, handover: Handover = keep) -> list[object]:
        rng = random.Random(seed)
        made: list[object] = []
        shown: set[int] = set()
        for request_id in range(60):
            cluster = random_cluster(rng, now_s=float(request_id))
            request = random_request(rng, request_id)
            shown.update(view.instance_id for view in cluster.instances)
            policy = handover(policy)
            before = replace(cluster)
            decision = policy.dispatch(request, cluster)
            assert cluster == before, "the policy changed the cluster view; views are read-only"
            check_dispatch(decision, cluster, shown)
            if isinstance(decision, Dispatch) and isinstance(policy, Observer):
                policy.observe(
                    PolicyEvent("dispatched", cluster.now_s, request_id, decision.instance_id, request.prompt_tokens)
                )
            made.append(decision)
        return made

    def test_the_only_instance_is_chosen_or_the_request_held_back(self) -> None:
        for seed in self.seeds:
            decision = self.make(seed).dispatch(fake_request(), FakeCluster((fake_instance(7),)))
            assert not isinstance(decision, Dispatch) or decision.instance_id == 7


def check_dispatch(decision: object, cluster: FakeCluster, shown: set[int]) -> None:
    """A decision of the right type that names instances of this view (the decode instance: any view's) only."""
    assert decision is None or isinstance(decision, Dispatch | Reject), f"{decision!r}: Dispatch, Reject or None"
    if isinstance(decision, Dispatch):
        here = [view.instance_id for view in cluster.instances]
        assert decision.instance_id in here, f"{decision}: the instances are {here}"
        assert decision.decode_instance_id is None or decision.decode_instance_id in shown, (
            f"{decision}: the decode instance was never shown"
        )
    if isinstance(decision, Reject):
        assert decision.reason, "a rejection gives its reason"
