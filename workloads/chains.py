"""Chained ids for blocks that were hashed one by one: equal ids of ours mean equal prompts up to there."""

from __future__ import annotations

from collections.abc import Iterable


class Chains:
    """Numbers prefixes: each distinct sequence of block ids from the start of a prompt has one number, from 0 on.

    Ids that are chained already are renumbered one to one, so nothing is lost either way.
    """

    def __init__(self) -> None:
        self._number: dict[tuple[int, int], int] = {}
        self._first = 0

    def ids(self, blocks: Iterable[int]) -> tuple[int, ...]:
        """The chained ids of a prompt with these blocks."""
        number, first, before = self._number, self._first, -1
        chained = []
        for block in blocks:
            before = number.setdefault((before, block), first + len(number))
            chained.append(before)
        return tuple(chained)

    def next_scope(self) -> None:
        """From here on, equal block ids say nothing about those before: ids were local to a file or session."""
        self._first += len(self._number)
        self._number = {}
