"""The requests of two runs in pairs, where both served the same rows of a trace, and how their figures differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.insight.saved_run import SavedRun

if TYPE_CHECKING:
    from reference_impl.metrics import RequestTable

Places = NDArray[np.int64]
_FIGURES = ("ttft_s", "tpot_s", "e2e_s")
_SAME_S = 1e-9
_MOST_BEFORE = 1000
"""Requests that one of the runs may have served before the other one's first."""


@dataclass(frozen=True)
class Pairs:
    """Rows of two runs' request tables that belong together."""

    first: Places
    second: Places
    by: str
    """How they were found."""

    def __len__(self) -> int:
        return len(self.first)


def pair(first: SavedRun, second: SavedRun) -> Pairs | str:
    """By the requests' numbers, else by the order of arrival (a live run numbers requests as its front door got them,
    and may have had some before: a trial, a warm-up); a text that says why not where prompts have other lengths."""
    left, right = first.table, second.table
    _, by_id, in_second = np.intersect1d(left.request, right.request, return_indices=True)
    size = min(len(left), len(right))
    in_order = np.arange(size)
    shifted = (_pairs_at(in_order, shift, len(right) - len(left)) for shift in range(_shifts(left, right)))
    for pairs in (Pairs(by_id, in_second, "request number"), *shifted):
        if len(pairs) == size and (left.prompt_tokens[pairs.first] == right.prompt_tokens[pairs.second]).all():
            return pairs
    other = int((left.prompt_tokens[:size] != right.prompt_tokens[:size]).sum())
    return f"the runs did not serve the same requests: {other} of {size} prompts have another length"


def _shifts(left: RequestTable, right: RequestTable) -> int:
    """Places where the shorter run may begin in the longer one."""
    return min(abs(len(right) - len(left)), _MOST_BEFORE) + 1


def _pairs_at(in_order: Places, shift: int, longer: int) -> Pairs:
    """``longer``: by how many requests the second run is longer."""
    first, second = (in_order, in_order + shift) if longer > 0 else (in_order + shift, in_order)
    return Pairs(first, second, "order of arrival")


def summary(first: SavedRun, second: SavedRun, pairs: Pairs) -> dict[str, Any]:
    """Paired differences, second less first, of requests that have the figure in both runs."""
    left, right = first.table, second.table
    arrivals = np.abs(right.arrival_s[pairs.second] - left.arrival_s[pairs.first])
    outcomes = [(left.outcome(i), right.outcome(j)) for i, j in zip(pairs.first, pairs.second, strict=True)]
    changed = [f"{before} -> {after}" for before, after in outcomes if before != after]
    return {
        "pairs": len(pairs),
        "paired_by": pairs.by,
        "unpaired": [len(left) - len(pairs), len(right) - len(pairs)],
        "same_arrivals": bool((arrivals < _SAME_S).all()),
        "other_output_tokens": int(_other_lengths(first, second, pairs)),
        "outcomes_changed": {name: changed.count(name) for name in sorted(set(changed))},
        **{name: _spread(getattr(left, name)[pairs.first], getattr(right, name)[pairs.second]) for name in _FIGURES},
    }


def _other_lengths(first: SavedRun, second: SavedRun, pairs: Pairs) -> int:
    left, right = first.table, second.table
    both = left.finished[pairs.first] & right.finished[pairs.second]
    return int((both & (left.output_tokens[pairs.first] != right.output_tokens[pairs.second])).sum())


def _spread(before: NDArray[np.float64], after: NDArray[np.float64]) -> dict[str, Any]:
    change = after - before
    change = change[~np.isnan(change)]
    if not len(change):
        return {"pairs": 0}
    median, p90 = np.percentile(change, [50, 90]).tolist()
    return {
        "pairs": len(change),
        "mean_s": float(change.mean()),
        "median_s": median,
        "p90_s": p90,
        "better": float((change < -_SAME_S).mean()),
        "worse": float((change > _SAME_S).mean()),
    }


def regressed(first: SavedRun, second: SavedRun, pairs: Pairs, top: int) -> list[dict[str, Any]]:
    """The requests whose E2E grew most, and in which parts of it."""
    grown = second.table.e2e_s[pairs.second] - first.table.e2e_s[pairs.first]
    order = np.argsort(-np.nan_to_num(grown, nan=-np.inf), kind="stable")
    return [_regression(first, second, pairs, int(place)) for place in order[:top] if grown[place] > _SAME_S]


def _regression(first: SavedRun, second: SavedRun, pairs: Pairs, place: int) -> dict[str, Any]:
    at = int(pairs.first[place]), int(pairs.second[place])
    requests = [int(run.table.request[i]) for run, i in zip((first, second), at, strict=True)]
    seen_alike = _from_outside if "replay" in (first.host, second.host) else _by_part
    before, after = (seen_alike(run, i) for run, i in zip((first, second), at, strict=True))
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in dict.fromkeys([*before, *after])}
    return {
        "request": requests[0],
        "request_in_second": requests[1],
        "first_e2e_s": float(first.table.e2e_s[at[0]]),
        "second_e2e_s": float(second.table.e2e_s[at[1]]),
        "first_path": list(first.table.path(at[0])),
        "second_path": list(second.table.path(at[1])),
        "changes_ns": {name: ns for name, ns in changes.items() if ns},
    }


def _by_part(run: SavedRun, position: int) -> dict[str, int]:
    return run.breakdown.ns(int(run.table.request[position]))


def _from_outside(run: SavedRun, position: int) -> dict[str, int]:
    """The two parts that a client sees."""
    times_s = (getattr(run.table, name)[position] for name in ("arrival_s", "first_token_s", "finish_s"))
    arrival, first, finish = (round(float(time_s) * 1e9) for time_s in times_s)
    return {"until_first_token": first - arrival, "streaming": finish - first}
