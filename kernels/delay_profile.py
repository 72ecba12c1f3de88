"""Dense delay kernels from weights, positions and sigma, forward and backward (Numba).

One pass over the synapses in blocks: the profile of a tap is built, normalised and added to the kernel
without ever holding (n_delays, synapses, taps) arrays. A Gaussian costs four exponentials a tap instead of
n_delays: neighbouring slots follow from each other by two products. Twin:
:func:`snnsim.kernels.reference_delays.delay_profile`.

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
NEGLIGIBLE = 1e-30
"""A Gaussian's tail below this is zero: subnormal numbers would slow every product that meets them."""

GAUSS, MAX, V0 = VERSIONS.index("gauss"), VERSIONS.index("max"), VERSIONS.index("v0")


@njit(cache=True, nogil=True, inline="never")
def _tap(position, width, sign, version, share, slope, widening, with_slope):  # type: ignore[no-untyped-def]
    """Fill the share of every slot and, if wanted, its derivatives by position and by stored sigma."""
    n_delays = share.shape[0]
    delay = n_delays // 2 - position
    if version == GAUSS:
        first = min(max(int(np.rint(delay)), 0), n_delays - 1)
        inverse = 1.0 / (width * width)
        ratio = np.exp(-inverse)
        offset = first - delay
        value = np.exp(-0.5 * offset * offset * inverse)
        share[first] = value
        up = np.exp(-(offset + 0.5) * inverse)
        current = value
        for slot in range(first + 1, n_delays):
            current = current * up if current > NEGLIGIBLE else 0.0
            up *= ratio
            share[slot] = current
        down = np.exp((offset - 0.5) * inverse)
        current = value
        for slot in range(first - 1, -1, -1):
            current = current * down if current > NEGLIGIBLE else 0.0
            down *= ratio
            share[slot] = current
        if with_slope:
            for slot in range(n_delays):
                u = delay - slot
                slope[slot] = share[slot] * u * inverse
                widening[slot] = slope[slot] * u / width * sign
    elif version == MAX:
        for slot in range(n_delays):
            u = delay - slot
            value = max(0.0, width - abs(u))
            share[slot] = value
            if with_slope:
                inside = 1.0 if value > 0 else 0.0
                slope[slot] = np.sign(u) * inside
                widening[slot] = inside * sign
    else:
        for slot in range(n_delays):
            u = delay - slot
            share[slot] = max(0.0, 1.0 - abs(u))
            if with_slope:
                slope[slot] = (1.0 if u > 0 else -1.0) if -1.0 < u <= 1.0 else 0.0
                widening[slot] = 0.0
    if version != V0:
        total = NORMALISATION_GUARD
        for slot in range(n_delays):
            total += share[slot]
        for slot in range(n_delays):
            share[slot] /= total
        if with_slope:
            slopes = 0.0
            widenings = 0.0
            for slot in range(n_delays):
                slopes += slope[slot]
                widenings += widening[slot]
            for slot in range(n_delays):
                slope[slot] = (slope[slot] - share[slot] * slopes) / total
                widening[slot] = (widening[slot] - share[slot] * widenings) / total


@njit(cache=True, nogil=True, parallel=True)
def _forward(weight, position, width, version, kernel):  # type: ignore[no-untyped-def]
    n_delays, synapses = kernel.shape
    taps = weight.shape[1]
    for block in prange((synapses + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        size = min(BLOCK, synapses - start)
        dense = np.zeros((n_delays, BLOCK))
        share = np.zeros(n_delays)
        empty = np.zeros(0)
        for index in range(size):
            for tap in range(taps):
                _tap(position[start + index, tap], width, 1.0, version, share, empty, empty, False)
                for slot in range(n_delays):
                    dense[slot, index] += weight[start + index, tap] * share[slot]
        for slot in range(n_delays):
            for index in range(size):
                kernel[slot, start + index] = dense[slot, index]


@njit(cache=True, nogil=True, parallel=True)
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
        slope = np.zeros(n_delays)
        widening = np.zeros(n_delays)
        total = 0.0
        for index in range(size):
            for tap in range(taps):
                _tap(position[start + index, tap], width, sign, version, share, slope, widening, True)
                by_weight = 0.0
                by_position = 0.0
                by_sigma = 0.0
                for slot in range(n_delays):
                    by_weight += gradient[index, slot] * share[slot]
                    by_position += gradient[index, slot] * slope[slot]
                    by_sigma += gradient[index, slot] * widening[slot]
                dweight[start + index, tap] = by_weight
                dposition[start + index, tap] = by_position * weight[start + index, tap]
                total += by_sigma * weight[start + index, tap]
        dsigma[block] = total


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
