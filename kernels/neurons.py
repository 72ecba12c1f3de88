"""Fused neuron kernels for training: all time steps forward and backward, in blocks of lanes.

A lane is one (sample, unit) pair, see :mod:`snnsim.kernels.lanes`. Gradients of per-neuron parameters are summed
over time inside a lane and over the batch in order by the caller.

All kernels work in the dtype of their arrays (float32 or float64). No fused multiply-add, no reordering:
the forward kernels give the bits of the plain NumPy twins in :mod:`snnsim.kernels.reference_neurons`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import BLOCK, block_size, lane_ranges, run_lanes, run_ranges, spread
from snnsim.kernels.surrogates import surrogate_block, surrogate_numbers

__all__ = [
    "block_size",
    "lane_ranges",
    "li_backward",
    "li_forward",
    "lif_backward",
    "lif_forward",
    "run_lanes",
    "run_ranges",
    "surrogate_block",
    "surrogate_numbers",
]

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True, error_model="numpy")
def lif_forward(
    current: Floats,
    v: Floats,
    refractory: npt.NDArray[np.int32],
    beta: Floats,
    threshold: Floats,
    v_reset: Floats,
    reset_amount: Floats,
    refractory_steps: npt.NDArray[np.int32],
    reset_zero: bool,
    spikes: Floats,
    saved_v: Floats,
    active: npt.NDArray[np.uint8],
    start: int,
    stop: int,
) -> None:
    """Advance LIF neurons over all time steps.

    ``h[t] = beta v[t-1] + current[t]``; ``spikes[t] = h[t] >= threshold``; ``v[t] = h[t]`` after the reset.
    A neuron whose refractory counter is above 0 holds ``v`` and counts down.

    Args:
        current: Arrivals plus drive, shape (time, lanes).
        v: Membrane potential before the first step, shape (lanes,); overwritten by the last one.
        refractory: Steps still to be skipped, int32, shape (lanes,); overwritten.
        beta: Decay per step, shape (unit,), as are all following parameters.
        threshold: Firing threshold.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        refractory_steps: Steps skipped after a spike, int32.
        reset_zero: Whether a spike resets to ``v_reset``.
        spikes: Output, shape (time, lanes).
        saved_v: Output, membrane before the reset ``h``, shape (time, lanes); zero time steps long to skip.
        active: Output, whether the step was not skipped, uint8, shape (time, lanes); zero time steps long
            where no neuron is ever refractory: then the counters are not read.
        start: First lane.
        stop: Lane after the last.
    """
    one = current.dtype.type(1)
    zero = current.dtype.type(0)
    n_steps = current.shape[0]
    save = saved_v.shape[0] > 0
    skip = active.shape[0] > 0
    b = np.empty(BLOCK, current.dtype)
    th = np.empty(BLOCK, current.dtype)
    vr = np.empty(BLOCK, current.dtype)
    am = np.empty(BLOCK, current.dtype)
    state = np.empty(BLOCK, current.dtype)
    wait = np.empty(BLOCK, np.int32)
    steps = np.empty(BLOCK, np.int32)
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
            spread(threshold, first, min(size, stop - start), th)
            spread(v_reset, first, min(size, stop - start), vr)
            spread(reset_amount, first, min(size, stop - start), am)
        for j in range(n):
            state[j] = v[first + j]
        if skip:
            spread(refractory_steps, first, n, steps)
            for j in range(n):
                wait[j] = refractory[first + j]
        for t in range(n_steps):
            x = current[t, first : first + n]
            s = spikes[t, first : first + n]
            if skip:
                a = active[t, first : first + n]
                for j in range(n):
                    h = b[j] * state[j] + x[j]
                    free = wait[j] <= 0
                    h = h if free else state[j]
                    fire = free and h >= th[j]
                    s[j] = one if fire else zero
                    a[j] = 1 if free else 0
                    after = vr[j] if reset_zero else h - am[j]
                    if save:
                        saved_v[t, first + j] = h
                    state[j] = after if fire else h
                    wait[j] = steps[j] if fire else max(wait[j] - 1, 0)
            elif save:
                keep = saved_v[t, first : first + n]
                if reset_zero:
                    for j in range(n):
                        h = b[j] * state[j] + x[j]
                        keep[j] = h
                        s[j] = one if h >= th[j] else zero
                        state[j] = vr[j] if h >= th[j] else h
                else:
                    for j in range(n):
                        h = b[j] * state[j] + x[j]
                        keep[j] = h
                        s[j] = one if h >= th[j] else zero
                        state[j] = h - am[j] if h >= th[j] else h
            else:
                for j in range(n):
                    h = b[j] * state[j] + x[j]
                    s[j] = one if h >= th[j] else zero
                    after = vr[j] if reset_zero else h - am[j]
                    state[j] = after if h >= th[j] else h
        for j in range(n):
            v[first + j] = state[j]
        if skip:
            for j in range(n):
                refractory[first + j] = wait[j]


@njit(cache=True, nogil=True, error_model="numpy")
def lif_backward(
    saved_v: Floats,
    active: npt.NDArray[np.uint8],
    v_start: Floats,
    grad_spikes: Floats,
    grad_v: Floats,
    beta: Floats,
    threshold: Floats,
    v_reset: Floats,
    reset_amount: Floats,
    reset_zero: bool,
    detach_reset: bool,
    carry: bool,
    code: int,
    numbers: Floats,
    grad_current: Floats,
    grad_parameters: Floats,
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`lif_forward`.

    With ``x = h - threshold``, upstream ``d`` on the membrane after the step and ``G`` on the spike::

        e  = (G + r) g(x)          r = 0 if detach_reset, d (v_reset - h) for zero, -d reset_amount for subtract
        dh = d (1 - s) + e         for zero;  d + e for subtract
        grad_current = dh;  d <- beta dh                     (a skipped step passes d through unchanged)

    Args:
        saved_v: Membrane before the reset, from the forward pass, shape (time, lanes).
        active: Whether the step was not skipped, from the forward pass.
        v_start: Membrane before the first step, shape (lanes,).
        grad_spikes: Gradient of the spikes, shape (time, lanes).
        grad_v: Gradient of the last membrane, shape (lanes,); overwritten by that of ``v_start``.
        beta: As in the forward pass, like the following.
        threshold: Firing threshold.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        reset_zero: Whether a spike resets to ``v_reset``.
        detach_reset: Whether the reset passes no gradient to the spike.
        carry: Whether the membrane passes gradient from a step to the one before; else every step stands alone, d = 0.
        code: Code of the surrogate.
        numbers: Its coefficients from :func:`surrogate_numbers`.
        grad_current: Output, shape (time, lanes).
        grad_parameters: Output, gradients by lane of beta, threshold, v_reset, reset_amount, shape (4, lanes);
            zero lanes long to skip them.
        start: First lane.
        stop: Lane after the last.
    """
    one = saved_v.dtype.type(1)
    zero = saved_v.dtype.type(0)
    n_steps = saved_v.shape[0]
    skip = active.shape[0] > 0
    learn = grad_parameters.shape[1] > 0
    rows = np.empty(12 * BLOCK, saved_v.dtype)  # one array: loops over rows of it need no aliasing checks
    b = rows[0 * BLOCK : 1 * BLOCK]
    th = rows[1 * BLOCK : 2 * BLOCK]
    vr = rows[2 * BLOCK : 3 * BLOCK]
    am = rows[3 * BLOCK : 4 * BLOCK]
    d = rows[4 * BLOCK : 5 * BLOCK]
    g = rows[5 * BLOCK : 6 * BLOCK]
    free = rows[6 * BLOCK : 7 * BLOCK]
    spiked = rows[7 * BLOCK : 8 * BLOCK]
    before = rows[8 * BLOCK : 9 * BLOCK]
    gb = rows[9 * BLOCK : 10 * BLOCK]
    gt = rows[10 * BLOCK : 11 * BLOCK]
    gr = rows[11 * BLOCK : 12 * BLOCK]
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
            spread(threshold, first, min(size, stop - start), th)
            spread(v_reset, first, min(size, stop - start), vr)
            spread(reset_amount, first, min(size, stop - start), am)
        for j in range(n):
            d[j] = grad_v[first + j] if carry else zero
        if learn:
            for j in range(n):
                gb[j] = zero
                gt[j] = zero
                gr[j] = zero
        for step in range(n_steps):
            t = n_steps - 1 - step
            h = saved_v[t, first : first + n]
            up = grad_spikes[t, first : first + n]
            out = grad_current[t, first : first + n]
            surrogate_block(code, numbers, h, th, g, n)
            if skip:
                a = active[t, first : first + n]
                for j in range(n):
                    free[j] = a[j]
            else:
                for j in range(n):
                    free[j] = one
            for j in range(n):
                fired = free[j] if h[j] >= th[j] else zero
                total = up[j]
                if not detach_reset:
                    total += d[j] * (vr[j] - h[j]) if reset_zero else -(d[j] * am[j])
                e = total * g[j] * free[j]
                spiked[j] = fired * d[j]
                g[j] = e
            if learn:
                if t > 0:
                    p = saved_v[t - 1, first : first + n]
                    if skip:
                        a = active[t - 1, first : first + n]
                        for j in range(n):
                            fire = a[j] != 0 and p[j] >= th[j]
                            after = vr[j] if reset_zero else p[j] - am[j]
                            before[j] = after if fire else p[j]
                    else:
                        for j in range(n):
                            after = vr[j] if reset_zero else p[j] - am[j]
                            before[j] = after if p[j] >= th[j] else p[j]
                else:
                    for j in range(n):
                        before[j] = v_start[first + j]
                through = one if reset_zero else zero
                for j in range(n):
                    gb[j] += (d[j] - through * spiked[j] + g[j]) * before[j] * free[j]
                    gt[j] += g[j]
                    gr[j] += spiked[j]
            for j in range(n):
                dh = (d[j] - spiked[j] if reset_zero else d[j]) + g[j]
                out[j] = dh * free[j]
                d[j] = ((b[j] if free[j] > zero else one) * dh) if carry else zero
        for j in range(n):
            grad_v[first + j] = d[j]
        if learn:
            for j in range(n):
                grad_parameters[0, first + j] = gb[j]
                grad_parameters[1, first + j] = -gt[j]
                grad_parameters[2, first + j] = gr[j] if reset_zero else zero
                grad_parameters[3, first + j] = zero if reset_zero else -gr[j]


