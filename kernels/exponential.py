"""The exponential function with the same bits everywhere: products, sums and one exact power of two.

The functions of NumPy, of Numba and of the C libraries differ in the last bit, and one bit can move a spike. This one
is written twice, here and in :mod:`snnsim.kernels.reference_models`, with the same operations in the same order, in
float64 and in float32, and is within one unit in the last place of the true value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

__all__ = ["LIMIT", "LN2_HIGH", "LN2_LOW", "LOG2_E", "TAYLOR", "exponential", "like"]

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693359375  # few digits, so that whole multiples are exact (Cody and Waite 1980)
LN2_LOW = -2.121944400546905827679e-4
TAYLOR = tuple(1 / math.factorial(n) for n in range(13, 1, -1))
"""Coefficients of the powers 13 to 2."""

LIMIT = {"float64": 708.0, "float32": 87.0}
"""Arguments are moved to within plus and minus this, so that no result is infinite or denormal."""

_C13, _C12, _C11, _C10, _C9, _C8, _C7, _C6, _C5, _C4, _C3, _C2 = TAYLOR
_LIMIT_64, _LIMIT_32 = LIMIT["float64"], LIMIT["float32"]


def like(number: Any, x: Any) -> Any:
    """Return a number in the type of ``x``."""


@overload(like, inline="always")
def _like(number, x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda number, x: np.float32(number)
    return lambda number, x: np.float64(number)


def _limit(x: Any) -> Any:
    """Return the largest argument of the type of ``x``."""


@overload(_limit, inline="always")
def _limit_of(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: np.float32(_LIMIT_32)
    return lambda x: _LIMIT_64


def _two_to(k: Any) -> Any:
    """Return 2 to the power of a whole number, exactly."""


@overload(_two_to, inline="always")
def _two_to_the(k):  # type: ignore[no-untyped-def]
    if k == types.float32:
        return lambda k: np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
    return lambda k: np.int64((np.int64(k) + 1023) << 52).view(np.float64)


@njit(inline="always")
def exponential(x):  # type: ignore[no-untyped-def]
    """Return ``exp(x)`` of a float64 or float32 number, in its type.

    ``x = k ln 2 + r`` with a whole ``k``; the result is ``2**k`` times a polynomial of degree 13 in ``r``.
    """
    x = max(min(x, _limit(x)), -_limit(x))
    k = like(math.floor(x * like(LOG2_E, x) + like(0.5, x)), x)
    r = (x - k * like(LN2_HIGH, x)) - k * like(LN2_LOW, x)
    p = like(_C13, x) * r + like(_C12, x)
    p = p * r + like(_C11, x)
    p = p * r + like(_C10, x)
    p = p * r + like(_C9, x)
    p = p * r + like(_C8, x)
    p = p * r + like(_C7, x)
    p = p * r + like(_C6, x)
    p = p * r + like(_C5, x)
    p = p * r + like(_C4, x)
    p = p * r + like(_C3, x)
    p = p * r + like(_C2, x)
    return (((p * r) * r + r) + like(1.0, x)) * _two_to(k)
