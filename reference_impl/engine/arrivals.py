"""The decode side of hand-overs on one instance: promised, reserved, received or given up. Waits for nothing."""

from __future__ import annotations

from reference_impl.core.sequence import Sequence
from reference_impl.engine.api import EngineRequest
from reference_impl.engine.engine import Engine
from reference_impl.engine.live import Live
from reference_impl.engine.refusal import too_large
from reference_impl.engine.step import Parcel


class Arrivals:
    """Handed-over requests that are not decodes yet."""

    def __init__(self, engine: Engine, layout: tuple[int | str, ...]) -> None:
        self._engine = engine
        self._layout = layout
        self._sequences: dict[int, Sequence] = {}

    def expect(self, request: EngineRequest, parcel: Parcel) -> bool:
        """Promise a place; False, with the reason in the next step, where this instance cannot take it."""
        if parcel.request_id in self._engine.lives:
            return False
        reason = self._engine.failure or self._refusal(request, parcel)
        if reason is not None:
            self._engine.refuse(parcel.request_id, reason, retry=True)
            return False
        generated = parcel.tokens + 1 - len(request.prompt)
        sequence = Sequence.handed_over(request.view, generated, request.params.max_tokens)
        self._engine.instance.expect(sequence)
        self._sequences[parcel.request_id] = sequence
        return True

    def reserve(self, request_id: int) -> tuple[int, ...] | None:
        """The blocks to copy its KV into; None: there are not so many now."""
        instance = self._engine.instance
        if not instance.reserve(self._sequences[request_id]):
            return None
        return tuple(instance.reserved_blocks(request_id))

    def receive(self, request: EngineRequest, start_s: float) -> None:
        """Its KV is here; the transfer began at ``start_s``."""
        engine = self._engine
        sequence = self._sequences.pop(request.view.request_id)
        engine.instance.receive(sequence, start_s, engine.clock())
        engine.welcome(Live(request, sequence))
        engine.news.adopted.append(sequence.request_id)

    def decline(self, request_id: int, reason: str | None) -> None:
        """It will not come: the promise and the blocks go back. A ``reason`` is told as a failure."""
        self._engine.instance.withdraw(request_id)
        del self._sequences[request_id]
        if reason is not None:
            self._engine.refuse(request_id, reason, retry=True)
        self._engine.stir()

    def _refusal(self, request: EngineRequest, parcel: Parcel) -> str | None:
        instance = self._engine.instance
        if instance.spec.role not in ("colocated", "decode"):
            return (
                f"instance {instance.instance_id} is {instance.spec.role};"
                " only decode and colocated ones take hand-overs"
            )
        if parcel.layout != self._layout:
            return f"its KV has layout {parcel.layout}, this instance's {self._layout}; both need the same model"
        expected = len(request.prompt) + len(request.generated) - (0 if parcel.early else 1)
        if parcel.tokens != expected or -(-parcel.tokens // instance.spec.block_tokens) != len(parcel.blocks):
            return f"its parcel has {parcel.tokens} tokens in {len(parcel.blocks)} blocks, the request {expected}"
        return too_large(len(request.prompt), len(request.generated), request.params.max_tokens, instance.spec)
