"""Timings kept as they come, so that a profile that was interrupted goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.profiling.measure import Timing
from experiments.profiling.shapes import Shape


class Notes:
    """A file of lines: what was asked for, then a timing each. Another question begins a new file."""

    def __init__(self, path: Path, question: Mapping[str, Any], shapes: Sequence[Shape]) -> None:
        self._path = path
        self._head = json.dumps({**question, "shapes": shapes}, sort_keys=True)
        self.timings = list(self._read())

    def keep(self, timings: Iterator[Timing]) -> None:
        """Write each down before the next one is taken."""
        with self._path.open("w", encoding="utf-8", buffering=1) as file:
            file.write("\n".join([self._head, *map(json.dumps, self.timings), ""]))
            for timing in timings:
                file.write(json.dumps(timing) + "\n")
                self.timings.append(timing)

    def remove(self) -> None:
        """The profile is written; the notes are of no more use."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> Iterator[Timing]:
        """Those of an earlier attempt at the same question; a line cut short ends them."""
        if not self._path.is_file():
            return
        head, *lines = self._path.read_text(encoding="utf-8").split("\n")
        if head != self._head:
            return
        for line in lines:
            try:
                yield Timing(*json.loads(line))
            except (ValueError, TypeError):
                return
