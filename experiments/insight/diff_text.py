"""A difference of two runs for the eye."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.insight.story_text import PARTS, ms, table

_WIDE = 60
_MANY = 40
"""Rows of a table that are shown; --json has all."""


def as_text(found: Mapping[str, Any]) -> str:
    """The settings first, then figures, then requests."""
    parts = (_head, _settings, _figures, _requests, _regressed, _diverging)
    return "\n".join(line for part in parts for line in part(found))


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    for side, host in zip(("first", "second"), found["hosts"], strict=True):
        yield f"{side + ':':<8}{found[side]} ({host})"


def _settings(found: Mapping[str, Any]) -> Iterator[str]:
    for name, title in (("config", "configuration"), ("origin", "versions, commit, seed, trace")):
        rows = [(row["key"], _cell(row["first"]), _cell(row["second"])) for row in found[name]]
        yield f"\n{title}: {'the same' if not rows else f'{len(rows)} differ'}"
        if rows:
            yield from table((name, "first", "second"), rows, _MANY)


def _figures(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (row["key"], *(_number(row[side]) for side in ("first", "second", "difference")), _share(row["relative"]))
        for row in found["metrics"]
    ]
    yield f"\nmetrics: {'the same' if not rows else f'{len(rows)} differ'}"
    if rows:
        yield from table(("metric", "first", "second", "second - first", "relative"), rows, _MANY)


def _requests(found: Mapping[str, Any]) -> Iterator[str]:
    told = found["requests"]
    if told is None:
        yield f"\nrequests: not paired, {found['not_paired']}"
        return
    arrivals = "the same arrivals" if told["same_arrivals"] else "other arrival times"
    yield f"\nrequests: {told['pairs']} pairs by {told['paired_by']}, {arrivals}; second - first"
    if any(told["unpaired"]):
        yield f"  in one run only: {told['unpaired'][0]} and {told['unpaired'][1]}"
    if told["other_output_tokens"]:
        yield f"  {told['other_output_tokens']} gave another number of tokens"
    for change, count in told["outcomes_changed"].items():
        yield f"  {count} {change}"
    rows = [
        (
            name.removesuffix("_s").upper(),
            str(told[name]["pairs"]),
            *(ms(told[name][figure], "+") for figure in ("mean_s", "median_s", "p90_s")),
            *(f"{told[name][side]:.1%}" for side in ("better", "worse")),
        )
        for name in ("ttft_s", "tpot_s", "e2e_s")
        if told[name]["pairs"]
    ]
    if rows:
        yield from table(("figure", "pairs", "mean", "median", "P90", "better", "worse"), rows, _MANY)


def _regressed(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["regressed"]:
        return
    yield "\nmost regressed requests, and where their time went differently"
    for row in found["regressed"]:
        number = row["request"] if row["request"] == row["request_in_second"] else _both(row)
        grown_s = row["second_e2e_s"] - row["first_e2e_s"]
        paths = [" -> ".join(map(str, row[side])) or "unknown" for side in ("first_path", "second_path")]
        where = f"instances {paths[0]}" if paths[0] == paths[1] else f"instances {paths[0]}, then {paths[1]}"
        spent = f"E2E {ms(row['first_e2e_s'])}, then {ms(row['second_e2e_s'])} ({ms(grown_s, '+')})"
        yield f"  request {number}: {spent}; {where}"
        changes = sorted(row["changes_ns"].items(), key=lambda change: -abs(change[1]))
        yield "    " + "; ".join(f"{PARTS[name]} {ms(ns / 1e9, '+')}" for name, ns in changes)


def _both(row: Mapping[str, Any]) -> str:
    return f"{row['request']} ({row['request_in_second']} in the second)"


def _diverging(found: Mapping[str, Any]) -> Iterator[str]:
    decision, event = found["first_decision"], found["first_event"]
    if decision is not None:
        chosen = ["nowhere" if instance is None else f"to {instance}" for instance in decision["instances"]]
        times = ["-" if time_s is None else f"{time_s:.6f} s" for time_s in decision["times_s"]]
        yield (
            f"\nfirst request sent elsewhere: {decision['request']}, {chosen[0]} ({times[0]}) in the first,"
            f" {chosen[1]} ({times[1]}) in the second"
        )
    if event is not None:
        yield f"\nfirst event that differs: row {event['row']}"
        yield from (f"  {side}: {_event(event[side])}" for side in ("first", "second"))
    elif set(found["hosts"]) == {"simulated"}:
        yield "\nevents: the same"


def _event(row: Mapping[str, Any] | None) -> str:
    return "the log has ended" if row is None else ", ".join(f"{name} {_cell(cell)}" for name, cell in row.items())


def _cell(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 3]}..."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2%}"
