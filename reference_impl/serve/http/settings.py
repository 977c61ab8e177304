"""What the front door is told about the model and how much it lets in. Plain values: it travels to other processes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

MIB = 1024 * 1024


class SettingsError(ValueError):
    """Settings that cannot be meant: names the value, what is allowed and the remedy."""


@dataclass(frozen=True)
class HttpSettings:
    """Settings of one front door."""

    model: str
    """The name that clients use."""
    context_tokens: int
    """Prompt plus output of one sequence."""
    vocab_size: int
    """Of the model; token ids of a prompt are below it."""
    host: str = "127.0.0.1"
    """The address that the server binds. The app opens no socket; this decides whether keys are needed."""
    keys_file: Path | None = None
    """API keys, see :mod:`reference_impl.serve.http.auth`; None: no keys."""
    open_to_all: bool = False
    """Serve without keys on an address that others can reach."""
    max_body_bytes: int = 8 * MIB
    max_prompt_tokens: int | None = None
    """None: the context less one."""
    max_concurrent: int = 1024
    """Sequences in flight over all tenants; a call with n choices counts as n."""
    max_concurrent_per_tenant: int | None = None
    """None: no limit of its own. A key may set one. Requests of the tenant's batch jobs count, and wait for room."""
    request_timeout_s: float = 600.0
    max_choices: int = 128
    """Sequences of one call: prompts times n."""
    max_logprobs: int = 20
    max_batch_requests: int = 1000
    """Requests of one batch job."""
    max_batch_jobs: int = 16
    """Batch jobs of a tenant that run or whose results are kept; without keys, of all. Results that were fetched make
    room for new jobs, others do not."""
    batch_results_s: float = 24 * 3600.0
    """How long a batch job's results are kept after its end, fetched or not."""
    batch_concurrency: int = 16
    """Requests of batch jobs in flight, over all jobs; tenants take turns. :attr:`max_concurrent` is for the others."""
    max_kept_jobs: int = 256
    """Other jobs that have ended and are still listed."""
    retry_after_s: float = 1.0
    """What a client that finds the house full is told."""
    front_door: int = 0
    """Which of several front doors this is."""
    front_doors: int = 1
    own_port: int | None = None
    """Where it alone listens, beside the port that several share; None: there is one only."""

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} {getattr(self, name)} is not allowed (allowed: 1 or more)")
        if self.context_tokens < 2:
            raise SettingsError(f"context_tokens {self.context_tokens} is not allowed (allowed: 2 or more)")
        for name in ("request_timeout_s", "batch_results_s"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} {getattr(self, name)} is not allowed (allowed: more than 0)")
        if self.keys_file is None and not self.open_to_all and not is_loopback(self.host):
            raise SettingsError(
                f"host {self.host} can be reached by others and no API keys are set (allowed without keys: a loopback "
                "address); give keys_file, or say open_to_all to serve anybody"
            )

    def of_one(self, front_door: int, front_doors: int, own_port: int) -> Self:
        """Those of one of several: it lets in its part of what all of them may have in flight, at least 1."""
        if front_doors == 1:
            return self
        per_tenant = self.max_concurrent_per_tenant
        return replace(
            self,
            max_concurrent=max(1, self.max_concurrent // front_doors),
            max_concurrent_per_tenant=None if per_tenant is None else max(1, per_tenant // front_doors),
            batch_concurrency=max(1, self.batch_concurrency // front_doors),
            front_door=front_door,
            front_doors=front_doors,
            own_port=own_port,
        )

    @property
    def prompt_limit(self) -> int:
        """Tokens that a prompt may have."""
        most = self.context_tokens - 1
        return most if self.max_prompt_tokens is None else min(most, self.max_prompt_tokens)


_AT_LEAST_ONE = (
    *("vocab_size", "max_body_bytes", "max_concurrent", "max_choices", "max_batch_requests"),
    *("max_batch_jobs", "batch_concurrency", "max_kept_jobs"),
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. Names other than localhost are taken as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
