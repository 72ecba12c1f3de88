"""Neurons of a layer over all time steps on a device: batch norm, charge, spike, reset and dropout in one kernel.

One thread takes one (sample, unit) pair through time; adjacent threads take adjacent units, so that every step of a
warp is one stretch of memory. Read is the layer's current, written are the thinned spikes, and for the backward pass
(:mod:`snnsim.kernels.cuda_neurons_backward`) the states at every :data:`STRETCH`-th step. The next :data:`AHEAD`
currents are asked for before they are needed.

A kernel is made for what a layer is (:func:`forward_kernel`), so that no thread asks for it in every step. The
operations are those of :mod:`snnsim.kernels.norm_neurons` and, with refractory periods, of
:mod:`snnsim.kernels.neurons`, ``neurons_cuba`` and ``neurons_adaptive``, bit for bit. Arrays are flat: (time, batch,
unit) as time * batch * unit numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_made import kernel_by_name, named_kernel
from snnsim.kernels.cuda_support import SIMULATED, times
from snnsim.kernels.dynamics import ADAPTIVE, CUBA

__all__ = ["AHEAD", "STRETCH", "THREADS", "float_type", "forward_kernel", "step_function", "stretches_of"]

STRETCH = 32
"""Steps from one kept state to the next."""

AHEAD = 16
"""Steps whose currents are read at once, a divisor of :data:`STRETCH`: few threads then wait seldom for memory."""

THREADS = 4 if SIMULATED else 64
"""Threads of a block: few, so that layers of usual sizes reach every multiprocessor."""


def stretches_of(n_steps: int) -> int:
    """Return the states that are kept for ``n_steps`` steps."""
    return -(-n_steps // STRETCH)


def float_type(dtype: str) -> Any:
    """Return NumPy's type by its name.

    Raises:
        ValueError: It is neither ``"float32"`` nor ``"float64"``.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
    return np.float32 if dtype == "float32" else np.float64


@cache
def step_function(dtype: str, kind: int, reset_zero: bool, fires: bool) -> Any:
    """Return the device function of one step.

    It is called as ``h, v, w, fired = step(beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level, x, v,
    w, free)``: the nine parameters of :mod:`snnsim.kernels.dynamics`, the current, membrane and second state before
    the step, and whether the neuron is not refractory; ``h`` is the membrane before the reset.

    Args:
        dtype: ``"float32"`` or ``"float64"``.
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        reset_zero: Kind of reset.
        fires: Whether there is a threshold; without one ``h`` is the membrane.
    """
    number = float_type(dtype)

    def step(beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level, x, v, w, free):  # type: ignore[no-untyped-def]
        if kind == CUBA:
            h = times(beta, v) + times(gain, w)
        elif kind == ADAPTIVE:
            h = (times(beta, v) + x) - times(gain, w)
        else:
            h = times(beta, v) + x
        if not free:
            h = v
        fired = False
        after = h
        if fires:
            level = threshold
            if kind == ADAPTIVE:
                level = threshold + times(on_level, w)
            fired = free and h >= level
            if fired:
                after = low if reset_zero else h - amount
        second = w
        if kind == CUBA:
            second = times(decay, w) + x
        elif kind == ADAPTIVE:
            spike = number(1) if fired else number(0)
            second = (times(decay, w) + times(by_v, after)) + times(by_spike, spike)
        return h, after, second, fired

    return cuda.jit(device=True)(step)


