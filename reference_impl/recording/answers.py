"""Calls that a policy makes on its views: passed on and noted while recording, answered from the notes in a replay."""

from __future__ import annotations

from collections.abc import Iterable

from policies.api import Estimate
from reference_impl.recording.rows import Answer, Row

Answers = list[Answer]


class NotShownError(Exception):
    """A replayed policy asks for what the recorded one did not ask for."""


class RecordedEstimate:
    """The host's latency model; every answer is noted."""

    __slots__ = ("_answers", "_estimate")

    def __init__(self, estimate: Estimate, answers: Answers) -> None:
        self._estimate = estimate
        self._answers = answers

    def prefill_s(self, new_tokens: int, context_tokens: int = 0) -> float:
        """See ``policies.api.Estimate``."""
        seconds = self._estimate.prefill_s(new_tokens, context_tokens)
        self._answers.append(("prefill_s", new_tokens, context_tokens, seconds))
        return seconds

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        """See ``policies.api.Estimate``."""
        seconds = self._estimate.decode_s(sequences, context_tokens)
        self._answers.append(("decode_s", sequences, context_tokens, seconds))
        return seconds


class Notes:
    """The answers of one recorded decision."""

    def __init__(self, answers: Iterable[Row]) -> None:
        self._by_call: dict[tuple[object, ...], float] = {tuple(answer[:-1]): answer[-1] for answer in answers}

    def answer(self, *call: object) -> float:
        """What the call gave. Raises NotShownError."""
        found = self._by_call.get(call)
        if found is None:
            name, *arguments = call
            raise NotShownError(f"asks for {name}({', '.join(map(str, arguments))}), which it did not when recorded")
        return found


class NotedEstimate:
    """The estimates of one recorded decision; satisfies ``policies.api.Estimate``."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def prefill_s(self, new_tokens: int, context_tokens: int = 0) -> float:
        """As recorded."""
        return self._notes.answer("prefill_s", new_tokens, context_tokens)

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        """As recorded."""
        return self._notes.answer("decode_s", sequences, context_tokens)
