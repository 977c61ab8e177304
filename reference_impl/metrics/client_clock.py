"""Figures on a client's clock have keys of their own: they hold the way to the server and back, and the client's work.

TTFT counts from when the client began to send, and every other time likewise from what the client saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from reference_impl.metrics.definitions import definitions
from reference_impl.metrics.groups import group_of, joined

Value = TypeVar("Value", float, str)
_SAME_ON_ANY_CLOCK = frozenset(
    {"arrived", "completed", "rejected", "unfinished", "warmup_requests", "offered_rps", "load_growth", "load_growing"}
    | {"rejected_prompt_tokens", "rejected_output_tokens"}
)
_UNKNOWN_TO_A_CLIENT = frozenset({"preemptions"})
_SUFFIX = "_client"
_OF_THE_CLIENT = {
    "client_lag_p50_ms": "How late the client sent: actual sending less schedule; the median.",
    "client_lag_p99_ms": "How late the client sent: actual sending less schedule; the 99th percentile.",
    "client_lag_max_ms": "How late the client sent: actual sending less schedule; the most.",
    "client_cpu_us_per_token": "CPU time of the client's process from the first request to the last answer, over the"
    " output tokens that came.",
}


def on_client_clock(figures: Mapping[str, Value]) -> dict[str, Value]:
    """What ``summarise`` made of a client's log, under the keys of figures on a client's clock."""
    return {_client_key(key): value for key, value in figures.items() if key not in _UNKNOWN_TO_A_CLIENT}


def client_definitions() -> dict[str, str]:
    """Meaning of every key that a replay's figures may have."""
    told = {
        key: text if key == _client_key(key) else f"{text} On the client's clock."
        for key, text in definitions().items()
    }
    return {**on_client_clock(told), **_OF_THE_CLIENT}


def _client_key(key: str) -> str:
    parts = group_of(key)
    if parts is not None:
        figure, kind, name = parts
        return joined(_client_key(figure), kind, name)
    return key if key in _SAME_ON_ANY_CLOCK else f"{key}{_SUFFIX}"
