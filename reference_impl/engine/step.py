"""What an instance tells the outside after an iteration or an event: plain values that can go over a wire."""

from __future__ import annotations

from typing import NamedTuple

from reference_impl.engine.api import FinishReason, SampledToken


class Output(NamedTuple):
    """New tokens of one request; the token that ends it (end of sequence, stop id) is among them."""

    request_id: int
    tokens: tuple[SampledToken, ...]
    finish: FinishReason | None


class Parcel(NamedTuple):
    """The KV of a prefilled request, waiting where it was computed until another instance has pulled it.

    Said a second time, it may stay: nothing moves there any more (``core/standstill.py``).
    """

    request_id: int
    source_instance: int
    tokens: int
    """Whose KV it is: the prompt and all but the last generated token."""
    blocks: tuple[int, ...]
    address: str
    """``shm:PATH`` of the pool, or ``tcp:HOST:PORT`` of whoever serves it."""
    pool: str
    """Name of the pool; a worker that died gets a new one, so blocks of the old one are never taken for it."""
    layout: tuple[int | str, ...]
    early: bool = False
    """The last chunk is still being computed: layers can be pulled as they are written; a second, final parcel comes
    with the token."""
    ordinal: int = 0
    """The iteration that computes the last chunk, in the source's count."""
    progress: str = ""
    """Where the source's worker writes how far it has come; empty unless layers are pulled one by one."""


class Failure(NamedTuple):
    """A request that this instance will not serve, or not any more."""

    request_id: int
    reason: str
    retry: bool
    """Whether another instance, or this one later, may serve it."""


class Step(NamedTuple):
    """What has happened since the step before."""

    outputs: list[Output]
    parcels: list[Parcel]
    adopted: list[int]
    """Handed over to this instance, KV and all: their source can release them."""
    dropped: list[int]
    """Preempted on an instance that cannot prefill them: another one must."""
    failed: list[Failure]
    changed: bool
    """Whether the instance's view is another than at the step before."""

    def __bool__(self) -> bool:
        return any(self)
