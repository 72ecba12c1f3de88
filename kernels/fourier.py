"""Discrete Fourier transforms over time of many real sequences at once, vectorised across the sequences.

A lane is one sequence: arrays of shape (time, lanes). Even and odd steps of a sequence of even length ``n`` become the
real and the imaginary part of a complex sequence of half the length; a Stockham transform with radices 2 to 5 runs over
a vector of lanes inside the first-level cache, and a last pass makes the spectrum of the whole from those of the
halves. The inverse goes the same way back. Lanes have nothing to do with each other, and each goes through one fixed
sequence of operations, so the bits do not depend on the number of threads.

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
    """Return the smallest even number not below ``n`` whose half has no prime factor above 5."""
    if n < 1:
        raise ValueError(f"smooth_length: expected at least 1, got {n}")
    half = -(-n // 2)
    while True:
        rest = half
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return 2 * half
        half += 1


def row_length(lanes: int) -> int:
    """Return the numbers a spectrum keeps for a row: whole lines, and rows that do not fall on one cache set."""
    return -(-lanes // 32) * 32 + 32


def lane_block(dtype: Any) -> int:
    """Return how many lanes are transformed together: two vectors, neighbours in memory."""
    return 2 * vector_lanes(dtype)


@dataclass(frozen=True)
class Plan:
    """How to transform sequences of one even length.

    Attributes:
        n: Length.
        radices: Radix of every stage of the transform of half the length, int64.
        twiddles: ``exp(-2 pi i p k / (radix m))`` of every stage in order of p and k = 1 .. radix - 1, real and
            imaginary in turn, flat.
        turns: ``exp(-2 pi i f / n)`` for f = 0 .. n / 2, real and imaginary in turn, flat.
    """

    n: int
    radices: npt.NDArray[np.int64]
    twiddles: Floats
    turns: Floats


@lru_cache(maxsize=128)
def plan(n: int, dtype: str) -> Plan:
    """Return the stages of a transform of an even length ``n`` whose half has no prime factor above 5."""
    half = n // 2
    radices, rest = [], half
    for radix in (5, 3, 4, 2):
        while rest > 1 and rest % radix == 0:
            radices.append(radix)
            rest //= radix
    if rest != 1 or n % 2:
        raise ValueError(f"plan: expected an even length whose half has no prime factor above 5, got {n}")
    twiddles, size = [], half
    for radix in radices:
        m = size // radix
        for p in range(m):
            for k in range(1, radix):
                twiddles += _turn(p * k, size)
        size = m
    turns = [part for f in range(half + 1) for part in _turn(f, n)]
    stages = np.array(radices or [1], dtype=np.int64)
    return Plan(n, stages, np.array(twiddles or [0.0], dtype=dtype), np.array(turns, dtype=dtype))


def _turn(k: int, n: int) -> list[float]:
    angle = -2 * math.pi * (k % n) / n
    return [math.cos(angle), math.sin(angle)]


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
def _whole(z, p, q, W, wr, wi):  # type: ignore[no-untyped-def]
    """Return the parts of the whole spectrum at one frequency from the halves' transform there and at its mirror."""
    half = splat(z.dtype.type(0.5))
    fr, fi, gr, gi = load(z, p), load(z, p + W), load(z, q), load(z, q + W)
    hr, hi = half * (fi + gi), half * (gr - fr)
    return fma(half, fr + gr, fms(hr, wr, hi * wi)), fma(half, fi - gi, fma(hr, wi, hi * wr))


