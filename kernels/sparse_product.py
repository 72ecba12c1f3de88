"""Products of a sparse matrix with a dense one: what a layer with few synapses computes in training.

The rows of the input (steps times samples) are taken in blocks of :data:`VECTORS` vectors and turned inside the cache,
so that one synapse acts on a whole block at once. The forward product walks along the targets (CSR); the backward one
along the sources (CSC), where the source's input and its gradient stay in registers and every block of the upstream
gradient that is loaded serves both. Every sum runs in one fixed order, so the bits do not depend on threads. That of
the forward product is the order of :func:`snnsim.kernels.matrix.matrix_product`: with the same bits in the currents,
spikes and slopes of a layer are those of the masked dense one.

NumPy definition: :mod:`snnsim.kernels.reference_sparse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.matrix import DEPTH
from snnsim.kernels.simd import aligned_empty, fma, lanes_of, load, splat, store, total_of, turn

__all__ = ["CHUNKS", "GROUP", "VECTORS", "sparse_backward", "sparse_forward", "sparse_weights", "turn_in", "turn_out"]

VECTORS = 8
"""Vectors of input rows a block: 128 rows in float32."""

CHUNKS = 32
"""Most pieces of rows whose weight gradients are summed apart."""

GROUP = 4
"""Vectors of columns that are turned back together: fewer leave parts of cache lines, and rows that lie a power of two
apart push each other out of the cache."""

Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int32]


@njit(cache=True, nogil=True)
def turn_in(x, r0, rows, n, out, wide):  # type: ignore[no-untyped-def]
    """Write ``rows`` rows of x, shape (.., n), as columns of out, shape (n, wide); missing rows are zero."""
    lanes = lanes_of(x)
    whole, squares = n - n % lanes, rows - rows % lanes
    for r in range(0, squares, lanes):
        for j in range(0, whole, lanes):
            turn(x, (r0 + r) * n + j, n, out, j * wide + r, wide)
    for r in range(rows):
        for j in range(whole if r < squares else 0, n):
            out[j * wide + r] = x[(r0 + r) * n + j]
    for j in range(n):
        for r in range(rows, wide):
            out[j * wide + r] = 0


@njit(cache=True, nogil=True)
def turn_out(scratch, count, j0, rows, r0, n, out, wide):  # type: ignore[no-untyped-def]
    """Write ``count`` lines of scratch, shape (count, wide), as columns ``j0 ..`` of out, shape (.., n)."""
    lanes = lanes_of(out)
    whole, squares = count - count % lanes, rows - rows % lanes
    for r in range(0, squares, lanes):
        for j in range(0, whole, lanes):
            turn(scratch, j * wide + r, wide, out, (r0 + r) * n + j0 + j, n)
    for r in range(rows):
        for j in range(whole if r < squares else 0, count):
            out[(r0 + r) * n + j0 + j] = scratch[j * wide + r]


@njit(cache=True, nogil=True)
def sparse_forward(
    x: Floats,
    first: Places,
    source: Places,
    value: Floats,
    rows: int,
    n_in: int,
    n_out: int,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """Write blocks ``start .. stop - 1`` of rows of ``x W^T``.

    Args:
        x: Shape (rows, n_in), flat.
        first: First synapse of every target, shape (n_out + 1,).
        source: Source of every synapse.
        value: Its weight.
        rows: Steps times samples.
        n_in: Sources.
        n_out: Targets.
        out: Output, shape (rows, n_out), flat.
        start: First block.
        stop: Block after the last.
    """
    lanes = lanes_of(out)
    wide = VECTORS * lanes
    turned = aligned_empty(n_in * wide, out)
    scratch = aligned_empty(GROUP * lanes * wide, out)
    zero = splat(out.dtype.type(0))
    for block in range(start, stop):
        r0 = block * wide
        some = min(wide, rows - r0)
        turn_in(x, r0, some, n_in, turned, wide)
        for i0 in range(0, n_out, GROUP * lanes):
            count = min(GROUP * lanes, n_out - i0)
            for i in range(i0, i0 + count):
                k, end, limit, o = first[i], first[i + 1], DEPTH, (i - i0) * wide
                while True:
                    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
                    while k < end and source[k] < limit:
                        v, at = splat(value[k]), source[k] * wide
                        a = fma(v, load(turned, at), a)
                        b = fma(v, load(turned, at + lanes), b)
                        c = fma(v, load(turned, at + 2 * lanes), c)
                        d = fma(v, load(turned, at + 3 * lanes), d)
                        e = fma(v, load(turned, at + 4 * lanes), e)
                        f = fma(v, load(turned, at + 5 * lanes), f)
                        g = fma(v, load(turned, at + 6 * lanes), g)
                        h = fma(v, load(turned, at + 7 * lanes), h)
                        k += 1
                    if limit > DEPTH:
                        a, b = load(scratch, o) + a, load(scratch, o + lanes) + b
                        c, d = load(scratch, o + 2 * lanes) + c, load(scratch, o + 3 * lanes) + d
                        e, f = load(scratch, o + 4 * lanes) + e, load(scratch, o + 5 * lanes) + f
                        g, h = load(scratch, o + 6 * lanes) + g, load(scratch, o + 7 * lanes) + h
                    store(scratch, o, a)
                    store(scratch, o + lanes, b)
                    store(scratch, o + 2 * lanes, c)
                    store(scratch, o + 3 * lanes, d)
                    store(scratch, o + 4 * lanes, e)
                    store(scratch, o + 5 * lanes, f)
                    store(scratch, o + 6 * lanes, g)
                    store(scratch, o + 7 * lanes, h)
                    limit += DEPTH
                    if k == end:
                        break
            turn_out(scratch, count, i0, some, r0, n_out, out, wide)


@njit(cache=True, nogil=True)
def _both(turned, up, j, first, target, value, sums, scratch, o, wide):  # type: ignore[no-untyped-def]
    """Do one source: the gradient of its input into scratch, the gradients of its weights added to sums."""
    lanes = lanes_of(turned)
    zero = splat(turned.dtype.type(0))
    at = j * wide
    xa, xb, xc, xd = (
        load(turned, at),
        load(turned, at + lanes),
        load(turned, at + 2 * lanes),
        load(turned, at + 3 * lanes),
    )
    at += 4 * lanes
    xe, xf, xg, xh = (
        load(turned, at),
        load(turned, at + lanes),
        load(turned, at + 2 * lanes),
        load(turned, at + 3 * lanes),
    )
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for k in range(first[j], first[j + 1]):
        v, at = splat(value[k]), target[k] * wide
        y = load(up, at)
        a = fma(v, y, a)
        s = xa * y
        y = load(up, at + lanes)
        b = fma(v, y, b)
        t = xb * y
        y = load(up, at + 2 * lanes)
        c = fma(v, y, c)
        s = fma(xc, y, s)
        y = load(up, at + 3 * lanes)
        d = fma(v, y, d)
        t = fma(xd, y, t)
        y = load(up, at + 4 * lanes)
        e = fma(v, y, e)
        s = fma(xe, y, s)
        y = load(up, at + 5 * lanes)
        f = fma(v, y, f)
        t = fma(xf, y, t)
        y = load(up, at + 6 * lanes)
        g = fma(v, y, g)
        s = fma(xg, y, s)
        y = load(up, at + 7 * lanes)
        h = fma(v, y, h)
        t = fma(xh, y, t)
        sums[k] += total_of(s + t)
    store(scratch, o, a)
    store(scratch, o + lanes, b)
    store(scratch, o + 2 * lanes, c)
    store(scratch, o + 3 * lanes, d)
    store(scratch, o + 4 * lanes, e)
    store(scratch, o + 5 * lanes, f)
    store(scratch, o + 6 * lanes, g)
    store(scratch, o + 7 * lanes, h)


@njit(cache=True, nogil=True)
def sparse_backward(
    x: Floats,
    upstream: Floats,
    first: Places,
    target: Places,
    value: Floats,
    rows: int,
    n_in: int,
    n_out: int,
    chunks: int,
    sums: Floats,
    dx: Floats,
    start: int,
    stop: int,
) -> None:
    """Write the gradient of x and add to the gradients of the weights, for chunks ``start .. stop - 1`` of the rows.

    Args:
        x: Shape (rows, n_in), flat.
        upstream: Gradient of the product, shape (rows, n_out), flat.
        first: First synapse of every source, shape (n_in + 1,).
        target: Target of every synapse.
        value: Its weight.
        rows: Steps times samples.
        n_in: Sources.
        n_out: Targets.
        chunks: Pieces that the blocks of rows are cut into.
        sums: Gradient of every weight, summed apart for each chunk, shape (chunks, synapses); added to.
        dx: Output, gradient of x, shape (rows, n_in), flat.
        start: First chunk.
        stop: Chunk after the last.
    """
    lanes = lanes_of(upstream)
    wide = VECTORS * lanes
    blocks = -(-rows // wide)
    turned = aligned_empty(n_in * wide, upstream)
    up = aligned_empty(n_out * wide, upstream)
    scratch = aligned_empty(GROUP * lanes * wide, upstream)
    for chunk in range(start, stop):
        mine = sums[chunk]
        for block in range(blocks * chunk // chunks, blocks * (chunk + 1) // chunks):
            r0 = block * wide
            some = min(wide, rows - r0)
            turn_in(x, r0, some, n_in, turned, wide)
            turn_in(upstream, r0, some, n_out, up, wide)
            for j0 in range(0, n_in, GROUP * lanes):
                count = min(GROUP * lanes, n_in - j0)
                for j in range(j0, j0 + count):
                    _both(turned, up, j, first, target, value, mine, scratch, (j - j0) * wide, wide)
                turn_out(scratch, count, j0, some, r0, n_in, dx, wide)


@njit(cache=True, nogil=True)
def sparse_weights(
    x: Floats,
    upstream: Floats,
    first: Places,
    target: Places,
    rows: int,
    n_in: int,
    n_out: int,
    chunks: int,
    sums: Floats,
    start: int,
    stop: int,
) -> None:
    """Add to the gradients of the weights alone; the arguments are those of :func:`sparse_backward`."""
    lanes = lanes_of(upstream)
    wide = VECTORS * lanes
    blocks = -(-rows // wide)
    turned = aligned_empty(n_in * wide, upstream)
    up = aligned_empty(n_out * wide, upstream)
    for chunk in range(start, stop):
        mine = sums[chunk]
        for block in range(blocks * chunk // chunks, blocks * (chunk + 1) // chunks):
            r0 = block * wide
            some = min(wide, rows - r0)
            turn_in(x, r0, some, n_in, turned, wide)
            turn_in(upstream, r0, some, n_out, up, wide)
            for j in range(n_in):
                at = j * wide
                xa, xb = load(turned, at), load(turned, at + lanes)
                xc, xd = load(turned, at + 2 * lanes), load(turned, at + 3 * lanes)
                at += 4 * lanes
                xe, xf = load(turned, at), load(turned, at + lanes)
                xg, xh = load(turned, at + 2 * lanes), load(turned, at + 3 * lanes)
                for k in range(first[j], first[j + 1]):
                    at = target[k] * wide
                    s = xa * load(up, at)
                    t = xb * load(up, at + lanes)
                    s = fma(xc, load(up, at + 2 * lanes), s)
                    t = fma(xd, load(up, at + 3 * lanes), t)
                    s = fma(xe, load(up, at + 4 * lanes), s)
                    t = fma(xf, load(up, at + 5 * lanes), t)
                    s = fma(xg, load(up, at + 6 * lanes), s)
                    t = fma(xh, load(up, at + 7 * lanes), t)
                    mine[k] += total_of(s + t)
