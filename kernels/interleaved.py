"""Inference of a layer for a vector of samples at once: sample is the fastest axis, so a delay is an aligned shift.

Arrays of a group of samples have the shape (unit, silent steps + steps, lane): as many silent steps stand before a
sequence as the next layer's longest delay. Every (target, source, tap) then adds ``weight * x[t - delay]`` for all
steps of a chunk, eight of them in one pass over the sums, which stay in the second-level cache. The sum of a target
starts at 0 and runs over source and tap in order, so a sample's bits depend on neither its group nor the threads; they
are not those of the canonical order of events, which float64 evaluation keeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.dynamics import ADAPTIVE, CUBA
from snnsim.kernels.simd import aligned_empty, fma, lanes_of, load, splat, store, turn, where_not_less

__all__ = ["PASS", "layer", "pack", "unpack"]

CHUNK = 34
"""Steps whose sums are made together."""

PASS = 8
"""Synapses of a target added in one pass; their number is filled up to a multiple of it with weight 0."""

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True)
def pack(x: Floats, first: int, silent: int, out: Floats) -> None:
    """Write samples ``first ..`` of ``x`` (time, batch, unit) as (unit, silent + time, lane), flat; none there is 0."""
    lanes = lanes_of(out)
    n_steps, batch, units = x.shape
    zero = splat(out.dtype.type(0))
    length = silent + n_steps
    for unit in range(units):
        for t in range(silent if batch - first >= lanes else length):
            store(out, (unit * length + t) * lanes, zero)
    samples = min(lanes, batch - first)
    flat = x.reshape(-1)
    whole = units - units % lanes if samples == lanes else 0
    for u0 in range(0, whole, lanes):  # squares of units and samples are turned in registers
        for t in range(n_steps):
            turn(flat, (t * batch + first) * units + u0, units, out, (u0 * length + silent + t) * lanes, length * lanes)
    for t in range(n_steps):
        for lane in range(samples):
            at = (silent + t) * lanes + lane
            for unit in range(whole, units):
                out[unit * length * lanes + at] = x[t, first + lane, unit]


@njit(cache=True, nogil=True)
def unpack(trace: Floats, first: int, out: Floats) -> None:
    """Write (unit, time, lane), flat, to samples ``first ..`` of ``out`` (time, batch, unit)."""
    lanes = lanes_of(trace)
    n_steps, batch, units = out.shape
    for t in range(n_steps):
        for lane in range(min(lanes, batch - first)):
            for unit in range(units):
                out[t, first + lane, unit] = trace[(unit * n_steps + t) * lanes + lane]


@njit(cache=True, nogil=True)
def layer(
    x: Floats,
    weight: Floats,
    place: npt.NDArray[np.int64],
    neuron: Floats,
    dynamics: int,
    spiking: bool,
    reset_zero: bool,
    valid: Floats,
    n_steps: int,
    silent: int,
    out: Floats,
    counts: npt.NDArray[np.float64],
) -> None:
    """Run one layer over all steps for one group of samples.

    Args:
        x: Input, (source, silent steps + time, lane), flat.
        weight: Shape (target, synapse), zero for the synapses that only fill a pass.
        place: Where in ``x`` the step that arrives at step 0 begins, in vectors, shape (target, synapse).
        neuron: Parameters as in :mod:`snnsim.kernels.dynamics`, then scale and shift of the current, shape
            (11, target).
        dynamics: Kind of neuron.
        spiking: Whether targets fire; otherwise they integrate and ``out`` is their membrane.
        reset_zero: Kind of reset.
        valid: 1 for valid steps, shape (time, lane), flat.
        n_steps: Steps.
        silent: Silent steps to leave before the output.
        out: Output, (target, silent + time, lane), flat.
        counts: Output, spikes in valid steps of every lane are added, shape (lane,).
    """
    lanes = lanes_of(x)
    kind = x.dtype.type
    n_out, synapses = weight.shape
    zero, one = splat(kind(0)), splat(kind(1))
    sums = aligned_empty(n_out * CHUNK * lanes, x)
    state = aligned_empty(2 * n_out * lanes, x)  # the membrane, then the current or the adaptation
    state[:] = 0
    total = aligned_empty(lanes, x)
    total[:] = 0
    length = silent + n_steps
    for j in range(n_out):
        for t in range(silent):
            store(out, (j * length + t) * lanes, zero)
    for t0 in range(0, n_steps, CHUNK):
        steps = min(CHUNK, n_steps - t0)
        for s in range(0, synapses, PASS):
            for j in range(n_out):
                w, p = weight[j], place[j]
                w0, w1, w2, w3 = splat(w[s]), splat(w[s + 1]), splat(w[s + 2]), splat(w[s + 3])
                w4, w5, w6, w7 = splat(w[s + 4]), splat(w[s + 5]), splat(w[s + 6]), splat(w[s + 7])
                p0, p1, p2, p3 = p[s] + t0, p[s + 1] + t0, p[s + 2] + t0, p[s + 3] + t0
                p4, p5, p6, p7 = p[s + 4] + t0, p[s + 5] + t0, p[s + 6] + t0, p[s + 7] + t0
                at = j * CHUNK * lanes
                for t in range(steps):
                    a = zero if s == 0 else load(sums, at + t * lanes)
                    a = fma(w0, load(x, (p0 + t) * lanes), a)
                    a = fma(w1, load(x, (p1 + t) * lanes), a)
                    a = fma(w2, load(x, (p2 + t) * lanes), a)
                    a = fma(w3, load(x, (p3 + t) * lanes), a)
                    a = fma(w4, load(x, (p4 + t) * lanes), a)
                    a = fma(w5, load(x, (p5 + t) * lanes), a)
                    a = fma(w6, load(x, (p6 + t) * lanes), a)
                    a = fma(w7, load(x, (p7 + t) * lanes), a)
                    store(sums, at + t * lanes, a)
        for j in range(n_out):
            beta, threshold, low = splat(neuron[0, j]), splat(neuron[1, j]), splat(neuron[2, j])
            amount, decay, gain = splat(neuron[3, j]), splat(neuron[4, j]), splat(neuron[5, j])
            by_v, by_spike, on_threshold = splat(neuron[6, j]), splat(neuron[7, j]), splat(neuron[8, j])
            scale, shift = splat(neuron[9, j]), splat(neuron[10, j])
            v, second = load(state, j * lanes), load(state, (n_out + j) * lanes)
            for t in range(steps):
                arriving = load(sums, (j * CHUNK + t) * lanes) * scale + shift
                bar = threshold
                if dynamics == CUBA:
                    h = beta * v + gain * second
                    second = decay * second + arriving
                elif dynamics == ADAPTIVE:
                    h = (beta * v + arriving) - gain * second
                    bar = threshold + on_threshold * second
                else:
                    h = beta * v + arriving
                o = (j * length + silent + t0 + t) * lanes
                if spiking:
                    after = low if reset_zero else h - amount
                    v = where_not_less(h, bar, after, h)
                    fired = where_not_less(h, bar, one, zero)
                    store(out, o, fired)
                    store(total, 0, fma(fired, load(valid, (t0 + t) * lanes), load(total, 0)))
                    if dynamics == ADAPTIVE:
                        second = (decay * second + by_v * v) + by_spike * fired
                else:
                    v = h
                    store(out, o, h)
            store(state, j * lanes, v)
            store(state, (n_out + j) * lanes, second)
        for lane in range(lanes):
            counts[lane] += total[lane]
            total[lane] = 0
