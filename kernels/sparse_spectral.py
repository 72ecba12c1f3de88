"""Products of sparse complex matrices with dense ones, one for each frequency: delay layers with few synapses.

Rows of the input (samples) are taken in blocks of :data:`VECTORS` vectors and turned inside the cache, real and
imaginary parts apart, so that one synapse acts on a whole block at once, as in :mod:`snnsim.kernels.sparse_product`.
Synapses are in the order of their sources: the backward product walks along them, the forward one looks them up by
target. Each frequency is one piece of work with a fixed order of operations, so the bits do not depend on the number of
threads.

NumPy definition: :mod:`snnsim.kernels.reference_sparse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.simd import aligned_empty, fma, lanes_of, load, splat, store, total_of
from snnsim.kernels.sparse_product import GROUP, turn_in, turn_out

__all__ = ["VECTORS", "sparse_spectra_backward", "sparse_spectra_forward", "sparse_spectra_weights"]

VECTORS = 4
"""Vectors of samples a block: with real and imaginary parts eight sums stay in registers."""

Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int32]


@njit(cache=True, nogil=True)
def _turn_parts(spectra, f, row, r0, some, n, real, imag, wide):  # type: ignore[no-untyped-def]
    """Turn a block of samples of both parts of a frequency."""
    for part in range(2):
        at = (2 * f + part) * row
        turn_in(spectra[at : at + row], r0, some, n, real if part == 0 else imag, wide)


@njit(cache=True, nogil=True)
def _turn_back(p, q, count, j0, some, r0, n, spectra, f, row, wide):  # type: ignore[no-untyped-def]
    """Turn both parts of some columns back into the spectra."""
    for part in range(2):
        at = (2 * f + part) * row
        turn_out(p if part == 0 else q, count, j0, some, r0, n, spectra[at : at + row], wide)


@njit(cache=True, nogil=True)
def sparse_spectra_forward(
    x: Floats,
    x_row: int,
    h: Floats,
    h_row: int,
    first: Places,
    source: Places,
    place: Places,
    batch: int,
    n_in: int,
    n_out: int,
    out: Floats,
    out_row: int,
    start: int,
    stop: int,
) -> None:
    """Write ``out(f) = x(f) H(f)^T`` for frequencies ``start .. stop - 1``; rows are those of :mod:`fourier` spectra.

    Args:
        x: Spectra of the input: real part of frequency f in row ``2 f``, imaginary part in row ``2 f + 1``, flat.
        x_row: Length of a row of ``x``.
        h: Spectra of the synapses.
        h_row: Length of a row of ``h``.
        first: First synapse of every target, shape (n_out + 1,).
        source: Source of every synapse in the order of targets.
        place: Its place in ``h``.
        batch: Samples.
        n_in: Sources.
        n_out: Targets.
        out: Output.
        out_row: Length of a row of ``out``.
        start: First frequency.
        stop: Frequency after the last.
    """
    lanes = lanes_of(x)
    wide = VECTORS * lanes
    real, imag = aligned_empty(n_in * wide, x), aligned_empty(n_in * wide, x)
    p, q = aligned_empty(GROUP * lanes * wide, x), aligned_empty(GROUP * lanes * wide, x)
    zero = splat(x.dtype.type(0))
    for f in range(start, stop):
        hr, hi = h[2 * f * h_row : (2 * f + 1) * h_row], h[(2 * f + 1) * h_row : (2 * f + 2) * h_row]
        for r0 in range(0, batch, wide):
            some = min(wide, batch - r0)
            _turn_parts(x, f, x_row, r0, some, n_in, real, imag, wide)
            for i0 in range(0, n_out, GROUP * lanes):
                count = min(GROUP * lanes, n_out - i0)
                for i in range(i0, i0 + count):
                    a, b, c, d, e, g, m, n = zero, zero, zero, zero, zero, zero, zero, zero
                    for k in range(first[i], first[i + 1]):
                        at, s = source[k] * wide, place[k]
                        u, w = splat(hr[s]), splat(hi[s])
                        minus = splat(-hi[s])
                        y, z = load(real, at), load(imag, at)
                        a = fma(u, y, fma(minus, z, a))
                        e = fma(u, z, fma(w, y, e))
                        y, z = load(real, at + lanes), load(imag, at + lanes)
                        b = fma(u, y, fma(minus, z, b))
                        g = fma(u, z, fma(w, y, g))
                        y, z = load(real, at + 2 * lanes), load(imag, at + 2 * lanes)
                        c = fma(u, y, fma(minus, z, c))
                        m = fma(u, z, fma(w, y, m))
                        y, z = load(real, at + 3 * lanes), load(imag, at + 3 * lanes)
                        d = fma(u, y, fma(minus, z, d))
                        n = fma(u, z, fma(w, y, n))
                    o = (i - i0) * wide
                    store(p, o, a)
                    store(p, o + lanes, b)
                    store(p, o + 2 * lanes, c)
                    store(p, o + 3 * lanes, d)
                    store(q, o, e)
                    store(q, o + lanes, g)
                    store(q, o + 2 * lanes, m)
                    store(q, o + 3 * lanes, n)
                _turn_back(p, q, count, i0, some, r0, n_out, out, f, out_row, wide)


@njit(cache=True, nogil=True)
def sparse_spectra_backward(
    x: Floats,
    x_row: int,
    up: Floats,
    up_row: int,
    h: Floats,
    h_row: int,
    first: Places,
    target: Places,
    batch: int,
    n_in: int,
    n_out: int,
    dx: Floats,
    dx_row: int,
    dh: Floats,
    start: int,
    stop: int,
) -> None:
    """Write ``dx(f) = up(f) conj(H(f))`` and ``dH(f) = up(f)^T conj(x(f))`` on the synapses.

    Args:
        x: Spectra of the input.
        x_row: Length of a row of ``x``.
        up: Spectra of the gradient of the output.
        up_row: Length of a row of ``up``.
        h: Spectra of the synapses, in the order of sources.
        h_row: Length of a row of ``h`` and of ``dh``.
        first: First synapse of every source, shape (n_in + 1,).
        target: Target of every synapse.
        batch: Samples.
        n_in: Sources.
        n_out: Targets.
        dx: Output, spectra of the gradient of x.
        dx_row: Length of a row of ``dx``.
        dh: Output, spectra of the gradients of the synapses.
        start: First frequency.
        stop: Frequency after the last.
    """
    lanes = lanes_of(x)
    wide = VECTORS * lanes
    real, imag = aligned_empty(n_in * wide, x), aligned_empty(n_in * wide, x)
    upr, upi = aligned_empty(n_out * wide, x), aligned_empty(n_out * wide, x)
    p, q = aligned_empty(GROUP * lanes * wide, x), aligned_empty(GROUP * lanes * wide, x)
    zero = splat(x.dtype.type(0))
    for f in range(start, stop):
        hr, hi = h[2 * f * h_row : (2 * f + 1) * h_row], h[(2 * f + 1) * h_row : (2 * f + 2) * h_row]
        gr, gi = dh[2 * f * h_row : (2 * f + 1) * h_row], dh[(2 * f + 1) * h_row : (2 * f + 2) * h_row]
        gr[:], gi[:] = 0, 0
        for r0 in range(0, batch, wide):
            some = min(wide, batch - r0)
            _turn_parts(x, f, x_row, r0, some, n_in, real, imag, wide)
            _turn_parts(up, f, up_row, r0, some, n_out, upr, upi, wide)
            for j0 in range(0, n_in, GROUP * lanes):
                count = min(GROUP * lanes, n_in - j0)
                for j in range(j0, j0 + count):
                    at = j * wide
                    xa, xb = load(real, at), load(real, at + lanes)
                    xc, xd = load(real, at + 2 * lanes), load(real, at + 3 * lanes)
                    xe, xf = load(imag, at), load(imag, at + lanes)
                    xg, xh = load(imag, at + 2 * lanes), load(imag, at + 3 * lanes)
                    a, b, c, d, e, g, m, n = zero, zero, zero, zero, zero, zero, zero, zero
                    for k in range(first[j], first[j + 1]):
                        o = target[k] * wide
                        u, w, minus = splat(hr[k]), splat(hi[k]), splat(-hi[k])
                        y, z = load(upr, o), load(upi, o)
                        a = fma(u, y, fma(w, z, a))
                        e = fma(u, z, fma(minus, y, e))
                        s = fma(z, xe, y * xa)
                        t1 = z * xa
                        t2 = y * xe
                        y, z = load(upr, o + lanes), load(upi, o + lanes)
                        b = fma(u, y, fma(w, z, b))
                        g = fma(u, z, fma(minus, y, g))
                        s = fma(z, xf, fma(y, xb, s))
                        t1 = fma(z, xb, t1)
                        t2 = fma(y, xf, t2)
                        y, z = load(upr, o + 2 * lanes), load(upi, o + 2 * lanes)
                        c = fma(u, y, fma(w, z, c))
                        m = fma(u, z, fma(minus, y, m))
                        s = fma(z, xg, fma(y, xc, s))
                        t1 = fma(z, xc, t1)
                        t2 = fma(y, xg, t2)
                        y, z = load(upr, o + 3 * lanes), load(upi, o + 3 * lanes)
                        d = fma(u, y, fma(w, z, d))
                        n = fma(u, z, fma(minus, y, n))
                        s = fma(z, xh, fma(y, xd, s))
                        t1 = fma(z, xd, t1)
                        t2 = fma(y, xh, t2)
                        gr[k] += total_of(s)
                        gi[k] += total_of(t1 - t2)
                    o = (j - j0) * wide
                    store(p, o, a)
                    store(p, o + lanes, b)
                    store(p, o + 2 * lanes, c)
                    store(p, o + 3 * lanes, d)
                    store(q, o, e)
                    store(q, o + lanes, g)
                    store(q, o + 2 * lanes, m)
                    store(q, o + 3 * lanes, n)
                _turn_back(p, q, count, j0, some, r0, n_in, dx, f, dx_row, wide)


@njit(cache=True, nogil=True)
def sparse_spectra_weights(
    x: Floats,
    x_row: int,
    up: Floats,
    up_row: int,
    h_row: int,
    first: Places,
    target: Places,
    batch: int,
    n_in: int,
    n_out: int,
    dh: Floats,
    start: int,
    stop: int,
) -> None:
    """Write ``dH(f) = up(f)^T conj(x(f))`` alone; the arguments are those of :func:`sparse_spectra_backward`."""
    lanes = lanes_of(x)
    wide = VECTORS * lanes
    real, imag = aligned_empty(n_in * wide, x), aligned_empty(n_in * wide, x)
    upr, upi = aligned_empty(n_out * wide, x), aligned_empty(n_out * wide, x)
    for f in range(start, stop):
        gr, gi = dh[2 * f * h_row : (2 * f + 1) * h_row], dh[(2 * f + 1) * h_row : (2 * f + 2) * h_row]
        gr[:], gi[:] = 0, 0
        for r0 in range(0, batch, wide):
            some = min(wide, batch - r0)
            _turn_parts(x, f, x_row, r0, some, n_in, real, imag, wide)
            _turn_parts(up, f, up_row, r0, some, n_out, upr, upi, wide)
            for j in range(n_in):
                at = j * wide
                xa, xb = load(real, at), load(real, at + lanes)
                xc, xd = load(real, at + 2 * lanes), load(real, at + 3 * lanes)
                xe, xf = load(imag, at), load(imag, at + lanes)
                xg, xh = load(imag, at + 2 * lanes), load(imag, at + 3 * lanes)
                for k in range(first[j], first[j + 1]):
                    o = target[k] * wide
                    y, z = load(upr, o), load(upi, o)
                    s = fma(z, xe, y * xa)
                    t1 = z * xa
                    t2 = y * xe
                    y, z = load(upr, o + lanes), load(upi, o + lanes)
                    s = fma(z, xf, fma(y, xb, s))
                    t1 = fma(z, xb, t1)
                    t2 = fma(y, xf, t2)
                    y, z = load(upr, o + 2 * lanes), load(upi, o + 2 * lanes)
                    s = fma(z, xg, fma(y, xc, s))
                    t1 = fma(z, xc, t1)
                    t2 = fma(y, xg, t2)
                    y, z = load(upr, o + 3 * lanes), load(upi, o + 3 * lanes)
                    s = fma(z, xh, fma(y, xd, s))
                    t1 = fma(z, xd, t1)
                    t2 = fma(y, xh, t2)
                    gr[k] += total_of(s)
                    gi[k] += total_of(t1 - t2)
