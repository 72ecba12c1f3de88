"""One hidden layer after its connection, fused, for neurons with a second state and for learned parameters.

What :mod:`snnsim.kernels.norm_lif` does for LIF neurons of constant parameters, its frame and its arguments, with the
neurons of :func:`snnsim.kernels.neurons_cuba.cuba_forward` and
:func:`snnsim.kernels.neurons_adaptive.adaptive_forward` besides, and with gradients of the neurons' parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.dynamics import ADAPTIVE, CUBA
from snnsim.kernels.norm_lif import FLUSH, MEMBRANE
from snnsim.kernels.norm_lif import WIDTH as W
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["norm_neurons_backward", "norm_neurons_forward"]

Floats = npt.NDArray[np.floating[Any]]


ROWS = 24
"""Rows of one block of memory: nine parameters, then what a step works on. Loops over rows of one array need no
aliasing checks; the rows are cut out once, because a slice counts references with atomic operations."""


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _advance(  # type: ignore[no-untyped-def]
    dynamics, reset_zero, beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level,
    current, mean, scale, shift, v, w, h, s, n,
):  # fmt: skip
    """One step of ``n`` neurons: from ``current``, membrane ``v`` and second state ``w`` to the membrane before the
    reset ``h``, spikes ``s`` and the states after the step."""
    one, zero = s.dtype.type(1), s.dtype.type(0)
    if dynamics == CUBA:
        for j in range(n):
            value = beta[j] * v[j] + gain[j] * w[j]
            after = low[j] if reset_zero else value - amount[j]
            w[j] = decay[j] * w[j] + ((current[j] - mean[j]) * scale[j] + shift[j])
            v[j] = after if value >= threshold[j] else value
            s[j] = one if value >= threshold[j] else zero
            h[j] = value
    elif dynamics == ADAPTIVE:
        for j in range(n):
            value = (beta[j] * v[j] + ((current[j] - mean[j]) * scale[j] + shift[j])) - gain[j] * w[j]
            level = threshold[j] + on_level[j] * w[j]
            after = low[j] if reset_zero else value - amount[j]
            after = after if value >= level else value
            fired = one if value >= level else zero
            w[j] = (decay[j] * w[j] + by_v[j] * after) + by_spike[j] * fired
            v[j] = after
            s[j] = fired
            h[j] = value
    else:
        for j in range(n):
            value = beta[j] * v[j] + ((current[j] - mean[j]) * scale[j] + shift[j])
            after = low[j] if reset_zero else value - amount[j]
            v[j] = after if value >= threshold[j] else value
            s[j] = one if value >= threshold[j] else zero
            h[j] = value


@njit(cache=True, nogil=True, error_model="numpy")
def norm_neurons_forward(
    y: Floats,
    mask: npt.NDArray[np.uint8],
    affine: Floats,
    neuron: Floats,
    dynamics: int,
    reset_zero: bool,
    factors: Floats,
    v: Floats,
    w: Floats,
    out: Floats,
    counts: npt.NDArray[np.int64],
    start: int,
    stop: int,
) -> None:
    """Normalise, fire, reset and thin; see :func:`snnsim.kernels.norm_lif.norm_lif_forward`.

    Args:
        y: Currents, shape (time, batch, unit).
        mask: 1 for valid steps, uint8, shape (time, batch); zero steps long where all are.
        affine: Mean, scale and shift of the batch norm, shape (3, unit).
        neuron: Parameters, shape (9, unit), see :mod:`snnsim.kernels.dynamics`.
        dynamics: Kind of neuron.
        reset_zero: Kind of reset.
        factors: What dropout multiplies the spikes by, shape (batch, unit); zero samples long without dropout.
        v: Membrane before the first step, shape (batch, unit); overwritten by the last one.
        w: Synaptic current or adaptation, likewise.
        out: Output, thinned spikes, shape (time, batch, unit).
        counts: Output, spikes in valid steps before dropout, int64, shape (batch,).
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, _, units = y.shape
    one, zero = y.dtype.type(1), y.dtype.type(0)
    masked, thinned = mask.shape[0] > 0, factors.shape[0] > 0
    rows = np.empty(ROWS * W, y.dtype)
    beta, threshold, low, amount = rows[:W], rows[W : 2 * W], rows[2 * W : 3 * W], rows[3 * W : 4 * W]
    decay, gain, by_v = rows[4 * W : 5 * W], rows[5 * W : 6 * W], rows[6 * W : 7 * W]
    by_spike, on_level = rows[7 * W : 8 * W], rows[8 * W : 9 * W]
    mean, scale, shift = rows[9 * W : 10 * W], rows[10 * W : 11 * W], rows[11 * W : 12 * W]
    state, second = rows[12 * W : 13 * W], rows[13 * W : 14 * W]
    h, s, factor, count = rows[14 * W : 15 * W], rows[15 * W : 16 * W], rows[16 * W : 17 * W], rows[17 * W : 18 * W]
    for first in range(0, units, W):
        n = min(W, units - first)
        last = first + n
        for row in range(9):
            rows[row * W : row * W + n] = neuron[row, first:last]
        mean[:n], scale[:n], shift[:n] = affine[0, first:last], affine[1, first:last], affine[2, first:last]
        for b in range(start, stop):
            state[:n] = v[b, first:last]
            second[:n] = w[b, first:last]
            for j in range(n):
                factor[j] = factors[b, first + j] if thinned else one
                count[j] = zero
            for t in range(n_steps):
                current, o = y[t, b, first:last], out[t, b, first:last]
                counted = zero if masked and mask[t, b] == 0 else one
                _advance(
                    dynamics, reset_zero, beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level,
                    current, mean, scale, shift, state, second, h, s, n,
                )  # fmt: skip
                for j in range(n):
                    o[j] = s[j] * factor[j]
                    count[j] += s[j] * counted
            total = 0.0 if first == 0 else float(counts[b])
            for j in range(n):
                total += count[j]
            v[b, first:last] = state[:n]
            w[b, first:last] = second[:n]
            counts[b] = np.int64(total)


