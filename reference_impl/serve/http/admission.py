"""How many sequences are in flight, in all and per tenant; who comes beyond that is told to try again.

A request of a batch job waits instead, since nobody else does for it: for one of the places that all batch jobs share,
where tenants take turns, and for room within its tenant's own limit. What a tenant has in flight in batch jobs counts
in that limit like all else; in the limit of the house it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from reference_impl.serve.http.auth import Caller
from reference_impl.serve.http.errors import ServingError, invalid
from reference_impl.serve.http.settings import HttpSettings


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request of a batch job."""

    caller: Caller
    sequences: int
    turn: asyncio.Future[None]


class Admission:
    """Counts of one front door."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._by_tenant: Counter[str | None] = Counter()
        self._batch_places = settings.batch_concurrency
        """Those that are free."""
        self._waiting: dict[str | None, deque[_Waiting]] = {}
        """Tenants in the order of their turns."""
        self.sequences = 0
        """In flight now, without those of batch jobs."""

    def enter(self, caller: Caller, sequences: int) -> None:
        """Take places; :meth:`leave` gives them back. Raises ServingError: 429, or 400 where it could never fit."""
        self._check(sequences, self.sequences, self._settings.max_concurrent, "this server")
        limit = self._tenant_limit(caller)
        if limit is not None:
            self._check(sequences, self._by_tenant[caller.tenant], limit, "this tenant")
        self.sequences += sequences
        self._by_tenant[caller.tenant] += sequences

    def leave(self, caller: Caller, sequences: int) -> None:
        """Give places back."""
        self.sequences -= sequences
        self._let_go(caller, sequences)

    @contextlib.asynccontextmanager
    async def batch_place(self, caller: Caller, sequences: int) -> AsyncIterator[None]:
        """A place for a request of a batch job, once there is one. Raises ServingError (400) where it never could."""
        limit = self._tenant_limit(caller)
        if limit is not None:
            self._check(sequences, 0, limit, "this tenant")
        request = _Waiting(caller, sequences, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(caller.tenant, deque()).append(request)
        self._take_turns()
        try:
            await request.turn
            yield
        finally:
            self._done(request)

    def _done(self, request: _Waiting) -> None:
        """It is over, or not wanted any more."""
        tenant = request.caller.tenant
        if request.turn.done() and not request.turn.cancelled():
            self._batch_places += 1
            self._let_go(request.caller, request.sequences)
            return
        self._waiting[tenant].remove(request)
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        self._take_turns()

    def _take_turns(self) -> None:
        """Let in who fits, first the tenant whose last turn is longest ago."""
        while (request := next((many[0] for many in self._waiting.values() if self._fits(many[0])), None)) is not None:
            tenant = request.caller.tenant
            self._batch_places -= 1
            self._by_tenant[tenant] += request.sequences
            request.turn.set_result(None)
            others = self._waiting.pop(tenant)
            others.popleft()
            if others:
                self._waiting[tenant] = others

    def _fits(self, request: _Waiting) -> bool:
        limit = self._tenant_limit(request.caller)
        taken = self._by_tenant[request.caller.tenant] + request.sequences
        return self._batch_places > 0 and (limit is None or taken <= limit) and not request.turn.done()

    def _let_go(self, caller: Caller, sequences: int) -> None:
        self._by_tenant[caller.tenant] -= sequences
        if not self._by_tenant[caller.tenant]:
            del self._by_tenant[caller.tenant]
        self._take_turns()

    def _check(self, sequences: int, taken: int, most: int, whose: str) -> None:
        if sequences > most:
            raise invalid(f"{sequences} sequences in one call are over the {most} that {whose} may have; ask for less")
        if taken + sequences > most:
            raise ServingError(
                429,
                f"{taken} sequences of {whose} are in flight, {most} are allowed; try again later",
                code="rate_limit_exceeded",
                retry_after_s=self._settings.retry_after_s,
            )

    def _tenant_limit(self, caller: Caller) -> int | None:
        """Of this front door; None: there is no limit of the tenant's own."""
        if caller.max_concurrent is not None:
            return max(1, caller.max_concurrent // self._settings.front_doors)
        return self._settings.max_concurrent_per_tenant
