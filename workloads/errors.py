"""The one exception that bad traffic raises."""

from __future__ import annotations

_SHOWN_CHARACTERS = 60


class TraceError(ValueError):
    """A trace, a trace file or a workload's description that cannot be used.

    The message is one line that names the file or trace, the row, the column, the value and what is allowed.
    """


def refusal(where: str, column: str, value: object, allowed: str) -> str:
    """The text of a :class:`TraceError` about one value; ``where`` names the file or trace and the row."""
    return f"{where}, column {column}: {shown(value)} is not allowed (allowed: {allowed})"


def shown(value: object, characters: int = _SHOWN_CHARACTERS) -> str:
    """``value`` in one line of at most so many characters."""
    text = repr(value)
    return text if len(text) <= characters else text[: characters - 3] + "..."
