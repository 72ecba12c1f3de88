"""Neurons with recurrent synapses of one common delay, all time steps in one call, forward and backward.

Forward, a sample is one piece of work: its spikes are few, so each adds its row of weights to the currents it
reaches; of a layer with few synapses too, because whole vectors of a row are added faster than single numbers here
and there (at 5 % of 512 synapses still). Backward, gradients are dense: a group of samples walks back together and
meets the weights at every step as a product of tiles, or along the synapses where these are few. Neither a sample nor a
group waits for another, and the bits do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.dynamics import ADAPTIVE, CUBA
from snnsim.kernels.matrix import DEPTH, pack_columns
from snnsim.kernels.simd import (
    TILE_ROWS,
    TILE_VECTORS,
    aligned_empty,
    fma,
    lanes_of,
    load,
    splat,
    store,
    tile_product,
)
from snnsim.kernels.sparse_product import GROUP as TURNED
from snnsim.kernels.sparse_product import turn_in, turn_out
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["GROUP", "SPARSE_VECTORS", "pack_weight", "recurrent_backward", "recurrent_forward"]

GROUP = 32
"""Samples that walk back together."""

SPARSE_VECTORS = 4
"""Vectors of samples that walk back together along synapses: 64 in float32."""

VECTORS = 4
"""Vectors of currents that are summed in registers."""

Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int32]


@njit(cache=True, nogil=True, error_model="numpy")
def recurrent_forward(
    current: Floats,
    weight: Floats,
    delay: int,
    neuron: Floats,
    dynamics: int,
    reset_zero: bool,
    membrane: Floats,
    second: Floats,
    spikes: Floats,
    v: Floats,
    w: Floats,
    start: int,
    stop: int,
) -> None:
    """Advance neurons from the zero state.

    What arrives in step t is ``current[t] + sum over the neurons i that fired at t - delay, in order, of weight[i]``;
    the neurons are those of :func:`snnsim.kernels.neurons.lif_forward`,
    :func:`snnsim.kernels.neurons_cuba.cuba_forward` and :func:`snnsim.kernels.neurons_adaptive.adaptive_forward`,
    without refractory periods.

    Args:
        current: Input, shape (time, batch, unit).
        weight: Shape (source, target), flat.
        delay: Steps, at least 1.
        neuron: Parameters, shape (9, unit), see :mod:`snnsim.kernels.dynamics`.
        dynamics: Kind of neuron.
        reset_zero: Kind of reset.
        membrane: Output, ``h``, shape (time, batch, unit).
        second: Output, synaptic current or adaptation before the step, same shape; zero steps long to skip.
        spikes: Output, shape (time, batch, unit).
        v: Output, last membrane, shape (batch, unit).
        w: Output, last synaptic current or adaptation, shape (batch, unit).
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, _, units = current.shape
    kind = current.dtype.type
    one, zero = kind(1), kind(0)
    lanes = lanes_of(current)
    wide = VECTORS * lanes
    save = second.shape[0] > 0
    total, state, more = aligned_empty(units, current), aligned_empty(units, current), aligned_empty(units, current)
    fired = np.empty((delay, units), np.int64)
    count = np.zeros(delay, np.int64)
    for b in range(start, stop):
        state[:] = 0
        more[:] = 0
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
            if save:
                second[t, b] = more
            h, s = membrane[t, b], spikes[t, b]
            if dynamics == CUBA:
                for u in range(units):
                    value = neuron[0, u] * state[u] + neuron[5, u] * more[u]
                    h[u] = value
                    fire = value >= neuron[1, u]
                    s[u] = one if fire else zero
                    after = neuron[2, u] if reset_zero else value - neuron[3, u]
                    state[u] = after if fire else value
                    more[u] = neuron[4, u] * more[u] + total[u]
            elif dynamics == ADAPTIVE:
                for u in range(units):
                    value = (neuron[0, u] * state[u] + total[u]) - neuron[5, u] * more[u]
                    h[u] = value
                    fire = value >= neuron[1, u] + neuron[8, u] * more[u]
                    s[u] = one if fire else zero
                    after = neuron[2, u] if reset_zero else value - neuron[3, u]
                    state[u] = after if fire else value
                    more[u] = (neuron[4, u] * more[u] + neuron[6, u] * state[u]) + neuron[7, u] * s[u]
            else:
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
        w[b] = more


