"""Class scores of the law ``fixed`` in whole numbers: the definition that exported programs are compared with.

``max``, ``last`` and ``count`` are what they say, ``mean`` is the sum over the steps, not divided. The softmax of
a step is taken with a table of 64 powers of two, for membranes whose unit is ``2^-bits``::

    d = max_j v_j - v                         as a number 0 if d >= 11 * 2^bits
    y = (floor(d * 2^(10 - bits)) * 1477) >> 10             1477 / 1024 = log2(e)
    e = POWERS[(y & 1023) >> 4] >> (y >> 10)
    p = floor(e * 2^15 / sum_j e_j)           2^15 stands for 1

Every product and sum fits 32 bits without sign. The table holds ``2^15 * 2^-((k + 1/2) / 64)``, so that the cut-off
bits err to both sides. The rule is ours and not taken from a paper.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["POWERS", "SOFTMAX_BITS", "SOFTMAX_END", "SOFTMAX_ONE", "fixed_scores", "fixed_softmax", "softmax_bits"]

Integers = npt.NDArray[np.int64]

SOFTMAX_ONE = 1 << 15
"""What stands for probability 1."""

SOFTMAX_BITS = 26
"""Most fractional bits of a membrane whose softmax is taken."""

SOFTMAX_END = 11
"""Membranes that lie so far below the highest add nothing: ``exp(-11) < 2^-15``."""

POWERS: Integers = np.rint(2.0 ** (15 - (np.arange(64) + 0.5) / 64)).astype(np.int64)
"""Powers of two for the softmax, each below 2^15."""


def softmax_bits(scale: npt.NDArray[np.float64]) -> int | None:
    """Return ``bits`` if all membranes have the unit ``2^-bits`` and ``bits`` is 0 to 26, else None.

    Args:
        scale: Integer units per 1.0, float64 ``(class,)``.
    """
    fraction, exponent = np.frexp(scale)
    bits = int(exponent[0]) - 1
    same = bool(np.all(fraction == 0.5) and np.all(exponent == exponent[0]))
    return bits if same and 0 <= bits <= SOFTMAX_BITS else None


def fixed_softmax(v: Integers, bits: int) -> Integers:
    """Return the softmax of every row of membranes, int64 ``(time, class)`` in units of ``2^-15``.

    Args:
        v: int64 ``(time, class)`` in units of ``2^-bits``.
        bits: 0 to 26.
    """
    d = v.max(axis=1, keepdims=True) - v
    inside = d < SOFTMAX_END << bits
    near = np.where(inside, d, 0)
    y = ((near >> (bits - 10) if bits >= 10 else near << (10 - bits)) * 1477) >> 10
    e = np.where(inside, POWERS[(y & 1023) >> 4] >> (y >> 10), 0)
    return np.asarray((e << 15) // e.sum(axis=1, keepdims=True), np.int64)


def fixed_scores(reduce: str, trace: Integers, bits: int = 0) -> Integers:
    """Return the scores of one sample, int64 ``(class,)``; 0 without steps.

    Args:
        reduce: ``"max"``, ``"last"``, ``"mean"``, ``"count"`` or ``"sum_softmax"``.
        trace: Membranes, or spikes as 0 and 1, in the steps that count; int64 ``(time, class)``.
        bits: For the softmax, see :func:`fixed_softmax`.
    """
    if not trace.shape[0]:
        return np.zeros(trace.shape[1], np.int64)
    if reduce == "max":
        return np.asarray(trace.max(axis=0))
    if reduce == "last":
        return np.array(trace[-1], np.int64)
    return np.asarray((fixed_softmax(trace, bits) if reduce == "sum_softmax" else trace).sum(axis=0))
