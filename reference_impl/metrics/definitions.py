"""What each figure means: population, window, warm-up rule, clock.

Unless a definition says otherwise: the clock is the host's (virtual in the simulator), read at the front door; the
window is the makespan, from the first arrival to the last finish or rejection; nothing is trimmed for warm-up;
percentiles interpolate linearly between ranks. A figure that cannot be computed is absent, never zero.

========================= ============================ ==================================================
figures                   population                   value
========================= ============================ ==================================================
``ttft_*_ms``             arrived, got a first token   first token - arrival
``tpot_*_ms``             finished, 2 or more tokens   (last token - first token) / (tokens - 1)
``itl_*_ms``              tokens of finished requests  every gap between two tokens of a request, pooled
``e2e_*_ms``              finished                     last token - arrival
``attainment*``           all arrived                  share that met the targets
``goodput_rps``           all arrived                  requests that met every target, per second
``...[class=NAME]``       requests of that SLO class   as above
``...[tenant=NAME]``      requests of that tenant      as above
``..._trimmed``           as above, less the warm-up   as above; window from the first request kept
========================= ============================ ==================================================
"""

from __future__ import annotations

from collections.abc import Mapping

from reference_impl.metrics.groups import FIGURES, GROUPS, MOST_GROUPS, group_of, joined

