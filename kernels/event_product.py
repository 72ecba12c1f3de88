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
from snnsim.kernels.simd import aligned_empty, count_bits, fma, lanes_of, load, lowest_bit, nonzero_bits, splat, store

__all__ = ["EventRows", "event_accumulate", "event_gradient", "event_product", "list_events"]

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
    """Write rows ``start .. stop - 1`` of ``x weight``.

    Args:
        first: From :func:`list_events`, like the following.
        column: Column of every entry.
        value: Entries.
        weight: Shape (n_in, n_out), flat.
        n_out: Columns of the result.
        out: Output, shape (rows, n_out), flat.
        start: First row.
        stop: Row after the last.
    """
    lanes = lanes_of(out)
    wide = VECTORS * lanes
    zero = splat(out.dtype.type(0))
    whole = n_out - n_out % wide
    some = n_out - n_out % lanes
    for j in range(0, whole, wide):  # outermost: these columns of the weights stay in the cache for all rows
        for r in range(start, stop):
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
    for j in range(whole, some, lanes):
        for r in range(start, stop):
            a = zero
            for k in range(first[r], first[r + 1]):
                a = fma(splat(value[k]), load(weight, column[k] * n_out + j), a)
            store(out, r * n_out + j, a)
    if some < n_out:
        for r in range(start, stop):
            for rest in range(some, n_out):
                out[r * n_out + rest] = 0
            for k in range(first[r], first[r + 1]):
                for rest in range(some, n_out):
                    out[r * n_out + rest] += value[k] * weight[column[k] * n_out + rest]


@njit(cache=True, nogil=True)
def event_gradient(
    first: npt.NDArray[np.int64],
    column: npt.NDArray[np.int32],
    value: Floats,
    upstream: Floats,
    n_in: int,
    n_out: int,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """Write columns ``start .. stop - 1`` of ``x^T upstream``, summed row after row of ``x``.

    The rows of ``upstream`` pass by once; the few columns that they are added to lie together and stay in the cache.

    Args:
        first: From :func:`list_events`, like the following.
        column: Column of every entry.
        value: Entries.
        upstream: Shape (rows, n_out), flat.
        n_in: Columns of ``x``.
        n_out: Columns of the result.
        out: Output, shape (n_in, n_out), flat.
        start: First column.
        stop: Column after the last.
    """
    lanes = lanes_of(out)
    wide = VECTORS * lanes
    rows = first.shape[0] - 1
    sums = aligned_empty(n_in * wide, out)
    some = start + (stop - start) // lanes * lanes
    j = start
    while j < some:
        width = wide if j + wide <= some else lanes
        sums[: n_in * width] = 0
        if width == wide:
            for r in range(rows):
                if first[r] == first[r + 1]:
                    continue
                at = r * n_out + j
                a, b = load(upstream, at), load(upstream, at + lanes)
                c, d = load(upstream, at + 2 * lanes), load(upstream, at + 3 * lanes)
                for k in range(first[r], first[r + 1]):
                    v, o = splat(value[k]), column[k] * wide
                    store(sums, o, fma(v, a, load(sums, o)))
                    store(sums, o + lanes, fma(v, b, load(sums, o + lanes)))
                    store(sums, o + 2 * lanes, fma(v, c, load(sums, o + 2 * lanes)))
                    store(sums, o + 3 * lanes, fma(v, d, load(sums, o + 3 * lanes)))
        else:
            for r in range(rows):
                a = load(upstream, r * n_out + j)
                for k in range(first[r], first[r + 1]):
                    o = column[k] * lanes
                    store(sums, o, fma(splat(value[k]), a, load(sums, o)))
        for i in range(n_in):
            for lane in range(0, width, lanes):
                store(out, i * n_out + j + lane, load(sums, i * width + lane))
        j += width
    if some < stop:
        for i in range(n_in):
            for rest in range(some, stop):
                out[i * n_out + rest] = 0
        for r in range(rows):
            for k in range(first[r], first[r + 1]):
                for rest in range(some, stop):
                    out[column[k] * n_out + rest] += value[k] * upstream[r * n_out + rest]


@njit(cache=True, nogil=True, error_model="numpy")
def event_accumulate(
    first: npt.NDArray[np.int64],
    column: npt.NDArray[np.int32],
    value: Floats,
    upstream: Floats,
    n_out: int,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """Add columns ``start .. stop - 1`` of ``x^T upstream`` to what is there, event by event.

    Unlike :func:`event_gradient` it touches only the rows of the result whose source had an event, which is what counts
    where a sequence comes in many short stretches.

    Args:
        first: From :func:`list_events`, like the following.
        column: Column of every entry.
        value: Entries.
        upstream: Shape (rows, n_out), flat.
        n_out: Columns of the result.
        out: Sums, shape (n_in, n_out), flat.
        start: First column.
        stop: Column after the last.
    """
    many = stop - start
    for r in range(first.shape[0] - 1):
        up = upstream[r * n_out + start : r * n_out + stop]
        for k in range(first[r], first[r + 1]):
            v = value[k]
            at = column[k] * n_out + start
            sums = out[at : at + many]
            for j in range(many):
                sums[j] += v * up[j]
