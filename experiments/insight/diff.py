"""Two finished runs compared: what was configured, what came of it, request by request, and where they part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.insight.diverging import first_decision, first_event
from experiments.insight.pairing import Pairs, pair, regressed, summary
from experiments.insight.saved_run import SavedRun, open_run
from experiments.insight.settings import differing, figures, origins


def diff(first: Path, second: Path, *, top: int = 5) -> dict[str, Any]:
    """Everything that differs, ready for JSON; ``top``: so many of the most regressed requests.

    Of runs that are the same, all lists are empty and ``first_event`` is null. Raises ConfigError for a folder that is
    no finished run's, or of another version.
    """
    runs = open_run(first), open_run(second)
    pairs = pair(*runs)
    found: dict[str, Any] = {
        "first": str(first),
        "second": str(second),
        "hosts": [run.host for run in runs],
        "config": differing(runs[0].config, runs[1].config),
        "origin": origins(runs[0].manifest, runs[1].manifest),
        "metrics": figures(runs[0].metrics, runs[1].metrics),
        "first_event": _first_event(*runs),
    }
    if isinstance(pairs, Pairs):
        return found | {
            "first_decision": first_decision(*runs, pairs),
            "requests": summary(*runs, pairs),
            "regressed": regressed(*runs, pairs, top),
        }
    return found | {"first_decision": None, "requests": None, "regressed": [], "not_paired": pairs}


def _first_event(first: SavedRun, second: SavedRun) -> dict[str, Any] | None:
    """Only of runs in virtual time: clocks never agree to the last bit."""
    return first_event(first, second) if first.host == second.host == "simulated" else None
