"""LIF neurons with recurrent synapses of one common delay, all time steps in one call, forward and backward.

Forward, a sample is one piece of work: its spikes are few, so each adds its row of weights to the currents it
reaches. Backward, gradients are dense: a group of samples walks back together and meets the weights as a product of
tiles at every step. Neither a sample nor a group waits for another, and the bits do not depend on the number of
threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.matrix import DEPTH, pack_columns
from snnsim.kernels.simd import TILE_ROWS, TILE_VECTORS, aligned_empty, lanes_of, load, store, tile_product
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["GROUP", "pack_weight", "recurrent_backward", "recurrent_forward"]

GROUP = 32
"""Samples that walk back together."""

VECTORS = 4
"""Vectors of currents that are summed in registers."""

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True, error_model="numpy")
def recurrent_forward(
    current: Floats,
    weight: Floats,
    delay: int,
    neuron: Floats,
    reset_zero: bool,
    membrane: Floats,
    spikes: Floats,
    v: Floats,
    start: int,
    stop: int,
) -> None:
    """Advance neurons from the zero state.

    ``h[t] = beta v[t-1] + (current[t] + sum over the neurons i that fired at t - delay, in order, of weight[i])``;
    spike and reset as in :func:`snnsim.kernels.neurons.lif_forward`.

    Args:
        current: Input, shape (time, batch, unit).
        weight: Shape (source, target), flat.
        delay: Steps, at least 1.
        neuron: beta, threshold, v_reset and reset_amount, shape (4, unit).
        reset_zero: Kind of reset.
        membrane: Output, ``h``, shape (time, batch, unit).
        spikes: Output, same shape.
        v: Output, last membrane, shape (batch, unit).
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, _, units = current.shape
    kind = current.dtype.type
    one, zero = kind(1), kind(0)
    lanes = lanes_of(current)
    wide = VECTORS * lanes
    total, state = aligned_empty(units, current), aligned_empty(units, current)
    fired = np.empty((delay, units), np.int64)
    count = np.zeros(delay, np.int64)
    for b in range(start, stop):
        state[:] = 0
        count[:] = 0
        for t in range(n_steps):
            slot = t % delay
            total[:] = current[t, b]
            n = count[slot]
            j = 0
            while j + wide <= units:
                a0, a1 = load(total, j), load(total, j + lanes)
                a2, a3 = load(total, j + 2 * lanes), load(total, j + 3 * lanes)
                for k in range(n):
                    at = fired[slot, k] * units + j
                    a0 = a0 + load(weight, at)
                    a1 = a1 + load(weight, at + lanes)
                    a2 = a2 + load(weight, at + 2 * lanes)
                    a3 = a3 + load(weight, at + 3 * lanes)
                store(total, j, a0)
                store(total, j + lanes, a1)
                store(total, j + 2 * lanes, a2)
                store(total, j + 3 * lanes, a3)
                j += wide
            for k in range(n):
                for rest in range(j, units):
                    total[rest] += weight[fired[slot, k] * units + rest]
            h, s = membrane[t, b], spikes[t, b]
            for u in range(units):
                value = neuron[0, u] * state[u] + total[u]
                h[u] = value
                fire = value >= neuron[1, u]
                s[u] = one if fire else zero
                after = neuron[2, u] if reset_zero else value - neuron[3, u]
                state[u] = after if fire else value
            n = 0
            for u in range(units):
                fired[slot, n] = u
                n += s[u] != zero
                if n == units:
                    break
            count[slot] = n
        v[b] = state


@njit(cache=True, nogil=True)
def pack_weight(weight: Floats, units: int, out: Floats) -> None:
    """Write the weights (target, source), flat, as the panels that :func:`recurrent_backward` multiplies by."""
    width = TILE_VECTORS * lanes_of(out)
    columns = -(-units // width) * width
    for k0 in range(0, units, DEPTH):
        deep = min(DEPTH, units - k0)
        pack_columns(weight, k0 * units, 1, units, units, deep, out[k0 * columns :])


@njit(cache=True, nogil=True, error_model="numpy")
def recurrent_backward(
    membrane: Floats,
    packed: Floats,
    delay: int,
    neuron: Floats,
    reset_zero: bool,
    detach_reset: bool,
    code: int,
    numbers: Floats,
    up: Floats,
    grad_v: Floats,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`recurrent_forward` up to the summed current.

    The gradient of a spike at step t is ``up[t]`` plus ``out[t + delay]`` times the weights; the rest is
    :func:`snnsim.kernels.neurons.lif_backward`.

    Args:
        membrane: From the forward pass.
        packed: From :func:`pack_weight`.
        delay: Steps.
        neuron: beta, threshold, v_reset and reset_amount.
        reset_zero: Kind of reset.
        detach_reset: Whether the reset passes no gradient to the spike.
        code: Code of the surrogate.
        numbers: Its coefficients.
        up: Gradient of the spikes, shape (time, batch, unit).
        grad_v: Gradient of the last membrane, shape (batch, unit).
        out: Output, gradient of the current, shape (time, batch, unit).
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, _, units = membrane.shape
    zero = membrane.dtype.type(0)
    width = TILE_VECTORS * lanes_of(membrane)
    columns = -(-units // width) * width
    rows = -(-GROUP // TILE_ROWS) * TILE_ROWS
    left, sums = aligned_empty(rows * units, membrane), aligned_empty(rows * columns, membrane)
    d, g = np.empty((GROUP, units), membrane.dtype), np.empty(units, membrane.dtype)
    threshold = neuron[1].copy()
    for first in range(start, stop, GROUP):
        size = min(GROUP, stop - first)
        left[:] = 0
        for b in range(size):
            d[b] = grad_v[first + b]
        for back in range(n_steps):
            t = n_steps - 1 - back
            reached = t + delay < n_steps
            if reached:
                for b in range(size):
                    left[b * units : (b + 1) * units] = out[t + delay, first + b]
                for k0 in range(0, units, DEPTH):
                    deep = min(DEPTH, units - k0)
                    for x in range(0, columns, width):
                        at = k0 * columns + x * deep
                        for m in range(0, rows, TILE_ROWS):
                            if m < size:
                                o = m * columns + x
                                tile_product(left, m * units + k0, units, 1, packed, at, deep, sums, o, columns, k0 > 0)
            for b in range(size):
                h, u, o, e = membrane[t, first + b], up[t, first + b], out[t, first + b], d[b]
                surrogate_block(code, numbers, h, threshold, g, units)
                back_row = sums[b * columns : b * columns + units]
                if reached:
                    for j in range(units):
                        o[j] = u[j] + back_row[j]
                else:
                    for j in range(units):
                        o[j] = u[j]
                if not detach_reset:
                    if reset_zero:
                        for j in range(units):
                            o[j] += e[j] * (neuron[2, j] - h[j])
                    else:
                        for j in range(units):
                            o[j] -= e[j] * neuron[3, j]
                for j in range(units):
                    through = zero if reset_zero and h[j] >= threshold[j] else e[j]
                    dh = through + o[j] * g[j]
                    o[j] = dh
                    e[j] = neuron[0, j] * dh
        for b in range(size):
            grad_v[first + b] = d[b]
