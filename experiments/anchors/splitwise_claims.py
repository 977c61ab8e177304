"""What Splitwise says of its clusters, section by section, held against the rows of the anchor; and their picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from experiments.anchors.anchor import Claim
from experiments.figures.study import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MORE = 1.02
"""An ordering holds from the tolerance of the search on."""
_LESS = 0.98
_SPLIT = ("Splitwise-AA", "Splitwise-HH", "Splitwise-HA", "Splitwise-HHcap")
_BASELINES = ("Baseline-A100", "Baseline-H100")
_ABSTRACT = "(abstract, which names no trace)"
Rates = dict[str, float]


def claims(rows: Sequence[Row]) -> list[Claim]:
    """By section: equal power (6.2), equal cost and equal throughput (6.3), all designs (6.4)."""
    return [
        *_equal_power(_rates(rows, "iso-power", "conv"), _rates(rows, "iso-power", "code")),
        *_equal_cost(_rates(rows, "iso-cost", "conv")),
        *_equal_throughput(rows),
        *_by_context(_rates(rows, "iso-power", "conv", "context")),
    ]


def _rates(rows: Sequence[Row], design: str, trace: str, lookup: str = "sequences") -> Rates:
    case = (design, trace, lookup)
    return {
        str(row["cluster"]): float(row["rate_rps"])
        for row in rows
        if (row["design"], row["trace"], row["decode_lookup"]) == case
    }


def _more(where: str, rates: Rates, one: str, other: str, published: str) -> Claim:
    return Claim(f"{where}: rate of {one} over {other}", published, rates[one] / rates[other], _MORE)


def _equal_power(conv: Rates, code: Rates) -> Iterator[Claim]:
    where = "equal power, conversation"
    yield _more(where, conv, "Splitwise-AA", "Baseline-A100", "2.15x at the same cost (6.2, figure 18a)")
    yield _more(where, conv, "Splitwise-HA", "Baseline-H100", "1.18x at 10 % lower cost (6.2, figure 18a)")
    best = conv["Splitwise-HHcap"] / max(rate for name, rate in conv.items() if name != "Splitwise-HHcap")
    yield Claim(f"{where}: rate of Splitwise-HHcap over the best of the others", "best (6.2, figure 16b)", best, 1.0)
    where = "equal power, code"
    yield _more(where, code, "Splitwise-AA", "Baseline-A100", f"2.35x at the same cost {_ABSTRACT}")
    yield _more(where, code, "Splitwise-AA", "Baseline-H100", f"1.4x at 20 % lower cost {_ABSTRACT}; higher (6.2)")
    for name in _SPLIT[1:]:
        yield _more(where, code, name, "Baseline-H100", "higher (6.2, figure 16a)")
    for trace, rates in (("conversation", conv), ("code", code)):
        worst = min(rates[name] for name in _SPLIT) / max(rates[name] for name in _BASELINES)
        said = "much better than any baseline (6.4)"
        yield Claim(f"equal power, {trace}: rate of the worst split over the best baseline", said, worst, _MORE)


def _equal_cost(rates: Rates) -> Iterator[Claim]:
    where = "equal cost, conversation"
    yield _more(where, rates, "Splitwise-AA", "Baseline-H100", "1.4x (6.3, figure 18b)")
    best = rates["Splitwise-AA"] / max(rate for name, rate in rates.items() if name != "Splitwise-AA")
    yield Claim(f"{where}: rate of Splitwise-AA over the best of the others", "best (6.3, figure 18b)", best, 1.0)


def _equal_throughput(rows: Sequence[Row]) -> Iterator[Claim]:
    where = "equal throughput, conversation"
    for name, column, figure in (("Splitwise-HHcap", "power", "19a"), ("Splitwise-AA", "cost", "19b")):
        least = _least(rows, "iso-throughput", column)
        said = f"25 % lower (6.3, figure {figure})"
        ratio = least[name] / least["Baseline-H100"]
        yield Claim(f"{where}: {column} of {name} over Baseline-H100", said, ratio, high=_LESS)


def _by_context(rates: Rates) -> Iterator[Claim]:
    """Not published: what the same clusters would carry if a decode cost what the table measured at its context."""
    where = "equal power, conversation, decodes by context"
    for one, other in (("Splitwise-AA", "Baseline-A100"), ("Splitwise-HA", "Baseline-H100")):
        yield _more(where, rates, one, other, "-")._replace(low=None)


def draw(rows: Sequence[Row]) -> Figure:
    """A bar per cluster: its rate in a panel per case, then cost and power of the smallest at equal throughput."""
    from experiments.report.theme import COLOURS, panels

    cases = list(dict.fromkeys((row["design"], row["trace"], row["decode_lookup"]) for row in rows))
    sized = cases.pop()
    figure = panels(1, len(cases) + 1, 4.4)
    for axis, case in zip(figure.axes, cases, strict=False):
        shown = [row for row in rows if (row["design"], row["trace"], row["decode_lookup"]) == case]
        names = [f"{row['cluster']}\n({row['prompt_machines']}, {row['token_machines']})" for row in shown]
        bars = axis.bar(names, [float(row["rate_rps"]) for row in shown], color=COLOURS[: len(shown)])
        axis.bar_label(bars, fmt="%.0f", fontsize=7)
        axis.set_title("{}, {}\ndecodes by {}".format(*case), fontsize=9)
    last = figure.axes[-1]
    for shift, column in ((-0.2, "cost"), (0.2, "power")):
        least = _least(rows, sized[0], column)
        reference = least["Baseline-H100"]
        places = [place + shift for place in range(len(least))]
        bars = last.bar(places, [value / reference for value in least.values()], width=0.4, label=column)
        last.bar_label(bars, fmt="%.2f", fontsize=6, rotation=90, padding=2)
    last.set_xticks(range(len(least)), list(least))
    last.set_title("{}, {}\nBaseline-H100 = 1".format(*sized), fontsize=9)
    last.margins(y=0.15)
    last.legend(fontsize=7)
    for axis in figure.axes:
        axis.tick_params(axis="x", rotation=90, labelsize=7)
    figure.axes[0].set_ylabel("highest rate within all nine targets, requests/s")
    return figure


def _least(rows: Sequence[Row], design: object, column: str) -> Rates:
    """The smallest value of each cluster in ``column``."""
    found: Rates = {}
    for row in rows:
        if row["design"] == design:
            name, value = str(row["cluster"]), float(row[column])
            found[name] = min(found.get(name, value), value)
    return found
