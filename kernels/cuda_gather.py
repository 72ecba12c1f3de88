"""Arrivals by gathering: every target walks its incoming synapses in canonical order and adds what was emitted.

A thread owns a target, so nothing is added from two sides and no order is left to chance: the sum is the one of
:mod:`snnsim.kernels.reference`, from 0.0 by emission step, projection, source and synapse. Synapses stand in slices of
:data:`SLICE` targets, entry after entry: neighbouring targets read neighbouring synapses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_support import times
from snnsim.kernels.cuda_trains import place

__all__ = ["SLICE", "gather", "gather_item", "gather_pending"]

SLICE = 32
"""Targets whose synapses stand interleaved."""


@cuda.jit(device=True)
def _fold(
    total: Any,
    trains: Any,
    row: Any,
    column: Any,
    stride: Any,
    width: Any,
    source: Any,
    weight: Any,
    delay: Any,
    entry: Any,
    count: Any,
    least: Any,
) -> Any:
    """Add what arrives along the synapses of one target whose delay is above ``least``; delays fall along them."""
    for _ in range(count):
        steps = np.int64(delay[entry])
        if steps <= least:
            break
        c = trains[(row - steps) * width + column + np.int64(source[entry]) * stride]
        if c != 0:
            total = total + times(weight.dtype.type(c), weight[entry])
        entry += SLICE
    return total


@cuda.jit(device=True)
def gather_item(
    i: Any,
    arrivals: Any,
    trains: Any,
    first: Any,
    length: Any,
    source: Any,
    weight: Any,
    delay: Any,
    n_steps: Any,
    begun: Any,
    low: Any,
    high: Any,
    begin: Any,
    end: Any,
    reach: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Add to the arrivals of the ``i``-th row, target and sample of :func:`gather`."""
    n = high - low
    if i >= (end - begin) * n * samples:
        return
    if fast:
        b, rest = i % samples, i // samples
        p, row = low + rest % n, begin + rest // n
        stride, column = samples, b
    else:
        p, rest = low + i % n, i // n
        b, row = rest % samples, begin + rest // samples
        stride, column = 1, b * n_units
    if length[p] == 0 or begun + row >= n_steps[b]:
        return
    at = row * n_ports * samples + place(p, b, n_ports, samples, fast)
    arrivals[at] = _fold(
        weight.dtype.type(arrivals[at]),
        trains,
        reach + row,
        column,
        stride,
        n_units * samples,
        source,
        weight,
        delay,
        first[p // SLICE] + p % SLICE,
        length[p],
        -1,
    )


@cuda.jit
def gather(
    arrivals: Any,
    trains: Any,
    first: Any,
    length: Any,
    source: Any,
    weight: Any,
    delay: Any,
    n_steps: Any,
    begun: Any,
    low: Any,
    high: Any,
    begin: Any,
    end: Any,
    reach: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Add to the arrivals of some targets in some rows; a thread a row, target and sample.

    Args:
        arrivals: Rows of ``n_ports`` targets; what stands there already is the first term of the sum.
        trains: Rows of ``n_units`` units, uint8 or int32; row ``reach`` belongs to row 0 of the arrivals.
        first: Where the synapses of each slice begin, int64 ``(ceil(n_ports / SLICE),)``.
        length: Synapses of each target, int32 ``(n_ports,)``.
        source: Unit of each synapse, int32.
        weight: In the dtype of the run.
        delay: Steps, uint8, uint16 or int32, falling along each target's synapses.
        n_steps: Steps of each sample, int64 ``(samples,)``.
        begun: Steps done before row 0.
        low: First target.
        high: One past the last.
        begin: First row.
        end: One past the last.
        reach: Rows of the trains before row 0: the longest delay.
        n_units: Units.
        n_ports: Targets in a row.
        samples: Samples.
        fast: See :func:`snnsim.kernels.cuda_trains.place`.
    """
    gather_item(
        cuda.grid(1),
        arrivals,
        trains,
        first,
        length,
        source,
        weight,
        delay,
        n_steps,
        begun,
        low,
        high,
        begin,
        end,
        reach,
        n_units,
        n_ports,
        samples,
        fast,
    )


@cuda.jit
def gather_pending(
    out: Any,
    arrivals: Any,
    trains: Any,
    first: Any,
    length: Any,
    source: Any,
    weight: Any,
    delay: Any,
    ended: Any,
    ends: Any,
    n_ended: Any,
    n_rows: Any,
    reach: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Sum what is on its way when some samples end; a thread a sample, step and target.

    Args:
        out: Filled: what arrives ``j`` steps after the last, ``(n_ended * n_rows * n_ports,)``, as the arrivals.
        arrivals: As for :func:`gather`, and so on.
        trains: Rows.
        first: Of each slice.
        length: Of each target.
        source: Of each synapse.
        weight: Of each synapse.
        delay: Of each synapse.
        ended: The samples, int64 ``(n_ended,)``.
        ends: Their first rows after the last step, int64 ``(n_ended,)``.
        n_ended: How many.
        n_rows: Steps looked ahead.
        reach: Rows of the trains before row 0.
        n_units: Units.
        n_ports: Targets.
        samples: Samples.
        fast: See :func:`snnsim.kernels.cuda_trains.place`.
    """
    i = cuda.grid(1)
    if i >= n_ended * n_rows * n_ports:
        return
    p, rest = i % n_ports, i // n_ports
    j, entry = rest % n_rows, rest // n_rows
    b, end = ended[entry], ends[entry]
    at = (end + j) * n_ports * samples + place(p, b, n_ports, samples, fast)
    if length[p] == 0:
        out[i] = arrivals[at]
        return
    if fast:
        stride, column = samples, b
    else:
        stride, column = 1, b * n_units
    out[i] = _fold(
        weight.dtype.type(arrivals[at]),
        trains,
        reach + end + j,
        column,
        stride,
        n_units * samples,
        source,
        weight,
        delay,
        first[p // SLICE] + p % SLICE,
        length[p],
        j,
    )
