"""The seam to whatever computes an instance's iterations: one executor for each lane, over one KV pool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from reference_impl.core.instance import Instance
from reference_impl.engine.api import Executor
from reference_impl.engine.kv_file import KvFile


class Crew(Protocol):
    """The workers of one instance. One of them dead, the crew is closed and another one started."""

    @property
    def executors(self) -> Sequence[Executor]:
        """In the order of the instance's lanes."""
        ...

    @property
    def pool(self) -> KvFile | None:
        """Where the KV lies; None: where other processes cannot reach it."""
        ...

    @property
    def progress(self) -> str:
        """File in which the prefill lane's worker notes the layers that it has written; empty: none."""
        ...

    @property
    def eos_token_ids(self) -> frozenset[int]: ...
    @property
    def vocab_tokens(self) -> int: ...
    def close(self) -> None:
        """End the workers and give their memory back; a worker that hangs is killed."""
        ...


StartCrew = Callable[[Instance], Awaitable[Crew]]
"""Starts an instance's crew and returns once every worker has run a forward. Raises EngineError."""
