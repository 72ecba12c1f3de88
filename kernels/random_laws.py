"""Numbers of a law from 32-bit random words, by arithmetic alone: the same bits on every machine.

Logarithm and cosine are series of sums, products, quotients and square roots, which IEEE 754 rounds exactly, so no
mathematics library takes part, and a loop over them compiles to vector instructions. Both are within a few units of the
last place. The log-normal law is the exception: its last step is the platform's ``exp``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["EXPONENTIAL", "LOG_NORMAL", "NONE", "NORMAL", "UNIFORM", "cosine_of_word", "fill_law", "log_of_word"]

NONE, NORMAL, UNIFORM, LOG_NORMAL, EXPONENTIAL = range(5)

_SQRT_2 = math.sqrt(2.0)
_LN_2 = math.log(2.0)
_UNIT = 1.0 / 4294967296.0
_FRACTION = np.int64((1 << 52) - 1)
_ONE = np.int64(1023 << 52)


@njit(cache=True, nogil=True, error_model="numpy")
def log_of_word(word):  # type: ignore[no-untyped-def]
    """Return ``log((word + 0.5) / 2**32)`` of a 32-bit word (int64).

    With ``x = 2**e m`` and m from sqrt(1/2) to sqrt(2), ``log m = 2 atanh(t)``, ``t = (m - 1) / (m + 1)``.
    """
    bits = np.float64(np.float64(word) + 0.5).view(np.int64)
    m = np.int64((bits & _FRACTION) | _ONE).view(np.float64)
    e = np.float64((bits >> np.int64(52)) - np.int64(1023 + 32))
    high = m > _SQRT_2
    m = 0.5 * m if high else m
    e = e + 1.0 if high else e
    t = (m - 1.0) / (m + 1.0)
    q = t * t
    s = 1.0 / 23.0
    s = s * q + 1.0 / 21.0
    s = s * q + 1.0 / 19.0
    s = s * q + 1.0 / 17.0
    s = s * q + 1.0 / 15.0
    s = s * q + 1.0 / 13.0
    s = s * q + 1.0 / 11.0
    s = s * q + 1.0 / 9.0
    s = s * q + 1.0 / 7.0
    s = s * q + 1.0 / 5.0
    s = s * q + 1.0 / 3.0
    return e * _LN_2 + (2.0 * t + 2.0 * t * (q * s))


@njit(cache=True, nogil=True, error_model="numpy")
def cosine_of_word(word):  # type: ignore[no-untyped-def]
    """Return ``cos(2 pi (word + 0.5) / 2**32)`` of a 32-bit word, int64: Taylor series within an eighth of a turn."""
    quarter = (word + np.int64(1 << 29)) >> np.int64(30)
    r = (np.float64(word - (quarter << np.int64(30))) + 0.5) * (2.0 * math.pi * _UNIT)
    q = r * r
    c = -1.0 / 6402373705728000.0
    c = c * q + 1.0 / 20922789888000.0
    c = c * q - 1.0 / 87178291200.0
    c = c * q + 1.0 / 479001600.0
    c = c * q - 1.0 / 3628800.0
    c = c * q + 1.0 / 40320.0
    c = c * q - 1.0 / 720.0
    c = c * q + 1.0 / 24.0
    c = c * q - 0.5
    c = c * q + 1.0
    s = 1.0 / 355687428096000.0
    s = s * q - 1.0 / 1307674368000.0
    s = s * q + 1.0 / 6227020800.0
    s = s * q - 1.0 / 39916800.0
    s = s * q + 1.0 / 362880.0
    s = s * q - 1.0 / 5040.0
    s = s * q + 1.0 / 120.0
    s = s * q - 1.0 / 6.0
    s = r + r * (q * s)
    value = s if quarter & np.int64(1) else c
    return -value if (quarter + np.int64(1)) & np.int64(2) else value


@njit(cache=True, nogil=True, error_model="numpy")
def fill_law(kind, a, b, scale, first, second, n, out):  # type: ignore[no-untyped-def]
    """Fill ``out[:n]`` with ``scale`` times numbers of a law, not bounded.

    Args:
        kind: NORMAL: mean a, standard deviation b (Box and Muller, 1958). UNIFORM: a to b. EXPONENTIAL: mean a.
            LOG_NORMAL: exp of NORMAL.
        a: See ``kind``.
        b: See ``kind``.
        scale: Factor of every number.
        first: Random words below 2**32, int64, at least ``n``.
        second: Others, used by NORMAL and LOG_NORMAL.
        n: How many.
        out: float64, written.
    """
    if kind == UNIFORM:
        for k in range(n):
            out[k] = scale * (a + (b - a) * ((np.float64(first[k]) + 0.5) * _UNIT))
    elif kind == EXPONENTIAL:
        for k in range(n):
            out[k] = scale * (-a * log_of_word(first[k]))
    else:
        for k in range(n):
            out[k] = a + b * (math.sqrt(-2.0 * log_of_word(first[k])) * cosine_of_word(second[k]))
        if kind == LOG_NORMAL:
            for k in range(n):
                out[k] = math.exp(out[k])
        for k in range(n):
            out[k] = scale * out[k]
