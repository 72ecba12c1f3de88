"""Bounds and normalisation of the incoming weights of one neuron, in place."""

from __future__ import annotations

import math

from numba import njit

__all__ = ["NONE", "NORM", "SUM", "keep_bounds"]

NONE = 0
SUM = 1
NORM = 2


@njit(cache=True, nogil=True)
def keep_bounds(row, w_min, w_max, kind, total):  # type: ignore[no-untyped-def]
    """Put weights into ``w_min .. w_max``, scale them to a total, and put them into the bounds again.

    The bounds win: a sum that they do not allow is not reached. Weights whose sum or norm is not above 0 are not
    scaled.

    Args:
        row: Incoming weights of a neuron, float64, changed in place.
        w_min: Smallest weight.
        w_max: Largest weight.
        kind: NONE; SUM, the sum becomes ``total``; NORM, the root of the sum of squares does.
        total: Above 0.
    """
    size = 0.0
    for i in range(row.shape[0]):
        row[i] = min(max(row[i], w_min), w_max)
        size += row[i] * row[i] if kind == NORM else row[i]
    if kind == NORM:
        size = math.sqrt(size)
    if kind != NONE and size > 0.0:
        factor = total / size
        for i in range(row.shape[0]):
            row[i] = min(max(row[i] * factor, w_min), w_max)
