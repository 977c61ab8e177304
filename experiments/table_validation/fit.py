"""One overhead constant per backend and precision, found on whole groups that the test never sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import NamedTuple

from experiments.table_validation.predict import Engine, Prediction, predict
from experiments.table_validation.rows import Group, Row

SPLIT = (
    "groups of (backend, model, TP); those of a backend in the order of model and TP, every second one from the first "
    "on is fitted, the others are tested"
)
CRITERION = "the constant of 0 or more at which the median of the signed TPOT errors of the fitted rows is 0"
ALTERNATIVES = tuple((per, kv_dtype) for per in ("iteration", "sequence") for kv_dtype in ("bf16", "fp8"))
"""Of each backend the one with the smallest median TPOT error over its fitted rows is taken."""
_CLOSE = 1e-3
_STEPS = 8
_FIRST_S = {"iteration": 1e-3, "sequence": 3e-5}


class Fitted(NamedTuple):
    """What a backend's engine comes to at one precision."""

    engine: Engine
    predictions: tuple[Prediction, ...]
    """Of the fitted rows, in their order."""


class Tried(NamedTuple):
    """An alternative for one backend, and its median absolute TPOT error over the fitted rows."""

    backend: str
    per: str
    fp8_kv: str
    """KV dtype of the rows in fp8; those in bf16 have bf16."""
    median: float


def fitted_groups(groups: Iterable[Group]) -> frozenset[Group]:
    """See :data:`SPLIT`."""
    by_backend: dict[str, list[Group]] = {}
    for group in sorted(set(groups)):
        by_backend.setdefault(group.backend, []).append(group)
    return frozenset(group for listed in by_backend.values() for group in listed[::2])


def fit_backend(rows: Sequence[Row], progress: Callable[[], None]) -> tuple[dict[str, Engine], list[Tried]]:
    """The engine of one backend by precision, from its fitted rows, and all that was tried."""
    found: dict[tuple[str, str, str], Fitted] = {}
    for per, fp8_kv in ALTERNATIVES:
        for precision in sorted({row.precision for row in rows}):
            kv_dtype = fp8_kv if precision == "fp8" else "bf16"
            if (precision, per, kv_dtype) not in found:
                chosen = [row for row in rows if row.precision == precision]
                found[precision, per, kv_dtype] = fit_overhead(chosen, per, kv_dtype)
                progress()
    tried = [_tried(rows, found, per, fp8_kv) for per, fp8_kv in ALTERNATIVES]
    best = min(tried, key=lambda each: each.median)
    engines = {
        precision: found[precision, best.per, best.fp8_kv if precision == "fp8" else "bf16"].engine
        for precision in sorted({row.precision for row in rows})
    }
    return engines, tried


def fit_overhead(rows: Sequence[Row], per: str, kv_dtype: str) -> Fitted:
    """See :data:`CRITERION`. TPOT grows almost linearly with the overhead, so secants find it in a few steps."""
    low, high = 0.0, _FIRST_S[per]
    predictions = _predicted(rows, Engine(per, kv_dtype))
    below = _bias(rows, predictions)
    engine = Engine(per, kv_dtype)
    if below >= 0:
        return Fitted(engine, predictions)
    for _ in range(_STEPS):
        engine = Engine(per, kv_dtype, high)
        predictions = _predicted(rows, engine)
        above = _bias(rows, predictions)
        if abs(above) < _CLOSE or above == below:
            break
        low, below, high = high, above, max(0.0, high - above * (high - low) / (above - below))
    return Fitted(engine, predictions)


def _predicted(rows: Sequence[Row], engine: Engine) -> tuple[Prediction, ...]:
    return tuple(predict(row, engine) for row in rows)


def signed_errors(rows: Sequence[Row], predictions: Sequence[Prediction]) -> list[float]:
    """Of TPOT, relative to the measured one."""
    return [found.tpot_ms / row.tpot_ms - 1 for row, found in zip(rows, predictions, strict=True)]


def _bias(rows: Sequence[Row], predictions: Sequence[Prediction]) -> float:
    return median(signed_errors(rows, predictions))


def _tried(rows: Sequence[Row], found: dict[tuple[str, str, str], Fitted], per: str, fp8_kv: str) -> Tried:
    errors: list[float] = []
    for precision in {row.precision for row in rows}:
        fitted = found[precision, per, fp8_kv if precision == "fp8" else "bf16"]
        errors += signed_errors([row for row in rows if row.precision == precision], fitted.predictions)
    return Tried(rows[0].group.backend, per, fp8_kv, median(map(abs, errors)))
