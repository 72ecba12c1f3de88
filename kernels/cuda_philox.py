"""Philox4x32-10 on a CUDA device: the words of :mod:`snnsim.kernels.philox`, and what is drawn from them.

Device functions take what the CPU's take and return the same words and the same uniform numbers, bit for bit; normal
numbers end in the device's ``log`` and ``cos``, whose last bits may be others. :func:`dropout_factors` is a kernel.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_support import times

__all__ = [
    "count_of_word",
    "dropout_factors",
    "normal_scalar",
    "philox_words",
    "poisson_count",
    "uniform_scalar",
    "word_of_step",
]

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_FIVE = np.uint64(5)
_SIX = np.uint64(6)


@cuda.jit(device=True)
def philox_words(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Return the four 32-bit words of one Philox4x32-10 block, as uint64.

    Args:
        c0: Counter words c0..c3 and key words k0, k1; integers, taken modulo 2**32.
        c1: See c0.
        c2: See c0.
        c3: See c0.
        k0: See c0.
        k1: See c0.
    """
    x0 = np.uint64(c0) & _MASK
    x1 = np.uint64(c1) & _MASK
    x2 = np.uint64(c2) & _MASK
    x3 = np.uint64(c3) & _MASK
    key0 = np.uint64(k0) & _MASK
    key1 = np.uint64(k1) & _MASK
    for _ in range(10):
        p0 = _M0 * x0
        p1 = _M1 * x2
        x0 = (p1 >> _SHIFT) ^ x1 ^ key0
        x1 = p1 & _MASK
        x2 = (p0 >> _SHIFT) ^ x3 ^ key1
        x3 = p0 & _MASK
        key0 = (key0 + _W0) & _MASK
        key1 = (key1 + _W1) & _MASK
    return x0, x1, x2, x3


@cuda.jit(device=True)
def _unit_interval(first, second):  # type: ignore[no-untyped-def]
    """Return 53 bits of two words as float64 in [0, 1): every operation is exact."""
    return (times(np.float64(first >> _FIVE), 67108864.0) + np.float64(second >> _SIX)) * (1.0 / 9007199254740992.0)


@cuda.jit(device=True)
def uniform_scalar(seed, stream, sample, step, unit, synapse):  # type: ignore[no-untyped-def]
    """Return one float64 in [0, 1) with 53 random bits: that of :func:`snnsim.kernels.philox.uniform`."""
    x0, x1, _, _ = philox_words(sample, step, unit, synapse, seed, stream)
    return _unit_interval(x0, x1)


@cuda.jit(device=True)
def normal_scalar(seed, stream, sample, step, unit, synapse):  # type: ignore[no-untyped-def]
    """Return one standard normal float64 (Box-Muller, cosine branch), see :func:`snnsim.kernels.philox.normal`."""
    x0, x1, x2, x3 = philox_words(sample, step, unit, synapse, seed, stream)
    u = 1.0 - _unit_interval(x0, x1)
    angle = 2.0 * math.pi * _unit_interval(x2, x3)
    return math.sqrt(-2.0 * math.log(u)) * math.cos(angle)


@cuda.jit(device=True)
def word_of_step(seed, stream, sample, step, unit, number):  # type: ignore[no-untyped-def]
    """Return the word that belongs to one step where a block serves four: word ``step % 4`` of block ``step // 4``."""
    x0, x1, x2, x3 = philox_words(sample, step // 4, unit, number, seed, stream)
    place = step % 4
    if place == 0:
        return x0
    if place == 1:
        return x1
    if place == 2:
        return x2
    return x3


@cuda.jit(device=True)
def count_of_word(word, table, row):  # type: ignore[no-untyped-def]
    """Return how many thresholds of a row of :func:`snnsim.kernels.poisson.thresholds` a 32-bit word reaches."""
    count = 0
    while count < table.shape[1] and word >= np.uint64(table[row, count]):
        count += 1
    return count


@cuda.jit(device=True)
def poisson_count(seed, stream, sample, step, unit, number, table, row):  # type: ignore[no-untyped-def]
    """Return the Poisson count of one step and unit: that of :func:`snnsim.kernels.poisson.poisson_counts`.

    Args:
        seed: First word of the key.
        stream: Second word.
        sample: Id of the sample in its data set.
        step: Step of the run.
        unit: Unit.
        number: Which stimulus.
        table: Thresholds, uint32 ``(rates, most)``.
        row: Row of the table.
    """
    return count_of_word(word_of_step(seed, stream, sample, step, unit, number), table, row)


@cuda.jit
def dropout_factors(sample, seed, stream, epoch, layer, p, kept, out):  # type: ignore[no-untyped-def]
    """Fill what every unit of every sample is multiplied by: 0 with probability ``p``, else ``kept``.

    One thread a (sample, unit) pair, units side by side.

    Args:
        sample: Sample ids, int64, shape (batch,).
        seed: Seed of the run.
        stream: Stream of dropout.
        epoch: Epoch.
        layer: Index of the layer.
        p: Probability of 0.
        kept: ``1 / (1 - p)``.
        out: Written, float32 or float64, shape (batch, unit).
    """
    i = cuda.grid(1)
    n_units = out.shape[1]
    if i < out.shape[0] * n_units:
        row = i // n_units
        unit = i - row * n_units
        number = uniform_scalar(seed, stream, sample[row], epoch, unit, layer)
        out[row, unit] = kept if number >= p else 0.0
