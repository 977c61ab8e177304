"""How every figure looks: one colour per variant everywhere, text that the page's own font draws."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING

from experiments.compare_config import CompareConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision, in the order of best contrast on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00", "#7b4fb5", "#555555")
INK, MUTED, GRID = "#1c2430", "#667085", "#e6e9ef"
GOOD, BAD = "#0a7d4f", "#c0392b"
WIDTH_INCHES = 11.0
_CLOSE = 8.0
"""Ends of a log scale that differ less have even ticks: few of 1, 2, 5, 10, ... would lie between them."""
Colours = Mapping[str, str]
"""Variant -> colour."""
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def palette(*configs: CompareConfig) -> Colours:
    """Colour of each variant of comparisons that are shown together: a name has one colour in all of them.

    By place in each ``colour_order``, then in the configurations; colours repeat after eight.
    """
    ordered = dict.fromkeys(name for config in configs for name in config.colour_order)
    names = dict.fromkeys((*ordered, *(name for config in configs for name in config.variants)))
    return dict(zip(names, cycle(COLOURS), strict=False))


def panels(rows: int, columns: int, height_inches: float, *, sharex: str = "none", sharey: str = "none") -> Figure:
    """An empty grid of axes (``figure.axes``, by row) without any window behind it."""
    import seaborn as sns
    from matplotlib.figure import Figure

    sns.set_theme(style="ticks", rc=_settings())
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)  # type: ignore[call-overload]
    for ax in figure.axes:
        ax.grid(True, axis="both")
    return figure


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element that scales to its container; ``name`` describes it to a screen reader.

    Equal figures give equal text: ids are salted by ``name``, no date is written.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's fonts draw the text, not matplotlib's
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    head, body = buffer.getvalue().split("<svg ", 1)[1].split(">", 1)
    view = head.split('viewBox="', 1)[1].split('"', 1)[0]
    content = body.split("</metadata>", 1)[-1]
    return f'<svg class="figure" {_NAMESPACES} viewBox="{view}" role="img" aria-label="{escape(name)}">{content}'


def plain_ticks(axis: Axis, *, crowded: float) -> None:
    """Ticks of a log scale in plain numbers: 20, 25, 30, ... if its ends are close, else 1, 2, 5, 10, ... or, if they
    differ more than ``crowded`` times, only powers of ten. To be called after drawing."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    if high < _CLOSE * low:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < crowded * low else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, ax: Axes) -> None:
    """One legend for the whole figure, above it, from the handles of ``ax``."""
    handles, labels = ax.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    if shown:
        figure.legend(shown.values(), shown.keys(), loc="outside upper left", ncols=min(len(shown), 5), frameon=False)


def _settings() -> dict[str, object]:
    return {
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": "#b8c0cc",
        "axes.titlecolor": INK,
        "text.color": INK,
        "xtick.major.size": 3,
        "xtick.major.width": 0.8,
        "xtick.minor.size": 0,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
    }
