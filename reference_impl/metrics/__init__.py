"""Event log in, figures out: the only definitions of TTFT, TPOT, ITL, E2E, attainment and goodput."""

from reference_impl.metrics.definitions import definition, definitions
from reference_impl.metrics.groups import GROUPS, group_of
from reference_impl.metrics.log import EventLogError, RunLog, read
from reference_impl.metrics.remarks import STILL_GROWING, remarks
from reference_impl.metrics.requests import RequestTable, per_request
from reference_impl.metrics.summary import summarise
from reference_impl.metrics.timeline import Timeline, sampled, timeline
from reference_impl.metrics.token_log import TokenLog
from reference_impl.metrics.tokens import itl, rebuild, token_times
from reference_impl.metrics.vllm import vllm_bench_json

__all__ = [
    "GROUPS",
    "STILL_GROWING",
    "EventLogError",
    "RequestTable",
    "RunLog",
    "Timeline",
    "TokenLog",
    "definition",
    "definitions",
    "group_of",
    "itl",
    "per_request",
    "read",
    "rebuild",
    "remarks",
    "sampled",
    "summarise",
    "timeline",
    "token_times",
    "vllm_bench_json",
]
