"""Several recordings of one run: the simulator's own error is what is left when the machine's noise is averaged out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, TypedDict

from experiments.config_base import ConfigError
from experiments.manifest import environment
from experiments.validate import Comparison, Validated, as_text, run_facts, validate_vllm_run
from experiments.vllm_run import read_requests, read_settings

if TYPE_CHECKING:
    from experiments.vllm_run import EngineSettings


class MeanError(TypedDict):
    """One figure over all recordings; errors are signed fractions of the real figure."""

    metric: str
    statistic: str
    mean_error: float
    standard_error: float
    """Of the mean: the deviation between recordings over the root of their number."""
    errors: list[float]
    """By recording."""


@dataclass(frozen=True)
class Repeated:
    """Recordings of one run against their simulations."""

    folders: tuple[Path, ...]
    runs: tuple[Validated, ...]
    mean_errors: list[MeanError]


def validate_vllm_runs(folders: Sequence[Path]) -> Repeated:
    """Simulate each of two or more recordings by its own profile, and average the errors.

    Raises ConfigError where they did not serve the same requests with the same engine settings, else as
    :func:`experiments.validate.validate_vllm_run`.
    """
    first, *others = (_what_ran(folder) for folder in folders)
    for folder, other in zip(folders[1:], others, strict=True):
        if other != first:
            raise ConfigError(
                f"{folders[0]} and {folder} are recordings of different runs (engine settings or lengths differ);"
                " give recordings of one, or one folder at a time"
            )
    runs = tuple(validate_vllm_run(folder) for folder in folders)
    rows = zip(*(run.comparison for run in runs), strict=True)
    return Repeated(tuple(folders), runs, [_mean_error(row) for row in rows])


def _what_ran(folder: Path) -> tuple[EngineSettings, list[int], list[int]]:
    record = read_requests(folder / "requests.jsonl")
    return read_settings(folder / "meta.json"), record.prompt_tokens.tolist(), record.output_tokens.tolist()


def _mean_error(row: Sequence[Comparison]) -> MeanError:
    errors = [each["relative_error"] for each in row]
    return MeanError(
        metric=row[0]["metric"],
        statistic=row[0]["statistic"],
        mean_error=mean(errors),
        standard_error=stdev(errors) / sqrt(len(errors)),
        errors=errors,
    )


def repeated_json(found: Repeated) -> dict[str, Any]:
    """Ready for ``json.dumps``."""
    runs = [{"folder": str(folder), **run_facts(run)} for folder, run in zip(found.folders, found.runs, strict=True)]
    return {"mean_errors": found.mean_errors, "runs": runs, "environment": environment()}


def repeated_text(found: Repeated) -> str:
    """A table for each recording, then one of the mean errors."""
    parts = [f"{folder}\n{as_text(run)}\n" for folder, run in zip(found.folders, found.runs, strict=True)]
    lines = [f"{'mean of ' + str(len(found.runs)):<12} {'error':>8}  standard error"]
    lines += [
        f"{row['metric'] + ' ' + row['statistic']:<12} {row['mean_error']:>+8.2%}  {row['standard_error']:.2%}"
        for row in found.mean_errors
    ]
    return "\n".join([*parts, *lines])
