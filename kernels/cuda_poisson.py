"""Poisson noise on the device: the counts of :mod:`snnsim.kernels.poisson`, from the same words of random numbers."""

from __future__ import annotations

from typing import Any

from numba import cuda

from snnsim.kernels.cuda_trains import place
from snnsim.kernels.philox import philox_words
from snnsim.kernels.poisson import STEPS

__all__ = ["draw_counts"]


@cuda.jit
def draw_counts(
    counts: Any,
    first: Any,
    size: Any,
    table: Any,
    levels: Any,
    table_row: Any,
    seed: Any,
    stream: Any,
    number: Any,
    sample_ids: Any,
    first_step: Any,
    begun: Any,
    n_rows: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Draw how many events reach each neuron in each row; a thread a block of four words, neuron and sample.

    Args:
        counts: Filled from ``first`` on, uint8 ``(n_rows, size samples)``.
        first: See above.
        size: Neurons.
        table: Thresholds, uint32 ``(rates * levels,)``.
        levels: Thresholds a rate.
        table_row: Rate of each neuron, int32 ``(size,)``.
        seed: First word of the key.
        stream: Second word.
        number: Which stimulus.
        sample_ids: int64 ``(samples,)``.
        first_step: Step of the run's first row, int64 ``(samples,)``.
        begun: Steps of this run done before row 0.
        n_rows: Rows.
        samples: Samples.
        fast: See :func:`snnsim.kernels.cuda_trains.place`.
    """
    i = cuda.grid(1)
    groups = n_rows // STEPS + 2
    if i >= groups * size * samples:
        return
    if fast:
        b, rest = i % samples, i // samples
        u, group = rest % size, rest // size
    else:
        u, rest = i % size, i // size
        b, group = rest % samples, rest // samples
    step = first_step[b] + begun
    block = step // STEPS + group
    row = block * STEPS - step
    if row >= n_rows:
        return
    words = philox_words(sample_ids[b], block, u, number, seed, stream)
    for k in range(STEPS):
        if 0 <= row + k < n_rows:
            entry = table_row[u] * levels
            count = 0
            while count < levels and words[k] >= table[entry + count]:
                count += 1
            counts[first + (row + k) * size * samples + place(u, b, size, samples, fast)] = count
