"""How evenly tenants were served while they competed: Jain's index and VTC's service gap.

Service is what VTC counts (arXiv 2401.00588): 1 for each prompt token, counted when the prompt is computed, and 2 for
each output token, counted when it comes. A prompt counts once and in full, however much of it was cached or computed
again. Both figures look at the time up to the last arrival: afterwards queues drain, and in the end everybody has what
was asked for under any policy.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from reference_impl.metrics.groups import members
from reference_impl.metrics.log import Bools, Floats, RunLog
from reference_impl.metrics.requests import RequestTable
from reference_impl.metrics.token_log import TokenLog
from reference_impl.request_labels import unpacked

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0
_MOST_MOMENTS = 1_000_000
_MOST_LOOKS = 2**25
"""Moments times pairs of tenants; of more, evenly chosen moments are looked at."""


def fairness(run: RunLog, table: RequestTable, rebuilt: TokenLog | None) -> dict[str, float]:
    """``jain_service`` and ``service_gap``; nothing for fewer than two tenants."""
    if rebuilt is None or not len(table):
        return {}
    until_s = float(table.arrival_s.max())
    return {**_jain(run, table, rebuilt, until_s), **_gap(run, table, rebuilt, until_s)}


def _jain(run: RunLog, table: RequestTable, rebuilt: TokenLog, until_s: float) -> dict[str, float]:
    """(sum x)^2 / (n sum x^2) of the tenants' service x."""
    labels = unpacked(run.metadata, "tenant", table.request)
    if labels is None:
        return {}
    names, codes = labels
    tokens = rebuilt.counts(int(table.request.max()) + 1, until_s)[table.request]
    prompts = np.where(table.first_token_s <= until_s, table.prompt_tokens, 0)
    service = np.bincount(codes, PROMPT_WEIGHT * prompts + OUTPUT_WEIGHT * tokens, len(names))
    named = np.array([bool(name) for name in names]) & (np.bincount(codes, minlength=len(names)) > 0)
    squares = float(np.sum(service[named] ** 2))
    if int(named.sum()) < 2 or not squares > 0:
        return {}
    return {"jain_service": float(service[named].sum()) ** 2 / (int(named.sum()) * squares)}


def _gap(run: RunLog, table: RequestTable, rebuilt: TokenLog, until_s: float) -> dict[str, float]:
    tenants = [inside for _, inside in members(run, table, "tenant")]
    if len(tenants) < 2 or not table.admitted.any():
        return {}
    moments = _moments(rebuilt, until_s, len(tenants))
    served = [_served(table, rebuilt, inside, moments) for inside in tenants]
    waiting = [_backlogged(table, inside, moments) for inside in tenants]
    pairs = combinations(range(len(tenants)), 2)
    gaps = [_pair_gap(served[one] - served[other], waiting[one] & waiting[other]) for one, other in pairs]
    return {"service_gap": max(gaps)}


def _moments(rebuilt: TokenLog, until_s: float, tenants: int) -> Floats:
    """When tokens came."""
    times_s, counts = rebuilt.emissions()
    moments = np.unique(times_s[(counts > 0) & (times_s <= until_s)])
    most = min(_MOST_MOMENTS, _MOST_LOOKS // tenants**2)
    if len(moments) <= most:
        return moments
    return moments[np.linspace(0, len(moments) - 1, most).astype(np.int64)]


def _served(table: RequestTable, rebuilt: TokenLog, inside: Bools, moments: Floats) -> Floats:
    """Service up to each moment."""
    wanted = np.zeros(int(table.request.max()) + 1, np.bool_)
    wanted[table.request[inside]] = True
    times_s, counts = rebuilt.emissions(wanted)
    begun = inside & ~np.isnan(table.first_token_s)
    came_s = np.concatenate([times_s, table.first_token_s[begun]])
    service = np.concatenate([OUTPUT_WEIGHT * counts, PROMPT_WEIGHT * table.prompt_tokens[begun]])
    by_moment = np.bincount(np.searchsorted(moments, came_s), service, len(moments) + 1)
    return np.cumsum(by_moment[:-1])


def _backlogged(table: RequestTable, inside: Bools, moments: Floats) -> Bools:
    """Whether a request of the tenant has arrived and waits for its first admission."""
    rows = inside & ~(table.rejected & ~table.admitted)
    left_s = np.sort(np.nan_to_num(table.admitted_s[rows], nan=np.inf))
    came = np.searchsorted(np.sort(table.arrival_s[rows]), moments, side="right")
    waiting: Bools = came > np.searchsorted(left_s, moments, side="right")
    return waiting


def _pair_gap(difference: Floats, both: Bools) -> float:
    """The most by which the difference changes within a stretch of time in which both wait."""
    if not both.any():
        return 0.0
    begins = both & ~np.append(False, both[:-1])
    stretches = np.flatnonzero(begins[both])
    inside = difference[both]
    return float(np.max(np.maximum.reduceat(inside, stretches) - np.minimum.reduceat(inside, stretches)))
