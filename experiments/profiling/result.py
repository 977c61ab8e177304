"""The profile's file: what was measured, on what, what was fitted to it and how far off that is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from experiments.manifest import environment
from experiments.profiling.live import LiveIteration, live_samples
from experiments.profiling.measure import Timing
from experiments.profiling.overheads import Overheads
from experiments.profiling.shapes import Shape
from reference_impl.latency.measured import FORMAT, VERSION

if TYPE_CHECKING:
    from reference_impl.latency.measured import Coefficients
    from reference_impl.latency.measured_fit import Error, Sample

_TRIMMED = 10
_FEW = 20
_NO_LIVE = "no live run seen"


def profile_json(device: Mapping[str, Any], shapes: Sequence[Shape], timings: Sequence[Timing]) -> dict[str, Any]:
    """Everything that the file holds. ``device``: model, dtype, device, cpu_share, workers."""
    from reference_impl.latency.measured_fit import as_text, fit

    found = fit(_samples(shapes, timings))
    return {
        "format": FORMAT,
        "version": VERSION,
        **device,
        "provenance": f"{_measured(device, timings)}; {as_text(found.errors)}; {_NO_LIVE}",
        "fit": asdict(found.coefficients),
        "errors": told(found.errors),
        "live": None,
        "overheads": None,
        "drift": [round(ratio, 4) for ratio in drift(timings)],
        "environment": {**environment(), **machine()},
        "shapes": shapes,
        "timings": [timing._replace(seconds=round(timing.seconds, 6)) for timing in sorted(timings)],
    }


def with_live_runs(
    profile: Mapping[str, Any], iterations: Sequence[LiveIteration], overheads: Overheads
) -> dict[str, Any]:
    """The same profile brought to the level of live runs: see :func:`_live_fit`.

    ``live`` tells how far off the model of the shapes alone was on their iterations, and one that has seen every second
    of them was on the other half.
    """
    from reference_impl.latency.measured_fit import coefficients_of, errors_of

    samples = samples_in(profile)
    alone = coefficients_of(samples)
    every = live_samples(iterations, 1.0)
    half = _live_fit(samples, alone, iterations[::2])
    live = {
        "iterations": len(iterations),
        "levels": levels(alone, every),
        "errors_of_shapes_alone": told(errors_of(alone, every)),
        "errors_unseen": told(errors_of(half, live_samples(iterations[1::2], 1.0))),
    }
    gaps = {"gap_s": overheads.gap_s, "gap_sequence_s": overheads.gap_sequence_s}
    text = str(profile["provenance"]).replace(_NO_LIVE, f"brought to the level of {len(iterations)} live iterations")
    changed = {"provenance": text, "live": live, "overheads": overheads._asdict()}
    return {**profile, **changed, "fit": {**asdict(_live_fit(samples, alone, iterations)), **gaps}}


def _live_fit(samples: Sequence[Sample], alone: Coefficients, iterations: Sequence[LiveIteration]) -> Coefficients:
    """The shapes say how costs go with size, live iterations how high they are: each kind of shape is scaled to the
    level of its live iterations, then both are fitted, and all the live ones weigh as much as all the shapes."""
    from reference_impl.latency.measured_fit import coefficients_of

    live = live_samples(iterations, float(len({sample.group for sample in samples})))
    level = levels(alone, live)
    return coefficients_of([*(each._replace(seconds=each.seconds * level[each.kind]) for each in samples), *live])


def levels(alone: Coefficients, live: Sequence[Sample]) -> dict[str, float]:
    """By kind, what the live iterations took over what the model says; of a kind with few of them, over all kinds."""
    from reference_impl.latency.measured import Measured
    from reference_impl.latency.measured_fit import KINDS

    cost = Measured(alone, "alone")
    spent = {
        kind: [(each.seconds, cost.iteration_s(each.work)) for each in live if each.kind == kind] for kind in KINDS
    }
    everything = [pair for pairs in spent.values() for pair in pairs]
    chosen = {kind: pairs if len(pairs) >= _FEW else everything for kind, pairs in spent.items()}
    return {
        kind: sum(seconds for seconds, _ in pairs) / sum(told_s for _, told_s in pairs) if pairs else 1.0
        for kind, pairs in chosen.items()
    }


def samples_in(profile: Mapping[str, Any]) -> list[Sample]:
    """The timings of a profile's file, as they are fitted. Raises KeyError or TypeError where it holds none."""
    return _samples(_shapes(profile), [Timing(*row) for row in profile["timings"]])


def overheads_in(profile: Mapping[str, Any]) -> Overheads | None:
    """Those of the live runs that were added to a profile; None: none was."""
    found = profile.get("overheads")
    return None if found is None else Overheads(**found)


def write_profile(path: Path, profile: Mapping[str, Any]) -> None:
    """A line for each key: the timings are many. Written whole or not at all."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in profile.items()]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def told(errors: Mapping[str, Error]) -> dict[str, dict[str, float]]:
    """Ready for JSON."""
    return {kind: error._asdict() for kind, error in errors.items()}


def drift(timings: Sequence[Timing]) -> list[float]:
    """Per round, how much slower (above 1) or faster it was than all rounds together."""
    medians = {shape: median(timing.seconds for timing in mine) for shape, mine in _by_shape(timings).items()}
    rounds: dict[int, list[float]] = {}
    for timing in timings:
        rounds.setdefault(timing.round, []).append(timing.seconds / medians[timing.shape])
    return [median(rounds[round_]) for round_ in sorted(rounds)]


def machine() -> dict[str, str | int]:
    """The processor, as far as the system tells."""
    found: dict[str, str | int] = {"cores": os.cpu_count() or 1}
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        found |= {"processor": names[0]} if names else {}
    return found


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


def _shapes(profile: Mapping[str, Any]) -> list[Shape]:
    return [Shape(tuple((new, before) for new, before in chunks), tuple(ctx)) for chunks, ctx in profile["shapes"]]


def _measured(device: Mapping[str, Any], timings: Sequence[Timing]) -> str:
    what = f"{device['model']} in {device['dtype']} on {device['device']}"
    if device["cpu_share"] is not None:
        what += f", {device['cpu_share']:g} of a core for each of {device['workers']} workers"
    return f"measured by semiflow profile: {what}, {1 + max(timing.round for timing in timings)} rounds"
