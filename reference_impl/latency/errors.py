"""The one error of this package that a user can cause, and why a file cannot be read, in a user's words."""

from __future__ import annotations

import json


class ProfileError(ValueError):
    """A hardware, model or profile description is unknown, incomplete or does not fit; the message says what would."""


def reason(error: Exception) -> str:
    """One line, without the number and the file's name that the text of an OSError begins with."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    told = error.strerror if isinstance(error, OSError) else None
    words = told or " ".join(str(error).split()) or type(error).__name__
    return f"not JSON: {words}" if isinstance(error, json.JSONDecodeError) else words
