"""A run as the JSON of ``vllm bench serve``, the interchange format that plots and dashboards read.

vLLM's rules, not ours, hold here: every latency is over completed requests only; a request with one output token
counts as TPOT 0 for goodput and is left out of the TPOT statistics; medians and percentiles are numpy's.
Keys that a simulation cannot fill truthfully (``generated_texts``, ``rtfx``) are absent.
Source: vllm/benchmarks/serve.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reference_impl.metrics.log import RunLog
from reference_impl.metrics.requests import RequestTable, per_request
from reference_impl.metrics.slo import LoggedSlo, met
from reference_impl.metrics.statistics import Weighted
from reference_impl.metrics.summary import latency_samples
from reference_impl.metrics.token_log import TokenLog
from reference_impl.metrics.tokens import rebuild

_PERCENTS = (50, 90, 95, 99)
_NAMES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el"}


def vllm_bench_json(run: RunLog, slo: LoggedSlo | None = None, *, detailed: bool = False) -> dict[str, Any]:
    """The keys of ``vllm bench serve``; with ``detailed`` also the per-request lists (seconds, arrival order).

    There is no ``date``: equal runs give equal files.
    """
    table = per_request(run)
    rebuilt = rebuild(run)
    done = table.finished
    found: dict[str, Any] = {
        "endpoint_type": "semiflow",
        "backend": "semiflow",
        "label": run.metadata.get("trace", {}).get("name"),
        "model_id": run.metadata.get("model"),
        "tokenizer_id": None,
        "num_prompts": len(table),
        "request_rate": run.metadata.get("offered_rps", "inf"),
        "burstiness": None,
        "max_concurrency": None,
        "duration": run.makespan_s,
        "completed": int(done.sum()),
        "failed": int((~done).sum()),
        "total_input_tokens": int(table.prompt_tokens[done].sum()),
        "total_output_tokens": int(table.output_tokens[done].sum()),
    }
    found |= _rates(run, table, slo if slo is not None else LoggedSlo.of(run.metadata))
    found |= _busiest_second(table, rebuilt)
    for family, sample in latency_samples(table, rebuilt, done).items():
        found |= _statistics(_NAMES[family], sample)
    return found | _details(table, rebuilt) if detailed else found


def _rates(run: RunLog, table: RequestTable, slo: LoggedSlo | None) -> dict[str, float]:
    if not run.makespan_s > 0:
        return {}
    done = table.finished
    output, prompt = int(table.output_tokens[done].sum()), int(table.prompt_tokens[done].sum())
    found = {
        "request_throughput": int(done.sum()) / run.makespan_s,
        "output_throughput": output / run.makespan_s,
        "total_token_throughput": (output + prompt) / run.makespan_s,
    }
    if slo is not None:
        found["request_goodput"] = int(met(run, slo).every.sum()) / run.makespan_s
    return found


def _busiest_second(table: RequestTable, rebuilt: TokenLog) -> dict[str, float]:
    """vLLM counts both in whole seconds since the first start: tokens by the second in which they came, requests in
    every second that they touched."""
    done = table.finished
    if not done.any():
        return {}
    origin_s = float(table.arrival_s[done].min())
    wanted = np.zeros(int(table.request.max()) + 1, np.bool_)
    wanted[table.request[done]] = True
    times_s, counts = rebuilt.emissions(wanted)
    came = counts > 0
    tokens = np.bincount((times_s[came] - origin_s).astype(np.int64), counts[came])
    first = (table.arrival_s[done] - origin_s).astype(np.int64)
    last = (table.finish_s[done] - origin_s).astype(np.int64)
    change = np.bincount(first, minlength=int(last.max()) + 2) - np.bincount(last + 1, minlength=int(last.max()) + 2)
    return {"max_output_tokens_per_s": float(tokens.max()), "max_concurrent_requests": int(np.cumsum(change).max())}


def _statistics(name: str, sample: Weighted) -> dict[str, float]:
    if not sample.size:
        return {}
    values = [float(value) * 1e3 for value in sample.percentiles(_PERCENTS)]
    found = {"mean": sample.mean() * 1e3, "median": values[0], "std": sample.std() * 1e3}
    found |= {f"p{percent}": value for percent, value in zip(_PERCENTS, values, strict=True)}
    return {f"{statistic}_{name}_ms": value for statistic, value in found.items()}


def _details(table: RequestTable, rebuilt: TokenLog) -> dict[str, Any]:
    times = [rebuilt.moments_s(int(request)) for request in table.request]
    return {
        "input_lens": table.prompt_tokens.tolist(),
        "output_lens": table.output_tokens.tolist(),
        "ttfts": [0.0 if math.isnan(value) else value for value in table.ttft_s.tolist()],
        "itls": [np.diff(tokens).tolist() for tokens in times],
        "start_times": table.arrival_s.tolist(),
        "errors": ["" if done else table.outcome(row) for row, done in enumerate(table.finished.tolist())],
    }
