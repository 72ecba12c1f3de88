"""Dense delay kernels from weights, positions and sigma, forward and backward (Numba).

One pass over the synapses, a vector of them at a time: the profile of a tap is built slot by slot, normalised and
added to the kernel without ever holding (n_delays, synapses, taps) arrays. Backward, a profile enters through six
sums only: with raw shares e, their derivative e' by position (or width), T = sum(e) + guard and the gradient g of the
kernel, the gradient of a normalised tap is ``(sum(g e') - sum(g e) / T sum(e')) / T``. Computed in the dtype of the
weights. Twin: :func:`snnsim.kernels.reference_delays.delay_profile`.

Versions are numbered by their place in :data:`snnsim.kernels.reference_delays.VERSIONS`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.reference_delays import NORMALISATION_GUARD, VERSIONS, WIDTH_OFFSET
from snnsim.kernels.simd import exponential, fma, lanes_of, load, splat, store, vector_lanes, where_greater

__all__ = ["kernel_backward", "kernel_forward"]

Array = npt.NDArray[np.floating]
PIECE = 2048
"""Synapses a piece of work."""

GAUSS, MAX, V0 = VERSIONS.index("gauss"), VERSIONS.index("max"), VERSIONS.index("v0")


@njit(cache=True, nogil=True)
def _gather(source, start, size, tap, out):  # type: ignore[no-untyped-def]
    """Copy one tap of some synapses into a vector's place; the lanes without a synapse become 0."""
    for j in range(out.shape[0]):
        out[j] = source[start + j, tap] if j < size else 0


