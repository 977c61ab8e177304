"""What a reader of one run's figures has to know, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

STILL_GROWING = "load still growing at the last arrival: its figures depend on how long the run is"


def remarks(metrics: Mapping[str, float]) -> Iterator[str]:
    """Remarks on what ``summarise`` returned: a load that never settled, and why trimmed figures are missing."""
    if metrics.get("load_growing"):
        growth = f" by {metrics['load_growth']:.0%} over the last two fifths" if "load_growth" in metrics else ""
        yield f"{STILL_GROWING} (outstanding requests grew{growth}); run more requests, or a lower rate"
    arrived, warmup = metrics.get("arrived", 0.0), metrics.get("warmup_requests", 0.0)
    if 0 < arrived <= warmup:
        yield (
            f"no figures after warm-up (_trimmed): the warm-up is the fleet's {warmup:,.0f} concurrent requests,"
            f" the run has only {arrived:,.0f}"
        )
