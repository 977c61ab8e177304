"""Who has had how much, and who of each tenant waits: what vtc is made of."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from operator import attrgetter

from policies.api import BatchPlan, LaneView, SequenceView
from policies.batch.waiting_line import Follower

_TENANT = attrgetter("request.tenant")


@dataclass(slots=True)
class _Account:
    """Tokens are counted whole, so that the sum does not depend on the steps in which they came."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    lifted: float = 0.0


class Accounts:
    """Virtual counters by tenant; the tenant without a name is the empty text."""

    def __init__(self, prompt_weight: float, output_weight: float, max_tenants: int) -> None:
        self._prompt_weight = prompt_weight
        self._output_weight = output_weight
        self._max_tenants = max_tenants
        self._accounts: dict[str, _Account] = {}
        """The longest idle first."""
        self._decoding: dict[str, int] = {}
        """Decodes of each tenant that take part in the iterations after the last look."""
        self._iterations = 0

    def counter(self, tenant: str) -> float:
        account = self._accounts.get(tenant)
        if account is None:
            return 0.0
        return self._served(account) + account.lifted

    def charge_decodes(self, lane: LaneView) -> None:
        """Charge the iterations since the last look, and note who decodes from now on."""
        iterations = lane.decode_iterations - self._iterations
        if iterations:
            self._iterations = lane.decode_iterations
            for tenant, decodes in self._decoding.items():
                self._account(tenant).output_tokens += iterations * decodes
        self._decoding = {}
        for tenant, decodes in Counter(map(_TENANT, lane.decodes)).items():
            self._decoding[tenant or ""] = self._decoding.get(tenant or "", 0) + decodes

    def charge_prompt(self, tenant: str, prompt_tokens: int) -> None:
        """Charge an admitted prompt and the token that it yields."""
        account = self._account(tenant)
        account.prompt_tokens += prompt_tokens
        account.output_tokens += 1

    def admission_cost(self, prompt_tokens: int) -> float:
        """By how much :meth:`charge_prompt` moves the counter."""
        return self._prompt_weight * prompt_tokens + self._output_weight

    def lift(self, tenant: str, least: float) -> None:
        """Have a tenant's counter at ``least`` or more; it was active now."""
        account = self._accounts.pop(tenant, None) or _Account()
        self._accounts[tenant] = account
        account.lifted = max(account.lifted, least - self._served(account))

    def forget(self, active: Collection[str]) -> None:
        """Drop idle tenants beyond the limit."""
        excess = len(self._accounts) - self._max_tenants
        if excess > 0:
            idle = [tenant for tenant in self._accounts if tenant not in active and tenant not in self._decoding]
            for tenant in idle[:excess]:
                del self._accounts[tenant]

    def _served(self, account: _Account) -> float:
        return self._prompt_weight * account.prompt_tokens + self._output_weight * account.output_tokens

    def _account(self, tenant: str) -> _Account:
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _Account()
        return account


class TenantLines(Follower):
    """The waiting requests of each tenant, first come first."""

    def __init__(self, accounts: Accounts) -> None:
        super().__init__()
        self._accounts = accounts
        self._lines: dict[str, list[tuple[float, int]]] = {}
        """(arrival, request id) of who waits, ascending; a tenant of whom nobody waits is not in it."""
        self._places: dict[int, tuple[str, float, int]] = {}
        """Tenant, arrival and prompt tokens to charge (0 of a preempted request) of who waits."""
        self._planned: list[int] = []
        self._last_left: str | None = None

    @property
    def several_wait(self) -> bool:
        """Whether requests of more than one tenant wait."""
        return len(self._lines) > 1

    def planned(self, plan: BatchPlan) -> None:
        """What was decided: who leaves the line after this was admitted."""
        self._planned = [chunk.request_id for chunk in plan.prefills if chunk.request_id in self._places]

    def fairest_first(self) -> Iterator[SequenceView]:
        """The oldest request of the tenant with the lowest counter; its admission counts at once."""
        accounts = self._accounts
        heap = [(accounts.counter(tenant), line[0], tenant, 0) for tenant, line in self._lines.items()]
        heapify(heap)
        while heap:
            counter, (_, request_id), tenant, place = heap[0]
            self._offered.append(request_id)
            yield self._known[request_id]
            line = self._lines[tenant]
            if place + 1 == len(line):
                heappop(heap)
                continue
            _, _, prompt_tokens = self._places[request_id]
            counter += accounts.admission_cost(prompt_tokens) if prompt_tokens else 0.0
            heapreplace(heap, (counter, line[place + 1], tenant, place + 1))

    def some_head_fits(self, lane: LaneView) -> bool:
        """Whether the next prompt of any tenant finds blocks now (later ones find no more)."""
        blocks = lane.free_blocks - lane.decode_blocks
        heads = (self._known[line[0][1]] for line in self._lines.values())
        return any(lane.blocks_needed(head, lane.uncomputed_tokens(head)) <= blocks for head in heads)

    def waits_already(self) -> Collection[int]:
        return self._places

    def arrived(self, sequence: SequenceView) -> None:
        request = sequence.request
        tenant = request.tenant or ""
        line = self._lines.get(tenant)
        if line is None:
            self._accounts.lift(tenant, self._least())
            self._accounts.forget(self._lines.keys() | {tenant})
            line = self._lines[tenant] = []
        insort(line, (request.arrival_s, request.request_id))
        charged = 0 if sequence.generated_tokens else request.prompt_tokens
        self._places[request.request_id] = (tenant, request.arrival_s, charged)

    def left(self, request_id: int) -> None:
        tenant, arrival_s, prompt_tokens = self._places.pop(request_id)
        if request_id in self._planned and prompt_tokens:
            self._accounts.charge_prompt(tenant, prompt_tokens)
        line = self._lines[tenant]
        del line[bisect_left(line, (arrival_s, request_id))]
        if not line:
            del self._lines[tenant]
            self._last_left = tenant

    def _least(self) -> float:
        """What a tenant that comes to the queue is lifted to."""
        if self._lines:
            return min(self._accounts.counter(tenant) for tenant in self._lines)
        return self._accounts.counter(self._last_left) if self._last_left is not None else 0.0