@njit(cache=True, nogil=True, error_model="numpy")
def norm_neurons_backward(
    y: Floats,
    affine: Floats,
    neuron: Floats,
    dynamics: int,
    reset_zero: bool,
    detach_reset: bool,
    code: int,
    numbers: Floats,
    factors: Floats,
    v: Floats,
    w: Floats,
    up: Floats,
    grad_v: Floats,
    grad_w: Floats,
    out: Floats,
    sums: npt.NDArray[np.float64],
    grad_neuron: Floats,
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`norm_neurons_forward` up to the normalised current.

    The equations are those of ``lif_backward``, ``cuba_backward`` and ``adaptive_backward``, with ``factor * up`` for
    the gradient of the spikes.

    Args:
        y: As in the forward pass, like the following.
        affine: Mean, scale and shift.
        neuron: Parameters.
        dynamics: Kind of neuron.
        reset_zero: Kind of reset.
        detach_reset: Whether the reset passes no gradient to the spike.
        code: Code of the surrogate.
        numbers: Its coefficients.
        factors: Dropout's factors.
        v: Membrane before the first step, shape (batch, unit).
        w: Synaptic current or adaptation before the first step, shape (batch, unit).
        up: Gradient of the thinned spikes, shape (time, batch, unit).
        grad_v: Gradient of the last membrane, shape (batch, unit); overwritten by that of ``v``.
        grad_w: Gradient of the last second state, likewise.
        out: Output, gradient of the normalised current, shape (time, batch, unit).
        sums: Output, sums over time of ``out`` and of ``out * (y - mean)``, float64, shape (2, batch, unit).
        grad_neuron: Output, gradients of the parameters by sample, shape (9, batch, unit), the gain of an adaptation
            left out; zero samples long to skip.
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, _, units = y.shape
    kind = y.dtype.type
    one, zero = kind(1), kind(0)
    thinned, learn = factors.shape[0] > 0, grad_neuron.shape[1] > 0
    width = max(16, min(W, MEMBRANE // 2 // max(1, n_steps) // 16 * 16))
    deep = n_steps if dynamics == ADAPTIVE or learn else 0
    membrane, seconds = np.empty((n_steps, width), y.dtype), np.empty((deep, width), y.dtype)
    rows = np.empty(ROWS * W, y.dtype)
    beta, threshold, low, amount = rows[:W], rows[W : 2 * W], rows[2 * W : 3 * W], rows[3 * W : 4 * W]
    decay, gain, by_v = rows[4 * W : 5 * W], rows[5 * W : 6 * W], rows[6 * W : 7 * W]
    by_spike, on_level = rows[7 * W : 8 * W], rows[8 * W : 9 * W]
    mean, scale, shift = rows[9 * W : 10 * W], rows[10 * W : 11 * W], rows[11 * W : 12 * W]
    d, c, g, e = rows[12 * W : 13 * W], rows[13 * W : 14 * W], rows[14 * W : 15 * W], rows[15 * W : 16 * W]
    dh, s, factor = rows[16 * W : 17 * W], rows[17 * W : 18 * W], rows[18 * W : 19 * W]
    total, product, bar = rows[19 * W : 20 * W], rows[20 * W : 21 * W], rows[21 * W : 22 * W]
    h, reached = rows[22 * W : 23 * W], rows[23 * W : 24 * W]
    learned = np.empty((9, W), y.dtype)
    for first in range(0, units, width):
        n = min(width, units - first)
        last = first + n
        for row in range(9):
            rows[row * W : row * W + n] = neuron[row, first:last]
        mean[:n], scale[:n], shift[:n] = affine[0, first:last], affine[1, first:last], affine[2, first:last]
        bar[:n] = threshold[:n]
        for b in range(start, stop):
            d[:n] = v[b, first:last]
            c[:n] = w[b, first:last]
            learned[:] = 0
            for j in range(n):
                factor[j] = factors[b, first + j] if thinned else one
                total[j] = zero
                product[j] = zero
                sums[0, b, first + j] = 0.0
                sums[1, b, first + j] = 0.0
            for t in range(n_steps):
                current, kept = y[t, b, first:last], membrane[t]
                if deep > 0:
                    i = seconds[t]
                    for j in range(n):
                        i[j] = c[j]
                _advance(
                    dynamics, reset_zero, beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level,
                    current, mean, scale, shift, d, c, h, s, n,
                )  # fmt: skip
                for j in range(n):
                    kept[j] = h[j]
            d[:n] = grad_v[b, first:last]
            c[:n] = grad_w[b, first:last]
            for back in range(n_steps):
                t = n_steps - 1 - back
                u, o, current = up[t, b, first:last], out[t, b, first:last], y[t, b, first:last]
                kept = membrane[t]
                i = seconds[t] if deep > 0 else kept
                for j in range(n):
                    h[j] = kept[j]
                if dynamics == ADAPTIVE:
                    for j in range(n):
                        bar[j] = threshold[j] + on_level[j] * i[j]
                surrogate_block(code, numbers, h, bar, g, n)
                if learn and dynamics == CUBA:
                    for j in range(n):
                        learned[4, j] += c[j] * i[j]
                elif learn and dynamics == ADAPTIVE:
                    for j in range(n):
                        after = low[j] if reset_zero else h[j] - amount[j]
                        learned[4, j] += c[j] * i[j]
                        learned[6, j] += c[j] * (after if h[j] >= bar[j] else h[j])
                        learned[7, j] += c[j] if h[j] >= bar[j] else zero
                if dynamics == ADAPTIVE:
                    for j in range(n):
                        d[j] += by_v[j] * c[j]
                        e[j] = u[j] * factor[j] + by_spike[j] * c[j]
                else:
                    for j in range(n):
                        e[j] = u[j] * factor[j]
                if not detach_reset and reset_zero:
                    for j in range(n):
                        e[j] += d[j] * (low[j] - h[j])
                elif not detach_reset:
                    for j in range(n):
                        e[j] -= d[j] * amount[j]
                if reset_zero:
                    for j in range(n):
                        e[j] *= g[j]
                        dh[j] = (zero if h[j] >= bar[j] else d[j]) + e[j]
                else:
                    for j in range(n):
                        e[j] *= g[j]
                        dh[j] = d[j] + e[j]
                if learn:
                    if t > 0:
                        q, r = membrane[t - 1], seconds[t - 1]
                        for j in range(n):
                            level = threshold[j] + on_level[j] * r[j] if dynamics == ADAPTIVE else threshold[j]
                            after = low[j] if reset_zero else q[j] - amount[j]
                            learned[0, j] += dh[j] * (after if q[j] >= level else q[j])
                    else:
                        for j in range(n):
                            learned[0, j] += dh[j] * v[b, first + j]
                    for j in range(n):
                        learned[1, j] -= e[j]
                        learned[2, j] += d[j] if h[j] >= bar[j] else zero
                    if dynamics == CUBA:
                        for j in range(n):
                            learned[5, j] += dh[j] * i[j]
                    elif dynamics == ADAPTIVE:
                        for j in range(n):
                            learned[8, j] -= e[j] * i[j]
                if dynamics == CUBA:
                    for j in range(n):
                        reached[j] = c[j]
                        c[j] = decay[j] * c[j] + gain[j] * dh[j]
                elif dynamics == ADAPTIVE:
                    for j in range(n):
                        reached[j] = dh[j]
                        c[j] = decay[j] * c[j] - (gain[j] * dh[j] + on_level[j] * e[j])
                else:
                    for j in range(n):
                        reached[j] = dh[j]
                for j in range(n):
                    o[j] = reached[j]
                    d[j] = beta[j] * dh[j]
                    total[j] += reached[j]
                    product[j] += reached[j] * (current[j] - mean[j])
                if t % FLUSH == 0:
                    for j in range(n):
                        sums[0, b, first + j] += total[j]
                        sums[1, b, first + j] += product[j]
                        total[j] = zero
                        product[j] = zero
            grad_v[b, first:last] = d[:n]
            grad_w[b, first:last] = c[:n]
            if learn:
                for j in range(n):
                    learned[3, j] = zero if reset_zero else -learned[2, j]
                    learned[2, j] = learned[2, j] if reset_zero else zero
                for row in range(9):
                    grad_neuron[row, b, first:last] = learned[row, :n]
