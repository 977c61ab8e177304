"""The profile's file: what was measured, on what, what was fitted to it and how far off that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from experiments.manifest import environment
from experiments.profiling.measure import Timing
from experiments.profiling.overheads import Overheads
from experiments.profiling.shapes import Shape
from reference_impl.latency.measured import FORMAT, VERSION

if TYPE_CHECKING:
    from reference_impl.latency.measured_fit import Fit, Sample

_TRIMMED = 10
_NO_GAPS = "no gaps between iterations"


def profile_json(device: Mapping[str, Any], shapes: Sequence[Shape], timings: Sequence[Timing]) -> dict[str, Any]:
    """Everything that the file holds. ``device``: model, dtype, device, cpu_share, workers."""
    from reference_impl.latency.measured_fit import fit

    found = fit(_samples(shapes, timings))
    return {
        "format": FORMAT,
        "version": VERSION,
        **device,
        "provenance": _provenance(device, found, timings),
        "fit": asdict(found.coefficients),
        "errors": {kind: error._asdict() for kind, error in found.errors.items()},
        "overheads": None,
        "drift": [round(ratio, 4) for ratio in drift(timings)],
        "environment": {**environment(), **machine()},
        "iterations": [
            {"chunks": shape.chunks, "contexts": shape.contexts, "seconds": _of(timings, place)}
            for place, shape in enumerate(shapes)
        ],
    }


def add_overheads(profile: Mapping[str, Any], found: Overheads) -> dict[str, Any]:
    """The same profile with the gaps between iterations as they were in a live run."""
    fit = {**profile["fit"], "gap_s": found.gap_s, "gap_sequence_s": found.gap_sequence_s}
    told = f"gaps between iterations from {found.iterations} of a live run"
    provenance = str(profile["provenance"]).replace(_NO_GAPS, told)
    return {**profile, "fit": fit, "provenance": provenance, "overheads": found._asdict()}


def overheads_in(profile: Mapping[str, Any]) -> Overheads | None:
    """Those of the live run that was added to a profile; None: none was."""
    told = profile.get("overheads")
    return None if told is None else Overheads(**told)


def drift(timings: Sequence[Timing]) -> list[float]:
    """Per round, how much slower (above 1) or faster it was than all rounds together."""
    medians = {shape: median(timing.seconds for timing in mine) for shape, mine in _by_shape(timings).items()}
    rounds: dict[int, list[float]] = {}
    for timing in timings:
        rounds.setdefault(timing.round, []).append(timing.seconds / medians[timing.shape])
    return [median(rounds[round_]) for round_ in sorted(rounds)]


def machine() -> dict[str, str | int]:
    """The processor, as far as the system tells."""
    import os
    from pathlib import Path

    told: dict[str, str | int] = {"cores": os.cpu_count() or 1}
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        told |= {"processor": names[0]} if names else {}
    return told


def _by_shape(timings: Sequence[Timing]) -> dict[int, list[Timing]]:
    found: dict[int, list[Timing]] = {}
    for timing in timings:
        found.setdefault(timing.shape, []).append(timing)
    return found


def _samples(shapes: Sequence[Shape], timings: Sequence[Timing]) -> list[Sample]:
    """Each timing, less the tenth at either end of its shape: iterations that something else disturbed."""
    from reference_impl.latency.measured_fit import Sample

    found = []
    for shape, mine in _by_shape(timings).items():
        ordered = sorted(mine, key=lambda timing: timing.seconds)
        cut = len(ordered) // _TRIMMED
        kept = ordered[cut : len(ordered) - cut]
        found += [Sample(timing.content(shapes).work, timing.seconds, shape) for timing in kept]
    return found


def _of(timings: Sequence[Timing], shape: int) -> list[float]:
    """In the order of the rounds; microseconds are enough."""
    return [round(timing.seconds, 6) for timing in sorted(timings) if timing.shape == shape]


def _provenance(device: Mapping[str, Any], found: Fit, timings: Sequence[Timing]) -> str:
    from reference_impl.latency.measured_fit import as_text

    what = f"{device['model']} in {device['dtype']} on {device['device']}"
    if device["cpu_share"] is not None:
        what += f", {device['cpu_share']:g} of a core for each of {device['workers']} workers"
    rounds = 1 + max(timing.round for timing in timings)
    return f"measured by semiflow profile: {what}, {rounds} rounds; {as_text(found.errors)}; {_NO_GAPS}"
