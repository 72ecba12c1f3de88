"""Products of a sparse input with a dense matrix, event by event: the first layer of a network that sees spikes.

The input's entries that are not zero are listed row by row once; the product and the gradient of the weights then
touch these only. Every sum runs in the order of the list, so the bits depend on neither threads nor pieces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.simd import count_bits, fma, lanes_of, load, lowest_bit, nonzero_bits, splat, store

__all__ = ["EventRows", "by_column", "event_product", "list_events"]

Floats = npt.NDArray[np.floating[Any]]
ROWS = 128
"""Rows a piece of work."""

VECTORS = 4
"""Vectors of columns that are summed together in registers."""

EventRows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Floats]
"""First entry of every row (and the end), column and value of every entry."""


@njit(cache=True, nogil=True)
def _count(x, n_in, counts, start, stop):  # type: ignore[no-untyped-def]
    lanes = lanes_of(x)
    for r in range(start, stop):
        n, at = 0, r * n_in
        for k in range(0, n_in - n_in % lanes, lanes):
            n += count_bits(nonzero_bits(load(x, at + k)))
        for k in range(n_in - n_in % lanes, n_in):
            n += x[at + k] != 0
        counts[r] = n


@njit(cache=True, nogil=True)
def _fill(x, n_in, first, column, value, start, stop):  # type: ignore[no-untyped-def]
    lanes = lanes_of(x)
    for r in range(start, stop):
        o, at = first[r], r * n_in
        for k in range(0, n_in - n_in % lanes, lanes):
            bits = nonzero_bits(load(x, at + k))
            while bits != 0:
                place = k + lowest_bit(bits)
                column[o] = place
                value[o] = x[at + place]
                o += 1
                bits &= bits - 1
        for k in range(n_in - n_in % lanes, n_in):
            if x[at + k] != 0:
                column[o] = k
                value[o] = x[at + k]
                o += 1


def list_events(x: Floats, threads: int) -> EventRows:
    """List the entries that are not zero, shape (rows, n_in)."""
    rows, n_in = x.shape
    flat = x.reshape(-1)
    first = np.zeros(rows + 1, dtype=np.int64)
    run_ranges(_count, (flat, n_in, first[1:]), rows, threads, ROWS)
    np.cumsum(first, out=first)
    column, value = np.empty(first[-1], dtype=np.int32), np.empty(first[-1], dtype=x.dtype)
    run_ranges(_fill, (flat, n_in, first, column, value), rows, threads, ROWS)
    return first, column, value


@njit(cache=True, nogil=True)
def event_product(
    first: npt.NDArray[np.int64],
    column: npt.NDArray[np.int32],
    value: Floats,
    weight: Floats,
    n_out: int,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """Write rows ``start .. stop - 1`` of ``x weight``; with the list of :func:`by_column`, of ``x^T weight``.

    Args:
        first: From :func:`list_events` or :func:`by_column`, like the following.
        column: Column of every entry (or its row).
        value: Entries.
        weight: Shape (n_in, n_out), flat; for ``x^T weight`` (rows, n_out).
        n_out: Columns of the result.
        out: Output, shape (rows, n_out), flat.
        start: First row.
        stop: Row after the last.
    """
    lanes = lanes_of(out)
    wide = VECTORS * lanes
    zero = splat(out.dtype.type(0))
    for r in range(start, stop):
        j = 0
        while j + wide <= n_out:
            a, b, c, d = zero, zero, zero, zero
            for k in range(first[r], first[r + 1]):
                v, at = splat(value[k]), column[k] * n_out + j
                a = fma(v, load(weight, at), a)
                b = fma(v, load(weight, at + lanes), b)
                c = fma(v, load(weight, at + 2 * lanes), c)
                d = fma(v, load(weight, at + 3 * lanes), d)
            o = r * n_out + j
            store(out, o, a)
            store(out, o + lanes, b)
            store(out, o + 2 * lanes, c)
            store(out, o + 3 * lanes, d)
            j += wide
        for rest in range(j, n_out):
            out[r * n_out + rest] = 0
        for k in range(first[r], first[r + 1]):
            for rest in range(j, n_out):
                out[r * n_out + rest] += value[k] * weight[column[k] * n_out + rest]


@njit(cache=True, nogil=True)
def by_column(
    first: npt.NDArray[np.int64], column: npt.NDArray[np.int32], value: Floats, n_in: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Floats]:
    """Order entries by column, then row: first entry of every column (and the end), row and value of every entry."""
    start = np.zeros(n_in + 1, np.int64)
    for k in range(column.shape[0]):
        start[column[k] + 1] += 1
    for k in range(n_in):
        start[k + 1] += start[k]
    at = start[:n_in].copy()
    row, sorted_value = np.empty(column.shape[0], np.int32), np.empty(column.shape[0], value.dtype)
    for r in range(first.shape[0] - 1):
        for k in range(first[r], first[r + 1]):
            o = at[column[k]]
            row[o] = r
            sorted_value[o] = value[k]
            at[column[k]] = o + 1
    return start, row, sorted_value
