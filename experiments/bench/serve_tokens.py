"""What a streamed token costs beyond its forward, against an app on Ray Serve that does nothing but stream.

Both are up at once and take turns, with the same client, the same pace and events of the same size. CPU time is that of
all their processes, Ray's own included, while streams run that neither begin nor end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from experiments.bench.figures import Figure
from experiments.bench.serve_child import child
from experiments.bench.serve_host import MODEL, deployment
from experiments.bench.serve_window import Window, delays_s, grid, watch_streams
from reference_impl.metrics import RunLog, read

STREAMS = 32
_LIMIT = 1.3
_SHARE = 0.3
"""Of a core for the engine: its iterations take long enough that both sides keep the pace with ease."""
_TOKENS = 3000
_OURS = "semiflow"
_NOOPS = ("proxy", "direct")
_HOWS = {"proxy": "behind Serve's proxy", "direct": "on Serve's direct ingress"}


def token_cost(folder: Path, quick: bool, report: Callable[[str], None]) -> list[Figure]:
    """Rounds of ours and both kinds of the other."""
    rounds, seconds = (2, 4.0) if quick else (5, 8.0)
    fleet = {"kv_blocks": 8192, "max_sequences": 64, "groups": [{"count": 1, "role": "colocated"}]}
    windows: dict[str, list[Window]] = {_OURS: [], **{noop: [] for noop in _NOOPS}}
    with ExitStack() as stack:
        running = stack.enter_context(deployment(folder, fleet, {"cpu_share": _SHARE}))
        noops = {noop: stack.enter_context(child("experiments.bench.serve_noop", noop)) for noop in _NOOPS}
        for number in range(rounds):
            report(f"round {number + 1} of {rounds}")
            ours = asyncio.run(watch_streams(running, "/v1/completions", _bodies(number), seconds))
            windows[_OURS].append(ours)
            wanted = {"max_tokens": _TOKENS, "event_bytes": ours.event_bytes, "period_s": ours.period_s}
            for noop, beside in noops.items():
                windows[noop].append(asyncio.run(watch_streams(beside, "/", [wanted] * STREAMS, seconds)))
        epoch_s = running.facts["epoch_s"]
    run = read(folder / "run" / "events.parquet")
    return figures_of(windows, _delays(windows, run, epoch_s))


def figures_of(windows: dict[str, list[Window]], delays: dict[str, float]) -> list[Figure]:
    """Ratios are medians over the rounds; ``delays`` are medians in seconds."""
    figures = []
    ours = windows[_OURS]
    for noop in _NOOPS:
        pairs = list(zip(ours, windows[noop], strict=True))
        ratio = median(mine.cpu_token_s / other.cpu_token_s for mine, other in pairs)
        figures.append(_ratio("CPU per", noop, ratio, len(pairs)))
        figures.append(_ratio("delay of a", noop, delays[_OURS] / delays[noop], len(pairs)))
    cost_us = median(window.cpu_token_s for window in ours) * 1e6
    note = f"{_account(ours)}. " + ". ".join(f"No-op, {noop}: {_account(windows[noop])}" for noop in _NOOPS)
    figures.append(Figure("serve: CPU per streamed token", cost_us, "us", "lower", None, len(ours), note=note))
    delay = ", ".join(f"no-op, {noop} {delays[noop] * 1e3:.2f} ms" for noop in _NOOPS)
    note = f"from the end of the iteration, or the tick, to the client; {delay}"
    delay_ms = delays[_OURS] * 1e3
    return [*figures, Figure("serve: delay of a streamed token", delay_ms, "ms", "lower", None, len(ours), note=note)]


def _ratio(what: str, noop: str, value: float, rounds: int) -> Figure:
    """The bar is for Serve as the deployment uses it, where tokens pass from one process to another as ours do."""
    name = f"serve: {what} streamed token, a no-op {_HOWS[noop]} = 1"
    note = f"{STREAMS} streams of one instance; all processes but the workers, interleaved"
    return Figure(name, value, "x", "lower", None, rounds, floor=_LIMIT if noop == "proxy" else None, note=note)


def _account(windows: Sequence[Window]) -> str:
    """Where the CPU time went."""
    roles = {role for window in windows for role in window.spent}
    spent = {role: median(window.spent.get(role, 0.0) / window.tokens for window in windows) * 1e6 for role in roles}
    parts = ", ".join(f"{role} {us:.0f}" for role, us in sorted(spent.items(), key=lambda item: -item[1]) if us >= 1)
    period_ms = median(window.period_s for window in windows) * 1e3
    return f"{median(window.cpu_token_s for window in windows) * 1e6:.0f} us at {period_ms:.1f} ms a token ({parts})"


def _delays(windows: dict[str, list[Window]], run: RunLog, epoch_s: float) -> dict[str, float]:
    """Median seconds from a token's being there to the client."""
    ends_s = run.rows["run"].floats("time_s") + epoch_s
    found = {_OURS: [delays_s(window.received_s, ends_s) for window in windows[_OURS]]}
    for noop in _NOOPS:
        pairs = zip(windows[noop], windows[_OURS], strict=True)
        found[noop] = [delays_s(window.received_s, grid(window.received_s, ours.period_s)) for window, ours in pairs]
    return {name: median(delay for part in parts for delay in part) for name, parts in found.items()}


def _bodies(seed: int) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    common = {"model": MODEL, "max_tokens": _TOKENS, "ignore_eos": True, "stream": True, "temperature": 0}
    return [common | {"prompt": [drawn.randrange(10, 4000) for _ in range(32)]} for _ in range(STREAMS)]
