"""Whether a sum of float64 terms is exact in any order, so that atomic additions give the canonical bits.

If all terms are whole multiples of a power of two ``q`` and no partial sum reaches ``2**53 q``, every partial sum is a
float64 and no addition rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.clock_paths import Path

__all__ = ["MOST", "bounds", "exact", "lowest_bit", "rounding"]

MOST = 255
"""Coincident input events for which sums are proven: what a byte holds."""

PIECE = 2**22  # synapses looked at together
SAFE = 1 + 1e-6  # the bound itself is a rounded sum

Array = npt.NDArray[Any]


def lowest_bit(values: Array) -> float:
    """Return the largest power of two of which all values are multiples; infinity if all are 0."""
    if values.dtype == np.float16 and values.size > 2**16:
        there = np.zeros(2**16, np.bool_)
        there[values.view(np.uint16)] = True
        values = np.flatnonzero(there).astype(np.uint16).view(np.float16)
    known = np.abs(values[values != 0].astype(np.float64))
    if not known.size:
        return math.inf
    mantissa, exponent = np.frexp(known)
    whole = (mantissa * 2.0**53).astype(np.int64)
    return float(np.ldexp((whole & -whole).astype(np.float64), exponent - 53).min())


def _pieces(path: Path, size: int) -> Iterator[tuple[Array, Array]]:
    """Yield targets and weights of a path, some at a time."""
    n = path.weight.size if path.target is None else path.target.shape[0]
    for begin in range(0, n, PIECE):
        end = min(begin + PIECE, n)
        target = np.arange(begin, end) % size if path.target is None else path.target[begin:end].astype(np.int64)
        weight = path.weight[begin:end] if path.weight.ndim else np.full(end - begin, path.weight)
        yield target, weight


def bounds(paths: Sequence[Path], size: int, n_inputs: int) -> tuple[float, float]:
    """Return the unit of all weights into a port and the largest sum of their absolute values at one target.

    Args:
        paths: All paths into the port.
        size: Its targets.
        n_inputs: Inputs of the network: their events may coincide, :data:`MOST` at most.
    """
    unit, total = math.inf, np.zeros(size)
    for path in paths:
        most = MOST if path.source < n_inputs else 1
        for target, weight in _pieces(path, size):
            unit = min(unit, lowest_bit(weight))
            total += most * np.bincount(target, weights=np.abs(weight.astype(np.float64)), minlength=size)
    return unit, float(total.max(initial=0.0)) * SAFE


def exact(unit: float, most: float) -> bool:
    """Return whether sums of multiples of ``unit`` whose absolute values add up to ``most`` never round."""
    return unit == math.inf or most < 2.0**53 * unit


def rounding(most: float) -> float:
    """Return the number that rounds weights to a unit in which sums up to ``most`` are exact.

    ``(w + number) - number`` is the weight on that grid: the sum of both has its last bit at the unit.
    """
    unit = 2.0 ** (math.frexp(most)[1] - 51)
    return 1.5 * 2.0**52 * unit
