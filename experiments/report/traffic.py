"""One picture of a workload: its rate over time, its lengths, how bursty it is, how much of its prompts repeats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.report.theme import COLOURS, MUTED, panels, save
from workloads.errors import TraceError
from workloads.summary import describe, dispersion, rate_per_bin, reuse_so_far

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from workloads.trace import Trace

_HEIGHT_INCHES = 7.0


def draw(trace: Trace, path: Path) -> None:
    """Write the picture to ``path`` (.png or .svg). Equal traces give equal pictures. Raises TraceError."""
    numbers = describe(trace)
    figure = panels(2, 2, _HEIGHT_INCHES)
    rate, lengths, bursts, reuse = figure.axes
    figure.suptitle(f"{trace.name}: {len(trace):,} requests in {trace.duration_s:,.0f} s")
    _rate(rate, trace)
    _lengths(lengths, trace)
    _bursts(bursts, trace, numbers)
    _reuse(reuse, trace)
    try:
        save(figure, path, trace.name)
    except OSError as error:
        raise TraceError(f"{path}: the picture cannot be written: {error.strerror or error}") from error


def _rate(ax: Axes, trace: Trace) -> None:
    ax.set(title="Rate", xlabel="time (s)", ylabel="requests/s")
    edges, rates = rate_per_bin(trace)
    if not len(rates):
        _absent(ax, "all requests arrive at one time")
        return
    ax.stairs(rates, edges, color=COLOURS[0])
    ax.axhline(len(trace) / trace.duration_s, color=MUTED, linestyle="--", label="mean")
    ax.set_ylim(bottom=0.0)
    ax.legend(frameon=False)


def _lengths(ax: Axes, trace: Trace) -> None:
    ax.set(title="Lengths", xlabel="tokens", ylabel="share of requests at most as long")
    for tokens, name, colour in (
        (trace.prompt_tokens, "prompt", COLOURS[0]),
        (trace.output_tokens, "output", COLOURS[1]),
    ):
        values, counts = np.unique(tokens, return_counts=True)
        label = f"{name}: mean {tokens.mean():,.0f}, median {np.median(tokens):,.0f}"
        ax.step(values, np.cumsum(counts) / len(tokens), where="post", color=colour, label=label)
    ax.set_xscale("log")
    ax.set_ylim(0.0, 1.02)
    ax.legend(frameon=False)


def _bursts(ax: Axes, trace: Trace, numbers: dict[str, float]) -> None:
    ax.set(title="Burstiness", xlabel="length of the bins (s)", ylabel="variance / mean of the counts")
    widths, indices = dispersion(trace)
    if not len(widths):
        _absent(ax, "too few requests")
        return
    variation = f"gaps: CV {numbers['interarrival_cv']:.2f}" if "interarrival_cv" in numbers else "counts"
    ax.plot(widths, np.maximum(indices, 1e-3), color=COLOURS[0], marker="o", markersize=3, label=variation)
    ax.axhline(1.0, color=MUTED, linestyle="--", label="Poisson")
    ax.set(xscale="log", yscale="log")
    ax.legend(frameon=False)


def _reuse(ax: Axes, trace: Trace) -> None:
    ax.set(title="Reuse", xlabel="time (s)", ylabel="share of prompt blocks seen before")
    shares = reuse_so_far(trace)
    if not len(shares):
        _absent(ax, "no prefix ids: what prompts share is not known")
        return
    label = f"endless cache, blocks of {trace.prefix_block_tokens} tokens: {shares[-1]:.3f} in the end"
    ax.plot(trace.arrival_s, shares, color=COLOURS[2], label=label)
    ax.set_ylim(0.0, 1.02)
    ax.legend(frameon=False)


def _absent(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    ax.set(xticks=[], yticks=[])
