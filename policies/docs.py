"""What a policy's docstring says: one line, then the headings Idea, Reads, Parameters, Source.

The docstring is the class's own if it has one of the headings, otherwise its module's ("one policy, one file").
"""

from __future__ import annotations

import inspect
import re
import sys

HEADINGS = ("Idea", "Reads", "Parameters", "Source")
_PARAMETER = re.compile(r"(\w+): (.*)")


def sections(cls: type) -> dict[str, str]:
    """Heading -> its text with the indent removed. The key ``""`` holds the first line. Missing headings are absent."""
    module = sys.modules.get(cls.__module__)
    for doc in (cls.__doc__, module.__doc__ if module else None):
        lines = inspect.cleandoc(doc or "").splitlines()
        if any(line in HEADINGS for line in lines):
            return _split(lines)
    return {}


def _split(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {"": lines[:1]}
    current: list[str] | None = None
    for line in lines[1:]:
        if line in HEADINGS:
            current = found.setdefault(line, [])
        elif current is not None:
            current.append(line)
    return {heading: inspect.cleandoc("\n".join(text)).strip() for heading, text in found.items()}


def parameter_docs(cls: type) -> dict[str, str]:
    """Parameter name -> its text, from ``name: text`` lines under Parameters (indented lines continue the text)."""
    docs: dict[str, str] = {}
    name = ""
    for line in sections(cls).get("Parameters", "").splitlines():
        start = _PARAMETER.match(line)
        if start:
            name = start[1]
            docs[name] = start[2]
        elif name:
            docs[name] += " " + line.strip()
    return docs