@njit(cache=True, nogil=True)
def pack_weight(weight: Floats, units: int, out: Floats) -> None:
    """Write the weights (target, source), flat, as the panels that :func:`recurrent_backward` multiplies by."""
    width = TILE_VECTORS * lanes_of(out)
    columns = -(-units // width) * width
    for k0 in range(0, units, DEPTH):
        deep = min(DEPTH, units - k0)
        pack_columns(weight, k0 * units, 1, units, units, deep, out[k0 * columns :])


@njit(cache=True, nogil=True)
def _along_synapses(later, r0, size, units, first, target, value, turned, scratch, sums, across, wide):  # type: ignore[no-untyped-def]
    """Write ``later W`` for ``size`` samples, along the synapses of each source."""
    lanes = lanes_of(turned)
    zero = splat(turned.dtype.type(0))
    turn_in(later, r0, size, units, turned, wide)
    for j0 in range(0, units, TURNED * lanes):
        count = min(TURNED * lanes, units - j0)
        for j in range(j0, j0 + count):
            a, b, c, d = zero, zero, zero, zero
            for k in range(first[j], first[j + 1]):
                v, at = splat(value[k]), target[k] * wide
                a = fma(v, load(turned, at), a)
                b = fma(v, load(turned, at + lanes), b)
                c = fma(v, load(turned, at + 2 * lanes), c)
                d = fma(v, load(turned, at + 3 * lanes), d)
            o = (j - j0) * wide
            store(scratch, o, a)
            store(scratch, o + lanes, b)
            store(scratch, o + 2 * lanes, c)
            store(scratch, o + 3 * lanes, d)
        turn_out(scratch, count, j0, size, 0, across, sums, wide)


@njit(cache=True, nogil=True, error_model="numpy")
def recurrent_backward(
    membrane: Floats,
    second: Floats,
    packed: Floats,
    by_source: Places,
    target: Places,
    delay: int,
    neuron: Floats,
    dynamics: int,
    reset_zero: bool,
    detach_reset: bool,
    code: int,
    numbers: Floats,
    up: Floats,
    grad_v: Floats,
    grad_w: Floats,
    out: Floats,
    grad_neuron: Floats,
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`recurrent_forward` up to what arrives.

    The gradient of a spike at step t is ``up[t]`` plus ``out[t + delay]`` times the weights; the rest is
    :func:`snnsim.kernels.neurons.lif_backward` and its like.

    Args:
        membrane: From the forward pass.
        second: From the forward pass; for LIF and, without ``grad_neuron``, for CUBA it may be zero steps long.
        packed: From :func:`pack_weight`; along synapses their weights in the order of the sources.
        by_source: First synapse of every source (and the end), shape (unit + 1,); empty: the product is dense.
        target: Target of every synapse.
        delay: Steps.
        neuron: As in the forward pass.
        dynamics: Kind of neuron.
        reset_zero: Kind of reset.
        detach_reset: Whether the reset passes no gradient to the spike.
        code: Code of the surrogate.
        numbers: Its coefficients.
        up: Gradient of the spikes, shape (time, batch, unit).
        grad_v: Gradient of the last membrane, shape (batch, unit).
        grad_w: Gradient of the last synaptic current or adaptation, shape (batch, unit).
        out: Output, gradient of what arrives, shape (time, batch, unit).
        grad_neuron: Output, gradients of the parameters by sample, shape (9, batch, unit), the gain of an adaptation
            left out; zero samples long to skip.
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, batch, units = membrane.shape
    kind = membrane.dtype.type
    one, zero = kind(1), kind(0)
    width = TILE_VECTORS * lanes_of(membrane)
    columns = -(-units // width) * width
    sparse = by_source.shape[0] > 0
    wide = SPARSE_VECTORS * lanes_of(membrane)
    group = wide if sparse else GROUP
    columns = units if sparse else columns
    rows = group if sparse else -(-GROUP // TILE_ROWS) * TILE_ROWS
    turned = aligned_empty(units * wide if sparse else 0, membrane)
    scratch_rows = aligned_empty(TURNED * lanes_of(membrane) * wide if sparse else 0, membrane)
    everything = out.reshape(-1)
    learn = grad_neuron.shape[1] > 0
    left, sums = aligned_empty(rows * units, membrane), aligned_empty(rows * columns, membrane)
    d, c = np.empty((group, units), membrane.dtype), np.empty((group, units), membrane.dtype)
    scratch = np.empty((5, units), membrane.dtype)
    g, level, fired, e, dh = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    level[:] = neuron[1]
    for first in range(start, stop, group):
        size = min(group, stop - first)
        left[:] = 0
        for b in range(size):
            d[b] = grad_v[first + b]
            c[b] = grad_w[first + b]
            if learn:
                for row in range(9):
                    grad_neuron[row, first + b] = 0
        for back in range(n_steps):
            t = n_steps - 1 - back
            reached = t + delay < n_steps
            if reached and sparse:
                r0 = (t + delay) * batch + first
                _along_synapses(
                    everything, r0, size, units, by_source, target, packed, turned, scratch_rows, sums, columns, wide
                )
            elif reached:
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
                h, u, o = membrane[t, first + b], up[t, first + b], out[t, first + b]
                db, cb = d[b], c[b]
                if dynamics == ADAPTIVE:
                    for j in range(units):
                        level[j] = neuron[1, j] + neuron[8, j] * second[t, first + b, j]
                surrogate_block(code, numbers, h, level, g, units)
                for j in range(units):
                    fired[j] = one if h[j] >= level[j] else zero
                back_row = sums[b * columns : b * columns + units]
                if reached:
                    for j in range(units):
                        e[j] = u[j] + back_row[j]
                else:
                    for j in range(units):
                        e[j] = u[j]
                if dynamics == ADAPTIVE:
                    if learn:
                        s4, s6, s7 = grad_neuron[4, first + b], grad_neuron[6, first + b], grad_neuron[7, first + b]
                        w = second[t, first + b]
                        for j in range(units):
                            after = neuron[2, j] if reset_zero else h[j] - neuron[3, j]
                            after = after if fired[j] > zero else h[j]
                            s4[j] += cb[j] * w[j]
                            s6[j] += cb[j] * after
                            s7[j] += cb[j] * fired[j]
                    for j in range(units):
                        db[j] += neuron[6, j] * cb[j]
                        e[j] += neuron[7, j] * cb[j]
                if not detach_reset:
                    if reset_zero:
                        for j in range(units):
                            e[j] += db[j] * (neuron[2, j] - h[j])
                    else:
                        for j in range(units):
                            e[j] -= db[j] * neuron[3, j]
                if reset_zero:
                    for j in range(units):
                        e[j] = e[j] * g[j]
                        dh[j] = (zero if fired[j] > zero else db[j]) + e[j]
                else:
                    for j in range(units):
                        e[j] = e[j] * g[j]
                        dh[j] = db[j] + e[j]
                if learn:
                    s0, s1 = grad_neuron[0, first + b], grad_neuron[1, first + b]
                    s2, s3 = grad_neuron[2, first + b], grad_neuron[3, first + b]
                    for j in range(units):
                        s1[j] -= e[j]
                        if reset_zero:
                            s2[j] += fired[j] * db[j]
                        else:
                            s3[j] -= fired[j] * db[j]
                    if t > 0:
                        p = membrane[t - 1, first + b]
                        for j in range(units):
                            bar = neuron[1, j]
                            if dynamics == ADAPTIVE:
                                bar += neuron[8, j] * second[t - 1, first + b, j]
                            after = neuron[2, j] if reset_zero else p[j] - neuron[3, j]
                            s0[j] += dh[j] * (after if p[j] >= bar else p[j])
                    if dynamics == CUBA:
                        s4, s5, i = grad_neuron[4, first + b], grad_neuron[5, first + b], second[t, first + b]
                        for j in range(units):
                            s4[j] += cb[j] * i[j]
                            s5[j] += dh[j] * i[j]
                    elif dynamics == ADAPTIVE:
                        s8, w = grad_neuron[8, first + b], second[t, first + b]
                        for j in range(units):
                            s8[j] -= e[j] * w[j]
                if dynamics == CUBA:
                    for j in range(units):
                        o[j] = cb[j]
                        cb[j] = neuron[4, j] * cb[j] + neuron[5, j] * dh[j]
                elif dynamics == ADAPTIVE:
                    for j in range(units):
                        o[j] = dh[j]
                        cb[j] = neuron[4, j] * cb[j] - (neuron[5, j] * dh[j] + neuron[8, j] * e[j])
                else:
                    for j in range(units):
                        o[j] = dh[j]
                for j in range(units):
                    db[j] = neuron[0, j] * dh[j]
