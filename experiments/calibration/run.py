"""Recognise a profile, calibrate it, write its coefficients."""

from __future__ import annotations

from pathlib import Path

from experiments.calibration.iterations import calibrate_iterations, calibrate_llmservingsim
from experiments.calibration.operators import calibrate_operators
from experiments.calibration.result import Calibration
from experiments.config_base import ConfigError

_KINDS = (
    "a folder of operator tables (gemm.parquet, ...), a folder in LLMServingSim's format, a file of semiflow profile"
)


def calibrate(profile: Path, *, system: str | None = None, tp: int = 1, seed: int = 0) -> Calibration:
    """Of a folder of operator tables (``system`` says which), of a folder in LLMServingSim's format (profiled at
    degree ``tp``), or of a file of ``semiflow profile``.

    Raises ConfigError and ProfileError: what it is not, and what its rows do not determine.
    """
    if (profile / "gemm.parquet").is_file():
        return calibrate_operators(profile, system, seed)
    if not profile.exists():
        raise ConfigError(f"{profile}: no such profile; allowed: {_KINDS}")
    if system is not None:
        raise ConfigError(f"--system is for a folder of operator tables; {profile} holds no gemm.parquet")
    if profile.is_dir():
        return calibrate_llmservingsim(profile, tp, seed)
    return calibrate_iterations(profile, seed)


def write_coefficients(path: Path, found: Calibration) -> None:
    """A line for each key. Written whole or not at all."""
    from experiments.profiling.result import write_profile

    write_profile(path, found.content)
