"""The figures of one run that are compared, the same way for both hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from experiments.config_base import ConfigError
from experiments.run_folder import write_json

MEANS = ("ttft_mean_ms", "tpot_mean_ms", "e2e_mean_ms")
FIGURES = (
    *(f"{family}_{statistic}_ms" for family in ("ttft", "tpot", "e2e") for statistic in ("mean", "p50", "p90")),
    "throughput_rps",
)
_FACTS = ("arrived", "completed", "rejected", "unfinished", "preemptions", "prefix_hit_ratio", "lane_utilisation")
Measures = Mapping[str, float]
"""Every figure of :data:`FIGURES`, and facts of the run that explain them."""


def measure(events: Path, warmup_requests: int) -> dict[str, float]:
    """From an event log, the first ``warmup_requests`` not counted. Raises ConfigError where a figure is missing.

    A run in which requests were refused or left unfinished is no measurement of the others.
    """
    from reference_impl.metrics import read, summarise

    found = summarise(read(events), warmup_requests=warmup_requests)
    if found["completed"] < found["arrived"]:
        raise ConfigError(
            f"{events}: {found['arrived'] - found['completed']:g} of {found['arrived']:g} requests did not finish, so"
            " that its figures cannot be compared; give the fleet more room, or the requests fewer tokens"
        )
    missing = [figure for figure in FIGURES if _kept(figure) not in found]
    if missing:
        raise ConfigError(f"{events}: no {missing[0]}; the trace needs more requests, and more than one token in some")
    return {
        **{figure: found[_kept(figure)] for figure in FIGURES},
        **{fact: found[fact] for fact in _FACTS if fact in found},
    }


def save(path: Path, key: str, measures: Measures) -> None:
    """Under the key of what was asked for."""
    write_json(path, {"key": key, "measures": dict(measures)})


def load(path: Path, key: str) -> dict[str, float] | None:
    """What was saved under this key; None: nothing, or under another one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON; delete its folder to run this again") from error
    return dict(content["measures"]) if content.get("key") == key else None


def _kept(figure: str) -> str:
    return figure if figure.endswith("_rps") else f"{figure}_trimmed"
