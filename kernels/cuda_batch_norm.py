"""Batch normalisation on a device: moments, scaling and the gradients' sums, as :mod:`snnsim.kernels.batch_norm`.

A thread takes one unit of a block of rows; adjacent threads take adjacent units. Sums are float64; the blocks' sums
are combined in the order that :mod:`snnsim.kernels.cuda_reductions` fixes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_support import times

__all__ = ["ROWS", "SCALED", "gradient_sums", "input_gradient", "moments", "scale_rows"]

ROWS = 64
"""Rows of a block that is summed."""

SCALED = 8
"""Rows of a block that is only rewritten."""


@cuda.jit
def moments(x: Any, mask: Any, units: int, count: Any, total: Any, square: Any) -> None:
    """Write count, sum and centred square sum of every block of rows and every unit; ``x`` is read once.

    Squares are taken about the block's first value, and that about the block's mean is computed from them.

    Args:
        x: Values, shape (rows, units), flat.
        mask: 1 for the rows that count, uint8, shape (rows,); empty means all.
        units: Units.
        count: Output, valid rows of the blocks, float64, shape (blocks,).
        total: Output, sums, float64, shape (blocks, units), flat.
        square: Output, sums of squares about the block's own mean, like ``total``.
    """
    place = cuda.grid(1)
    if place >= total.shape[0]:
        return
    block = place // units
    unit = place - block * units
    masked = mask.shape[0] > 0
    rows = x.shape[0] // units
    n = 0
    origin = np.float64(0.0)
    sums = np.float64(0.0)
    squares = np.float64(0.0)
    for row in range(block * ROWS, min((block + 1) * ROWS, rows)):
        if not masked or mask[row] != 0:
            value = np.float64(x[row * units + unit])
            if n == 0:
                origin = value
            n += 1
            value -= origin
            sums += value
            squares += times(value, value)
    many = np.float64(n)
    total[place] = times(origin, many) + sums
    square[place] = max(squares - times(sums, sums) / many, np.float64(0.0)) if n > 0 else np.float64(0.0)
    if unit == 0:
        count[block] = many


@cuda.jit
def scale_rows(x: Any, affine: Any, out: Any) -> None:
    """Write ``(x - mean) * scale + shift``.

    Args:
        x: Values, shape (rows, units), flat.
        affine: Mean, scale and shift, shape (3, units).
        out: Output, like ``x``.
    """
    place = cuda.grid(1)
    units = affine.shape[1]
    rows = x.shape[0] // units
    block = place // units
    unit = place - block * units
    if block * SCALED >= rows:
        return
    mean, scale, shift = affine[0, unit], affine[1, unit], affine[2, unit]
    for row in range(block * SCALED, min((block + 1) * SCALED, rows)):
        at = row * units + unit
        out[at] = times(x[at] - mean, scale) + shift


@cuda.jit
def gradient_sums(x: Any, grad: Any, affine: Any, sums: Any) -> None:
    """Write the sums of ``grad`` and of ``grad * (x - mean)`` of every block of rows.

    Args:
        x: Values, shape (rows, units), flat.
        grad: Gradient of the output, like ``x``.
        affine: Mean, scale and shift, shape (3, units).
        sums: Output, float64, shape (2, blocks, units), flat.
    """
    place = cuda.grid(1)
    half = sums.shape[0] // 2
    if place >= half:
        return
    units = affine.shape[1]
    rows = x.shape[0] // units
    block = place // units
    unit = place - block * units
    mean = affine[0, unit]
    total = np.float64(0.0)
    product = np.float64(0.0)
    for row in range(block * ROWS, min((block + 1) * ROWS, rows)):
        at = row * units + unit
        g = np.float64(grad[at])
        total += g
        product += g * np.float64(x[at] - mean)
    sums[place] = total
    sums[half + place] = product


@cuda.jit
def input_gradient(x: Any, mask: Any, affine: Any, offset: Any, slope: Any, grad: Any, out: Any) -> None:
    """Turn the gradient of the normalised values into that of the values; ``out`` may be ``grad``.

    Valid rows: ``scale (grad - offset - (x - mean) slope)``; rows that did not enter the statistics: ``scale grad``.

    Args:
        x: Values, shape (rows, units), flat.
        mask: 1 for the rows that counted, uint8, shape (rows,); empty means all.
        affine: Mean, scale and shift, shape (3, units).
        offset: Mean of ``grad`` over valid rows, shape (units,).
        slope: Mean of ``grad (x - mean)`` over the variance, shape (units,).
        grad: Gradient, like ``x``.
        out: Output, like ``x``.
    """
    place = cuda.grid(1)
    units = affine.shape[1]
    rows = x.shape[0] // units
    block = place // units
    unit = place - block * units
    if block * SCALED >= rows:
        return
    masked = mask.shape[0] > 0
    mean, scale, off, tilt = affine[0, unit], affine[1, unit], offset[unit], slope[unit]
    for row in range(block * SCALED, min((block + 1) * SCALED, rows)):
        at = row * units + unit
        if masked and mask[row] == 0:
            out[at] = scale * grad[at]
        else:
            out[at] = scale * ((grad[at] - off) - (x[at] - mean) * tilt)
