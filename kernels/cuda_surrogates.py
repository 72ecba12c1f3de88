"""Surrogate derivatives of a spike on a device: those of :mod:`snnsim.kernels.surrogates`, one value at a time.

Codes and coefficients are the same; a kernel is made for one surrogate, so that none asks which it is.
"""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

__all__ = ["surrogate_function"]


@cuda.jit(device=True)
def _atan(one, c0, c1, c2, c3, c4, x):  # type: ignore[no-untyped-def]
    z = c1 * x
    return c0 / (one + z * z)


@cuda.jit(device=True)
def _super_spike(one, c0, c1, c2, c3, c4, x):  # type: ignore[no-untyped-def]
    z = one + c1 * abs(x)
    return c0 / (z * z)


@cuda.jit(device=True)
def _sigmoid(one, c0, c1, c2, c3, c4, x):  # type: ignore[no-untyped-def]
    e = math.exp(-c1 * abs(x))
    z = one + e
    return c0 * e / (z * z)


@cuda.jit(device=True)
def _triangle(one, c0, c1, c2, c3, c4, x):  # type: ignore[no-untyped-def]
    z = c0 - c1 * abs(x)
    return z if z > one - one else one - one


@cuda.jit(device=True)
def _multi_gaussian(one, c0, c1, c2, c3, c4, x):  # type: ignore[no-untyped-def]
    low = x - c4
    high = x + c4
    return c0 * math.exp(-c1 * x * x) - c2 * (math.exp(-c3 * low * low) + math.exp(-c3 * high * high))


@cuda.jit(device=True)
def _exponential(one, c0, c1, c2, c3, c4, x):  # type: ignore[no-untyped-def]
    return c0 * math.exp(-c1 * abs(x))


@cuda.jit(device=True)
def _boxcar(one, c0, c1, c2, c3, c4, x):  # type: ignore[no-untyped-def]
    return c0 if abs(x) <= c1 else one - one


_SURROGATES = (_atan, _super_spike, _sigmoid, _triangle, _multi_gaussian, _exponential, _boxcar)


def surrogate_function(code: int) -> Any:
    """Return the device function of a surrogate.

    It is called as ``g(one, c0, c1, c2, c3, c4, x)``: 1 in the kernel's type, the first five coefficients of
    :func:`snnsim.kernels.surrogates.surrogate_numbers`, and the distance ``v - v_threshold``.

    Args:
        code: Code of the surrogate, see :mod:`snnsim.nn.surrogates`.

    Raises:
        ValueError: There is none of that code.
    """
    if not 0 <= code < len(_SURROGATES):
        raise ValueError(f"surrogate code: expected 0 to {len(_SURROGATES) - 1}, got {code}")
    return _SURROGATES[code]
