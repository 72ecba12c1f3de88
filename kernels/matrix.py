"""Products of real matrices out of tiles that stay in registers, cut into pieces that depend on shapes alone.

A BLAS chooses kernels by the processor's name and by the number of threads, and with them the order of sums; here a
product is a fixed sequence of operations for every element, so the bits do not depend on the number of threads, nor on
where a piece begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.simd import TILE_ROWS, TILE_VECTORS, aligned_empty, lanes_of, load, store, tile_product

__all__ = ["DEPTH", "matrix_product", "pack_columns"]

DEPTH = 256
"""Products summed in registers before the sums go to memory."""

COLUMNS = 128
"""Columns of the right factor that are packed at a time."""

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True)
def pack_columns(b: Floats, at: int, across: int, along: int, wide: int, deep: int, out: Floats) -> None:
    """Write panels of one tile's width, (panel, k, column); what is missing of the last one is zero."""
    lanes = lanes_of(out)
    width = TILE_VECTORS * lanes
    for panel in range(-(-wide // width)):
        x0, to = panel * width, panel * width * deep
        count = min(width, wide - x0)
        if across == 1 and count == width:
            for k in range(deep):
                for v in range(0, width, lanes):
                    store(out, to + k * width + v, load(b, at + x0 + k * along + v))
            continue
        if count < width:
            out[to : to + width * deep] = 0
        for j in range(count):
            start = at + (x0 + j) * across
            for k in range(deep):
                out[to + j + k * width] = b[start + k * along]


@njit(cache=True, nogil=True)
def matrix_product(
    a: Floats,
    a_across: int,
    a_along: int,
    b: Floats,
    b_across: int,
    b_along: int,
    out: Floats,
    out_across: int,
    m: int,
    n: int,
    depth: int,
    by_column: bool,
    start: int,
    stop: int,
) -> None:
    """Write some rows or columns of ``out = a b``.

    Args:
        a: Left factor, flat.
        a_across: Distance of neighbours along its ``m`` rows.
        a_along: Distance of neighbours along the depth.
        b: Right factor, flat.
        b_across: Distance of neighbours along its ``n`` columns.
        b_along: Distance of neighbours along the depth.
        out: Output, flat.
        out_across: Distance of its rows; its columns are neighbours.
        m: Rows.
        n: Columns.
        depth: Products that are summed.
        by_column: Whether ``start`` and ``stop`` are columns instead of rows.
        start: First one.
        stop: One after the last.
    """
    lanes = lanes_of(a)
    width = TILE_VECTORS * lanes
    first_row, last_row, first, last = (0, m, start, stop) if by_column else (start, stop, 0, n)
    packed = aligned_empty(DEPTH * (-(-COLUMNS // width) * width), a)
    tile = np.empty(TILE_ROWS * width, a.dtype)
    edge = np.empty(TILE_ROWS * DEPTH, a.dtype)
    whole = first_row + (last_row - first_row) // TILE_ROWS * TILE_ROWS
    for n0 in range(first, last, COLUMNS):
        wide = min(COLUMNS, last - n0)
        for k0 in range(0, max(1, depth), DEPTH):
            deep = min(DEPTH, depth - k0)
            pack_columns(b, n0 * b_across + k0 * b_along, b_across, b_along, wide, deep, packed)
            add = k0 > 0
            if whole < last_row:
                edge[:] = 0
                for i in range(last_row - whole):
                    for k in range(deep):
                        edge[i * DEPTH + k] = a[(whole + i) * a_across + (k0 + k) * a_along]
            for x in range(0, wide, width):
                at = x * deep
                count = min(width, wide - x)
                for i in range(first_row, last_row, TILE_ROWS):
                    rows = min(TILE_ROWS, last_row - i)
                    o = i * out_across + n0 + x
                    if rows == TILE_ROWS:
                        if count == width:
                            tile_product(
                                a,
                                i * a_across + k0 * a_along,
                                a_across,
                                a_along,
                                packed,
                                at,
                                deep,
                                out,
                                o,
                                out_across,
                                add,
                            )
                            continue
                        tile_product(
                            a, i * a_across + k0 * a_along, a_across, a_along, packed, at, deep, tile, 0, width, False
                        )
                    else:
                        tile_product(edge, 0, DEPTH, 1, packed, at, deep, tile, 0, width, False)
                    for r in range(rows):
                        for j in range(count):
                            value = tile[r * width + j]
                            p = o + r * out_across + j
                            out[p] = out[p] + value if add else value
