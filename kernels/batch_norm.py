"""Batch normalisation over rows of (rows, units) arrays: statistics, scaling and their gradients.

Rows are (time, sample) pairs; a row mask leaves padded steps out of the statistics. Sums run over fixed
blocks of rows in float64 and are combined in the order of the blocks, so the result does not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import run_ranges

__all__ = ["gradient_sums", "input_gradient", "run_rows", "scale_rows", "statistics"]

ROWS = 128
"""Rows a block."""

Floats = npt.NDArray[np.floating[Any]]


def run_rows(kernel: Callable[..., Any], arguments: Sequence[Any], n_rows: int, threads: int) -> None:
    """Call ``kernel(*arguments, start, stop)`` over ranges of whole row blocks on ``threads`` threads."""
    run_ranges(kernel, arguments, n_rows, threads, ROWS)


@njit(cache=True, nogil=True)
def statistics(
    x: Floats,
    mask: npt.NDArray[np.uint8],
    count: npt.NDArray[np.int64],
    total: npt.NDArray[np.float64],
    square: npt.NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    """Write count, sum and centred square sum of every block of rows.

    Args:
        x: Values, shape (rows, units).
        mask: 1 for the rows that count, uint8, shape (rows,); empty means all.
        count: Output, valid rows a block, shape (blocks,).
        total: Output, sum a block, shape (blocks, units).
        square: Output, sum of squares about the block's own mean, shape (blocks, units).
        start: First row, a multiple of the block.
        stop: Row after the last.
    """
    units = x.shape[1]
    masked = mask.shape[0] > 0
    mean = np.empty(units, x.dtype)
    for first in range(start, stop, ROWS):
        block = first // ROWS
        last = min(first + ROWS, stop)
        sums = total[block]
        squares = square[block]
        for u in range(units):
            sums[u] = 0.0
            squares[u] = 0.0
        n = 0
        for r in range(first, last):
            if masked and mask[r] == 0:
                continue
            n += 1
            row = x[r]
            for u in range(units):
                sums[u] += row[u]
        count[block] = n
        if n == 0:
            continue
        for u in range(units):
            mean[u] = sums[u] / n
        for r in range(first, last):
            if masked and mask[r] == 0:
                continue
            row = x[r]
            for u in range(units):
                z = row[u] - mean[u]
                squares[u] += z * z
        for u in range(units):
            z = sums[u] / n - mean[u]
            squares[u] -= n * (z * z)


@njit(cache=True, nogil=True)
def scale_rows(x: Floats, mean: Floats, scale: Floats, shift: Floats, out: Floats, start: int, stop: int) -> None:
    """Write ``(x - mean) * scale + shift``, shapes (rows, units) and (units,)."""
    units = x.shape[1]
    for r in range(start, stop):
        row = x[r]
        y = out[r]
        for u in range(units):
            y[u] = (row[u] - mean[u]) * scale[u] + shift[u]


@njit(cache=True, nogil=True)
def gradient_sums(
    x: Floats,
    grad: Floats,
    mean: Floats,
    total: npt.NDArray[np.float64],
    product: npt.NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    """Write the sums of ``grad`` and of ``grad * (x - mean)`` of every block of rows, shape (blocks, units)."""
    units = x.shape[1]
    for first in range(start, stop, ROWS):
        block = first // ROWS
        sums = total[block]
        products = product[block]
        for u in range(units):
            sums[u] = 0.0
            products[u] = 0.0
        for r in range(first, min(first + ROWS, stop)):
            row = x[r]
            g = grad[r]
            for u in range(units):
                sums[u] += g[u]
                products[u] += g[u] * (row[u] - mean[u])


@njit(cache=True, nogil=True)
def input_gradient(
    x: Floats,
    grad: Floats,
    mask: npt.NDArray[np.uint8],
    mean: Floats,
    scale: Floats,
    offset: Floats,
    slope: Floats,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """Write the gradient of the input.

    Valid rows: ``scale * (grad - offset - (x - mean) * slope)``; rows that did not enter the statistics:
    ``scale * grad``.

    Args:
        x: Values, shape (rows, units).
        grad: Gradient of the output, same shape.
        mask: As in :func:`statistics`.
        mean: Mean, shape (units,), like the following.
        scale: Weight over standard deviation.
        offset: Mean of ``grad``.
        slope: Mean of ``grad * (x - mean)`` over the variance.
        out: Output, shape (rows, units).
        start: First row.
        stop: Row after the last.
    """
    units = x.shape[1]
    masked = mask.shape[0] > 0
    for r in range(start, stop):
        row = x[r]
        g = grad[r]
        d = out[r]
        if masked and mask[r] == 0:
            for u in range(units):
                d[u] = scale[u] * g[u]
        else:
            for u in range(units):
                d[u] = scale[u] * ((g[u] - offset[u]) - (row[u] - mean[u]) * slope[u])
