"""How many sequences are in flight, in all and per tenant; who comes beyond that is told to try again."""

from __future__ import annotations

from collections import Counter

from reference_impl.serve.http.auth import Caller
from reference_impl.serve.http.errors import ServingError, invalid
from reference_impl.serve.http.settings import HttpSettings


class Admission:
    """Counts of one front door."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._by_tenant: Counter[str | None] = Counter()
        self.sequences = 0
        """In flight now."""

    def enter(self, caller: Caller, sequences: int) -> None:
        """Take places; :meth:`leave` gives them back. Raises ServingError: 429, or 400 where it could never fit."""
        limit = self._tenant_limit(caller)
        for taken, most, whose in (
            (self.sequences, self._settings.max_concurrent, "this server"),
            (self._by_tenant[caller.tenant], limit, "this tenant"),
        ):
            if sequences > most:
                raise invalid(
                    f"{sequences} sequences in one call are over the {most} that {whose} may have; ask for less"
                )
            if taken + sequences > most:
                raise ServingError(
                    429,
                    f"{taken} sequences of {whose} are in flight, {most} are allowed; try again later",
                    code="rate_limit_exceeded",
                    retry_after_s=self._settings.retry_after_s,
                )
        self.sequences += sequences
        self._by_tenant[caller.tenant] += sequences

    def leave(self, caller: Caller, sequences: int) -> None:
        """Give places back."""
        self.sequences -= sequences
        self._by_tenant[caller.tenant] -= sequences
        if not self._by_tenant[caller.tenant]:
            del self._by_tenant[caller.tenant]

    def _tenant_limit(self, caller: Caller) -> int:
        for limit in (caller.max_concurrent, self._settings.max_concurrent_per_tenant):
            if limit is not None:
                return limit
        return self._settings.max_concurrent
