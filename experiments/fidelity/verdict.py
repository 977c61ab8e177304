"""How far off the simulation is, and whether it puts the policies in the order in which they stand live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean
from typing import Literal, NamedTuple

from experiments.fidelity.config import BarsConfig
from experiments.fidelity.measures import MEANS, Measures

Kind = Literal["dispatch", "batch"]
RANKED = ("ttft_mean_ms", "e2e_mean_ms")
"""The figures by which policies are ordered; a pair counts that truly differs in one of them."""


class Compared(NamedTuple):
    """One figure of one setting."""

    trace: str
    dispatch: str
    batch: str
    figure: str
    live: tuple[float, ...]
    """Of each repeat."""
    simulated: float

    @property
    def live_mean(self) -> float:
        return mean(self.live)

    @property
    def error(self) -> float:
        """Relative to the live mean; above 0: the simulation is slower (of a throughput: faster)."""
        return self.simulated / self.live_mean - 1

    @property
    def spread(self) -> float:
        """Between the live runs, largest less smallest, relative to their mean."""
        return (max(self.live) - min(self.live)) / self.live_mean


class Pair(NamedTuple):
    """Two policies of one kind under one trace, by one figure."""

    trace: str
    kind: Kind
    figure: str
    first: str
    second: str
    live: tuple[float, float]
    simulated: tuple[float, float]
    separated: bool
    """Whether they truly differ live."""

    @property
    def kept(self) -> bool:
        """Whether the simulation has them in the live order."""
        return (self.live[0] - self.live[1]) * (self.simulated[0] - self.simulated[1]) > 0


class Ranking(NamedTuple):
    """All policies of one kind under one trace, by one figure."""

    trace: str
    kind: Kind
    figure: str
    pairs: int
    separated: int
    kept: int
    """Of the separated ones."""
    kendall_tau: float
    """Over all pairs, separated or not: 1 the same order, -1 the reverse."""


def compared(
    trace: str, dispatch: str, batch: str, live: Sequence[Measures], simulated: Measures, figures: Sequence[str]
) -> list[Compared]:
    """Every figure of one setting."""
    return [
        Compared(trace, dispatch, batch, figure, tuple(run[figure] for run in live), simulated[figure])
        for figure in figures
    ]


def pairs_of(
    rows: Sequence[Compared],
    kind: Kind,
    policies: Sequence[str],
    common: Mapping[str, tuple[str, str]],
    effect: float,
) -> list[Pair]:
    """Pairs of ``policies``; ``common``: each trace's dispatch and batch policy that the others are combined with."""
    found = []
    for figure in RANKED:
        for trace, (dispatch, batch) in common.items():
            chosen = {(policy, batch) if kind == "dispatch" else (dispatch, policy): policy for policy in policies}
            members = [row for row in rows if (row.trace, row.figure) == (trace, figure)]
            field = [row for row in members if (row.dispatch, row.batch) in chosen]
            for a, b in combinations(field, 2):
                names = chosen[a.dispatch, a.batch], chosen[b.dispatch, b.batch]
                live, simulated = (a.live_mean, b.live_mean), (a.simulated, b.simulated)
                found.append(Pair(trace, kind, figure, *names, live, simulated, separated(a, b, effect)))
    return found


def separated(a: Compared, b: Compared, effect: float) -> bool:
    """Whether two settings truly differ live: their runs do not overlap, their means differ by more than either's runs
    do among themselves, and by ``effect`` of the smaller mean at least."""
    apart = max(min(a.live) - max(b.live), min(b.live) - max(a.live)) > 0
    difference = abs(a.live_mean - b.live_mean)
    noise = max(max(each.live) - min(each.live) for each in (a, b))
    return apart and difference > noise and difference >= effect * min(a.live_mean, b.live_mean)


def rankings(pairs: Sequence[Pair]) -> list[Ranking]:
    """By kind, figure and trace."""
    groups: dict[tuple[str, Kind, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.trace, pair.kind, pair.figure), []).append(pair)
    found = []
    for (trace, kind, figure), members in groups.items():
        apart = [pair for pair in members if pair.separated]
        tau = (2 * sum(pair.kept for pair in members) - len(members)) / len(members)
        found.append(Ranking(trace, kind, figure, len(members), len(apart), sum(pair.kept for pair in apart), tau))
    return found


class Bar(NamedTuple):
    """One demand and what was found."""

    demand: str
    found: str
    reached: bool


def bars(rows: Sequence[Compared], pairs: Sequence[Pair], wanted: BarsConfig) -> list[Bar]:
    """Every demand."""
    limits = dict(zip(MEANS, (wanted.ttft, wanted.tpot, wanted.e2e), strict=True))
    found = []
    for figure, limit in limits.items():
        worst = max((row for row in rows if row.figure == figure), key=lambda row: abs(row.error))
        what = f"{worst.error:+.1%} ({worst.trace}, {worst.dispatch}, {worst.batch})"
        name = figure.removesuffix("_mean_ms").upper()
        found.append(Bar(f"mean {name} within {limit:.0%} everywhere", f"worst {what}", abs(worst.error) <= limit))
    for kind, least in (("dispatch", wanted.dispatch_pairs), ("batch", wanted.batch_pairs)):
        apart = [pair for pair in pairs if pair.kind == kind and pair.separated]
        names = {(pair.trace, pair.first, pair.second) for pair in apart}
        lost = {(pair.trace, pair.first, pair.second) for pair in apart if not pair.kept}
        demand = f"{least} or more {kind} pairs truly differ live, all keep their order"
        said = f"{len(names)} differ, {len(names) - len(lost)} keep their order"
        found.append(Bar(demand, said, len(names) >= least and not lost))
    return found


def decisions_bar(live: Sequence[Measures]) -> list[Bar]:
    """Whether fresh policies decide what was recorded; nothing where nothing was."""
    noted = [run for run in live if "decisions" in run]
    if not noted:
        return []
    keys = ("decisions", "decisions_carried_out", "policies_that_differ")
    decisions, carried_out, differ = (int(sum(run[key] for run in noted)) for key in keys)
    found = f"{decisions} decisions of {len(noted)} live runs ({carried_out} carried out), {differ} policies differ"
    whole = all(run["decisions"] >= run["decisions_carried_out"] > 0 for run in noted)
    return [Bar("shown the recorded views again, fresh policies decide the same", found, whole and differ == 0)]
