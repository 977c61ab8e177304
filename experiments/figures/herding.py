"""SGLang's cache-aware router herds on the smallest prefix tree (sglang 14532), and its later rule does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.cases.answers import Answers
from experiments.figures.blis_fleet import ITERATION_S, PROMPT_TOKEN_S, fleet, simulated, ttft_p99_ms
from experiments.figures.study import Band, Progress, Row, Study, column
from experiments.report.theme import INK, legend, panels, policy_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reference_impl.metrics import RunLog
    from workloads.trace import Trace

OLD, NEW, PLAIN = "cache_aware", "cache_aware:on_miss=least_loaded", "least_loaded:metric=requests"
_TITLES = {
    OLD: "cache_aware: misses to the smallest tree (the rule until December 2025)",
    NEW: "cache_aware: misses to the least loaded (the rule since)",
    PLAIN: "least_loaded",
}
INSTANCES, REQUESTS, RATE_RPS = 8, 2000, 30.0
_DECODE_S = 2.84e-5
_STEP_S, _WARM_UP_S = 0.25, 7.0
_DOCUMENT_SHARE, _BLOCK_TOKENS = 0.1, 256
SETUP = {
    "instances": INSTANCES,
    "requests": REQUESTS,
    "rate_rps": RATE_RPS,
    "workload": "one in ten a document (8192 tokens in, 16 out), the others chats (256 in, 300 out); Poisson; no two"
    " share a prefix, so that every request is a miss",
    "iteration_s": {"base": ITERATION_S, "per prompt token": PROMPT_TOKEN_S, "per decode": _DECODE_S},
    "views": "fresh, one job executor",
    "load": f"unfinished requests, sampled every {_STEP_S} s; the ratio from second {_WARM_UP_S:g} to the last arrival",
    "source": "github.com/sgl-project/sglang issue 14532, pull request 14650; the workload is OURS",
}


def documents_and_chats(seed: int) -> Trace:
    """The workload of :data:`SETUP`."""
    from workloads.trace import Trace

    rng = np.random.default_rng(seed)
    document = rng.random(REQUESTS) < _DOCUMENT_SHARE
    prompt_tokens = np.where(document, 8192, 256).astype(np.int32)
    counts = prompt_tokens // _BLOCK_TOKENS
    ends = np.cumsum(counts)
    return Trace(
        name="documents and chats",
        arrival_s=np.cumsum(rng.exponential(1 / RATE_RPS, REQUESTS)),
        prompt_tokens=prompt_tokens,
        output_tokens=np.where(document, 16, 300).astype(np.int32),
        prefix_ids=tuple(tuple(range(end - count, end)) for end, count in zip(ends, counts, strict=True)),
        prefix_block_tokens=_BLOCK_TOKENS,
    )


def measure(seeds: Sequence[int], progress: Progress, answers: Answers) -> list[Row]:
    """Every instance's unfinished requests over time, under each policy."""
    rows: list[Row] = []
    runs = [(policy, seed) for policy in _TITLES for seed in seeds]
    for done, (policy, seed) in enumerate(runs):
        progress(done, len(runs))
        rows += answers.ask(rows_of, policy, seed)
    return rows


def rows_of(policy: str, seed: int) -> list[Row]:
    """Simulate one run."""
    rows: list[Row] = []
    trace = documents_and_chats(seed)
    run = simulated(fleet(policy, seed, instances=INSTANCES, decode_s=_DECODE_S), trace)
    times_s = np.arange(0.0, float(trace.arrival_s[-1]), _STEP_S)
    loads, p99_ms = loads_at(run, times_s), round(ttft_p99_ms(run), 1)
    for at_s, load in zip(times_s.tolist(), loads.tolist(), strict=True):
        here = {f"instance_{number}": requests for number, requests in enumerate(load)}
        rows.append({"policy": policy, "seed": seed, "time_s": at_s, **here, "run_ttft_p99_ms": p99_ms})
    return rows