@njit(cache=True, nogil=True, inline="always")
def _raw_share(u, width, factor, zero, gauss):  # type: ignore[no-untyped-def]
    """Return the raw share at distance ``u`` from the tap."""
    if gauss:
        return exponential(factor * (u * u))
    away = where_greater(u, zero, u, zero - u)
    return where_greater(width, away, width - away, zero)


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(weight, position, width, version, kernel, start, stop):  # type: ignore[no-untyped-def]
    n_delays, synapses = kernel.shape
    flat = kernel.reshape(-1)
    kind = kernel.dtype.type
    lanes = lanes_of(flat)
    gauss = version == GAUSS
    zero, one, guard = splat(kind(0)), splat(kind(1)), splat(kind(NORMALISATION_GUARD))
    reach, factor = splat(kind(width)), splat(kind(-0.5 / (width * width)))
    gathered = np.empty(lanes, kernel.dtype)
    share = np.empty(n_delays * lanes, kernel.dtype)
    dense = np.empty(n_delays * lanes, kernel.dtype)
    for first in range(start, stop, lanes):
        size = min(lanes, synapses - first)
        dense[:] = 0
        for tap in range(weight.shape[1]):
            _gather(position, first, size, tap, gathered)
            delay = splat(kind(n_delays // 2)) - load(gathered, 0)
            _gather(weight, first, size, tap, gathered)
            scale = load(gathered, 0)
            total = guard
            for slot in range(n_delays):
                value = _raw_share(delay - splat(kind(slot)), reach, factor, zero, gauss)
                store(share, slot * lanes, value)
                total = total + value
            if version != V0:
                scale = scale * (one / total)
            for slot in range(n_delays):
                at = slot * lanes
                store(dense, at, fma(scale, load(share, at), load(dense, at)))
        for slot in range(n_delays):
            if size == lanes:
                store(flat, slot * synapses + first, load(dense, slot * lanes))
            else:
                for j in range(size):
                    flat[slot * synapses + first + j] = dense[slot * lanes + j]


@njit(cache=True, nogil=True, error_model="numpy")
def _backward(  # type: ignore[no-untyped-def]
    weight, position, width, sign, version, dkernel, dweight, dposition, dsigma, start, stop
):
    n_delays, synapses = dkernel.shape
    flat = dkernel.reshape(-1)
    kind = dkernel.dtype.type
    lanes = lanes_of(flat)
    gauss = version == GAUSS
    zero, one, guard = splat(kind(0)), splat(kind(1)), splat(kind(NORMALISATION_GUARD))
    reach, factor = splat(kind(width)), splat(kind(-0.5 / (width * width)))
    gathered = np.empty(lanes, dkernel.dtype)
    results = np.empty(3 * lanes, dkernel.dtype)
    gradient = np.empty(n_delays * lanes, dkernel.dtype)
    for first in range(start, stop, lanes):
        size = min(lanes, synapses - first)
        for slot in range(n_delays):
            if size == lanes:
                store(gradient, slot * lanes, load(flat, slot * synapses + first))
            else:
                for j in range(lanes):
                    gradient[slot * lanes + j] = flat[slot * synapses + first + j] if j < size else 0
        by_sigma = 0.0
        for tap in range(weight.shape[1]):
            _gather(position, first, size, tap, gathered)
            delay = splat(kind(n_delays // 2)) - load(gathered, 0)
            shares, slopes, widenings = zero, zero, zero  # slopes by position, widenings by width
            g_shares, g_slopes, g_widenings = zero, zero, zero
            for slot in range(n_delays):
                u = delay - splat(kind(slot))
                share = _raw_share(u, reach, factor, zero, gauss)
                if gauss:
                    slope = share * u
                    widening = slope * u
                else:
                    inside = where_greater(share, zero, one, zero)
                    slope = where_greater(u, zero, inside, where_greater(zero, u, zero - inside, zero))
                    widening = inside
                    if version != MAX:  # the triangle of unit width: the left derivative where it has a kink
                        slope = where_greater(u, one, zero, where_greater(u, zero, one, zero - one))
                        slope = where_greater(u, zero - one, slope, zero)
                        widening = zero
                g = load(gradient, slot * lanes)
                shares = shares + share
                slopes = slopes + slope
                widenings = widenings + widening
                g_shares = fma(g, share, g_shares)
                g_slopes = fma(g, slope, g_slopes)
                g_widenings = fma(g, widening, g_widenings)
            if version != V0:
                scale = one / (shares + guard)
                g_shares = g_shares * scale
                g_slopes = (g_slopes - g_shares * slopes) * scale
                g_widenings = (g_widenings - g_shares * widenings) * scale
            if gauss:
                g_slopes = g_slopes * splat(kind(1.0 / (width * width)))
                g_widenings = g_widenings * splat(kind(1.0 / (width * width * width)))
            store(results, 0, g_shares)
            store(results, lanes, g_slopes)
            store(results, 2 * lanes, g_widenings)
            for j in range(size):
                w = weight[first + j, tap]
                dweight[first + j, tap] = results[j]
                dposition[first + j, tap] = results[lanes + j] * w
                by_sigma += float(results[2 * lanes + j]) * sign * float(w)
        dsigma[first // lanes] = by_sigma


def kernel_forward(
    weight: Array, position: Array, sigma: float, version: str, n_delays: int, threads: int = 1
) -> Array:
    """Return the dense kernel, shape (n_delays, synapses), dtype of ``weight``.

    Args:
        weight: Shape (synapses, taps).
        position: Shape (synapses, taps).
        sigma: Stored width SIG.
        version: One of :data:`~snnsim.kernels.reference_delays.VERSIONS`.
        n_delays: Number of delay slots.
        threads: Threads; the result does not depend on them.
    """
    kernel = np.empty((n_delays, weight.shape[0]), dtype=weight.dtype)
    arguments = (weight, position, _width(sigma, version), VERSIONS.index(version), kernel)
    run_ranges(_forward, arguments, weight.shape[0], threads, PIECE)
    return kernel


def kernel_backward(
    weight: Array, position: Array, sigma: float, version: str, dkernel: Array, threads: int = 1
) -> tuple[Array, Array, float]:
    """Return the gradients by weight and position, (synapses, taps) each, and by sigma.

    Args:
        weight: Shape (synapses, taps).
        position: Shape (synapses, taps).
        sigma: Stored width SIG.
        version: Interpolation kernel.
        dkernel: Gradient by the dense kernel, shape (n_delays, synapses).
        threads: Threads; the result does not depend on them.
    """
    dweight = np.empty_like(weight)
    dposition = np.empty_like(weight)
    dsigma = np.zeros(-(-weight.shape[0] // vector_lanes(weight.dtype)))
    sign = -1.0 if sigma < 0 else 1.0
    numbers = (weight, position, _width(sigma, version), sign, VERSIONS.index(version))
    run_ranges(_backward, (*numbers, dkernel, dweight, dposition, dsigma), weight.shape[0], threads, PIECE)
    return dweight, dposition, float(dsigma.sum())


def _width(sigma: float, version: str) -> float:
    """Return the true width; the triangle of ``v0`` and ``v1`` reaches one step."""
    return 1.0 if version in ("v0", "v1") else abs(sigma) + WIDTH_OFFSET[version]
