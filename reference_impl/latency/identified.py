"""Fit costs that are linear in their terms, refuse what the rows do not determine, keep rows aside for the error."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.nnls import nnls

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_ROWS_PER_TERM = 2
_DEPENDENT = 1e-6
"""Smallest singular value over the largest, columns scaled to length 1, below which one is a sum of others."""
HOLD_OUT = 4
"""One group of rows in four is kept aside."""


class Error(NamedTuple):
    """Over rows that were not fitted; relative, unsigned but for the bias."""

    median: float
    p90: float
    bias: float
    """Mean of the signed errors: above 0 the model is too slow."""
    rows: int
    groups: int
    """How many whole groups of rows were kept aside."""


def solve(what: str, terms: Mapping[str, Floats], seconds: Floats) -> Floats:
    """The coefficients of 0 or more, in the order of ``terms``, that minimise the sum of squared relative errors.

    ``terms``: name -> what its coefficient is multiplied by, an array as long as ``seconds``; all-ones is a constant.
    Raises :class:`ProfileError` that names ``what`` and the term, where rows are too few, a term never varies or is
    a combination of the others.
    """
    check_identified(what, terms, seconds)
    matrix = np.stack(list(terms.values()), axis=1) / seconds[:, None]
    return nnls(matrix, np.ones(len(seconds)))


def check_identified(what: str, terms: Mapping[str, Floats], seconds: Floats) -> None:
    """Raise :class:`ProfileError` unless these rows determine every coefficient; see :func:`solve`."""
    _refuse_constants(what, terms)
    rows, needed = len(seconds), _ROWS_PER_TERM * len(terms)
    if rows < needed:
        raise ProfileError(
            f"{what}: {rows} rows for {len(terms)} coefficients ({', '.join(terms)}); allowed: {needed} or more; "
            "measure more"
        )
    _refuse_dependent(what, list(terms), np.stack(list(terms.values()), axis=1) / seconds[:, None])


def held_out(what: str, groups: Iterable[Hashable], seed: int) -> Flags:
    """Which rows are kept aside, given the group of each: a quarter of the groups, whole, drawn by ``seed``.

    The groups are put in order first, so that the order of the rows does not matter. Raises :class:`ProfileError` where
    there are too few.
    """
    listed = list(groups)
    distinct = sorted(set(listed), key=str)
    if len(distinct) < HOLD_OUT:
        raise ProfileError(
            f"{what}: rows of {len(distinct)} groups (sizes, or lines of the grid); allowed: {HOLD_OUT} or more, so "
            "that one can be kept aside; measure more"
        )
    drawn = np.random.default_rng(seed).permutation(len(distinct))[: len(distinct) // HOLD_OUT]
    aside = {distinct[index] for index in drawn}
    return np.array([group in aside for group in listed], np.bool_)


def error_of(predicted: Floats, measured: Floats, groups: int) -> Error:
    """Of the rows kept aside, which must not be none."""
    signed = predicted / measured - 1
    off = np.abs(signed)
    return Error(float(np.median(off)), float(np.percentile(off, 90)), float(signed.mean()), len(off), groups)


def _refuse_constants(what: str, terms: Mapping[str, Floats]) -> None:
    """One term may be all ones: the constant. Any other that never varies says nothing of its cost."""
    given = [name for name, column in terms.items() if np.ptp(column) == 0 and column[0] != 1.0]
    ones = [name for name, column in terms.items() if np.ptp(column) == 0 and column[0] == 1.0]
    for name in (*given, *ones[1:]):
        raise ProfileError(
            f"{what}: {name} is {terms[name][0]:g} in every row, which does not tell what it costs; measure rows that "
            "differ in it"
        )


def _refuse_dependent(what: str, names: list[str], matrix: Floats) -> None:
    scaled = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    _, sizes, directions = np.linalg.svd(scaled, full_matrices=False)
    if sizes[-1] > _DEPENDENT * sizes[0]:
        return
    involved = [name for name, share in zip(names, np.abs(directions[-1]), strict=True) if share > 0.1]
    raise ProfileError(
        f"{what}: {' and '.join(involved)} always change together, so their costs cannot be told apart; "
        "measure rows where one changes and the others do not"
    )
