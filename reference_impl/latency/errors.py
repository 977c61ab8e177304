"""The one error of this package that a user can cause."""

from __future__ import annotations


class ProfileError(ValueError):
    """A hardware, model or profile description is unknown, incomplete or does not fit; the message says what would."""
