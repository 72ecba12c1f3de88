"""One hidden layer after its connection, fused: batch norm, LIF, reset and dropout over all time steps.

The unfused kernels write the normalised current, the membrane and the spikes to memory in turn; here a sample's
units go through all of it step by step and only the thinned spikes are written. The backward pass keeps nothing but
the layer's current: it runs the membrane again into a small block of memory that stays in the cache, then walks
back. The forward operations are those of :mod:`snnsim.kernels.batch_norm` and :mod:`snnsim.kernels.neurons`, bit
for bit.

A sample is one piece of work: the result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.surrogates import surrogate_block

__all__ = ["current_gradient", "norm_lif_backward", "norm_lif_forward"]

WIDTH = 256
"""Most units that go through time together."""

MEMBRANE = 1 << 17
"""Most membrane values of a block that the backward pass recomputes."""

FLUSH = 64
"""Steps whose gradients are summed in the array's own precision before they enter a float64 sum."""

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True, error_model="numpy")
def norm_lif_forward(
    y: Floats,
    mask: npt.NDArray[np.uint8],
    affine: Floats,
    neuron: Floats,
    reset_zero: bool,
    factors: Floats,
    v: Floats,
    out: Floats,
    counts: npt.NDArray[np.int64],
    start: int,
    stop: int,
) -> None:
    """Normalise, fire, reset and thin.

    ``h[t] = beta v[t-1] + ((y[t] - mean) scale + shift)``; a spike where ``h[t] >= threshold``; ``v[t]`` is h[t] after
    the reset; ``out[t]`` is the spike times the sample's factor.

    Args:
        y: Currents, shape (time, batch, unit).
        mask: 1 for valid steps, uint8, shape (time, batch); zero steps long where all are.
        affine: Mean, scale and shift of the batch norm, shape (3, unit); 0, 1 and 0 without one.
        neuron: beta, threshold, v_reset and reset_amount, shape (4, unit).
        reset_zero: Whether a spike resets to ``v_reset`` instead of subtracting ``reset_amount``.
        factors: What dropout multiplies the spikes by, shape (batch, unit); zero samples long without dropout.
        v: Membrane before the first step, shape (batch, unit); overwritten by the last one.
        out: Output, thinned spikes, shape (time, batch, unit).
        counts: Output, spikes in valid steps before dropout, int64, shape (batch,).
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, _, units = y.shape
    kind = y.dtype.type
    one, zero = kind(1), kind(0)
    masked, thinned = mask.shape[0] > 0, factors.shape[0] > 0
    rows = np.empty(10 * WIDTH, y.dtype)  # one array: loops over rows of it need no aliasing checks
    mean, scale, shift = rows[:WIDTH], rows[WIDTH : 2 * WIDTH], rows[2 * WIDTH : 3 * WIDTH]
    beta, threshold, low = rows[3 * WIDTH : 4 * WIDTH], rows[4 * WIDTH : 5 * WIDTH], rows[5 * WIDTH : 6 * WIDTH]
    amount, factor = rows[6 * WIDTH : 7 * WIDTH], rows[7 * WIDTH : 8 * WIDTH]
    state, count = rows[8 * WIDTH : 9 * WIDTH], rows[9 * WIDTH : 10 * WIDTH]
    for first in range(0, units, WIDTH):
        n = min(WIDTH, units - first)
        for j in range(n):
            mean[j], scale[j], shift[j] = affine[0, first + j], affine[1, first + j], affine[2, first + j]
            beta[j], threshold[j] = neuron[0, first + j], neuron[1, first + j]
            low[j], amount[j] = neuron[2, first + j], neuron[3, first + j]
        for b in range(start, stop):
            for j in range(n):
                state[j] = v[b, first + j]
                factor[j] = factors[b, first + j] if thinned else one
                count[j] = zero
            for t in range(n_steps):
                x = y[t, b, first : first + n]
                o = out[t, b, first : first + n]
                counted = zero if masked and mask[t, b] == 0 else one
                if reset_zero:
                    for j in range(n):
                        h = beta[j] * state[j] + ((x[j] - mean[j]) * scale[j] + shift[j])
                        fired = one if h >= threshold[j] else zero
                        o[j] = fired * factor[j]
                        count[j] += fired * counted
                        state[j] = low[j] if h >= threshold[j] else h
                else:
                    for j in range(n):
                        h = beta[j] * state[j] + ((x[j] - mean[j]) * scale[j] + shift[j])
                        fired = one if h >= threshold[j] else zero
                        o[j] = fired * factor[j]
                        count[j] += fired * counted
                        state[j] = h - amount[j] if h >= threshold[j] else h
            total = 0.0 if first == 0 else float(counts[b])
            for j in range(n):
                v[b, first + j] = state[j]
                total += count[j]
            counts[b] = np.int64(total)


@njit(cache=True, nogil=True, error_model="numpy")
def norm_lif_backward(
    y: Floats,
    affine: Floats,
    neuron: Floats,
    reset_zero: bool,
    detach_reset: bool,
    code: int,
    numbers: Floats,
    factors: Floats,
    v: Floats,
    up: Floats,
    grad_v: Floats,
    out: Floats,
    sums: npt.NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`norm_lif_forward` up to the normalised current.

    The equations are those of :func:`snnsim.kernels.neurons.lif_backward`, with ``factor * up`` for the gradient of
    the spikes.

    Args:
        y: As in the forward pass, like the following.
        affine: Mean, scale and shift.
        neuron: beta, threshold, v_reset and reset_amount.
        reset_zero: Kind of reset.
        detach_reset: Whether the reset passes no gradient to the spike.
        code: Code of the surrogate.
        numbers: Its coefficients from :func:`snnsim.kernels.surrogates.surrogate_numbers`.
        factors: Dropout's factors.
        v: Membrane before the first step, shape (batch, unit).
        up: Gradient of the thinned spikes, shape (time, batch, unit).
        grad_v: Gradient of the last membrane, shape (batch, unit); overwritten by that of ``v``.
        out: Output, gradient of the normalised current, shape (time, batch, unit).
        sums: Output, sums over time of ``out`` and of ``out * (y - mean)``, float64, shape (2, batch, unit).
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, _, units = y.shape
    kind = y.dtype.type
    one, zero = kind(1), kind(0)
    thinned = factors.shape[0] > 0
    width = max(16, min(WIDTH, MEMBRANE // max(1, n_steps) // 16 * 16))
    membrane = np.empty((n_steps, width), y.dtype)
    g = np.empty(width, y.dtype)
    rows = np.empty(11 * WIDTH, y.dtype)
    mean, scale, shift = rows[:WIDTH], rows[WIDTH : 2 * WIDTH], rows[2 * WIDTH : 3 * WIDTH]
    beta, threshold, low = rows[3 * WIDTH : 4 * WIDTH], rows[4 * WIDTH : 5 * WIDTH], rows[5 * WIDTH : 6 * WIDTH]
    amount, factor, d = rows[6 * WIDTH : 7 * WIDTH], rows[7 * WIDTH : 8 * WIDTH], rows[8 * WIDTH : 9 * WIDTH]
    total, product = rows[9 * WIDTH : 10 * WIDTH], rows[10 * WIDTH : 11 * WIDTH]
    for first in range(0, units, width):
        n = min(width, units - first)
        for j in range(n):
            mean[j], scale[j], shift[j] = affine[0, first + j], affine[1, first + j], affine[2, first + j]
            beta[j], threshold[j] = neuron[0, first + j], neuron[1, first + j]
            low[j], amount[j] = neuron[2, first + j], neuron[3, first + j]
        for b in range(start, stop):
            for j in range(n):
                d[j] = v[b, first + j]
                factor[j] = factors[b, first + j] if thinned else one
                total[j] = zero
                product[j] = zero
                sums[0, b, first + j] = 0.0
                sums[1, b, first + j] = 0.0
            for t in range(n_steps):
                x = y[t, b, first : first + n]
                keep = membrane[t]
                if reset_zero:
                    for j in range(n):
                        h = beta[j] * d[j] + ((x[j] - mean[j]) * scale[j] + shift[j])
                        keep[j] = h
                        d[j] = low[j] if h >= threshold[j] else h
                else:
                    for j in range(n):
                        h = beta[j] * d[j] + ((x[j] - mean[j]) * scale[j] + shift[j])
                        keep[j] = h
                        d[j] = h - amount[j] if h >= threshold[j] else h
            for j in range(n):
                d[j] = grad_v[b, first + j]
            for back in range(n_steps):
                t = n_steps - 1 - back
                h_row = membrane[t]
                x = y[t, b, first : first + n]
                u = up[t, b, first : first + n]
                o = out[t, b, first : first + n]
                surrogate_block(code, numbers, h_row, threshold, g, n)
                if detach_reset:
                    for j in range(n):
                        g[j] = u[j] * factor[j] * g[j]
                elif reset_zero:
                    for j in range(n):
                        g[j] = (u[j] * factor[j] + d[j] * (low[j] - h_row[j])) * g[j]
                else:
                    for j in range(n):
                        g[j] = (u[j] * factor[j] - d[j] * amount[j]) * g[j]
                if reset_zero:
                    for j in range(n):
                        through = zero if h_row[j] >= threshold[j] else d[j]
                        dh = through + g[j]
                        o[j] = dh
                        d[j] = beta[j] * dh
                        total[j] += dh
                        product[j] += dh * (x[j] - mean[j])
                else:
                    for j in range(n):
                        dh = d[j] + g[j]
                        o[j] = dh
                        d[j] = beta[j] * dh
                        total[j] += dh
                        product[j] += dh * (x[j] - mean[j])
                if t % FLUSH == 0:
                    for j in range(n):
                        sums[0, b, first + j] += total[j]
                        sums[1, b, first + j] += product[j]
                        total[j] = zero
                        product[j] = zero
            for j in range(n):
                grad_v[b, first + j] = d[j]


@njit(cache=True, nogil=True, error_model="numpy")
def current_gradient(
    y: Floats,
    mask: npt.NDArray[np.uint8],
    affine: Floats,
    offset: Floats,
    slope: Floats,
    grad: Floats,
    start: int,
    stop: int,
) -> None:
    """Turn the gradient of the normalised current into that of the current, in place.

    Valid steps: ``scale (grad - offset - (y - mean) slope)``; steps that did not enter the statistics: ``scale grad``.

    Args:
        y: Currents, shape (time, batch, unit).
        mask: As in the forward pass, like the following.
        affine: Mean, scale and shift.
        offset: Mean of ``grad`` over valid steps, shape (unit,).
        slope: Mean of ``grad (y - mean)`` over the variance, shape (unit,).
        grad: Gradient, shape (time, batch, unit); overwritten.
        start: First step.
        stop: Step after the last.
    """
    units = y.shape[2]
    rows = np.empty(4 * units, y.dtype)
    mean, scale = rows[:units], rows[units : 2 * units]
    off, tilt = rows[2 * units : 3 * units], rows[3 * units :]
    mean[:] = affine[0]
    scale[:] = affine[1]
    off[:] = offset
    tilt[:] = slope
    masked = mask.shape[0] > 0
    for t in range(start, stop):
        for b in range(y.shape[1]):
            x, g = y[t, b], grad[t, b]
            if masked and mask[t, b] == 0:
                for u in range(units):
                    g[u] = scale[u] * g[u]
            else:
                for u in range(units):
                    g[u] = scale[u] * ((g[u] - off[u]) - (x[u] - mean[u]) * tilt[u])
