"""Errors of the fitted and of the tested part, by backend and by group."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config_base import ConfigError
from experiments.table_validation.fit import ALTERNATIVES, CRITERION, SPLIT, Tried, fit_backend, fitted_groups
from experiments.table_validation.predict import (
    BATCH_POLICIES,
    MAX_BATCH_TOKENS,
    Engine,
    Prediction,
    predict,
    why_uncovered,
)
from experiments.table_validation.rows import Group, Row, read_rows

BAR = 0.06
"""Median absolute TPOT error of the tested part."""
METHOD = {
    "prediction": "each row simulated as a closed loop with the core's own instance and batch policies: all users ask "
    "at once, each anew in the moment of the last token; two requests per user warm up, the next four count (means). A "
    "closed form would need the share of iterations that carry prompts, which depends on how users fall into step",
    "batch_policies": BATCH_POLICIES,
    "max_batch_tokens": MAX_BATCH_TOKENS,
    "memory": "0.9 of the device; no prefix caching",
    "output_head": "bf16",
    "split": SPLIT,
    "constant": CRITERION,
    "alternatives": "the constant per iteration or per sequence of an iteration; KV of fp8 models in bf16 or fp8; of "
    "each backend the one with the smallest median TPOT error over its fitted rows",
}


class Judged(NamedTuple):
    """A covered row and its prediction."""

    row: Row
    fitted: bool
    prediction: Prediction


def validate_table(path: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Fit the overheads on whole groups of the table, predict the others; ready for JSON.

    Raises ConfigError for the file, and where no group is left to test.
    """
    rows = read_rows(path)
    reasons = [why_uncovered(row) for row in rows]
    covered = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    fitted = fitted_groups(row.group for row in covered)
    engines, tried = _engines([row for row in covered if row.group in fitted], progress)
    judged, unfitted = _judged(covered, fitted, engines)
    if all(each.fitted for each in judged):
        raise ConfigError(
            f"{path}: no covered group of (backend, model, TP) is left to test; allowed: two or more of one backend"
        )
    uncovered = Counter(reason for reason in (*reasons, *unfitted) if reason is not None)
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "coverage": {"rows": len(rows), "covered": len(judged), "uncovered": dict(uncovered.most_common())},
        "method": METHOD,
        "bar": {"tpot_median_error_of_test": BAR},
        "tried_on_fit": [each._asdict() for each in tried],
        "overheads": [
            {"backend": backend, "precision": precision, **engine._asdict()}
            for (backend, precision), engine in sorted(engines.items())
        ],
        "test": _errors(each for each in judged if not each.fitted),
        "fit": _errors(each for each in judged if each.fitted),
        "test_by_backend": _by(judged, lambda row: f"{row.group.backend} {row.precision}"),
        "groups": _groups(judged),
    }


def _engines(
    rows: Sequence[Row], progress: Callable[[int, int], None] | None
) -> tuple[dict[tuple[str, str], Engine], list[Tried]]:
    """By backend and precision."""
    backends = sorted({row.group.backend for row in rows})
    total, done = len(ALTERNATIVES) * len(backends), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    engines: dict[tuple[str, str], Engine] = {}
    tried: list[Tried] = []
    for backend in backends:
        found, those = fit_backend([row for row in rows if row.group.backend == backend], step)
        engines |= {(backend, precision): engine for precision, engine in found.items()}
        tried += those
    return engines, tried


def _judged(
    covered: Sequence[Row], fitted: frozenset[Group], engines: Mapping[tuple[str, str], Engine]
) -> tuple[list[Judged], list[str]]:
    """The predictions, and for each row without a constant the reason."""
    judged, reasons = [], []
    for row in covered:
        engine = engines.get((row.group.backend, row.precision))
        if engine is None:
            reasons.append(f"no group of {row.group.backend} in {row.precision} to fit its constant")
        else:
            judged.append(Judged(row, row.group in fitted, predict(row, engine)))
    return judged, reasons


def _by(judged: Iterable[Judged], key: Callable[[Row], str]) -> dict[str, Any]:
    """Errors of the tested rows by key."""
    parts: dict[str, list[Judged]] = {}
    for each in judged:
        if not each.fitted:
            parts.setdefault(key(each.row), []).append(each)
    return {name: _errors(part) for name, part in sorted(parts.items())}


def _groups(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    parts: dict[tuple[Group, bool], list[Judged]] = {}
    for each in judged:
        parts.setdefault((each.row.group, each.fitted), []).append(each)
    return [
        {**group._asdict(), "part": "fit" if fitted else "test", **_errors(part)}
        for (group, fitted), part in sorted(parts.items(), key=lambda item: item[0])
    ]


def _errors(judged: Iterable[Judged]) -> dict[str, Any]:
    """Absolute errors relative to the measurement, and the median of the signed ones as bias."""
    import numpy as np

    listed = list(judged)
    found: dict[str, Any] = {"rows": len(listed)}
    for name in ("tpot", "ttft"):
        signed = np.array(
            [getattr(each.prediction, f"{name}_ms") / getattr(each.row, f"{name}_ms") - 1 for each in listed]
        )
        off = np.abs(signed)
        found[f"{name}_error"] = {
            "median": round(float(np.median(off)), 4),
            "p90": round(float(np.percentile(off, 90)), 4),
            "bias": round(float(np.median(signed)), 4),
        }
    return found
