"""What makes a replay impossible."""

from __future__ import annotations


class ReplayError(ValueError):
    """A replay that cannot start: the server is not there or refuses, or a setting cannot be meant.

    The message is one line that names what was found, what is allowed and the remedy.
    """
