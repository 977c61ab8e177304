"""SLO classes in a parameter's text: ``interactive=0.5/batch=30`` or ``interactive/standard/batch``."""

from __future__ import annotations

import math


def class_names(text: str) -> dict[str, int]:
    """Place of each class in ``a/b/c``, from 0. Raises ``ValueError`` for an empty or repeated name."""
    names = [name.strip() for name in text.split("/")]
    for name in names:
        if not name or names.count(name) > 1:
            raise ValueError(f"classes={text!r}; allowed: different names, highest first, such as interactive/batch")
    return {name: place for place, name in enumerate(names)}


def class_seconds(parameter: str, text: str) -> dict[str, float]:
    """Seconds of each class in ``a=0.5/b=30``; none in an empty text. Raises ``ValueError``."""
    found: dict[str, float] = {}
    for part in text.split("/") if text.strip() else ():
        name, _, seconds = (piece.strip() for piece in part.partition("="))
        try:
            found[name] = float(seconds)
        except ValueError:
            found[name] = math.nan
        if not name or not 0 < found[name] < math.inf:
            raise ValueError(
                f"{parameter}={text!r}: {part!r} is no class with seconds above 0; write interactive=0.5/batch=30"
            )
    return found
