"""What has happened on an instance and has not been told yet."""

from __future__ import annotations

from reference_impl.engine.step import Failure, Output, Parcel, Step


class News:
    """Gathers the parts of the next :class:`Step`."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.outputs: list[Output] = []
        self.parcels: list[Parcel] = []
        self.adopted: list[int] = []
        self.dropped: list[int] = []
        self.failed: list[Failure] = []

    def absorb(self, other: News) -> None:
        """Take over what another one has gathered."""
        self.outputs += other.outputs
        self.parcels += other.parcels
        self.adopted += other.adopted
        self.dropped += other.dropped
        self.failed += other.failed
        other._clear()

    def forget(self, request_id: int) -> None:
        """Nobody wants to hear of this request any more."""
        self.outputs = [output for output in self.outputs if output.request_id != request_id]
        self.parcels = [parcel for parcel in self.parcels if parcel.request_id != request_id]
        self.adopted = [adopted for adopted in self.adopted if adopted != request_id]
        self.dropped = [dropped for dropped in self.dropped if dropped != request_id]
        self.failed = [failure for failure in self.failed if failure.request_id != request_id]

    def take(self, changed: bool) -> Step | None:
        """The step, and a clean sheet; None where there is nothing to tell."""
        step = Step(self.outputs, self.parcels, self.adopted, self.dropped, self.failed, changed)
        if not step:
            return None
        self._clear()
        return step
