"""Least squares with coefficients of 0 or more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_TINY = 1e-12


def nnls(matrix: Floats, target: Floats) -> Floats:
    """The x >= 0 that minimises |matrix x - target|, by active sets (Lawson and Hanson 1974, chapter 23).

    Columns are scaled to length 1 first, so that units do not decide which coefficient enters when. A column of zeros
    gets 0.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    lengths[lengths == 0] = 1.0
    scaled = matrix / lengths
    count = matrix.shape[1]
    x = np.zeros(count)
    passive = np.zeros(count, np.bool_)
    tolerance = _TINY * max(1.0, float(np.abs(scaled.T @ target).max(initial=0.0)))
    for _ in range(3 * count):
        gradient = np.where(passive, -np.inf, scaled.T @ (target - scaled @ x))
        entering = int(np.argmax(gradient))
        if gradient[entering] <= tolerance:
            break
        passive[entering] = True
        x = _within(scaled, target, x, passive)
    found: Floats = x / lengths
    return found


def _within(matrix: Floats, target: Floats, x: Floats, passive: NDArray[np.bool_]) -> Floats:
    """Least squares over the passive columns; those that would turn negative on the way there leave them."""
    while True:
        aim = np.zeros_like(x)
        aim[passive] = np.linalg.lstsq(matrix[:, passive], target, rcond=None)[0]
        blocked = passive & (aim <= _TINY)
        if not blocked.any():
            return aim
        step = float((x[blocked] / np.maximum(x[blocked] - aim[blocked], _TINY)).min())
        x = x + min(step, 1.0) * (aim - x)
        passive &= x > _TINY
        x[~passive] = 0.0
        if not passive.any():
            return x