STATISTICS: Mapping[str, str] = {
    "mean": "Mean",
    "p50": "Median",
    "p90": "90th percentile",
    "p95": "95th percentile",
    "p99": "99th percentile",
}
PERCENTILES: Mapping[str, float] = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
_LATENCIES: Mapping[str, str] = {
    "ttft": "time to first token: first token minus arrival at the front door, over arrived requests that got one",
    "tpot": "time per output token: (last token - first token) / (tokens - 1), over finished requests with 2 or more"
    " output tokens",
    "itl": "inter-token latency: every gap between consecutive tokens of a request, pooled over all finished requests"
    " (preemptions and hand-overs show up as long gaps; there is none between tokens that a client was given together)",
    "e2e": "end-to-end latency: last token minus arrival at the front door, over finished requests",
}
_MISSES = "rejected, failed and unfinished requests are misses"
_SERVICE = "service, 1 for each prompt token when the prompt is computed and 2 for each output token"
_SINGLES: Mapping[str, str] = {
    "arrived": "Requests that arrived at the front door.",
    "completed": "Requests that produced their last token.",
    "rejected": "Requests refused or failed for good.",
    "unfinished": "Requests neither finished nor rejected when the log ends.",
    "makespan_s": "Window: from the first arrival to the last finish or rejection.",
    "offered_rps": "Arrival rate that the run was offered: the host's own statement, or else arrived requests per"
    " second of the span of arrivals.",
    "throughput_rps": "Finished requests per second of makespan.",
    "output_tokens_per_s": "Output tokens of finished requests per second of makespan.",
    "total_tokens_per_s": "Prompt and output tokens of finished requests per second of makespan.",
    "attainment": f"SLO attainment: share of all arrived requests that met every target of theirs at once, those of"
    f" their SLO class where it has its own, else the run's; {_MISSES}; a request with one output token has no TPOT and"
    " is judged on TTFT alone.",
    "attainment_ttft": f"Share of all arrived requests that finished and met the TTFT target; {_MISSES}.",
    "attainment_tpot": f"Share of all arrived requests that finished and met the TPOT target (or had one output"
    f" token); {_MISSES}.",
    "goodput_rps": "Requests that met every target per second of makespan.",
    "goodput_per_device_rps": "Goodput over the devices (GPUs) of the fleet; where that changed, over their mean,"
    " those of instances that start or drain included.",
    "load_growth": "Growth of the load until the last arrival: mean outstanding requests (arrived, neither finished nor"
    " rejected) over the last fifth of the arrivals' span, relative to the middle fifth, less what the arrival rate"
    " grew in between. A queue that grows steadily from nothing gives 0.8, a settled one about 0.",
    "load_growing": "1 if the load was still growing at the last arrival, so that every figure depends on the run's"
    " length: load_growth above 0.1, and more than two standard deviations of chance; else 0.",
    "preemptions": "Times that a running request was dropped from its instance to be recomputed.",
    "kv_use_mean": "KV blocks in use, of all pools: mean over the makespan, or the part of it in which a pool was"
    " there. Each instance reports at the end of each"
    " run of iterations of any of its lanes; a report holds back to the one before it. Time in which no lane of an"
    " instance computes counts as 0.",
    "kv_use_peak": "Largest share of one instance's KV blocks in use at the end of any run of iterations.",
    "prefix_hit_ratio": "Prompt tokens found in the prefix cache over prompt tokens, at each request's first"
    " admission.",
    "lane_utilisation": "Share of the makespan that a lane computed, mean over all lanes of the fleet. Time in which a"
    " lane was not there does not count.",
    "lane_utilisation_mixed": "Lane utilisation of the lanes that mix prefill and decode.",
    "lane_utilisation_prefill": "Lane utilisation of the prefill lanes.",
    "lane_utilisation_decode": "Lane utilisation of the decode lanes.",
    "fluidity_mean": "Fluidity index (Etalon, arXiv 2407.07000), mean over finished requests: share of a request's"
    " tokens that came by their deadlines. The first is due one TTFT target after the arrival, each further one a TPOT"
    " target after the deadline before it, or, where that was missed, after the late token.",
    "fluidity_attainment": f"Share of all arrived requests with a fluidity index of 0.9 or more; {_MISSES}.",
    "jain_service": f"Jain's fairness index over tenants of the {_SERVICE}, up to the last arrival: 1 where all had the"
    " same, 1 / tenants where one had everything. Tenants that ask for less get less: read it beside service_gap.",
    "service_gap": f"Service gap (what VTC bounds): the most by which the {_SERVICE}, of two tenants differs over any"
    " stretch of time in which both have requests that wait for their first admission, up to the last arrival; over all"
    " pairs of tenants, of many those of the 32 with the most requests.",
    "rejected_prompt_tokens": "Prompt tokens of rejected requests.",
    "rejected_output_tokens": "Output tokens that rejected (failed) requests had been given before. What they would"
    " have asked for is not in the log.",
    "recomputed_tokens": "Prompt and output tokens computed again after preemptions and failures: all that instances"
    " computed in prefills, less each admitted request's prompt without what its first admission found cached. Requests"
    " given up in the midst of their prompts make it too low.",
    "device_held_s": "Device-seconds (GPU-seconds) held: devices of each instance times the makespan.",
    "device_busy_s": "Device-seconds in which an instance computed, on one of its lanes or on both at once: its devices"
    " times that time.",
    "cost": "Price of the held device-seconds, by fleet.price_per_device_hour and in its currency; absent without it.",
    "cost_per_million_output_tokens": "Cost over output tokens of finished requests, times 10^6.",
    "cost_per_thousand_good_requests": "Cost over requests that met every target, times 1,000.",
    "warmup_requests": "Requests dropped from the front of every figure that ends in _trimmed: the fleet's"
    " concurrency limit where the log states it, at least 128. A run that is not longer has no figures"
    " that end in _trimmed.",
}
_TRIMMED = ("attainment", "goodput_rps", "goodput_per_device_rps")
_OF_GROUP = {"class": "Of the requests of this SLO class.", "tenant": "Of this tenant's requests."}


def definitions() -> dict[str, str]:
    """Meaning of every key that ``summarise`` may return; NAME stands for a class or a tenant."""
    known = _of_the_run()
    groups = {joined(figure, kind, "NAME"): _in_group(known[figure], kind) for kind in GROUPS for figure in FIGURES}
    return {**known, **groups}


def definition(key: str) -> str | None:
    """Meaning of one key; None: no such figure."""
    parts = group_of(key)
    return definitions().get(key if parts is None else joined(parts[0], parts[1], "NAME"))


def _in_group(text: str, kind: str) -> str:
    most = f" Given for the {MOST_GROUPS} with the most requests."
    return f"{text} {_OF_GROUP[kind]}{most}"


def _of_the_run() -> dict[str, str]:
    latencies = {
        f"{family}_{statistic}_ms": f"{word} {text}."
        for family, text in _LATENCIES.items()
        for statistic, word in STATISTICS.items()
    }
    trimmed = {
        f"{key}_trimmed": f"{text} The first warmup_requests arrivals are left out; the window starts at the next one."
        for key, text in {**latencies, **{key: _SINGLES[key] for key in _TRIMMED}}.items()
    }
    return {**_SINGLES, **latencies, **trimmed}
