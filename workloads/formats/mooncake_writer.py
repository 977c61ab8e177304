"""Write a trace as Mooncake's JSONL, which vLLM, SGLang, AIPerf, GuideLLM and Dynamo read.

Milliseconds, whole where they are; one id per block of every prompt. Blocks without an id here were never shared: they
get ids that occur once. The format has no place for sessions, tenants and classes: :func:`lost` names those left out.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from workloads.errors import TraceError
from workloads.formats.mooncake import BLOCK_TOKENS
from workloads.sessions import COLUMNS
from workloads.trace import Trace
from workloads.transform import LABELS

_NANOSECOND_DIGITS = 6


def lost(trace: Trace) -> list[str]:
    """The columns of ``trace`` that Mooncake's format cannot hold."""
    return [column for column in (*LABELS, *COLUMNS) if getattr(trace, column) is not None]


def write(trace: Trace, path: str | os.PathLike[str], block_tokens: int = BLOCK_TOKENS) -> None:
    """Write ``trace`` to ``path``, whole or not at all.

    ``block_tokens`` must be the size that the trace's ids have (:meth:`Trace.with_block_tokens` converts them); readers
    of the format take 512 unless told otherwise. Raises TraceError.
    """
    own = trace.prefix_block_tokens
    if own is not None and own != block_tokens:
        raise TraceError(
            f"{trace.name}: prefix ids of {own} tokens (allowed: {block_tokens}); convert them (--block-tokens "
            f"{block_tokens}), or write blocks of {own} by --block-tokens {own} for readers that can be told"
        )
    target = Path(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.writelines(_lines(trace, block_tokens))
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise TraceError(f"{target}: the trace cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _lines(trace: Trace, block_tokens: int) -> Iterator[str]:
    known = trace.prefix_ids or ((),) * len(trace)
    fresh = count(max((max(ids) for ids in known if ids), default=-1) + 1)
    columns = zip(
        trace.arrival_s.tolist(), trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), known, strict=True
    )
    for arrival_s, prompt, output, ids in columns:
        missing = -(-prompt // block_tokens) - len(ids)
        row = {
            "timestamp": _milliseconds(arrival_s),
            "input_length": prompt,
            "output_length": output,
            "hash_ids": [*ids, *(next(fresh) for _ in range(missing))],
        }
        yield json.dumps(row) + "\n"


def _milliseconds(seconds: float) -> int | float:
    rounded = round(seconds * 1_000, _NANOSECOND_DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded
