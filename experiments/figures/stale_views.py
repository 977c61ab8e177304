"""How old a router's view may be: P99 TTFT against the age of the reports, with one and with several job executors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from experiments.cases.answers import Answers
from experiments.figures.blis_fleet import DECODE_S, ITERATION_S, PROMPT_TOKEN_S, fleet, simulated, ttft_p99_ms
from experiments.figures.study import Band, Progress, Row, Study, column
from experiments.report.theme import legend, panels, plain_ticks, policy_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workloads.trace import Trace

KV_USE, QUEUES = "weighted_scorers:prefix_weight=0,queue_weight=0", "least_loaded:metric=requests"
POLICIES = (QUEUES, KV_USE, "power_of_two", "preble_e2", "round_robin", "random")
_NAMES = {QUEUES: "least_loaded (queue length)", KV_USE: "weighted_scorers (KV use alone)"}
AGES_MS, EXECUTORS = (5, 10, 20, 50, 100), (1, 4)
INSTANCES, REQUESTS, RATE_RPS, TOKENS = 4, 1000, 195.0, 512
SETUP = {
    "instances": INSTANCES,
    "requests": REQUESTS,
    "rate_rps": RATE_RPS,
    "workload": f"Poisson, {TOKENS} tokens in and out, no prefixes: 85 % of the capacity",
    "iteration_s": {"base": ITERATION_S, "per prompt token": PROMPT_TOKEN_S, "per decode": DECODE_S},
    "views": "every instance reports once in each period, all at once and to all job executors",
    "job_executors": list(EXECUTORS),
    "source": "BLIS (inference-sim), hypothesis H29: P99 TTFT 64, 73 and 415 ms with reports every 5, 10 and 100 ms"
    " and a KV-use scorer; more ages, policies and job executors are OURS",
}


def constant(seed: int) -> Trace:
    """The workload of :data:`SETUP`."""
    from workloads.trace import Trace

    gaps = np.random.default_rng(seed).exponential(1 / RATE_RPS, REQUESTS)
    lengths = np.full(REQUESTS, TOKENS, np.int32)
    return Trace(name="constant", arrival_s=np.cumsum(gaps), prompt_tokens=lengths, output_tokens=lengths)


def measure(seeds: Sequence[int], progress: Progress, answers: Answers) -> list[Row]:
    """P99 TTFT of each policy, age, number of job executors and seed."""
    cells = list(product(POLICIES, EXECUTORS, AGES_MS, seeds))
    rows: list[Row] = []
    for done, (policy, number, age_ms, seed) in enumerate(cells):
        progress(done, len(cells))
        found: Row = {"policy": policy, "job_executors": number, "view_age_ms": age_ms, "seed": seed}
        rows.append({**found, "ttft_p99_ms": round(answers.ask(simulated_p99_ms, policy, number, age_ms, seed), 2)})
    return rows


def simulated_p99_ms(policy: str, job_executors: int, age_ms: int, seed: int) -> float:
    """P99 TTFT of one run, in milliseconds."""
    period_s = age_ms / 1e3
    spec = fleet(policy, seed, instances=INSTANCES, job_executors=job_executors, report_period_s=period_s)
    return ttft_p99_ms(simulated(spec, constant(seed)))


def bands(rows: Sequence[Row]) -> list[Band]:
    """BLIS's three figures relative to one another (the bar: twice as much with views of 100 ms), and the rest."""

    def mean(policy: str, number: int, age_ms: int) -> float:
        return float(np.mean(column(rows, "ttft_p99_ms", policy=policy, job_executors=number, view_age_ms=age_ms)))

    found = [
        Band(f"P99 TTFT at 100 ms / at 5 ms, {policy}", mean(policy, 1, 100) / mean(policy, 1, 5), low=2.0)
        for policy in (KV_USE, QUEUES)
    ]
    found.append(Band(f"P99 TTFT at 10 ms / at 5 ms, {KV_USE}", mean(KV_USE, 1, 10) / mean(KV_USE, 1, 5), high=1.5))
    for policy in POLICIES:
        ratio = mean(policy, 4, 100) / mean(policy, 1, 100)
        found.append(Band(f"P99 TTFT with 4 job executors / with 1, views of 100 ms, {policy}", ratio))
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """A panel for each number of job executors: the mean over the seeds, and the range of the seeds."""
    figure = panels(1, len(EXECUTORS), 4.4, sharey="all")
    for ax, number in zip(figure.axes, EXECUTORS, strict=True):
        for policy in POLICIES:
            _line(ax, [row for row in rows if row["policy"] == policy and row["job_executors"] == number], policy)
        ax.set(xscale="log", yscale="log", xlabel="age of the views: an instance reports once in so many ms")
        ax.set_title("one job executor" if number == 1 else f"{number} job executors")
        ax.set_xticks(AGES_MS, [str(age_ms) for age_ms in AGES_MS])
        ax.minorticks_off()
    first = figure.axes[0]
    first.set_ylabel("P99 TTFT (ms), mean and range of the seeds")
    plain_ticks(first.yaxis, crowded=1000.0)
    legend(figure, first)
    return figure


def _line(ax: Axes, rows: Sequence[Row], policy: str) -> None:
    values = np.array([column(rows, "ttft_p99_ms", view_age_ms=age_ms) for age_ms in AGES_MS])
    colour = policy_colours(POLICIES)[policy]
    ax.plot(AGES_MS, values.mean(axis=1), color=colour, marker="o", label=_NAMES.get(policy, policy))
    ax.fill_between(AGES_MS, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.15, linewidth=0)


STALE_VIEWS = Study("stale_views", "How old may a router's view of its instances be?", SETUP, measure, bands, draw)
