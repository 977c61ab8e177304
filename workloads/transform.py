"""Transformations without chance: which requests are kept, when they come, how long they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workloads import blocks, prefix, sessions, validate
from workloads.errors import TraceError

if TYPE_CHECKING:
    from workloads.trace import Trace

LABELS = ("session_id", "tenant", "slo_class")


def settle_columns(trace: Trace) -> None:
    """Check the columns of ``trace`` (prefix ids apart) and put them in their final types, in place."""
    if not isinstance(trace.name, str) or not trace.name:
        raise TraceError(f"a trace's name must be a text that is not empty, not {trace.name!r}")
    arrivals = validate.arrival_column(trace.name, trace.arrival_s)
    settled: dict[str, object] = {"arrival_s": arrivals}
    requests = len(arrivals)
    for column in ("prompt_tokens", "output_tokens"):
        settled[column] = validate.token_column(trace.name, column, getattr(trace, column), requests)
    for column in LABELS:
        settled[column] = validate.label_column(trace.name, column, getattr(trace, column), requests)
    for column, values in settled.items():
        object.__setattr__(trace, column, values)
    sessions.settle_columns(trace)


def derive(trace: Trace, change: str | None, **columns: Any) -> Trace:
    """``trace`` with some fields replaced and ``change``, if it is one of the requests, written into its metadata.

    Columns are checked as always; prefix ids are not: the caller vouches that they are chained and fit, so that a
    transformation of a trace with millions of ids stays cheap. (Any: the fields have different types.)
    """
    derived: Trace = object.__new__(type(trace))
    values = {entry.name: getattr(trace, entry.name) for entry in fields(trace)} | columns
    values["metadata"] = dict(values["metadata"])
    if change is not None:
        before = trace.metadata.get("transformations")
        values["metadata"]["transformations"] = f"{before}; {change}" if before else change
    for name, value in values.items():
        object.__setattr__(derived, name, value)
    settle_columns(derived)
    return derived


def take(trace: Trace, change: str, chosen: NDArray[np.int64], **columns: Any) -> Trace:
    """The rows ``chosen``, in that order; ``columns`` replace fields after the choice.

    A request whose parent is not chosen has none from then on.
    """
    values: dict[str, Any] = {
        name: getattr(trace, name)[chosen] for name in ("arrival_s", "prompt_tokens", "output_tokens")
    }
    for name in ("prefix_ids", *LABELS):
        column = getattr(trace, name)
        if column is not None:
            values[name] = tuple([column[row] for row in chosen.tolist()])
    if np.all(np.diff(chosen) > 0):
        values |= sessions.taken(trace, chosen)
    else:  # copies in another order: each stands for itself
        values |= dict.fromkeys(sessions.COLUMNS)
    return derive(trace, change, **values | columns)


def rows(trace: Trace, first: int, count: int) -> Trace:
    """See :meth:`Trace.slice`."""
    check_count(trace, "first", first, 0, len(trace) - 1)
    check_count(trace, "count", count, 1, None)
    return take(trace, f"slice({first}, {count})", np.arange(first, min(first + count, len(trace))))


def head(trace: Trace, count: int) -> Trace:
    """See :meth:`Trace.head`."""
    check_count(trace, "count", count, 1, None)
    return take(trace, f"head({count})", np.arange(min(count, len(trace))))


def window(trace: Trace, start_s: float, end_s: float) -> Trace:
    """See :meth:`Trace.window`. A window without requests is refused."""
    if not 0.0 <= start_s < end_s:
        raise TraceError(f"{trace.name}: window {start_s!r} to {end_s!r} s (allowed: 0 <= start < end)")
    inside = np.flatnonzero((trace.arrival_s >= start_s) & (trace.arrival_s < end_s))
    if inside.size == 0:
        span = f"arrivals run from {trace.arrival_s[0]:.3f} to {trace.arrival_s[-1]:.3f} s"
        raise TraceError(f"{trace.name}: no request between {start_s!r} and {end_s!r} s ({span})")
    return take(trace, f"window({start_s}, {end_s})", inside, arrival_s=trace.arrival_s[inside] - start_s)


def shift(trace: Trace, by_s: float) -> Trace:
    """See :meth:`Trace.shift`. No arrival may become negative."""
    if not math.isfinite(by_s) or trace.arrival_s[0] + by_s < 0.0:
        allowed = f"finite seconds from {-trace.arrival_s[0]} on"
        raise TraceError(f"{trace.name}: shift by {by_s!r} s (allowed: {allowed})")
    return derive(trace, f"shift({by_s})", arrival_s=trace.arrival_s + by_s)


def scale_rate(trace: Trace, factor: float) -> Trace:
    """See :meth:`Trace.scale_rate`."""
    check_positive(trace, "rate factor", factor)
    with np.errstate(over="ignore"):
        arrivals = trace.arrival_s / factor
    return derive(trace, f"scale_rate({factor})", arrival_s=arrivals)


def clip_total_tokens(trace: Trace, limit: int) -> Trace:
    """See :meth:`Trace.clip_total_tokens`."""
    check_count(trace, "total tokens", limit, 2, None)
    output = np.minimum(trace.output_tokens, limit - 1)
    prompt = np.minimum(trace.prompt_tokens, limit - output)
    shorter = int((prompt < trace.prompt_tokens).sum()), int((output < trace.output_tokens).sum())
    ids = trace.prefix_ids
    if ids is not None and trace.prefix_block_tokens is not None:
        ids = prefix.clip(ids, prompt, trace.prefix_block_tokens)
    change = f"clip_total_tokens({limit}): {shorter[0]} prompts, {shorter[1]} outputs shortened"
    return derive(trace, change, prompt_tokens=prompt, output_tokens=output, prefix_ids=ids)


def with_block_tokens(trace: Trace, block_tokens: int) -> Trace:
    """See :meth:`Trace.with_block_tokens`. A trace without prefix ids is refused."""
    if trace.prefix_ids is None or trace.prefix_block_tokens is None:
        raise TraceError(f"{trace.name}: no prefix ids to convert to blocks of {block_tokens} tokens")
    ids = blocks.convert(trace.name, trace.prefix_ids, trace.prompt_tokens, trace.prefix_block_tokens, block_tokens)
    change = f"with_block_tokens({block_tokens}) from {trace.prefix_block_tokens}"
    return derive(trace, change, prefix_ids=ids, prefix_block_tokens=block_tokens)


def with_slo_classes(trace: Trace, class_of: Mapping[str, str]) -> Trace:
    """Requests of each tenant in the SLO class that ``class_of`` names; other tenants keep theirs, if any.

    Refused for a trace without tenants and for tenants that it does not have.
    """
    if trace.tenant is None:
        raise TraceError(f"{trace.name}: no tenants to give SLO classes to (allowed: a trace with tenants)")
    unknown = sorted(set(class_of) - set(trace.tenant))
    if unknown:
        known = sorted(set(trace.tenant))
        shown = ", ".join(known[:8]) + (f", ... ({len(known)})" if len(known) > 8 else "")
        raise TraceError(f"{trace.name}: no tenant {unknown[0]!r} (allowed: {shown})")
    own = trace.slo_class or ("",) * len(trace)
    classes = tuple(class_of.get(tenant, old) for tenant, old in zip(trace.tenant, own, strict=True))
    stated = ", ".join(f"{tenant}={name}" for tenant, name in class_of.items())
    return derive(trace, f"with_slo_classes({stated})", slo_class=classes)


def check_count(trace: Trace, what: str, value: int, low: int, high: int | None) -> None:
    """Refuse a number that is not an integer in ``low``..``high``."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        allowed = f"integers from {low} on" if high is None else f"integers {low}..{high}"
        raise TraceError(f"{trace.name}: {what} {value!r} (allowed: {allowed})")


def check_positive(trace: Trace, what: str, value: float) -> None:
    """Refuse a number that is not finite and greater than 0."""
    if not (math.isfinite(value) and value > 0.0):
        raise TraceError(f"{trace.name}: {what} {value!r} (allowed: finite numbers > 0)")
