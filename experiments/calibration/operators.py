"""Calibrate one device's operators from AIConfigurator's tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.calibration.result import Calibration, digests, rounded, told
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from reference_impl.latency.identified import Error
    from reference_impl.latency.operators.costs import GemmCosts
    from reference_impl.latency.operators.tables import Columns

LICENCE = "Apache-2.0"
_DTYPES = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block"}


class System(NamedTuple):
    """What a system of the tables is called here, and its L2 cache (NVIDIA's data sheets)."""

    profile: str
    hardware: str
    l2_bytes: float


SYSTEMS = {
    "a100_sxm": System("a100", "a100-80g", 40e6),
    "h100_sxm": System("h100", "h100", 50e6),
    "h200_sxm": System("h200", "h200", 50e6),
}


def calibrate_operators(folder: Path, system: str | None, seed: int) -> Calibration:
    """Fit every dtype's GEMM, prefill and decode attention of ``system``.

    Raises ConfigError for an unknown system, ProfileError for tables that do not determine the coefficients.
    """
    from reference_impl.latency import hardware
    from reference_impl.latency.operators import fit, profile, tables

    if system not in SYSTEMS:
        wrong = "missing" if system is None else repr(system)
        raise ConfigError(f"--system: {wrong}; say of which system the tables in {folder} are: {', '.join(SYSTEMS)}")
    known = SYSTEMS[system]
    device = hardware(known.hardware)
    gemm, prefill, decode = (tables.read_table(folder, file, system) for file in tables.FILES)
    gemms = {
        _DTYPES[dtype]: fit.fit_gemm(gemm, dtype, device.sm_count, seed)
        for dtype in sorted(set(gemm["gemm_dtype"].tolist()) & set(_DTYPES))
    }
    prefills, decodes = fit.fit_prefill(prefill, seed), fit.fit_decode(decode, known.l2_bytes, seed)
    errors: dict[str, Error] = {f"gemm {dtype}": fitted.error for dtype, fitted in gemms.items()}
    errors |= {"prefill attention": prefills.error, "decode attention": decodes.error}
    cached = fit.cached_error(decodes.costs, decode, known.l2_bytes)
    errors |= {"decode attention, KV in cache": cached} if cached is not None else {}
    inputs = digests([folder / file for file in tables.FILES])
    content = {
        "format": profile.FORMAT,
        "version": profile.VERSION,
        "name": known.profile,
        "hardware": known.hardware,
        "source": f"AIConfigurator's operator tables ({system}, {', '.join(sorted(set(gemm['source'].tolist())))})",
        "url": "https://github.com/ai-dynamo/aiconfigurator",
        "licence": LICENCE,
        "inputs": inputs,
        "seed": seed,
        "kept_aside": fit.RULE,
        "errors": told(errors),
        "grid": _grid(gemm, prefill, decode),
        "gemm": {dtype: _gemm(fitted.costs) for dtype, fitted in gemms.items()},
        "prefill_attention": {key: rounded(value) for key, value in asdict(prefills.costs).items()},
        "decode_attention": {key: rounded(value) for key, value in asdict(decodes.costs).items()},
    }
    return Calibration(content, errors, fit.RULE, inputs)


def _gemm(costs: GemmCosts) -> dict[str, Any]:
    seconds = [[rounded(cost) for cost in each] for each in costs.seconds]
    return {"sm_count": costs.sm_count, "rows": list(costs.rows), "seconds": seconds}


def _grid(gemm: Columns, prefill: Columns, decode: Columns) -> dict[str, Any]:
    """What :class:`reference_impl.latency.operators.profile.Grid` holds."""
    from reference_impl.latency.operators.fit import SMALLEST

    def ends(values: Any) -> list[int]:
        return [int(values.min()), int(values.max())]

    pairs = {
        tuple(pair)
        for table in (prefill, decode)
        for pair in zip(table["num_heads"].tolist(), table["num_key_value_heads"].tolist(), strict=True)
    }
    return {
        "gemm_rows": ends(gemm["m"]),
        "gemm_columns": [SMALLEST, int(gemm["n"].max())],
        "gemm_inner": [SMALLEST, int(gemm["k"].max())],
        "heads": [list(pair) for pair in sorted(pairs)],
        "head_dims": sorted(set(prefill["head_dim"].tolist())),
        "prompt_tokens": ends(prefill["isl"]),
        "context_tokens": ends(decode["isl"] + decode["step"]),
        "sequences": ends(decode["batch_size"]),
    }
