"""Plain NumPy definition of SpikeProp's forward pass: sums of alpha functions. Slow.

``kernels/spikeprop.py`` is compared with it; its gradient is compared with finite differences.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["alpha_reference", "first_crossing_reference"]

Floats = npt.NDArray[np.float64]


def alpha_reference(age: npt.ArrayLike, tau: float) -> Floats:
    """Return ``age / tau exp(1 - age / tau)``, 0 for negative ages: peak 1 at tau."""
    s = np.maximum(np.asarray(age, dtype=np.float64), 0.0) / tau
    return np.asarray(s * np.exp(1.0 - s))


def first_crossing_reference(arrive: Floats, weight: Floats, tau: float, theta: float, end: float) -> float:
    """Return when ``sum w eps(t - arrive)`` first reaches theta before ``end``, or inf.

    Candidates for the highest points are arrivals, the end, and between two arrivals the zero of u'; the crossing lies
    between two neighbouring candidates and is bisected.
    """
    keep = arrive < end
    arrive, weight = arrive[keep], weight[keep]

    def u(t: float) -> float:
        return float((weight * alpha_reference(t - arrive, tau)).sum())

    borders = [*np.unique(arrive), end]
    moments = list(borders)
    for left, right in pairwise(borders):
        past = arrive <= left
        part = weight[past] * np.exp((arrive[past] - left) / tau)
        p, q = float(part.sum()), float((part * (left - arrive[past]) / tau).sum())
        if p != 0 and 0 < tau * (1 - q / p) < right - left:
            moments.append(left + tau * (1 - q / p))
    moments.sort()
    for low, high in pairwise(moments):
        if u(low) < theta <= u(high):
            for _ in range(200):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if u(middle) < theta else (low, middle)
            return float(high)
    return float("inf")
