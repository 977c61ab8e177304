"""When each request of a trace is due: at its recorded time, or, in a closed loop, after the answer before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from workloads.closed_loop import Followers, first_turns, followers
from workloads.trace import Trace


class Due(NamedTuple):
    """A request and its moment, in seconds since the replay's start."""

    at_s: float
    row: int


class Turns:
    """The order of a replay. Requests that are not sent at all end in the moment in which they are due.

    ``refused``: rows that are not sent. Raises TraceError where the trace does not fit a closed loop.
    """

    def __init__(self, trace: Trace, refused: Iterable[int], closed_loop: bool) -> None:
        self._followers: Followers = followers(trace) if closed_loop else {}
        rows = first_turns(trace).tolist() if closed_loop else range(len(trace))
        self._first = [Due(at_s, row) for row, at_s in zip(rows, trace.arrival_s[rows].tolist(), strict=True)]
        self._refused = frozenset(refused)
        self.refusals = len(self._refused)
        """How many are not sent."""
        self.refused: list[Due] = []
        """Those that were due so far and were not sent."""

    def first(self) -> list[Due]:
        """What is due whatever the server does, by time."""
        return sorted(due for first in self._first for due in self._sent(first))

    def after(self, row: int, ended_s: float) -> list[Due]:
        """What is due since this request ended, with an answer or without one."""
        return [
            due for child, think_s in self._followers.get(row, ()) for due in self._sent(Due(ended_s + think_s, child))
        ]

    def _sent(self, due: Due) -> Iterator[Due]:
        """The request itself; in place of one that is refused, those that follow it."""
        if due.row not in self._refused:
            yield due
            return
        self.refused.append(due)
        yield from self.after(due.row, due.at_s)
