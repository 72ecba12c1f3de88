"""Dense delay kernels from weights, positions and sigma on a CUDA device, forward and backward.

The sums of :mod:`snnsim.kernels.delay_profile`, equal to them within rounding. A synapse belongs to one thread, and
threads of neighbouring sources touch neighbouring numbers of every slot; a share is computed again instead of kept.
Sigma is read on the device.
"""

from __future__ import annotations

import math

from numba import cuda

from snnsim.kernels.delay_profile import GAUSS, MAX, V0
from snnsim.kernels.reference_delays import NORMALISATION_GUARD

__all__ = ["profile_backward", "profile_forward"]

_GAUSS, _MAX, _V0 = int(GAUSS), int(MAX), int(V0)


@cuda.jit(device=True)
def _width(sigma, offset, fixed):  # type: ignore[no-untyped-def]
    """Return the true width; that of ``v0`` and ``v1`` is one step."""
    kind = sigma.dtype.type
    return kind(1) if fixed else kind(abs(sigma[0]) + kind(offset))


@cuda.jit(device=True)
def _share(u, width, half, version):  # type: ignore[no-untyped-def]
    """Return the raw share at distance ``u`` of slot and tap; ``half`` is 1/2 in the type of ``u``."""
    if version == _GAUSS:
        z = u / width
        return math.exp(-(z * z * half))
    away = width - abs(u)
    return away if away > 0 else away - away


@cuda.jit
def profile_forward(weight, position, sigma, offset, version, dense):  # type: ignore[no-untyped-def]
    """Write the dense kernel; one thread a synapse.

    Args:
        weight: Shape (n_out, n_in, taps), float32 or float64.
        position: Shape (n_out | 1, n_in | 1, taps), the same dtype.
        sigma: Stored width, shape (1,), the same dtype.
        offset: What is added to its amount.
        version: Place in :data:`snnsim.kernels.reference_delays.VERSIONS`.
        dense: Written, shape (n_delays, n_out, n_in).
    """
    item = cuda.grid(1)
    n_delays, n_out, n_in = dense.shape
    if item < n_out * n_in:
        kind = dense.dtype.type
        j = item // n_in
        i = item - j * n_in
        row = j if position.shape[0] > 1 else 0
        column = i if position.shape[1] > 1 else 0
        width = _width(sigma, offset, version != _GAUSS and version != _MAX)
        middle, half = kind(n_delays // 2), kind(0.5)
        for tap in range(weight.shape[2]):
            delay = middle - position[row, column, tap]
            scale = weight[j, i, tap]
            if version != _V0:
                total = kind(NORMALISATION_GUARD)
                for slot in range(n_delays):
                    total += kind(_share(delay - kind(slot), width, half, version))
                scale = scale / total
            for slot in range(n_delays):
                value = scale * kind(_share(delay - kind(slot), width, half, version))
                if tap > 0:
                    value += dense[slot, j, i]
                dense[slot, j, i] = value


@cuda.jit
def profile_backward(  # type: ignore[no-untyped-def]
    weight, position, sigma, offset, version, dkernel, dweight, dposition, by_sigma, dsigma
):
    """Write the gradients of every tap; one thread a synapse.

    Args:
        weight: As in :func:`profile_forward`, like the following.
        position: Positions.
        sigma: Stored width.
        offset: What is added to its amount.
        version: Interpolation kernel.
        dkernel: Gradient of the kernel, shape (n_delays, n_out, n_in).
        dweight: Written, shape of the weights.
        dposition: Written, shape of the weights: of every tap's own position.
        by_sigma: Whether the gradient of sigma is wanted.
        dsigma: Written if so, shape of the weights: each tap's part.
    """
    item = cuda.grid(1)
    n_delays, n_out, n_in = dkernel.shape
    if item < n_out * n_in:
        kind = dkernel.dtype.type
        j = item // n_in
        i = item - j * n_in
        row = j if position.shape[0] > 1 else 0
        column = i if position.shape[1] > 1 else 0
        width = _width(sigma, offset, version != _GAUSS and version != _MAX)
        middle, half, zero, one = kind(n_delays // 2), kind(0.5), kind(0), kind(1)
        for tap in range(weight.shape[2]):
            delay = middle - position[row, column, tap]
            shares, slopes, widenings = zero, zero, zero  # slopes by position, widenings by width
            g_shares, g_slopes, g_widenings = zero, zero, zero
            for slot in range(n_delays):
                u = delay - kind(slot)
                share = kind(_share(u, width, half, version))
                slope, widening = zero, zero
                if version == _GAUSS:
                    slope = share * u
                    widening = slope * u
                elif version == _MAX:
                    if share > zero:
                        widening = one
                        slope = one if u > zero else (-one if u < zero else zero)
                elif u <= one and u > -one:  # the triangle of unit width: the left derivative where it has a kink
                    slope = one if u > zero else -one
                g = dkernel[slot, j, i]
                shares += share
                slopes += slope
                widenings += widening
                g_shares += g * share
                g_slopes += g * slope
                g_widenings += g * widening
            if version != _V0:
                scale = one / (shares + kind(NORMALISATION_GUARD))
                g_shares = g_shares * scale
                g_slopes = (g_slopes - g_shares * slopes) * scale
                g_widenings = (g_widenings - g_shares * widenings) * scale
            if version == _GAUSS:
                g_slopes = g_slopes / (width * width)
                g_widenings = g_widenings / (width * width * width)
            w = weight[j, i, tap]
            dweight[j, i, tap] = g_shares
            dposition[j, i, tap] = g_slopes * w
            if by_sigma:
                dsigma[j, i, tap] = g_widenings * w if sigma[0] >= zero else -(g_widenings * w)