@cache
def forward_kernel(
    dtype: str,
    kind: int,
    reset_zero: bool,
    fires: bool,
    normed: bool,
    masked: bool,
    thinned: bool,
    counted: bool,
    waits: bool,
    keeps: bool,
) -> Any:
    """Return the kernel that takes neurons of one sort through time.

    Args:
        dtype: ``"float32"`` or ``"float64"``.
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        reset_zero: Kind of reset.
        fires: Whether spikes come out; without a threshold it is the membrane.
        normed: Whether currents are normalised by ``affine``.
        masked: Whether steps are left out of ``counts``.
        thinned: Whether spikes are multiplied by ``factors``.
        counted: Whether spikes are counted.
        waits: Whether a neuron may be refractory.
        keeps: Whether states are kept for the backward pass.
    """
    number = float_type(dtype)
    step = step_function(dtype, kind, reset_zero, fires)

    def neurons_forward(  # type: ignore[no-untyped-def]
        n_steps, y, mask, affine, neuron, steps, factors, v, w, wait, out, counts, kept_v, kept_w, kept_wait
    ):
        """Advance neurons over all time steps; what a kernel was not made for is not touched, and may be empty.

        Args:
            n_steps: Steps.
            y: Currents, shape (time, batch, unit), flat.
            mask: 1 for valid steps, uint8, shape (time, batch), flat.
            affine: Mean, scale and shift of the batch norm, shape (3, unit).
            neuron: Parameters, shape (9, unit).
            steps: Steps skipped after a spike, int32, shape (unit,).
            factors: What dropout multiplies spikes by, shape (batch, unit), flat.
            v: Membrane before the first step, shape (batch, unit), flat; overwritten by the last one.
            w: Synaptic current or adaptation, likewise.
            wait: Steps still to be skipped, int32, likewise.
            out: Output, thinned spikes, or the membrane, shape (time, batch, unit), flat.
            counts: Spikes in valid steps before dropout, int64, shape (batch,); added to.
            kept_v: Output, membrane before every :data:`STRETCH`-th step, shape (stretches, batch, unit), flat.
            kept_w: Output, second state, likewise.
            kept_wait: Output, refractory counters, int32, likewise.
        """
        lane = cuda.grid(1)
        lanes = v.shape[0]
        if lane >= lanes:
            return
        units = neuron.shape[1]
        batch = lanes // units
        sample = lane // units
        unit = lane - sample * units
        ahead = cuda.local.array(AHEAD, number)
        valid = cuda.local.array(AHEAD, np.uint8)
        beta, threshold, low, amount = neuron[0, unit], neuron[1, unit], neuron[2, unit], neuron[3, unit]
        decay, gain, by_v = neuron[4, unit], neuron[5, unit], neuron[6, unit]
        by_spike, on_level = neuron[7, unit], neuron[8, unit]
        mean, scale, shift = number(0), number(1), number(0)
        if normed:
            mean, scale, shift = affine[0, unit], affine[1, unit], affine[2, unit]
        factor = number(1)
        if thinned:
            factor = factors[lane]
        state = v[lane]
        second = number(0)
        if kind != 0:
            second = w[lane]
        waiting, pause = 0, 0
        if waits:
            waiting, pause = wait[lane], steps[unit]
        number_of_spikes = 0
        stride = np.uint64(lanes)
        here = np.uint64(lane)
        for first in range(0, n_steps, AHEAD):
            if keeps and first % STRETCH == 0:
                place = np.uint64(first // STRETCH) * stride + np.uint64(lane)
                kept_v[place] = state
                if kind != 0:
                    kept_w[place] = second
                if waits:
                    kept_wait[place] = waiting
            for k in range(AHEAD):
                if first + k < n_steps:
                    ahead[k] = y[here + np.uint64(k) * stride]
                    if masked:
                        valid[k] = mask[np.uint64((first + k) * batch + sample)]
            for k in range(AHEAD):
                if first + k < n_steps:
                    x = ahead[k]
                    if normed:
                        x = times(x - mean, scale) + shift
                    free = True
                    if waits:
                        free = waiting <= 0
                    h, state, second, fired = step(
                        beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level, x, state, second, free
                    )
                    if waits:
                        waiting = pause if fired else max(waiting - 1, 0)
                    if fires:
                        out[here] = factor if fired else number(0)
                        if counted and fired and (not masked or valid[k] != 0):
                            number_of_spikes += 1
                    else:
                        out[here] = h
                    here += stride
        v[lane] = state
        if kind != 0:
            w[lane] = second
        if waits:
            wait[lane] = waiting
        if counted:
            cuda.atomic.add(counts, sample, number_of_spikes)

    return named_kernel(neurons_forward, dtype, kind, reset_zero, fires, normed, masked, thinned, counted, waits, keeps)


def __getattr__(name: str) -> Any:
    return kernel_by_name(name, {"neurons_forward": forward_kernel})
