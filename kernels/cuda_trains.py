"""What the CUDA engine keeps row after row on the device: spike trains and arrivals, a row a step.

A row holds a number for every unit (or port, or column) and sample. :func:`place` says where: samples lie side by side
if there are many (``fast``), else units do, so that neighbouring threads read neighbouring numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

__all__ = ["collect_spikes", "place", "place_numbers", "shift_rows"]


@cuda.jit(device=True)
def place(k: Any, b: Any, size: Any, samples: Any, fast: Any) -> Any:
    """Return where the number of unit ``k`` of ``size`` and sample ``b`` of ``samples`` stands in a row."""
    if fast:
        return k * samples + b
    return b * size + k


@cuda.jit
def shift_rows(rows: Any, width: Any, by: Any, n_rows: Any) -> None:
    """Move rows to the front, in place, and set those behind them to 0; a thread a column.

    Args:
        rows: Rows one after the other, ``(n_rows * width,)`` or longer.
        width: Numbers a row.
        by: Row ``by`` becomes row 0.
        n_rows: Rows in use.
    """
    column = cuda.grid(1)
    if column >= width:
        return
    for row in range(n_rows):
        if row + by < n_rows:
            rows[row * width + column] = rows[(row + by) * width + column]
        else:
            rows[row * width + column] = 0


@cuda.jit
def place_numbers(rows: Any, where: Any, numbers: Any, n: Any) -> None:
    """Write numbers into rows: ``rows[where] = numbers``.

    Args:
        rows: Rows one after the other.
        where: Places, int64 ``(n,)``, none twice.
        numbers: In the type of ``rows``.
        n: How many.
    """
    i = cuda.grid(1)
    if i < n:
        rows[where[i]] = numbers[i]


@cuda.jit
def collect_spikes(
    trains: Any, keys: Any, counter: Any, n_rows: Any, reach: Any, n_neurons: Any, n_units: Any, samples: Any, fast: Any
) -> None:
    """List the spikes of all neurons in any order, as many as there is room for; a thread a row, neuron and sample.

    Args:
        trains: Rows of ``n_units`` units, neurons first; row ``reach`` is the first looked at.
        keys: Filled with ``(sample * n_rows + row) * n_neurons + neuron``, int64; sorted they are in order of sample,
            step and neuron.
        counter: Their number is added to ``counter[0]``, also of those without room, int64.
        n_rows: Rows.
        reach: See above.
        n_neurons: Neurons.
        n_units: Neurons and input units.
        samples: Samples.
        fast: See :func:`place`.
    """
    i = cuda.grid(1)
    if i >= n_rows * n_neurons * samples:
        return
    if fast:
        b, rest = i % samples, i // samples
        n, row = rest % n_neurons, rest // n_neurons
    else:
        n, rest = i % n_neurons, i // n_neurons
        b, row = rest % samples, rest // samples
    if trains[(reach + row) * n_units * samples + place(n, b, n_units, samples, fast)] != 0:
        entry = cuda.atomic.add(counter, 0, 1)
        if entry < keys.shape[0]:
            keys[entry] = (np.int64(b) * n_rows + row) * n_neurons + n
