"""Spatial learning through time of feed-forward LIF networks: a stretch of steps in two calls.

The first call takes every sample through all layers and all steps of the stretch: it lists the events of a layer's
input, adds the rows of the weights that belong to them, advances the neurons and writes the local gradient of every
spike. The second call takes the errors of the readout down through the layers of the same steps. A third one adds
``error * input`` to the gradient of the weights for the events that occurred. Nothing else is kept.

Samples do not interact in the first two calls, columns of a gradient do not in the third: each is one thread's own and
its sums run in one order, so that bits do not depend on the number of threads.

Rows of a stretch are (sample, step): row ``sample * steps + step``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.matrix import matrix_product
from snnsim.kernels.memory import array_at
from snnsim.kernels.simd import aligned_empty
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["COLUMNS", "FIELDS", "WIDEST", "accumulate", "backward", "forward"]

Floats = npt.NDArray[np.floating[Any]]
Table = npt.NDArray[np.int64]

(
    N_IN,
    N_OUT,
    WEIGHT,
    BY_SOURCE,
    BETA,
    THRESHOLD,
    V_RESET,
    RESET_AMOUNT,
    RESET_ZERO,
    SURROGATE,
    V,
    KEPT,
    SLOPE,
    COLUMN,
    MANY,
    GRADIENT,
) = range(16)
FIELDS = 16
"""Columns of a table with one row a layer, the readout last: sizes, codes, and addresses of the layer's arrays.

``WEIGHT`` (n_out, n_in) and ``BY_SOURCE``, the same transposed; ``BETA`` to ``RESET_AMOUNT``, (n_out,); ``V``
(batch, n_out), the membrane after the step before; ``KEPT`` uint8 (batch, n_out), which neurons dropout keeps, or 0;
``SLOPE`` (rows, n_out), the local gradients of the spikes, later the errors of the currents; ``COLUMN`` uint16 (rows,
n_in), sources that fired, and ``MANY`` int32 (rows,), how many; ``GRADIENT`` (n_in, n_out), sums.
"""

WIDEST = 1 << 16
"""Sources of a layer that a uint16 can name."""

COLUMNS = 64
"""Columns of a gradient that are one piece of work."""


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_events(weight, n_out, column, many, values, first, scale, out):  # type: ignore[no-untyped-def]
    """Write the sum of the weights' rows of the events; ``values[first + column]`` if there are any, else ``scale``."""
    for j in range(n_out):
        out[j] = 0
    given = values.shape[0] > 0
    for k in range(many):
        source = np.int64(column[k])
        value = values[first + source] if given else scale
        row = weight[source * n_out : source * n_out + n_out]
        for j in range(n_out):
            out[j] += value * row[j]


@njit(cache=True, nogil=True, error_model="numpy")
def forward(
    x: Floats,
    steps: int,
    batch: int,
    table: Table,
    scales: Floats,
    numbers: Floats,
    mask: npt.NDArray[np.uint8],
    learn: bool,
    trace: Floats,
    fired: npt.NDArray[np.int64],
    start: int,
    stop: int,
) -> None:
    """Take the samples ``start .. stop - 1`` through a stretch.

    Args:
        x: Inputs, shape (steps, batch, n_in), flat.
        steps: Steps of the stretch.
        batch: Samples.
        table: One row a layer, see :data:`FIELDS`.
        scales: What a spike that dropout keeps is multiplied by, one a layer, for the layer that receives it.
        numbers: Coefficients of the surrogate, shape (layers, 6).
        mask: Valid steps, uint8, shape (steps, batch), flat, or of length 0.
        learn: Whether slopes are wanted.
        trace: Output, membrane of the readout, shape (steps, batch, classes), flat.
        fired: Spikes in valid steps, added to, shape (hidden layers, batch), flat.
        start: First sample.
        stop: Sample after the last.
    """
    layers = table.shape[0]
    widest = 0
    for layer in range(layers):
        widest = max(widest, table[layer, N_OUT])
    current = np.empty(widest, x.dtype)
    nothing = np.empty(0, x.dtype)
    zero = x.dtype.type(0)
    n_in = table[0, N_IN]
    for b in range(start, stop):
        for t in range(steps):
            row, at = b * steps + t, (t * batch + b) * n_in
            column = array_at(table[0, COLUMN] + 2 * row * n_in, n_in, np.uint16)
            many = 0
            for i in range(n_in):
                if x[at + i] != zero:
                    column[many] = i
                    many += 1
            array_at(table[0, MANY] + 4 * row, 1, np.int32)[0] = many
            for layer in range(layers):
                n, wide = table[layer, N_OUT], table[layer, N_IN]
                weight = array_at(table[layer, BY_SOURCE], wide * n, x.dtype)
                column = array_at(table[layer, COLUMN] + 2 * row * wide, wide, np.uint16)
                many = array_at(table[layer, MANY] + 4 * row, 1, np.int32)[0]
                values, begin = (x, at) if layer == 0 else (nothing, 0)
                _sum_events(weight, n, column, many, values, begin, scales[layer], current)
                beta = array_at(table[layer, BETA], n, x.dtype)
                v = array_at(table[layer, V] + x.itemsize * b * n, n, x.dtype)
                for j in range(n):
                    current[j] = beta[j] * v[j] + current[j]
                if layer == layers - 1:
                    out = (t * batch + b) * n
                    for j in range(n):
                        v[j] = current[j]
                        trace[out + j] = current[j]
                    continue
                threshold = array_at(table[layer, THRESHOLD], n, x.dtype)
                after = array_at(table[layer, V_RESET], n, x.dtype)
                amount = array_at(table[layer, RESET_AMOUNT], n, x.dtype)
                if learn:
                    slope = array_at(table[layer, SLOPE] + x.itemsize * row * n, n, x.dtype)
                    surrogate_block(table[layer, SURROGATE], numbers[layer], current, threshold, slope, n)
                if table[layer, RESET_ZERO] != 0:
                    for j in range(n):
                        v[j] = after[j] if current[j] >= threshold[j] else current[j]
                else:
                    for j in range(n):
                        v[j] = current[j] - amount[j] if current[j] >= threshold[j] else current[j]
                column = array_at(table[layer + 1, COLUMN] + 2 * row * n, n, np.uint16)
                many, spikes = 0, 0
                if table[layer, KEPT] == 0:
                    for j in range(n):
                        if current[j] >= threshold[j]:
                            column[many] = j
                            many += 1
                    spikes = many
                else:
                    kept = array_at(table[layer, KEPT] + b * n, n, np.uint8)
                    for j in range(n):
                        if current[j] >= threshold[j]:
                            spikes += 1
                            if kept[j] != 0:
                                column[many] = j
                                many += 1
                array_at(table[layer + 1, MANY] + 4 * row, 1, np.int32)[0] = many
                if mask.shape[0] == 0 or mask[t * batch + b] != 0:
                    fired[layer * batch + b] += spikes


