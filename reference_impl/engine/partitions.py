"""Compute shares of a live instance's two lanes: none yet, both may use all that they get."""

from __future__ import annotations

from policies.api import Partition
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.instance import Instance
from reference_impl.engine.api import EngineError


def begin_partition(instance: Instance, now_s: float) -> None:
    """Ask a semi-PD instance's partition policy for its shares and log them.

    Raises EngineError for shares that have to be enforced, PolicyError where the policy raises.
    """
    factory = instance.spec.partition
    if instance.spec.role != "semi_pd" or factory is None:
        return
    policy = factory(0)  # one that needs no luck is the only one that is taken
    try:
        shares, window_s = policy.initial(), policy.window_s
    except RAISED as error:
        raise policy_failure(policy, f"asked for the first shares of instance {instance.instance_id}", error) from error
    if shares != Partition(100, 100) or window_s is not None:
        raise EngineError(
            f"partition policy {policy.name!r} wants shares {tuple(shares)}, window {window_s} s; allowed in a live"
            " deployment of this version: none (both lanes may use the whole device)"
        )
    instance.log.partition.append((now_s, instance.instance_id, *shares, "initial shares"))
