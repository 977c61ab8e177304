"""Tenants share what is served: the one that has had the least so far goes next.

Idea
    A virtual counter per tenant holds what it was served: ``prompt_weight`` per prompt token, charged at admission,
    ``output_weight`` per output token as it is generated. The next prompt is that of the waiting tenant with the
    lowest counter, its oldest first; if it does not fit, nobody is admitted. A tenant that comes back to the queue
    is lifted to the lowest counter in it (of an empty queue: to that of the tenant that left it last), so that idle
    time earns no credit. Between two backlogged tenants the gap stays within 2 max(wp L_in, wq M), with the longest
    prompt L_in and the most tokens M of a batch. Batches are those of unified_budget.
    The first token is charged with the prompt that yields it; a preempted request's prompt is not charged again.
    Counters move while decodes run, so a plan holds only if no waiting tenant's next prompt would fit, or one waits.
Reads
    Tenant, arrival and prompt tokens of who waits; tenants of the decodes; decode iterations; blocks and limits of the
    lane. A prefill lane sees no decodes: there prompts and first tokens count alone.
Parameters
    prompt_weight: service of one prompt token (wp).
    output_weight: service of one output token (wq).
    token_budget: tokens of one iteration; none: the engine's limit.
    max_tenants: idle tenants beyond these are forgotten, the longest idle first.
Source
    VTC (arXiv 2401.00588, Algorithm 2; OSDI'24), weights 1 and 2. Its counters move with each iteration and a lift
    happens at the arrival; here both are brought up to date when the next iteration is planned.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range
from policies.batch.mixed import ordered, without_promise
from policies.batch.tenants import Accounts, TenantLines


@dataclass
class Vtc:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "vtc"
    prompt_weight: Annotated[float, Range(0, 100)] = 1.0
    output_weight: Annotated[float, Range(0, 100)] = 2.0
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    max_tenants: Annotated[int, Range(1, 10_000_000, log=True)] = 100_000
    rng: random.Random = field(init=False, repr=False)
    _accounts: Accounts = field(init=False, repr=False)
    _lines: TenantLines = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._accounts = Accounts(self.prompt_weight, self.output_weight, self.max_tenants)
        self._lines = TenantLines(self._accounts)

    def plan(self, lane: LaneView) -> BatchPlan:
        self._accounts.charge_decodes(lane)
        self._lines.follow(lane)
        plan = DECODE_ALL
        if lane.waiting or lane.prefilling:
            plan = ordered(lane, self.token_budget, self._lines.fairest_first())
            if plan is DECODE_ALL and self._lines.several_wait and self._lines.some_head_fits(lane):
                plan = without_promise(lane, plan)
        self._lines.planned(plan)
        return plan

    def counter(self, tenant: str | None) -> float:
        """Service that this tenant has had (lifts included), as of the last plan."""
        return self._accounts.counter(tenant or "")
