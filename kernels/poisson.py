"""Poisson events for many neurons: how many arrive in each step, drawn by inversion of one random word a step.

A count is the number of thresholds at or below a 32-bit word, with threshold k the probability of at most k events
times 2**32: a comparison of a few numbers that runs over neurons in vectors, without a branch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.philox import philox_words

__all__ = ["STEPS", "add_counts", "fill_counts", "poisson_counts", "thresholds"]

STEPS = 4
"""Steps that one block of random words serves: a block is four words."""

_BLOCK = 256


def thresholds(mean: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the thresholds of Poisson distributions, uint32 ``(means, most)``; rows are filled up with 2**32 - 1.

    Args:
        mean: Mean counts, at most 50: a count is kept in a byte.
    """
    rows = []
    for value in np.atleast_1d(np.asarray(mean, dtype=np.float64)):
        term = total = math.exp(-value)
        row = []
        k = 0
        while total * 2.0**32 < 2.0**32 - 0.5 and k < 255:
            row.append(int(total * 2.0**32))
            k += 1
            term *= value / k
            total += term
        rows.append(row)
    table = np.full((len(rows), max(1, *(len(row) for row in rows))), 2**32 - 1, np.uint32)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


@njit(cache=True, nogil=True)
def fill_counts(seed, stream, sample, group, number, low, high, table, which, out):  # type: ignore[no-untyped-def]
    """Fill the counts of some neurons for :data:`STEPS` steps.

    Args:
        seed: First word of the key.
        stream: Second word.
        sample: Id of the sample in its data set.
        group: Step of the run divided by :data:`STEPS`.
        number: Which stimulus.
        low: First unit.
        high: One past the last.
        table: Thresholds, uint32 ``(rates, most)``.
        which: Row of the table of every unit; empty: row 0 for all.
        out: Filled, uint8, step after step of ``high - low`` units.
    """
    words = np.empty((STEPS, _BLOCK), np.uint32)
    size = high - low
    for begin in range(0, size, _BLOCK):
        n = min(_BLOCK, size - begin)
        for j in range(np.uint64(n)):
            unit = np.uint64(low + begin) + j
            x0, x1, x2, x3 = philox_words(sample, group, unit, number, seed, stream)
            words[0, j], words[1, j] = x0, x1
            words[2, j], words[3, j] = x2, x3
        for k in range(STEPS):
            place = np.uint64(k * size + begin)
            if which.shape[0] == 0:
                for j in range(np.uint64(n)):
                    out[place + j] = 0
                for level in range(table.shape[1]):
                    theta = table[0, level]
                    for j in range(np.uint64(n)):
                        out[place + j] += np.uint8(words[k, j] >= theta)
            else:
                for j in range(n):
                    row = which[low + begin + j]
                    count = 0
                    while count < table.shape[1] and words[k, j] >= table[row, count]:
                        count += 1
                    out[place + j] = count


@njit(cache=True, nogil=True)
def add_counts(ring, o, size, counts, first, weights, low):  # type: ignore[no-untyped-def]
    """Add ``count weight`` to the arrivals of ``size`` neurons, from unit ``low`` on.

    Args:
        ring: Sums of arrivals.
        o: Where those of the neurons begin.
        size: Neurons.
        counts: uint8.
        first: Where their counts begin.
        weights: One for all, or one a neuron of the population, in the dtype of the run.
        low: First unit.
    """
    o, first = np.uint64(o), np.uint64(first)
    if weights.shape[0] == 1:
        weight = weights[0]
        for j in range(np.uint64(size)):
            ring[o + j] += ring.dtype.type(counts[first + j]) * weight
    else:
        for j in range(np.uint64(size)):
            ring[o + j] += ring.dtype.type(counts[first + j]) * weights[np.uint64(low) + j]


def poisson_counts(
    seed: int, stream: int, sample: int, n_steps: int, number: int, size: int, mean: npt.ArrayLike
) -> npt.NDArray[np.uint8]:
    """Return the counts of every step and neuron, uint8 ``(n_steps, size)``: the plain definition.

    Word ``step % 4`` of the block with counter ``(sample, step // 4, unit, number)`` and key ``(seed, stream)``.
    """
    means = np.broadcast_to(np.asarray(mean, np.float64), (size,))
    tables = {value: thresholds(value)[0] for value in set(means.tolist())}
    counts = np.zeros((n_steps, size), np.uint8)
    for step in range(n_steps):
        for unit in range(size):
            block: Any = philox_words(sample, step // STEPS, unit, number, seed, stream)
            counts[step, unit] = np.sum(int(block[step % STEPS]) >= tables[means[unit]].astype(np.int64))
    return counts
