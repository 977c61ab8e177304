"""Answers of the single runs of long work, kept line by line until its outputs are written."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.cases.fingerprint import own_code
from experiments.cases.model import config_key
from experiments.config import RunConfig


class Answers:
    """An answer is known by a digest of all that it depends on, so that a file of other work is no danger."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: one answer a line; a line that is none, cut short for instance, is passed over. None: no file."""
        self.path = path
        self._known = dict(self._read())
        self._earlier = set(self._known)
        self._asked: set[str] = set()

    @property
    def kept(self) -> int:
        """How many the file holds."""
        return len(self._known) if self.path is not None else 0

    @property
    def taken_over(self) -> int:
        """How many that were asked for come from the file of an earlier attempt."""
        return len(self._earlier & self._asked)

    def ask(self, run: Callable[..., Any], *arguments: RunConfig | float | str) -> Any:
        """``run(*arguments)``, a function of a module with an answer ready for JSON, unless that is known already.

        The answer is what JSON makes of it, in the first attempt too: a tuple comes as a list.
        """
        key = _digest(run, arguments)
        self._asked.add(key)
        if key not in self._known:
            self._keep(key, run(*arguments))
        return self._known[key]

    def remove(self) -> None:
        """The outputs are written; the file is of no more use."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _keep(self, key: str, answer: Any) -> None:
        line = json.dumps([key, answer])
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}")  # the break comes first: it ends a line that was cut short
        self._known[key] = json.loads(line)[1]

    def _read(self) -> Iterator[tuple[str, Any]]:
        if self.path is None or not self.path.is_file():
            return
        for line in self.path.read_bytes().split(b"\n"):
            try:
                key, answer = json.loads(line)
            except (ValueError, TypeError):
                continue
            yield str(key), answer


def _digest(run: Callable[..., Any], arguments: Sequence[RunConfig | float | str]) -> str:
    """Of the function, our code and that of its package, and the arguments with the files that they name."""
    asked = [config_key(each) if isinstance(each, RunConfig) else each for each in arguments]
    content = [run.__module__, run.__qualname__, own_code(Path(inspect.getfile(run)).resolve().parent), asked]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]
