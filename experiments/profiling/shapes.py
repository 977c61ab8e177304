"""Which iterations a profile measures: prompts, decodes and mixtures of many sizes, within an engine's limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from reference_impl.latency.api import Work

_CONTEXTS = (0, 64, 192, 512, 1024, 2048, 4096)
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Limits(NamedTuple):
    """What the deployment allows, and so what need not be measured."""

    max_batch_tokens: int
    max_sequences: int
    max_context_tokens: int
    """Of one request; beyond it the model goes on along its lines."""
    pool_tokens: int
    """KV tokens of an instance: contexts of one iteration add up to no more."""


class Shape(NamedTuple):
    """The content of one iteration."""

    chunks: tuple[tuple[int, int], ...]
    """(new tokens, tokens before them)."""
    contexts: tuple[int, ...]
    """KV tokens that each decode reads, its new one included."""

    @property
    def work(self) -> Work:
        """As a cost model sees it."""
        contexts = self.contexts
        low, high = (min(contexts), max(contexts)) if contexts else (0, 0)
        return Work(self.chunks, len(contexts), sum(contexts), low, high)

    def varied(self, visit: int) -> Shape:
        """About as large, never larger. Engines remember what they have seen of a size, and prompts of traffic rarely
        have the very same one twice; decodes do, with other contexts."""
        chunks = tuple((new - visit % max(1, new // 16), before) for new, before in self.chunks)
        return Shape(chunks, tuple(max(1, context - visit % 8) for context in self.contexts))

    def fits(self, limits: Limits) -> bool:
        """Whether such an iteration can occur."""
        lengths = [*self.contexts, *(new + before for new, before in self.chunks)]
        tokens = len(self.contexts) + sum(new for new, _ in self.chunks)
        return (
            tokens <= limits.max_batch_tokens
            and len(lengths) <= limits.max_sequences
            and max(lengths) <= limits.max_context_tokens
            and sum(lengths) <= limits.pool_tokens
        )


def shapes(limits: Limits, *, quick: bool = False) -> list[Shape]:
    """Each once, in a fixed order; ``quick``: about a third of them."""
    found = [shape for shape in dict.fromkeys((*_prefills(), *_decodes(), *_mixed())) if shape.fits(limits)]
    return found[::3] if quick else found


def _chunk_sizes() -> Iterator[int]:
    size = 8
    while size <= 8192:
        yield size
        yield size * 3 // 2
        size *= 2


def _prefills() -> Iterator[Shape]:
    for new in _chunk_sizes():
        for before in _CONTEXTS:
            yield Shape(((new, before),), ())
    for new in (16, 48, 128, 256):
        yield Shape(((new, 0), (new, 0)), ())
        yield Shape(((new, 64), (2 * new, 512)), ())
        yield Shape(((new, 192), (new // 2, 0), (new, 0), (new // 4, 512)), ())


def _decodes() -> Iterator[Shape]:
    for count in _BATCHES:
        for context in (16, *_CONTEXTS[1:]):
            yield Shape((), (context,) * count)
    for count in (2, 4, 8, 16, 32):
        for context in (64, 192, 512):
            yield Shape((), _spread(count, context))


def _mixed() -> Iterator[Shape]:
    for new in (8, 16, 32, 64, 128, 256, 512):
        for before in (0, 192):
            for count, context in ((1, 192), (4, 64), (4, 512), (8, 192), (16, 64), (32, 192)):
                yield Shape(((new, before),), _spread(count, context))
    for new in (32, 128):
        for count in (2, 8):
            yield Shape(((new, 0), (new, 0)), _spread(count, 192))


def _spread(count: int, mean: int) -> tuple[int, ...]:
    """Contexts from a quarter of the mean up to seven quarters, evenly."""
    if count == 1:
        return (mean,)
    return tuple(max(1, round(mean * (0.25 + 1.5 * place / (count - 1)))) for place in range(count))