@njit(cache=True, nogil=True, error_model="numpy")
def li_forward(current: Floats, v: Floats, beta: Floats, out: Floats, start: int, stop: int) -> None:
    """Advance leaky integrators: ``v[t] = beta v[t-1] + current[t]``.

    Args:
        current: Arrivals plus drive, shape (time, lanes).
        v: Membrane before the first step, shape (lanes,); overwritten by the last one.
        beta: Decay per step, shape (unit,).
        out: Output, membrane of every step, shape (time, lanes).
        start: First lane.
        stop: Lane after the last.
    """
    b = np.empty(BLOCK, current.dtype)
    state = np.empty(BLOCK, current.dtype)
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
        for j in range(n):
            state[j] = v[first + j]
        for t in range(current.shape[0]):
            x = current[t, first : first + n]
            y = out[t, first : first + n]
            for j in range(n):
                h = b[j] * state[j] + x[j]
                state[j] = h
                y[j] = h
        for j in range(n):
            v[first + j] = state[j]


@njit(cache=True, nogil=True, error_model="numpy")
def li_backward(
    trace: Floats,
    v_start: Floats,
    grad_out: Floats,
    grad_v: Floats,
    beta: Floats,
    grad_current: Floats,
    grad_beta: Floats,
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`li_forward`: ``d <- grad_out[t] + d``; ``grad_current[t] = d``; ``d <- beta d``.

    Args:
        trace: Output of the forward pass, shape (time, lanes); read only for ``grad_beta``.
        v_start: Membrane before the first step, shape (lanes,).
        grad_out: Gradient of the output, shape (time, lanes).
        grad_v: Gradient of the last membrane, shape (lanes,); overwritten by that of ``v_start``.
        beta: Decay per step, shape (unit,).
        grad_current: Output, shape (time, lanes).
        grad_beta: Output by lane, shape (lanes,); zero long to skip.
        start: First lane.
        stop: Lane after the last.
    """
    n_steps = grad_out.shape[0]
    learn = grad_beta.shape[0] > 0
    b = np.empty(BLOCK, grad_out.dtype)
    d = np.empty(BLOCK, grad_out.dtype)
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
        for j in range(n):
            d[j] = grad_v[first + j]
        if learn:
            for j in range(n):
                grad_beta[first + j] = 0
        for step in range(n_steps):
            t = n_steps - 1 - step
            up = grad_out[t, first : first + n]
            out = grad_current[t, first : first + n]
            if learn:
                for j in range(n):
                    before = trace[t - 1, first + j] if t > 0 else v_start[first + j]
                    grad_beta[first + j] += (d[j] + up[j]) * before
            for j in range(n):
                dh = d[j] + up[j]
                out[j] = dh
                d[j] = b[j] * dh
        for j in range(n):
            grad_v[first + j] = d[j]