def loads_at(run: RunLog, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Unfinished requests, by time and instance."""
    loads = np.zeros((len(times_s), INSTANCES), np.int64)
    for kind, sign in (("dispatch", 1), ("finish", -1)):
        events = run.rows[kind]
        for number in range(INSTANCES):
            at_s = np.sort(events.floats("time_s")[events.ints("instance") == number])
            loads[:, number] += sign * np.searchsorted(at_s, times_s, side="right")
    return loads


def ratios(rows: Sequence[Row], policy: str) -> NDArray[np.float64]:
    """The largest load over the median one (at least 1), at every moment after the warm-up, of all seeds."""
    names = [f"instance_{number}" for number in range(INSTANCES)]
    wanted = [row for row in rows if row["policy"] == policy and float(row["time_s"]) >= _WARM_UP_S]
    loads = np.array([[float(row[name]) for name in names] for row in wanted])
    found: NDArray[np.float64] = loads.max(axis=1) / np.maximum(1.0, np.median(loads, axis=1))
    return found


def bands(rows: Sequence[Row]) -> list[Band]:
    """What the issue tells, as numbers: the bars are those of semiflow's own test of it."""
    old, new, plain = (ratios(rows, policy) for policy in _TITLES)
    p99_ms = {policy: float(np.mean(column(rows, "run_ttft_p99_ms", policy=policy))) for policy in _TITLES}
    return [
        Band("median over time of largest / median load, old rule", float(np.median(old)), low=2.0),
        Band("90th percentile over time of largest / median load, old rule", float(np.quantile(old, 0.9)), low=4.0),
        Band("median over time of largest / median load, new rule", float(np.median(new)), high=1.2),
        Band("median over time of largest / median load, least_loaded", float(np.median(plain)), high=1.2),
        Band("P99 TTFT in ms, old rule", p99_ms[OLD]),
        Band("P99 TTFT in ms, new rule", p99_ms[NEW]),
        Band("P99 TTFT in ms, least_loaded", p99_ms[PLAIN]),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """The loads of all instances under each policy, for the first seed; how often which ratio, for all seeds."""
    figure, colours = panels(2, 2, 7.0), policy_colours(_TITLES)
    seed = rows[0]["seed"]
    for ax, (policy, title) in zip(figure.axes, _TITLES.items(), strict=False):
        _loads(ax, [row for row in rows if row["policy"] == policy and row["seed"] == seed], colours[policy])
        ax.set_title(title, fontsize=8.5)
    top = max(ax.get_ylim()[1] for ax in figure.axes[:3])
    for ax in figure.axes[:3]:
        ax.set_ylim(0.0, top)
    last = figure.axes[3]
    for policy in _TITLES:
        found = np.sort(ratios(rows, policy))
        style = "--" if policy == PLAIN else "-"  # without a prefix to share, the new rule decides as it does
        shares = np.arange(1, len(found) + 1) / len(found)
        last.step(found, shares, where="post", color=colours[policy], linestyle=style, label=policy)
    last.set(xlabel="largest load / median load", ylabel="share of the time with at most this", xscale="log")
    last.set_title("How uneven, over the time of all seeds", fontsize=8.5)
    last.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    last.set_ylim(0.0, 1.02)
    legend(figure, last)
    return figure


def _loads(ax: Axes, rows: Sequence[Row], colour: str) -> None:
    times_s = column(rows, "time_s")
    loads = np.array([column(rows, f"instance_{number}") for number in range(INSTANCES)])
    for load in loads:
        ax.plot(times_s, load, color=colour, linewidth=0.7, alpha=0.55)
    ax.plot(times_s, np.median(loads, axis=0), color=INK, linewidth=1.2)
    ax.set(xlabel="time (s); black: the median instance", ylabel="unfinished requests of an instance")


HERDING = Study("herding", "Does cache-aware routing herd where nobody holds the prompt?", SETUP, measure, bands, draw)
