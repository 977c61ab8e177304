"""What a first token takes beyond its forward: the way from the client to the worker and back, on an idle system."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from experiments.bench.figures import Figure
from experiments.bench.serve_client import Stream, begin, finish
from experiments.bench.serve_host import MODEL, deployment
from reference_impl.metrics import RunLog, read

_LIMIT_MS = 15.0
_WARMUP = 10
_PROMPT_TOKENS = 64
_PAUSE_S = 0.03
"""Between two requests: the system is idle again."""
_ANSWER_S = 60.0


class Parts(NamedTuple):
    """Where the time to a first token went; seconds."""

    to_door: float
    """From the client's call to the front door's handler."""
    to_dispatch: float
    """Reading the request, and the job executor's decision."""
    to_plan: float
    """To the instance, up to its plan."""
    to_worker: float
    """Up to the start of the iteration, by the worker's clock."""
    forward: float
    """The engine's own."""
    to_client: float
    """From the end of the iteration."""

    @property
    def overhead(self) -> float:
        """All but the forward."""
        return sum(self) - self.forward


def first_token(folder: Path, quick: bool, report: Callable[[str], None]) -> list[Figure]:
    """One request after the other."""
    count = 30 if quick else 100
    fleet = {"kv_blocks": 512, "max_sequences": 64, "groups": [{"count": 2, "role": "colocated"}]}
    with deployment(folder, fleet) as running:
        report(f"{count} requests, one after the other")
        streams = asyncio.run(_one_by_one(running.facts["port"], _WARMUP + count))
    run = read(folder / "run" / "events.parquet")
    parts = [
        parts_of(run, request, stream.sent_s - running.facts["epoch_s"], stream.times_s[0] - running.facts["epoch_s"])
        for request, stream in enumerate(streams)
    ]
    return figures_of(parts[_WARMUP:])


def figures_of(parts: Sequence[Parts]) -> list[Figure]:
    """Median and 90th percentile of the overhead; where it goes is in the note."""
    overheads_ms = np.array([part.overhead for part in parts]) * 1e3
    shares = ", ".join(f"{name} {median(getattr(part, name) for part in parts) * 1e3:.1f}" for name in Parts._fields)
    note = f"{len(parts)} requests of {_PROMPT_TOKENS} tokens, one after the other; medians in ms: {shares}"
    name = "serve: time to first token beyond the forward"
    return [
        Figure(name, float(np.median(overheads_ms)), "ms", "lower", None, len(parts), floor=_LIMIT_MS, note=note),
        Figure(f"{name}, P90", float(np.percentile(overheads_ms, 90)), "ms", "lower", None, len(parts)),
    ]


def parts_of(run: RunLog, request: int, sent_s: float, first_s: float) -> Parts:
    """Of a request that met an idle instance; ``sent_s`` and ``first_s`` are the client's, on the run's clock."""
    times = {kind: _row(run, kind, request) for kind in ("arrive", "dispatch", "admit", "prefilled")}
    runs = run.rows["run"]
    planned_s, prefilled_s = times["admit"], times["prefilled"]
    # the plan is stamped before the launch, by another process of the same host and thus the same clock
    own = (runs.ints("instance") == _instance(run, request)) & (runs.floats("start_s") >= planned_s)
    start_s = float(runs.floats("start_s")[own].min())
    marks = (sent_s, times["arrive"], times["dispatch"], planned_s, start_s, prefilled_s, first_s)
    return Parts(*(later - earlier for earlier, later in pairwise(marks)))


def _row(run: RunLog, kind: str, request: int) -> float:
    rows = run.rows[kind]
    return float(rows.floats("time_s")[rows.ints("request") == request][0])


def _instance(run: RunLog, request: int) -> int:
    rows = run.rows["admit"]
    return int(rows.ints("instance")[rows.ints("request") == request][0])


async def _one_by_one(port: int, count: int) -> list[Stream]:
    """The requests get the ids 0, 1, ... of the deployment's only front door."""
    drawn = random.Random(0)
    streams: list[Stream] = []
    for _ in range(count):
        stream = await finish(await begin(port, "/v1/completions", _body(drawn)), _ANSWER_S)
        if stream.error is not None:
            raise RuntimeError(f"request {len(streams)} failed: {stream.error}")
        streams.append(stream)
        await asyncio.sleep(_PAUSE_S)
    return streams


def _body(drawn: random.Random) -> dict[str, Any]:
    """A prompt that shares nothing with the others."""
    prompt = [drawn.randrange(10, 4000) for _ in range(_PROMPT_TOKENS)]
    return {"model": MODEL, "prompt": prompt, "max_tokens": 4, "ignore_eos": True, "stream": True, "temperature": 0}
