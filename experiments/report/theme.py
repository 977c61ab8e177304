"""How every figure looks: one colour per policy everywhere, text that the page's own font draws."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.compare_config import CompareConfig
from experiments.report.template import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#222222", "#8700f0", "#692d00"),
    *("#1e2d96", "#9678ff", "#693c69", "#a5b45a", "#d2003c", "#f09600", "#4b2d78", "#5a6969"),
)
"""Told apart with any colour vision: five of Okabe and Ito's, and after them always the one farthest from all before it
as seen with normal vision, protanopia, deuteranopia and tritanopia, of those that stand out on white."""
INK, MUTED, GRID = "#1c2430", "#667085", "#e6e9ef"
GOOD, BAD = "#0a7d4f", "#c0392b"
WIDTH_INCHES = 11.0
_CLOSE = 8.0
"""Ends of a log scale that differ less have even ticks: few of 1, 2, 5, 10, ... would lie between them."""
Colours = Mapping[str, str]
"""Variant -> colour."""
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def policy_colours(policies: Iterable[str]) -> Colours:
    """Colour of each policy (its text, such as ``least_loaded:metric=tokens``) shown on one page, in any order.

    A built-in policy has the colour of its place in the registry, whatever its parameters; any other text has one by
    its hash. Where two on the page would have the same, the first in order of (built in, text) has it and the other
    takes the next that nobody has, so that a policy has the same colour on all pages but those. Colours repeat after
    sixteen.
    """
    places = {text: _place(text) for text in sorted(set(policies))}
    order = sorted(places, key=lambda text: (not _is_built_in(text), text))
    found: dict[str, str] = {}
    for text in order:
        if COLOURS[places[text]] not in found.values():
            found[text] = COLOURS[places[text]]
    for text in order:
        place = places[text]
        free = (colour for colour in COLOURS[place:] + COLOURS[:place] if colour not in found.values())
        found[text] = found.get(text) or next(free, COLOURS[place])
    return found


def _is_built_in(text: str) -> bool:
    from policies.registry import BUILTIN

    return any(text.split(":")[0] in table for table in BUILTIN.values())


def _place(text: str) -> int:
    """Of its colour, if it has it to itself."""
    from policies.registry import BUILTIN

    name = text.split(":")[0]
    for table in BUILTIN.values():
        if name in table:
            return list(table).index(name) % len(COLOURS)
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") % len(COLOURS)


def palette(*configs: CompareConfig) -> Colours:
    """Colour of each variant of comparisons that are shown together, see :func:`policy_colours`.

    A name has one colour in all of them: that of the policy that it stands for in the first.
    """
    policies = {name: config.policy_of(name) for config in reversed(configs) for name in config.variants}
    colours = policy_colours(policies.values())
    return {name: colours[policy] for name, policy in policies.items()}


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


def save(figure: Figure, path: Path, name: str) -> None:
    """Write the figure to ``path`` (.png or .svg); equal figures of one ``name`` give equal files. Raises OSError."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    dateless = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format=path.suffix[1:], dpi=150, facecolor="white", metadata=dateless)
    write_whole(path, buffer.getvalue())


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
