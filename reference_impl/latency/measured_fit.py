"""From measured iterations to the coefficients of ``measured.py``, and how far off these are on other iterations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference_impl.latency.api import Work
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.identified import check_identified
from reference_impl.latency.measured import Coefficients, Measured, along
from reference_impl.latency.nnls import nnls

KINDS = ("prefill", "decode", "mixed")
_HOLD_OUT = 4
"""Every fourth shape is not fitted."""
_PADDING_GAIN = 0.9
"""The padded term is used where it takes the error of the fit below this part of what it is without."""
_LINEAR = ("sequence_s", "chunk_s", "pair_s", "chunk_context_s", "decode_context_s")


class Sample(NamedTuple):
    """One iteration's content and what it took."""

    work: Work
    seconds: float
    group: int
    """Samples of about the same content share a group; groups are fitted or held out as a whole."""
    weight: float = 1.0
    """Of its group, however many samples that has."""

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return "decode" if not self.work.chunks else "mixed" if self.work.decodes else "prefill"


class Error(NamedTuple):
    """Of one kind of iteration, over shapes that were not fitted; relative, unsigned."""

    median: float
    p90: float
    bias: float
    """Mean of the signed errors: above 0 the model is too slow."""
    shapes: int


class Fit(NamedTuple):
    """The model of all samples, and the errors of a model of three quarters of them on the last quarter."""

    coefficients: Coefficients
    errors: Mapping[str, Error]


def fit(samples: Sequence[Sample]) -> Fit:
    """Least squares on relative errors, by group.

    Raises ProfileError where there are too few groups to hold some out.
    """
    kinds = {sample.group: (sample.kind, sample.work) for sample in samples}
    if len(kinds) < 2 * _HOLD_OUT:
        raise ProfileError(f"{len(kinds)} measured iterations; allowed: {2 * _HOLD_OUT} or more shapes; measure more")
    held = set(sorted(kinds, key=kinds.__getitem__)[_HOLD_OUT // 2 :: _HOLD_OUT])
    fitted = coefficients_of([sample for sample in samples if sample.group not in held])
    return Fit(coefficients_of(samples), errors_of(fitted, [sample for sample in samples if sample.group in held]))


def errors_of(coefficients: Coefficients, samples: Iterable[Sample]) -> dict[str, Error]:
    """By kind of iteration, of the mean of each group; kinds without samples are left out."""
    cost = Measured(coefficients, "fitted")
    ratios: dict[tuple[str, int], list[float]] = {}
    for sample in samples:
        ratios.setdefault((sample.kind, sample.group), []).append(sample.seconds / cost.iteration_s(sample.work))
    off: dict[str, list[float]] = {}
    for (kind, _), found in ratios.items():
        off.setdefault(kind, []).append(len(found) / sum(found) - 1)
    return {kind: _error(off[kind]) for kind in KINDS if kind in off}


def as_text(errors: Mapping[str, Error]) -> str:
    """For the provenance."""
    parts = [
        f"{kind} {error.median:.1%} (P90 {error.p90:.1%}, {error.shapes} shapes)" for kind, error in errors.items()
    ]
    return f"median relative error on shapes that were not fitted: {', '.join(parts)}"


def _error(signed: list[float]) -> Error:
    off = np.abs(signed)
    return Error(float(np.median(off)), float(np.percentile(off, 90)), float(np.mean(signed)), len(off))


def coefficients_of(samples: Sequence[Sample]) -> Coefficients:
    """Of all samples; with the padded term only where it earns its keep: it costs the simulator time per decode."""
    plain, plain_loss = _solve(samples, padded=False)
    padded, padded_loss = _solve(samples, padded=True)
    return padded if padded_loss < _PADDING_GAIN * plain_loss else plain


def check_samples(what: str, samples: Sequence[Sample]) -> None:
    """Raise :class:`ProfileError` unless the samples determine every coefficient without the padded term."""
    knots = _knots(samples)
    names = ("launch", *(f"token from {knot}" for knot in knots), *(name.removesuffix("_s") for name in _LINEAR))
    rows = {sample.group: (_row(sample.work, knots, padded=False), sample.seconds) for sample in samples}
    columns = np.array([row for row, _ in rows.values()], np.float64).T
    check_identified(what, dict(zip(names, columns, strict=True)), np.array([seconds for _, seconds in rows.values()]))


def _solve(samples: Sequence[Sample], *, padded: bool) -> tuple[Coefficients, float]:
    """The coefficients, and the weighted norm of the relative errors."""
    knots = _knots(samples)
    names = (*_LINEAR, "padded_context_s") if padded else _LINEAR
    matrix = np.array([_row(sample.work, knots, padded) for sample in samples], np.float64)
    seconds = np.array([sample.seconds for sample in samples])
    weights = _weights(samples)
    found = nnls(matrix * weights[:, None], seconds * weights)
    loss = float(np.linalg.norm(weights * (matrix @ found - seconds)))
    slopes = found[1 : 1 + len(knots)]
    linear = dict(zip(names, found[1 + len(knots) :].tolist(), strict=True))
    return Coefficients(float(found[0]), knots, tuple(slopes.tolist()), **linear), loss


def _weights(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Over the group's mean, so that errors are relative, and by the group's weight."""
    groups: dict[int, list[float]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample.seconds)
    scale = {group: np.sqrt(len(found)) / sum(found) for group, found in groups.items()}
    return np.array([np.sqrt(sample.weight) * scale[sample.group] for sample in samples])


def _knots(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Powers of 4, as far as several groups lie beyond each: the line is bent more where few tokens are."""
    counts = np.sort([*{sample.group: _tokens(sample.work) for sample in samples}.values()])
    knots = [0]
    knot = 4
    while (counts > knot).sum() >= 3 and knot < counts[-1]:
        if (counts <= knot).sum() >= 2:
            knots.append(knot)
        knot *= 4
    return tuple(knots)


def _row(work: Work, knots: tuple[int, ...], padded: bool) -> list[float]:
    """What each coefficient is multiplied by; in the order of ``_solve``."""
    pairs = sum(new * (computed + 0.5 * new) for new, computed in work.chunks)
    read = sum(new + computed for new, computed in work.chunks)
    row = [1.0, *along(knots, _tokens(work)), work.decodes + len(work.chunks), len(work.chunks), pairs, read]
    row.append(work.decode_context_tokens)
    return [*row, work.decodes * work.decode_context_max_tokens] if padded else row


def _tokens(work: Work) -> int:
    return work.decodes + sum(new for new, _ in work.chunks)