@njit(cache=True, nogil=True, error_model="numpy")
def backward(error: Floats, steps: int, table: Table, scales: Floats, start: int, stop: int) -> None:
    """Take the errors of a stretch down through the layers, for the samples ``start .. stop - 1``.

    ``e_l = (e_{l+1} W_{l+1}) scale kept g_l``; the slopes of a layer are overwritten by it.

    Args:
        error: Derivative of the loss by the readout's currents, shape (rows, classes), flat.
        steps: Steps of the stretch.
        table: One row a layer.
        scales: As in :func:`forward`.
        start: First sample.
        stop: Sample after the last.
    """
    layers = table.shape[0]
    low, rows = start * steps, (stop - start) * steps
    widest = 0
    for layer in range(1, layers):
        widest = max(widest, table[layer, N_IN])
    found = aligned_empty(rows * widest, error)
    above = error[low * table[layers - 1, N_OUT] : (low + rows) * table[layers - 1, N_OUT]]
    for layer in range(layers - 1, 0, -1):
        n_out, n_in = table[layer, N_OUT], table[layer, N_IN]
        weight = array_at(table[layer, WEIGHT], n_out * n_in, error.dtype)
        matrix_product(above, n_out, 1, weight, 1, n_in, found, n_in, rows, n_in, n_out, False, 0, rows)
        below = array_at(table[layer - 1, SLOPE] + error.itemsize * low * n_in, rows * n_in, error.dtype)
        scale = scales[layer]
        if table[layer - 1, KEPT] == 0:
            for k in range(rows * n_in):
                below[k] *= found[k]
        else:
            kept = array_at(table[layer - 1, KEPT] + start * n_in, (stop - start) * n_in, np.uint8)
            for r in range(rows):
                mine = kept[(r // steps) * n_in : (r // steps + 1) * n_in]
                for j in range(n_in):
                    k = r * n_in + j
                    below[k] *= found[k] * scale if mine[j] != 0 else error.dtype.type(0)
        above = below


@njit(cache=True, nogil=True, error_model="numpy")
def accumulate(
    x: Floats, error: Floats, steps: int, batch: int, table: Table, scales: Floats, start: int, stop: int
) -> None:
    """Add the gradient of the weights of a stretch, event by event.

    Args:
        x: Inputs, shape (steps, batch, n_in), flat.
        error: Derivative of the loss by the readout's currents, shape (rows, classes), flat.
        steps: Steps of the stretch.
        batch: Samples.
        table: One row a layer.
        scales: As in :func:`forward`.
        start: First piece: every layer has ``ceil(n_out / COLUMNS)`` of them.
        stop: Piece after the last.
    """
    first = 0
    for layer in range(table.shape[0]):
        n_in, n = table[layer, N_IN], table[layer, N_OUT]
        pieces = (n + COLUMNS - 1) // COLUMNS
        low, high = max(start - first, 0), min(stop - first, pieces)
        first += pieces
        if low >= high:
            continue
        begin, end = low * COLUMNS, min(high * COLUMNS, n)
        up = error
        if layer < table.shape[0] - 1:
            up = array_at(table[layer, SLOPE], batch * steps * n, error.dtype)
        sums = array_at(table[layer, GRADIENT], n_in * n, error.dtype)
        columns = array_at(table[layer, COLUMN], batch * steps * n_in, np.uint16)
        many = array_at(table[layer, MANY], batch * steps, np.int32)
        for row in range(batch * steps):
            mine = up[row * n + begin : row * n + end]
            value = scales[layer]
            at = ((row % steps) * batch + row // steps) * n_in
            for k in range(many[row]):
                source = np.int64(columns[row * n_in + k])
                if layer == 0:
                    value = x[at + source]
                place = sums[source * n + begin : source * n + end]
                for j in range(end - begin):
                    place[j] += value * mine[j]
