"""Writing recordings: one file per process, any number of policies in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

from policies.api import BatchPolicy, DispatchPolicy, Observer, PolicyKind
from reference_impl.recording.batch import RecordedBatch
from reference_impl.recording.dispatch import RecordedDispatch, RecordedObserver
from reference_impl.recording.rows import VERSION, encode

Factory = Callable[[int], Any]
"""Seed -> a new policy object; its text says which, as that of ``policies.registry.PolicySpec`` does."""


class Recorder:
    """Appends lines to ``path``. A file that cannot be written ends the recording, never the run: see :attr:`error`.

    Lines wait in a buffer of 64 KiB; :meth:`flush` puts them onto the disk. Not to be shared between threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        """Why the recording ended early; None: it did not."""
        self._policies = 0
        self._file: TextIO | None = None
        self._try(self._open)

    def dispatch(self, policy: DispatchPolicy, spec: str, seed: int) -> DispatchPolicy:
        """The same policy, recorded; ``spec`` and ``seed`` are what it was built from. An observer stays one."""
        kind = RecordedObserver if isinstance(policy, Observer) else RecordedDispatch
        recorded = kind(policy, self._start("dispatch", spec, seed))
        return cast(DispatchPolicy, recorded)  # its name is the object's, the protocol's is the class's

    def batch(self, factory: Factory) -> Factory:
        """The same factory of batch policies, each of them recorded. Costs time for every sequence in the lane."""

        def recorded(seed: int) -> BatchPolicy:
            policy = RecordedBatch(factory(seed), self._start("batch", str(factory), seed))
            return cast(BatchPolicy, policy)

        return recorded

    @property
    def complaint(self) -> str:
        """For whoever watches the run: why the recording ended early; empty: it did not."""
        if self.error is None:
            return ""
        return f"decisions are recorded no further: {self.error.strerror or self.error}"

    def flush(self) -> None:
        """Put what was recorded so far onto the disk."""
        if self._file is not None:
            self._try(self._file.flush)

    def close(self) -> None:
        """End the recording."""
        if self._file is not None:
            self._try(self._file.close)

    def _open(self) -> None:
        self._file = self.path.open("a+", buffering=1 << 16, encoding="utf-8")
        if self._file.tell():
            self._file.write("\n\n")  # the line before may be torn, its process killed; an empty one says so

    def _start(self, kind: PolicyKind, spec: str, seed: int) -> Callable[..., None]:
        """Begin one policy's recording; returns what writes its lines."""
        number = self._policies
        self._policies += 1

        def write(*cells: object) -> None:
            file = self._file
            if file is not None and self.error is None:
                line = encode([number, *cells])
                self._try(lambda: file.write(line + "\n"))

        write("policy", {"kind": kind, "spec": spec, "seed": seed, "version": VERSION})
        return write

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self.error = self.error or error
