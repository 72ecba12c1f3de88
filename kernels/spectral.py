"""Products of complex matrices, one for each frequency, out of tiles that stay in registers.

A complex product takes three real ones (``P1 = ar br``, ``P2 = ai bi``, ``P3 = (ar + ai)(br + bi)``; real part
``P1 - P2``, imaginary part ``P3 - P1 - P2``): the sums are made while the operands are packed into panels and cost
little, because one frequency's panels stay in the caches. Each frequency is one piece of work with a fixed order of
operations, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.matrix import DEPTH, pack_columns
from snnsim.kernels.simd import TILE_ROWS, TILE_VECTORS, aligned_empty, fma, lanes_of, load, splat, store, tile_product

__all__ = ["complex_products"]

COLUMNS = 128
"""Columns of the right factor that are packed at a time."""

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True)
def _pack_columns(
    source: Floats, re: int, im: int, sign: float, n: int, across: int, depth: int, along: int, out: Floats
) -> None:
    """Write the panels of the right factor three times: real part, imaginary part, their sum.

    Element (x, k), x < n and k < depth, is at ``x * across + k * along``. A panel holds the neighbours x of one
    tile for each k; the last one is filled with zeros. The panels of all x follow each other for every
    :data:`DEPTH` of k.
    """
    lanes = lanes_of(out)
    width = TILE_VECTORS * lanes
    columns = -(-n // width) * width
    part = columns * depth
    factor = splat(out.dtype.type(sign))
    for k0 in range(0, depth, DEPTH):
        deep = min(DEPTH, depth - k0)
        at, shift = k0 * columns, k0 * along
        pack_columns(source, re + shift, across, along, n, deep, out[at:])
        pack_columns(source, im + shift, across, along, n, deep, out[part + at :])
    for j in range(0, part, lanes):
        imaginary = factor * load(out, part + j)
        store(out, part + j, imaginary)
        store(out, 2 * part + j, load(out, j) + imaginary)


@njit(cache=True, nogil=True)
def _multiply(
    a: Floats,
    a0: int,
    a_row: int,
    a_step: int,
    rows: int,
    b: Floats,
    b0: int,
    columns: int,
    depth: int,
    out: Floats,
    o0: int,
) -> None:
    """Multiply ``rows`` whole tiles of rows by packed panels; ``out`` (rows, columns) is overwritten."""
    width = TILE_VECTORS * lanes_of(a)
    for k0 in range(0, max(1, depth), DEPTH):
        deep = min(DEPTH, depth - k0)
        for n in range(0, columns, width):
            at = b0 + k0 * columns + n * deep
            for m in range(0, rows, TILE_ROWS):
                row = a0 + m * a_row + k0 * a_step
                tile_product(a, row, a_row, a_step, b, at, deep, out, o0 + m * columns + n, columns, k0 > 0)


@njit(cache=True, nogil=True)
def _left_parts(
    a: Floats,
    re: int,
    im: int,
    sign: float,
    across: int,
    along: int,
    m: int,
    depth: int,
    whole: int,
    total: Floats,
    edge: Floats,
) -> None:
    """Write real plus imaginary part, and the three parts of the rows that fill no tile.

    One of ``across`` and ``along`` is 1. The sums are packed: (depth, m) if it is ``across``, else (m, depth).
    """
    lanes = lanes_of(a)
    s = a.dtype.type(sign)
    factor = splat(s)
    outer, n, jump = (depth, m, along) if across == 1 else (m, depth, across)
    for r in range(outer):
        x, y, o = re + r * jump, im + r * jump, r * n
        for j in range(0, n - lanes + 1, lanes):
            store(total, o + j, fma(factor, load(a, y + j), load(a, x + j)))
        for j in range(n - n % lanes, n):
            total[o + j] = a[x + j] + s * a[y + j]
    part = TILE_ROWS * depth
    if whole < m:
        edge[:] = 0
        for x in range(whole, m):
            for k in range(depth):
                at = x * across + k * along
                o = (x - whole) * depth + k
                edge[o] = a[re + at]
                edge[part + o] = a[im + at]
                edge[2 * part + o] = total[k * m + x if across == 1 else x * depth + k]


@njit(cache=True, nogil=True)
def complex_products(
    a: Floats,
    a_row: int,
    a_across: int,
    a_along: int,
    a_sign: float,
    b: Floats,
    b_row: int,
    b_across: int,
    b_along: int,
    b_sign: float,
    out: Floats,
    out_row: int,
    out_across: int,
    m: int,
    n: int,
    depth: int,
    start: int,
    stop: int,
) -> None:
    """Write ``out(f) = a(f) b(f)`` for frequencies ``start .. stop - 1``; rows are those of :mod:`fourier` spectra.

    Args:
        a: Left factors: real part of frequency f in row ``2 f``, imaginary part in row ``2 f + 1``, flat.
        a_row: Length of a row of ``a``.
        a_across: Distance of neighbours along the ``m`` rows of the matrix.
        a_along: Distance of neighbours along the depth.
        a_sign: 1, or -1 for the conjugate.
        b: Right factors.
        b_row: Length of a row of ``b``.
        b_across: Distance of neighbours along the ``n`` columns of the matrix.
        b_along: Distance of neighbours along the depth.
        b_sign: 1, or -1 for the conjugate.
        out: Output.
        out_row: Length of a row of ``out``.
        out_across: Distance of the matrix's rows in it.
        m: Rows of the result.
        n: Columns of the result.
        depth: Products that are summed.
        start: First frequency.
        stop: Frequency after the last.
    """
    lanes = lanes_of(a)
    width = TILE_VECTORS * lanes
    whole = m // TILE_ROWS * TILE_ROWS
    rows = -(-m // TILE_ROWS) * TILE_ROWS
    step = -(-COLUMNS // width) * width
    most = min(step, -(-n // width) * width)
    total = aligned_empty(m * depth, a)
    edge = np.empty(3 * TILE_ROWS * depth, a.dtype)
    packed = aligned_empty(3 * most * depth, a)
    sums = aligned_empty(3 * rows * most, a)
    turn = splat(a.dtype.type(a_sign))
    for f in range(start, stop):
        re, im = 2 * f * a_row, (2 * f + 1) * a_row
        _left_parts(a, re, im, a_sign, a_across, a_along, m, depth, whole, total, edge)
        for n0 in range(0, n, step):
            wide = min(step, n - n0)
            columns = -(-wide // width) * width
            at = 2 * f * b_row + n0 * b_across
            _pack_columns(b, at, at + b_row, b_sign, wide, b_across, depth, b_along, packed)
            tile, part = rows * columns, columns * depth
            for p in range(3):
                if p == 2:
                    across, along = (1, m) if a_across == 1 else (depth, 1)
                    _multiply(total, 0, across, along, whole, packed, p * part, columns, depth, sums, p * tile)
                else:
                    a0 = im if p == 1 else re
                    _multiply(a, a0, a_across, a_along, whole, packed, p * part, columns, depth, sums, p * tile)
                if whole < m:
                    o = p * tile + whole * columns
                    e = p * TILE_ROWS * depth
                    _multiply(edge, e, depth, 1, TILE_ROWS, packed, p * part, columns, depth, sums, o)
            for i in range(m):
                o = 2 * f * out_row + i * out_across + n0
                s = i * columns
                for j in range(0, wide - lanes + 1, lanes):
                    p1, p2 = load(sums, s + j), turn * load(sums, tile + s + j)
                    store(out, o + j, p1 - p2)
                    store(out, out_row + o + j, load(sums, 2 * tile + s + j) - p1 - p2)
                for j in range(wide - wide % lanes, wide):
                    q1, q2 = sums[s + j], a.dtype.type(a_sign) * sums[tile + s + j]
                    out[o + j] = q1 - q2
                    out[out_row + o + j] = sums[2 * tile + s + j] - q1 - q2
