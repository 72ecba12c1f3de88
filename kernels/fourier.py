"""Discrete Fourier transforms over time of many real sequences at once, vectorised across the sequences.

A lane is one sequence: arrays of shape (time, lanes). Two vectors of lanes become the real and the imaginary part of
one complex vector sequence; a Stockham transform with radices 2 to 5 runs over it inside the first-level cache, and
the two spectra are taken apart by their symmetry. The inverse goes the same way back. Both are fixed sequences of
operations on each lane, so the bits do not depend on the number of threads.

A spectrum has one row for each frequency ``f = 0 .. n // 2`` and part (real, imaginary): flat, with
``row_length(lanes)`` numbers a row, row ``2 f + part``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.simd import aligned_empty, fma, fms, lanes_of, load, splat, store, vector_lanes

__all__ = ["Plan", "analyse", "lane_block", "plan", "row_length", "smooth_length", "synthesise"]

Floats = npt.NDArray[np.floating[Any]]


def smooth_length(n: int) -> int:
    """Return the smallest number not below ``n`` that has no prime factor above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def row_length(lanes: int) -> int:
    """Return the numbers a spectrum keeps for a row: whole lines, and rows that do not fall on one cache set."""
    return -(-lanes // 32) * 32 + 32


def lane_block(dtype: Any) -> int:
    """Return how many lanes are transformed together."""
    return 2 * vector_lanes(dtype)


@dataclass(frozen=True)
class Plan:
    """How to transform sequences of one length.

    Attributes:
        n: Length.
        radices: Radix of every stage, int64.
        twiddles: ``exp(-2 pi i p k / (radix m))`` of every stage in order of p and k = 1 .. radix - 1, real and
            imaginary in turn, flat.
    """

    n: int
    radices: npt.NDArray[np.int64]
    twiddles: Floats


@lru_cache(maxsize=128)
def plan(n: int, dtype: str) -> Plan:
    """Return the stages of a transform of length ``n`` (no prime factor above 5)."""
    radices, rest = [], n
    for radix in (5, 3, 4, 2):
        while rest % radix == 0:
            radices.append(radix)
            rest //= radix
    if rest != 1:
        raise ValueError(f"plan: expected a length without prime factors above 5, got {n}")
    twiddles, size = [], n
    for radix in radices:
        m = size // radix
        for p in range(m):
            for k in range(1, radix):
                angle = -2 * math.pi * ((p * k) % size) / size
                twiddles += [math.cos(angle), math.sin(angle)]
        size = m
    return Plan(n, np.array(radices or [1], dtype=np.int64), np.array(twiddles or [0.0], dtype=dtype))


@njit(cache=True, nogil=True)
def _stage_2(a: Floats, b: Floats, m: int, s: int, w: Floats, at: int) -> None:
    W = lanes_of(a)
    for p in range(m):
        wr, wi = splat(w[at + 2 * p]), splat(w[at + 2 * p + 1])
        for q in range(s):
            i0, i1 = 2 * W * (q + s * p), 2 * W * (q + s * (p + m))
            r0, j0, r1, j1 = load(a, i0), load(a, i0 + W), load(a, i1), load(a, i1 + W)
            o = 2 * W * (q + s * 2 * p)
            store(b, o, r0 + r1)
            store(b, o + W, j0 + j1)
            o += 2 * W * s
            r, j = r0 - r1, j0 - j1
            if p == 0:
                store(b, o, r)
                store(b, o + W, j)
            else:
                store(b, o, fms(r, wr, j * wi))
                store(b, o + W, fma(r, wi, j * wr))


@njit(cache=True, nogil=True)
def _stage_3(a: Floats, b: Floats, m: int, s: int, w: Floats, at: int) -> None:
    W = lanes_of(a)
    half, root = splat(w.dtype.type(0.5)), splat(w.dtype.type(math.sqrt(0.75)))
    for p in range(m):
        k = at + 4 * p
        w1r, w1i, w2r, w2i = splat(w[k]), splat(w[k + 1]), splat(w[k + 2]), splat(w[k + 3])
        for q in range(s):
            i0 = 2 * W * (q + s * p)
            i1 = i0 + 2 * W * s * m
            i2 = i1 + 2 * W * s * m
            r0, j0, r1, j1, r2, j2 = (
                load(a, i0),
                load(a, i0 + W),
                load(a, i1),
                load(a, i1 + W),
                load(a, i2),
                load(a, i2 + W),
            )
            tr, ti, dr, di = r1 + r2, j1 + j2, (r1 - r2) * root, (j1 - j2) * root
            mr, mi = r0 - tr * half, j0 - ti * half
            o = 2 * W * (q + s * 3 * p)
            store(b, o, r0 + tr)
            store(b, o + W, j0 + ti)
            y1r, y1i, y2r, y2i = mr + di, mi - dr, mr - di, mi + dr
            if p > 0:
                y1r, y1i = fms(y1r, w1r, y1i * w1i), fma(y1r, w1i, y1i * w1r)
                y2r, y2i = fms(y2r, w2r, y2i * w2i), fma(y2r, w2i, y2i * w2r)
            o += 2 * W * s
            store(b, o, y1r)
            store(b, o + W, y1i)
            o += 2 * W * s
            store(b, o, y2r)
            store(b, o + W, y2i)


@njit(cache=True, nogil=True)
def _stage_4(a: Floats, b: Floats, m: int, s: int, w: Floats, at: int) -> None:
    W = lanes_of(a)
    for p in range(m):
        k = at + 6 * p
        w1r, w1i, w2r, w2i = splat(w[k]), splat(w[k + 1]), splat(w[k + 2]), splat(w[k + 3])
        w3r, w3i = splat(w[k + 4]), splat(w[k + 5])
        for q in range(s):
            i0 = 2 * W * (q + s * p)
            i1 = i0 + 2 * W * s * m
            i2 = i1 + 2 * W * s * m
            i3 = i2 + 2 * W * s * m
            r0, j0, r1, j1 = load(a, i0), load(a, i0 + W), load(a, i1), load(a, i1 + W)
            r2, j2, r3, j3 = load(a, i2), load(a, i2 + W), load(a, i3), load(a, i3 + W)
            pr, pi, mr, mi = r0 + r2, j0 + j2, r0 - r2, j0 - j2
            qr, qi, nr, ni = r1 + r3, j1 + j3, r1 - r3, j1 - j3
            o = 2 * W * (q + s * 4 * p)
            store(b, o, pr + qr)
            store(b, o + W, pi + qi)
            y1r, y1i, y2r, y2i, y3r, y3i = mr + ni, mi - nr, pr - qr, pi - qi, mr - ni, mi + nr
            if p > 0:
                y1r, y1i = fms(y1r, w1r, y1i * w1i), fma(y1r, w1i, y1i * w1r)
                y2r, y2i = fms(y2r, w2r, y2i * w2i), fma(y2r, w2i, y2i * w2r)
                y3r, y3i = fms(y3r, w3r, y3i * w3i), fma(y3r, w3i, y3i * w3r)
            o += 2 * W * s
            store(b, o, y1r)
            store(b, o + W, y1i)
            o += 2 * W * s
            store(b, o, y2r)
            store(b, o + W, y2i)
            o += 2 * W * s
            store(b, o, y3r)
            store(b, o + W, y3i)


@njit(cache=True, nogil=True)
def _stage_5(a: Floats, b: Floats, m: int, s: int, w: Floats, at: int) -> None:
    W = lanes_of(a)
    kind = w.dtype.type
    c1, c2 = splat(kind(math.cos(0.4 * math.pi))), splat(kind(math.cos(0.8 * math.pi)))
    s1, s2 = splat(kind(math.sin(0.4 * math.pi))), splat(kind(math.sin(0.8 * math.pi)))
    for p in range(m):
        k = at + 8 * p
        w1r, w1i, w2r, w2i = splat(w[k]), splat(w[k + 1]), splat(w[k + 2]), splat(w[k + 3])
        w3r, w3i, w4r, w4i = splat(w[k + 4]), splat(w[k + 5]), splat(w[k + 6]), splat(w[k + 7])
        for q in range(s):
            i0 = 2 * W * (q + s * p)
            i1 = i0 + 2 * W * s * m
            i2 = i1 + 2 * W * s * m
            i3 = i2 + 2 * W * s * m
            i4 = i3 + 2 * W * s * m
            r0, j0, r1, j1 = load(a, i0), load(a, i0 + W), load(a, i1), load(a, i1 + W)
            r2, j2, r3, j3 = load(a, i2), load(a, i2 + W), load(a, i3), load(a, i3 + W)
            r4, j4 = load(a, i4), load(a, i4 + W)
            pr, pi, nr, ni = r1 + r4, j1 + j4, r1 - r4, j1 - j4
            qr, qi, or_, oi = r2 + r3, j2 + j3, r2 - r3, j2 - j3
            o = 2 * W * (q + s * 5 * p)
            store(b, o, r0 + pr + qr)
            store(b, o + W, j0 + pi + qi)
            ar, ai = fma(c1, pr, fma(c2, qr, r0)), fma(c1, pi, fma(c2, qi, j0))
            br, bi = fma(c2, pr, fma(c1, qr, r0)), fma(c2, pi, fma(c1, qi, j0))
            ur, ui = fma(s1, nr, s2 * or_), fma(s1, ni, s2 * oi)
            vr, vi = fms(s2, nr, s1 * or_), fms(s2, ni, s1 * oi)
            y1r, y1i, y4r, y4i = ar + ui, ai - ur, ar - ui, ai + ur
            y2r, y2i, y3r, y3i = br + vi, bi - vr, br - vi, bi + vr
            if p > 0:
                y1r, y1i = fms(y1r, w1r, y1i * w1i), fma(y1r, w1i, y1i * w1r)
                y2r, y2i = fms(y2r, w2r, y2i * w2i), fma(y2r, w2i, y2i * w2r)
                y3r, y3i = fms(y3r, w3r, y3i * w3i), fma(y3r, w3i, y3i * w3r)
                y4r, y4i = fms(y4r, w4r, y4i * w4i), fma(y4r, w4i, y4i * w4r)
            o += 2 * W * s
            store(b, o, y1r)
            store(b, o + W, y1i)
            o += 2 * W * s
            store(b, o, y2r)
            store(b, o + W, y2i)
            o += 2 * W * s
            store(b, o, y3r)
            store(b, o + W, y3i)
            o += 2 * W * s
            store(b, o, y4r)
            store(b, o + W, y4i)


@njit(cache=True, nogil=True)
def _transform(a: Floats, b: Floats, n: int, radices: npt.NDArray[np.int64], twiddles: Floats) -> bool:
    """Transform the complex vectors in ``a`` (n, part, lane); return whether the result is in ``b``."""
    size, s, at, swapped = n, 1, 0, False
    for radix in radices:
        m = size // radix
        source, target = (b, a) if swapped else (a, b)
        if radix == 2:
            _stage_2(source, target, m, s, twiddles, at)
        elif radix == 3:
            _stage_3(source, target, m, s, twiddles, at)
        elif radix == 4:
            _stage_4(source, target, m, s, twiddles, at)
        elif radix == 5:
            _stage_5(source, target, m, s, twiddles, at)
        else:
            break
        swapped = not swapped
        at += 2 * m * (radix - 1)
        size, s = m, s * radix
    return swapped


@njit(cache=True, nogil=True)
def analyse(
    x: Floats,
    n_steps: int,
    lanes: int,
    n: int,
    radices: npt.NDArray[np.int64],
    twiddles: Floats,
    out: Floats,
    row: int,
    start: int,
    stop: int,
) -> None:
    """Write the spectra of real sequences that are zero from ``n_steps`` on.

    Args:
        x: Sequences, (n_steps, lanes), flat.
        n_steps: Length of the sequences, at most ``n``.
        lanes: Number of sequences.
        n: Length of the transform.
        radices: Of the plan.
        twiddles: Of the plan.
        out: Output, flat, rows ``2 f + part``.
        row: Length of a row.
        start: First lane, a multiple of :func:`lane_block`.
        stop: Lane after the last.
    """
    W = lanes_of(x)
    zero, half = splat(x.dtype.type(0)), splat(x.dtype.type(0.5))
    a, b = aligned_empty(2 * n * W, x), aligned_empty(2 * n * W, x)
    for first in range(start, stop, 2 * W):
        if first + 2 * W <= lanes:
            for t in range(n_steps):
                store(a, 2 * t * W, load(x, t * lanes + first))
                store(a, (2 * t + 1) * W, load(x, t * lanes + first + W))
        else:
            for t in range(n_steps):
                for j in range(2 * W):
                    a[2 * t * W + j] = x[t * lanes + first + j] if first + j < lanes else 0
        for t in range(n_steps, n):
            store(a, 2 * t * W, zero)
            store(a, (2 * t + 1) * W, zero)
        z = b if _transform(a, b, n, radices, twiddles) else a
        for f in range(n // 2 + 1):
            g = (n - f) % n
            fr, fi = load(z, 2 * f * W), load(z, (2 * f + 1) * W)
            gr, gi = load(z, 2 * g * W), load(z, (2 * g + 1) * W)
            o = 2 * f * row + first
            store(out, o, half * (fr + gr))
            store(out, o + W, half * (fi + gi))
            store(out, o + row, half * (fi - gi))
            store(out, o + row + W, half * (gr - fr))


@njit(cache=True, nogil=True)
def synthesise(
    spectrum: Floats,
    row: int,
    lanes: int,
    n: int,
    radices: npt.NDArray[np.int64],
    twiddles: Floats,
    out: Floats,
    n_steps: int,
    start: int,
    stop: int,
) -> None:
    """Write the first ``n_steps`` of the real sequences that have these spectra; the inverse of :func:`analyse`.

    The imaginary parts at frequency 0 and, for an even length, at ``n / 2`` are taken as zero.

    Args:
        spectrum: Rows ``2 f + part``, flat.
        row: Length of a row.
        lanes: Number of sequences.
        n: Length of the transform.
        radices: Of the plan.
        twiddles: Of the plan.
        out: Output, (n_steps, lanes), flat.
        n_steps: Steps that are wanted.
        start: First lane, a multiple of :func:`lane_block`.
        stop: Lane after the last.
    """
    W = lanes_of(out)
    scale = splat(out.dtype.type(1.0 / n))
    a, b = aligned_empty(2 * n * W, out), aligned_empty(2 * n * W, out)
    for first in range(start, stop, 2 * W):
        for f in range(n // 2 + 1):  # parts are exchanged: the inverse is the transform of the exchanged numbers
            g = (n - f) % n
            o = 2 * f * row + first
            ar, br = load(spectrum, o), load(spectrum, o + W)
            if f == g:
                store(a, (2 * f + 1) * W, ar)
                store(a, 2 * f * W, br)
            else:
                ai, bi = load(spectrum, o + row), load(spectrum, o + row + W)
                store(a, (2 * f + 1) * W, ar - bi)
                store(a, 2 * f * W, ai + br)
                store(a, (2 * g + 1) * W, ar + bi)
                store(a, 2 * g * W, br - ai)
        z = b if _transform(a, b, n, radices, twiddles) else a
        if first + 2 * W <= lanes:
            for t in range(n_steps):
                store(out, t * lanes + first, scale * load(z, (2 * t + 1) * W))
                store(out, t * lanes + first + W, scale * load(z, 2 * t * W))
        else:
            one = out.dtype.type(1.0 / n)
            for t in range(n_steps):
                for j in range(min(2 * W, lanes - first)):
                    k = (2 * t + 1) * W + j if j < W else 2 * t * W + j - W
                    out[t * lanes + first + j] = one * z[k]
