"""Ends a text in front of the first stop string, also where tokens cut it; nothing of it is ever given out."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Of one sequence; holds back an end that may be the beginning of a stop string."""

    __slots__ = ("_held", "_longest", "_stops", "found")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text."""

    def step(self, text: str) -> str:
        """What may be given out, now that ``text`` has come. After :attr:`found` there must be no further call."""
        if not self._stops:
            return text
        text = self._held + text
        at, self.found = min(((text.find(stop), stop) for stop in self._stops if stop in text), default=(-1, None))
        if self.found is not None:
            self._held = ""
            return text[:at]
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, at the end of the sequence."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of ``text`` that some stop string begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
