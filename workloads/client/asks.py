"""The requests of a trace, made ready to be sent: before the replay as far as memory allows, the rest on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from workloads.client.ask import Ask, Form
from workloads.client.prompts import PromptMaker, Vocabulary, as_ids
from workloads.client.turns import Due
from workloads.client.words import Words
from workloads.trace import Trace

PREPARED_BYTES = 256 * 2**20
"""Bodies beyond these are made one by one while the replay runs, at the cost of some lag."""


class Prompts(Protocol):
    """Prompts in the form that the server takes."""

    def prompt(self, row: int) -> list[int] | str: ...
    def warmup(self, number: int, tokens: int) -> list[int] | str: ...


class IdPrompts:
    """Token ids."""

    def __init__(self, trace: Trace, vocabulary: Vocabulary, seed: int) -> None:
        self._ids = vocabulary.ids()
        self._maker = PromptMaker(trace, len(self._ids), seed)

    def prompt(self, row: int) -> list[int]:
        return as_ids(self._maker.prompt(row), self._ids)

    def warmup(self, number: int, tokens: int) -> list[int]:
        return as_ids(self._maker.warmup(number, tokens), self._ids)


class TextPrompts:
    """Words, one for each token."""

    def __init__(self, trace: Trace, words: Words, seed: int) -> None:
        self._words = words
        self._maker = PromptMaker(trace, len(words.words), seed)

    def prompt(self, row: int) -> str:
        return self._words.text(self._maker.prompt(row).tolist())

    def warmup(self, number: int, tokens: int) -> str:
        return self._words.text(self._maker.warmup(number, tokens).tolist())


@dataclass(frozen=True)
class Labels:
    """Headers that carry a trace's labels; None: not sent."""

    tenant: str | None = "X-Semiflow-Tenant"
    slo_class: str | None = "X-Semiflow-Slo-Class"
    session_id: str | None = "X-Semiflow-Session"

    def headers(self, trace: Trace, row: int) -> Mapping[str, str]:
        """Those of the request in this row; an empty label is none."""
        columns = (
            (self.tenant, trace.tenant),
            (self.slo_class, trace.slo_class),
            (self.session_id, trace.session_id),
        )
        return {name: _plain(column[row]) for name, column in columns if name and column is not None and column[row]}


def asks(trace: Trace, due: Iterable[Due], form: Form, prompts: Prompts, labels: Labels) -> Iterator[Ask]:
    """The requests that are ``due``, in this order."""
    for at_s, row in due:
        output = int(trace.output_tokens[row])
        body = form.body(prompts.prompt(row), output)
        yield Ask(row, at_s, int(trace.prompt_tokens[row]), output, body, labels.headers(trace, row))


def warmup_asks(trace: Trace, count: int, form: Form, prompts: Prompts) -> Iterator[Ask]:
    """``count`` requests of the trace's first lengths, due at once, whose prompts share nothing with any of its own."""
    for number in range(count):
        row = number % len(trace)
        prompt, output = int(trace.prompt_tokens[row]), int(trace.output_tokens[row])
        yield Ask(row, 0.0, prompt, output, form.body(prompts.warmup(number, prompt), output), {})


def _plain(label: str) -> str:
    """A header's value; what a header cannot hold is percent-encoded."""
    return label if label.isascii() and label.isprintable() else quote(label)


class Prepared:
    """Asks that are made before they are needed, as many as ``budget_bytes`` of bodies allow."""

    def __init__(self, source: Iterator[Ask], budget_bytes: int = PREPARED_BYTES) -> None:
        self._source = source
        self._budget_bytes = budget_bytes
        self._ready: deque[Ask] = deque()

    def fill(self, on_made: Callable[[int], None] = lambda _: None) -> None:
        """Make the first ones; ``on_made`` is called with how many there are now and then."""
        held = 0
        while held < self._budget_bytes and (ask := next(self._source, None)) is not None:
            self._ready.append(ask)
            held += len(ask.body)
            on_made(len(self._ready))

    def __iter__(self) -> Iterator[Ask]:
        while self._ready:
            yield self._ready.popleft()
        yield from self._source
