"""Surrogate derivatives of a spike inside fused kernels; what each is stands in :mod:`snnsim.nn.surrogates`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["surrogate_block", "surrogate_numbers"]

Floats = npt.NDArray[np.floating[Any]]


def surrogate_numbers(code: int, parameters: Sequence[float], dtype: npt.DTypeLike) -> Floats:
    """Return the coefficients by which :func:`surrogate_block` computes a surrogate, shape (6,).

    Codes and parameters are those of :mod:`snnsim.nn.surrogates`.
    """
    p = [float(value) for value in parameters]
    if code == 0:
        numbers = [p[0] / 2, math.pi * p[0] / 2]
    elif code == 1:
        numbers = [1.0, p[0]]
    elif code == 2:
        numbers = [p[0], p[0]]
    elif code == 3:
        numbers = [p[0] * p[1], p[0] ** 2 * p[1]]
    elif code == 4:
        sigma, h, s, scale = p
        root = math.sqrt(2 * math.pi)
        numbers = [
            scale * (1 + h) / (sigma * root),
            0.5 / sigma**2,
            scale * h / (s * sigma * root),
            0.5 / (s * sigma) ** 2,
            sigma,
        ]
    elif code == 5:
        numbers = [0.5 * p[0] * p[1], p[0]]
    elif code == 6:
        numbers = [1 / p[0], p[0] / 2]
    else:
        raise ValueError(f"surrogate code: expected 0 to 6, got {code}")
    return np.array(numbers + [0.0] * (6 - len(numbers)), dtype=dtype)


@njit(cache=True, nogil=True, error_model="numpy")
def surrogate_block(code: int, c: Floats, v: Floats, threshold: Floats, g: Floats, n: int) -> None:
    """Write ``g(v - threshold)`` of the first ``n`` lanes into ``g``; finite for any finite ``v``."""
    one = c.dtype.type(1)
    zero = c.dtype.type(0)
    if code == 0:
        for j in range(n):
            z = c[1] * (v[j] - threshold[j])
            g[j] = c[0] / (one + z * z)
    elif code == 1:
        for j in range(n):
            z = one + c[1] * abs(v[j] - threshold[j])
            g[j] = c[0] / (z * z)
    elif code == 2:
        for j in range(n):
            e = math.exp(-c[1] * abs(v[j] - threshold[j]))
            z = one + e
            g[j] = c[0] * e / (z * z)
    elif code == 3:
        for j in range(n):
            z = c[0] - c[1] * abs(v[j] - threshold[j])
            g[j] = z if z > zero else zero
    elif code == 4:
        for j in range(n):
            x = v[j] - threshold[j]
            low = x - c[4]
            high = x + c[4]
            g[j] = c[0] * math.exp(-c[1] * x * x) - c[2] * (math.exp(-c[3] * low * low) + math.exp(-c[3] * high * high))
    elif code == 5:
        for j in range(n):
            g[j] = c[0] * math.exp(-c[1] * abs(v[j] - threshold[j]))
    else:
        for j in range(n):
            g[j] = c[0] if abs(v[j] - threshold[j]) <= c[1] else zero
