"""Dense delay kernels from weights, positions and sigma, forward and backward (Numba).

One pass over the synapses in blocks: the profile of a tap is built, normalised and added to the kernel without
ever holding (n_delays, synapses, taps) arrays. A Gaussian costs four exponentials a tap instead of n_delays,
because neighbouring slots follow from each other by two products, and only the slots within its reach are touched.
Backward, a profile enters through six sums only: with raw shares e, their derivative e' by position (or width),
T = sum(e) + guard and the gradient g of the kernel, the gradient of a normalised tap is
``(sum(g e') - sum(g e) / T sum(e')) / T``. Twin: :func:`snnsim.kernels.reference_delays.delay_profile`.

Versions are numbered by their place in :data:`snnsim.kernels.reference_delays.VERSIONS`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from snnsim.kernels.reference_delays import NORMALISATION_GUARD, VERSIONS, WIDTH_OFFSET

__all__ = ["kernel_backward", "kernel_forward"]

Array = npt.NDArray[np.floating]
BLOCK = 64
REACH = 9.5
"""A Gaussian's tail beyond this many widths is below 3e-20 of its peak, less than any sum of shares can hold."""

GAUSS, MAX, V0 = VERSIONS.index("gauss"), VERSIONS.index("max"), VERSIONS.index("v0")


@njit(cache=True, nogil=True, error_model="numpy", inline="never")
def _raw_shares(delay, width, version, share):  # type: ignore[no-untyped-def]
    """Fill the raw shares of the slots within reach; return the first slot and one past the last."""
    n_delays = share.shape[0]
    middle = min(max(int(np.rint(delay)), 0), n_delays - 1)
    reach = width * REACH if version == GAUSS else (width if version == MAX else 1.0)
    low = min(middle, max(0, int(np.ceil(delay - reach))))
    high = max(middle, min(n_delays - 1, int(np.floor(delay + reach)))) + 1
    if version == GAUSS:
        inverse = 1.0 / (width * width)
        ratio = np.exp(-inverse)
        offset = middle - delay
        value = np.exp(-0.5 * offset * offset * inverse)
        share[middle] = value
        up = np.exp(-(offset + 0.5) * inverse)
        current = value
        for slot in range(middle + 1, high):
            current *= up
            up *= ratio
            share[slot] = current
        down = np.exp((offset - 0.5) * inverse)
        current = value
        for slot in range(middle - 1, low - 1, -1):
            current *= down
            down *= ratio
            share[slot] = current
    else:
        for slot in range(low, high):
            share[slot] = max(0.0, reach - abs(delay - slot))
    return low, high


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def _forward(weight, position, width, version, kernel):  # type: ignore[no-untyped-def]
    n_delays, synapses = kernel.shape
    taps = weight.shape[1]
    for block in prange((synapses + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        size = min(BLOCK, synapses - start)
        dense = np.zeros((BLOCK, n_delays))
        share = np.zeros(n_delays)
        for index in range(size):
            row = dense[index]
            for tap in range(taps):
                delay = n_delays // 2 - float(position[start + index, tap])
                low, high = _raw_shares(delay, width, version, share)
                total = NORMALISATION_GUARD
                for slot in range(low, high):
                    total += share[slot]
                scale = float(weight[start + index, tap])
                if version != V0:
                    scale /= total
                for slot in range(low, high):
                    row[slot] += scale * share[slot]
        for slot in range(n_delays):
            for index in range(size):
                kernel[slot, start + index] = dense[index, slot]


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def _backward(weight, position, width, sign, version, dkernel, dweight, dposition, dsigma):  # type: ignore[no-untyped-def]
    n_delays, synapses = dkernel.shape
    taps = weight.shape[1]
    for block in prange((synapses + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        size = min(BLOCK, synapses - start)
        gradient = np.zeros((BLOCK, n_delays))
        for slot in range(n_delays):
            for index in range(size):
                gradient[index, slot] = dkernel[slot, start + index]
        share = np.zeros(n_delays)
        by_sigma = 0.0
        for index in range(size):
            row = gradient[index]
            for tap in range(taps):
                delay = n_delays // 2 - float(position[start + index, tap])
                low, high = _raw_shares(delay, width, version, share)
                shares = 0.0
                slopes = 0.0  # derivative by position
                widenings = 0.0  # derivative by width
                g_shares = 0.0
                g_slopes = 0.0
                g_widenings = 0.0
                for slot in range(low, high):
                    u = delay - slot
                    if version == GAUSS:
                        slope = share[slot] * u
                        widening = slope * u
                    elif version == MAX:
                        widening = 1.0 if share[slot] > 0 else 0.0
                        slope = np.sign(u) * widening
                    else:
                        slope = (1.0 if u > 0 else -1.0) if -1.0 < u <= 1.0 else 0.0
                        widening = 0.0
                    shares += share[slot]
                    slopes += slope
                    widenings += widening
                    g_shares += row[slot] * share[slot]
                    g_slopes += row[slot] * slope
                    g_widenings += row[slot] * widening
                if version != V0:
                    scale = 1.0 / (shares + NORMALISATION_GUARD)
                    g_shares *= scale
                    g_slopes = (g_slopes - g_shares * slopes) * scale
                    g_widenings = (g_widenings - g_shares * widenings) * scale
                if version == GAUSS:
                    g_slopes /= width * width
                    g_widenings /= width * width * width
                dweight[start + index, tap] = g_shares
                dposition[start + index, tap] = g_slopes * weight[start + index, tap]
                by_sigma += g_widenings * sign * weight[start + index, tap]
        dsigma[block] = by_sigma


def kernel_forward(weight: Array, position: Array, sigma: float, version: str, n_delays: int) -> Array:
    """Return the dense kernel, shape (n_delays, synapses), dtype of ``weight``.

    Args:
        weight: Shape (synapses, taps).
        position: Shape (synapses, taps).
        sigma: Stored width SIG.
        version: One of :data:`~snnsim.kernels.reference_delays.VERSIONS`.
        n_delays: Number of delay slots.
    """
    kernel = np.empty((n_delays, weight.shape[0]), dtype=weight.dtype)
    _forward(weight, position, abs(sigma) + WIDTH_OFFSET[version], VERSIONS.index(version), kernel)
    return kernel


def kernel_backward(
    weight: Array, position: Array, sigma: float, version: str, dkernel: Array
) -> tuple[Array, Array, float]:
    """Return the gradients by weight and position, (synapses, taps) each, and by sigma.

    Args:
        weight: Shape (synapses, taps).
        position: Shape (synapses, taps).
        sigma: Stored width SIG.
        version: Interpolation kernel.
        dkernel: Gradient by the dense kernel, shape (n_delays, synapses).
    """
    dweight = np.empty_like(weight)
    dposition = np.empty_like(weight)
    dsigma = np.zeros((weight.shape[0] + BLOCK - 1) // BLOCK)
    sign = -1.0 if sigma < 0 else 1.0
    width = abs(sigma) + WIDTH_OFFSET[version]
    _backward(weight, position, width, sign, VERSIONS.index(version), dkernel, dweight, dposition, dsigma)
    return dweight, dposition, float(dsigma.sum())
