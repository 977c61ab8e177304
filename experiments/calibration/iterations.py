"""Calibrate whole iterations: from a file of ``semiflow profile``, and from a profile in LLMServingSim's format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.calibration.result import Calibration, digests, told
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from reference_impl.latency.identified import Error
    from reference_impl.latency.measured import Coefficients

RULE = (
    "a quarter of the measured shapes, drawn by the seed, whole. The coefficients are of all rows, the errors of a fit "
    "without these"
)


def calibrate_iterations(path: Path, seed: int) -> Calibration:
    """Fit the shapes that a file of ``semiflow profile`` holds (not the level of its live runs).

    Raises ConfigError where the file holds no timings, ProfileError where they do not determine the coefficients.
    """
    from experiments.profiling.result import samples_in
    from reference_impl.latency.identified import Error, held_out
    from reference_impl.latency.measured_fit import check_samples, coefficients_of, errors_of

    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        samples = samples_in(data)
        model, dtype = str(data["model"]), str(data["dtype"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: holds no timings of semiflow profile, which are what is fitted") from error
    check_samples(path.name, samples)
    aside = held_out(path.name, [sample.group for sample in samples], seed)
    seen = [sample for sample, unseen in zip(samples, aside, strict=True) if not unseen]
    kept = [sample for sample, unseen in zip(samples, aside, strict=True) if unseen]
    found = errors_of(coefficients_of(seen), kept)
    errors = {kind: Error(each.median, each.p90, each.bias, each.shapes, each.shapes) for kind, each in found.items()}
    measured = f"semiflow profile of {model} in {dtype} ({path.name})"
    return _calibration(coefficients_of(samples), errors, RULE, [path], model, dtype, measured, seed)


def calibrate_llmservingsim(folder: Path, tp: int, seed: int) -> Calibration:
    """Fit an operator profile: token-dependent operators, head, and attention, each for itself, then summed.

    Raises ProfileError as its reader, and where rows do not determine the coefficients.
    """
    from reference_impl.latency import llmservingsim_fit, model
    from reference_impl.latency.llmservingsim import read_profile

    profile = read_profile(folder, tp)
    shape = model(profile.model)
    fitted = llmservingsim_fit.fit_profile(profile, shape.layers, seed)
    files = sorted(path for path in folder.glob("*") if path.suffix in (".csv", ".yaml") and "skew" not in path.name)
    measured = (
        f"LLMServingSim's profile of {profile.model} on {profile.device} (one device's shard of {tp}, no all-reduce)"
    )
    return _calibration(
        fitted.coefficients, fitted.errors, llmservingsim_fit.RULE, files, shape.name, "bfloat16", measured, seed
    )


def _calibration(
    coefficients: Coefficients,
    errors: Mapping[str, Error],
    rule: str,
    files: list[Path],
    model: str,
    dtype: str,
    measured: str,
    seed: int,
) -> Calibration:
    from reference_impl.latency.measured import FORMAT, VERSION

    parts = [f"{name} {error.median:.1%} (P90 {error.p90:.1%})" for name, error in errors.items()]
    inputs = digests(files)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "dtype": dtype,
        "provenance": f"fitted to {measured}; median relative error on rows kept aside: {', '.join(parts)}",
        "inputs": inputs,
        "seed": seed,
        "kept_aside": rule,
        "errors": told(errors),
        "fit": asdict(coefficients),
    }
    return Calibration(content, errors, rule, inputs)