@njit(cache=True, nogil=True)
def analyse(
    x: Floats,
    n_steps: int,
    lanes: int,
    n: int,
    radices: npt.NDArray[np.int64],
    twiddles: Floats,
    turns: Floats,
    out: Floats,
    row: int,
    start: int,
    stop: int,
) -> None:
    """Write the spectra of real sequences that are zero from ``n_steps`` on.

    With Z the transform of ``x[2k] + i x[2k + 1]`` and m = n / 2, the halves have ``E = (Z(f) + conj Z(m - f)) / 2``
    and ``O = (Z(f) - conj Z(m - f)) / 2i``, and ``X(f) = E + exp(-2 pi i f / n) O``.

    Args:
        x: Sequences, (n_steps, lanes), flat.
        n_steps: Length of the sequences, at most ``n``.
        lanes: Number of sequences.
        n: Length of the transform.
        radices: Of the plan.
        twiddles: Of the plan.
        turns: Of the plan.
        out: Output, flat, rows ``2 f + part``.
        row: Length of a row.
        start: First lane, a multiple of :func:`lane_block`.
        stop: Lane after the last.
    """
    W = lanes_of(x)
    zero = splat(x.dtype.type(0))
    a, b = aligned_empty(n * W, x), aligned_empty(n * W, x)
    c, d = aligned_empty(n * W, x), aligned_empty(n * W, x)
    m = n // 2
    for first in range(start, stop, 2 * W):
        if first + 2 * W <= lanes:
            for t in range(n_steps):
                store(a, t * W, load(x, t * lanes + first))
                store(c, t * W, load(x, t * lanes + first + W))
        else:
            for t in range(n_steps):
                for j in range(W):
                    a[t * W + j] = x[t * lanes + first + j] if first + j < lanes else 0
                    c[t * W + j] = x[t * lanes + first + W + j] if first + W + j < lanes else 0
        for t in range(n_steps, n):
            store(a, t * W, zero)
            store(c, t * W, zero)
        swapped = _transform(a, b, m, radices, twiddles)
        _transform(c, d, m, radices, twiddles)
        y, z = (b, d) if swapped else (a, c)
        for f in range(m + 1):
            p, q = 2 * (f % m) * W, 2 * ((m - f) % m) * W
            wr, wi = splat(turns[2 * f]), splat(turns[2 * f + 1])
            o = 2 * f * row + first
            real, imaginary = _whole(y, p, q, W, wr, wi)
            other_real, other_imaginary = _whole(z, p, q, W, wr, wi)
            store(out, o, real)
            store(out, o + W, other_real)
            store(out, o + row, imaginary)
            store(out, o + row + W, other_imaginary)


@njit(cache=True, nogil=True)
def _halves(spectrum, o, q, row, edge, wr, wi):  # type: ignore[no-untyped-def]
    """Return the exchanged parts of ``2 (E + i O)`` at one frequency."""
    fr, gr = load(spectrum, o), load(spectrum, q)
    fi, gi = load(spectrum, o + row), load(spectrum, q + row)
    if edge:
        zero = splat(spectrum.dtype.type(0))
        fi, gi = zero, zero
    dr, di = fr - gr, fi + gi
    return (fi - gi) + fma(dr, wr, di * wi), (fr + gr) - fms(di, wr, dr * wi)


@njit(cache=True, nogil=True)
def synthesise(
    spectrum: Floats,
    row: int,
    lanes: int,
    n: int,
    radices: npt.NDArray[np.int64],
    twiddles: Floats,
    turns: Floats,
    out: Floats,
    n_steps: int,
    start: int,
    stop: int,
) -> None:
    """Write the first ``n_steps`` of the real sequences that have these spectra; the inverse of :func:`analyse`.

    The imaginary parts at frequency 0 and ``n / 2`` are taken as zero.

    Args:
        spectrum: Rows ``2 f + part``, flat.
        row: Length of a row.
        lanes: Number of sequences.
        n: Length of the transform.
        radices: Of the plan.
        twiddles: Of the plan.
        turns: Of the plan.
        out: Output, (n_steps, lanes), flat.
        n_steps: Steps that are wanted.
        start: First lane, a multiple of :func:`lane_block`.
        stop: Lane after the last.
    """
    W = lanes_of(out)
    scale = splat(out.dtype.type(1.0 / n))
    one = out.dtype.type(1.0 / n)
    a, b = aligned_empty(n * W, out), aligned_empty(n * W, out)
    c, d = aligned_empty(n * W, out), aligned_empty(n * W, out)
    m = n // 2
    for first in range(start, stop, 2 * W):
        for f in range(m):  # parts are exchanged: the inverse is the transform of the exchanged numbers
            o, q = 2 * f * row + first, 2 * (m - f) * row + first
            wr, wi = splat(turns[2 * f]), splat(turns[2 * f + 1])
            low, high = _halves(spectrum, o, q, row, f == 0, wr, wi)
            other_low, other_high = _halves(spectrum, o + W, q + W, row, f == 0, wr, wi)
            store(a, 2 * f * W, low)
            store(a, (2 * f + 1) * W, high)
            store(c, 2 * f * W, other_low)
            store(c, (2 * f + 1) * W, other_high)
        swapped = _transform(a, b, m, radices, twiddles)
        _transform(c, d, m, radices, twiddles)
        y, z = (b, d) if swapped else (a, c)
        if first + 2 * W <= lanes:
            for t in range(n_steps):
                store(out, t * lanes + first, scale * load(y, (t ^ 1) * W))
                store(out, t * lanes + first + W, scale * load(z, (t ^ 1) * W))
        else:
            for t in range(n_steps):
                for j in range(min(W, lanes - first)):
                    out[t * lanes + first + j] = one * y[(t ^ 1) * W + j]
                for j in range(lanes - first - W):
                    out[t * lanes + first + W + j] = one * z[(t ^ 1) * W + j]
