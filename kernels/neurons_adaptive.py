"""Fused kernels of adaptive LIF neurons (adLIF, ALIF); see :mod:`snnsim.kernels.neurons`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import BLOCK, block_size, spread
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["adaptive_backward", "adaptive_forward"]

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True, error_model="numpy")
def adaptive_forward(
    current: Floats,
    v: Floats,
    w: Floats,
    refractory: npt.NDArray[np.int32],
    beta: Floats,
    rho: Floats,
    adapt_v: Floats,
    adapt_spike: Floats,
    adapt_threshold: Floats,
    threshold: Floats,
    v_reset: Floats,
    reset_amount: Floats,
    refractory_steps: npt.NDArray[np.int32],
    reset_zero: bool,
    spikes: Floats,
    saved_v: Floats,
    saved_w: Floats,
    active: npt.NDArray[np.uint8],
    start: int,
    stop: int,
) -> None:
    """Advance adaptive neurons over all time steps.

    ``h = beta v + current[t] - m w`` with ``m = 0`` where ``adapt_threshold > 0``, else 1;
    ``spikes[t] = h >= threshold + adapt_threshold w``; ``v = h`` after the reset;
    ``w <- rho w + adapt_v v + adapt_spike spikes[t]``. A refractory neuron holds ``v``.

    Args:
        current: Arrivals plus drive, shape (time, lanes).
        v: Membrane before the first step, shape (lanes,); overwritten by the last one.
        w: Adaptation before the first step, shape (lanes,); overwritten.
        refractory: Steps still to be skipped, int32, shape (lanes,); overwritten.
        beta: Membrane decay per step, shape (unit,), as are all following parameters.
        rho: Decay of the adaptation per step.
        adapt_v: Coupling from the membrane to the adaptation.
        adapt_spike: Jump of the adaptation at a spike.
        adapt_threshold: Factor from the adaptation to the threshold.
        threshold: Firing threshold without adaptation.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        refractory_steps: Steps skipped after a spike, int32.
        reset_zero: Whether a spike resets to ``v_reset``.
        spikes: Output, shape (time, lanes).
        saved_v: Output, membrane before the reset, shape (time, lanes); zero time steps long to skip.
        saved_w: Output, adaptation before the step, like ``saved_v``.
        active: Output, whether the step was not skipped, shape (time, lanes); zero time steps long where no
            neuron is ever refractory.
        start: First lane.
        stop: Lane after the last.
    """
    one = current.dtype.type(1)
    zero = current.dtype.type(0)
    save = saved_v.shape[0] > 0
    skip = active.shape[0] > 0
    rows = np.empty(13 * BLOCK, current.dtype)
    b = rows[0 * BLOCK : 1 * BLOCK]
    rh = rows[1 * BLOCK : 2 * BLOCK]
    av = rows[2 * BLOCK : 3 * BLOCK]
    asp = rows[3 * BLOCK : 4 * BLOCK]
    at = rows[4 * BLOCK : 5 * BLOCK]
    th = rows[5 * BLOCK : 6 * BLOCK]
    vr = rows[6 * BLOCK : 7 * BLOCK]
    am = rows[7 * BLOCK : 8 * BLOCK]
    state = rows[8 * BLOCK : 9 * BLOCK]
    ad = rows[9 * BLOCK : 10 * BLOCK]
    h = rows[10 * BLOCK : 11 * BLOCK]
    gain = rows[11 * BLOCK : 12 * BLOCK]
    fired = rows[12 * BLOCK : 13 * BLOCK]
    wait = np.zeros(BLOCK, np.int32)
    steps = np.zeros(BLOCK, np.int32)
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
            spread(rho, first, min(size, stop - start), rh)
            spread(adapt_v, first, min(size, stop - start), av)
            spread(adapt_spike, first, min(size, stop - start), asp)
            spread(adapt_threshold, first, min(size, stop - start), at)
            spread(threshold, first, min(size, stop - start), th)
            spread(v_reset, first, min(size, stop - start), vr)
            spread(reset_amount, first, min(size, stop - start), am)
        for j in range(n):
            state[j] = v[first + j]
            ad[j] = w[first + j]
            gain[j] = zero if at[j] > zero else one
        if skip:
            spread(refractory_steps, first, n, steps)
            for j in range(n):
                wait[j] = refractory[first + j]
        for t in range(current.shape[0]):
            x = current[t, first : first + n]
            s = spikes[t, first : first + n]
            for j in range(n):
                h[j] = (b[j] * state[j] + x[j]) - gain[j] * ad[j]
            if skip:
                a = active[t, first : first + n]
                for j in range(n):
                    h[j] = h[j] if wait[j] <= 0 else state[j]
                    a[j] = 1 if wait[j] <= 0 else 0
            for j in range(n):
                fired[j] = one if h[j] >= th[j] + at[j] * ad[j] else zero
            if skip:
                for j in range(n):
                    fired[j] = fired[j] if wait[j] <= 0 else zero
                    wait[j] = steps[j] if fired[j] > zero else max(wait[j] - 1, 0)
            if save:
                keep_v = saved_v[t, first : first + n]
                keep_w = saved_w[t, first : first + n]
                for j in range(n):
                    keep_v[j] = h[j]
                    keep_w[j] = ad[j]
            for j in range(n):
                s[j] = fired[j]
            for j in range(n):
                after = vr[j] if reset_zero else h[j] - am[j]
                state[j] = after if fired[j] > zero else h[j]
                ad[j] = (rh[j] * ad[j] + av[j] * state[j]) + asp[j] * fired[j]
        for j in range(n):
            v[first + j] = state[j]
            w[first + j] = ad[j]
        if skip:
            for j in range(n):
                refractory[first + j] = wait[j]


@njit(cache=True, nogil=True, error_model="numpy")
def adaptive_backward(
    saved_v: Floats,
    saved_w: Floats,
    active: npt.NDArray[np.uint8],
    v_start: Floats,
    grad_spikes: Floats,
    grad_v: Floats,
    grad_w: Floats,
    beta: Floats,
    rho: Floats,
    adapt_v: Floats,
    adapt_spike: Floats,
    adapt_threshold: Floats,
    threshold: Floats,
    v_reset: Floats,
    reset_amount: Floats,
    reset_zero: bool,
    detach_reset: bool,
    code: int,
    numbers: Floats,
    grad_current: Floats,
    grad_parameters: Floats,
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`adaptive_forward`.

    With ``d`` and ``c`` upstream on membrane and adaptation after the step::

        d <- d + adapt_v c
        e  = (G + adapt_spike c + r) g(h - threshold - adapt_threshold w)       r as in lif_backward
        dh = d (1 - s) + e for zero, d + e for subtract
        grad_current = dh;  c <- rho c - m dh - adapt_threshold e;  d <- beta dh
        (skipped: grad_current = 0, c <- rho c, d unchanged)

    Args:
        saved_v: Membrane before the reset, shape (time, lanes).
        saved_w: Adaptation before the step, shape (time, lanes).
        active: Whether the step was not skipped.
        v_start: Membrane before the first step, shape (lanes,).
        grad_spikes: Gradient of the spikes, shape (time, lanes).
        grad_v: Gradient of the last membrane, shape (lanes,); overwritten by that of ``v_start``.
        grad_w: Gradient of the last adaptation, shape (lanes,); overwritten by that of the first.
        beta: As in the forward pass, like the following.
        rho: Decay of the adaptation per step.
        adapt_v: Coupling from the membrane to the adaptation.
        adapt_spike: Jump of the adaptation at a spike.
        adapt_threshold: Factor from the adaptation to the threshold.
        threshold: Firing threshold without adaptation.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        reset_zero: Whether a spike resets to ``v_reset``.
        detach_reset: Whether the reset passes no gradient to the spike.
        code: Code of the surrogate.
        numbers: Its coefficients.
        grad_current: Output, shape (time, lanes).
        grad_parameters: Output, gradients by lane of beta, rho, adapt_v, adapt_spike, adapt_threshold,
            threshold, v_reset, reset_amount, shape (8, lanes); zero lanes long to skip them.
        start: First lane.
        stop: Lane after the last.
    """
    one = grad_current.dtype.type(1)
    zero = grad_current.dtype.type(0)
    n_steps = grad_current.shape[0]
    skip = active.shape[0] > 0
    learn = grad_parameters.shape[1] > 0
    rows = np.empty(25 * BLOCK, grad_current.dtype)
    b = rows[0 * BLOCK : 1 * BLOCK]
    rh = rows[1 * BLOCK : 2 * BLOCK]
    av = rows[2 * BLOCK : 3 * BLOCK]
    asp = rows[3 * BLOCK : 4 * BLOCK]
    at = rows[4 * BLOCK : 5 * BLOCK]
    th = rows[5 * BLOCK : 6 * BLOCK]
    vr = rows[6 * BLOCK : 7 * BLOCK]
    am = rows[7 * BLOCK : 8 * BLOCK]
    d = rows[8 * BLOCK : 9 * BLOCK]
    c = rows[9 * BLOCK : 10 * BLOCK]
    g = rows[10 * BLOCK : 11 * BLOCK]
    free = rows[11 * BLOCK : 12 * BLOCK]
    fired = rows[12 * BLOCK : 13 * BLOCK]
    before = rows[13 * BLOCK : 14 * BLOCK]
    gain = rows[14 * BLOCK : 15 * BLOCK]
    level = rows[15 * BLOCK : 16 * BLOCK]
    dh = rows[16 * BLOCK : 17 * BLOCK]
    sums = rows[17 * BLOCK :]
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
            spread(rho, first, min(size, stop - start), rh)
            spread(adapt_v, first, min(size, stop - start), av)
            spread(adapt_spike, first, min(size, stop - start), asp)
            spread(adapt_threshold, first, min(size, stop - start), at)
            spread(threshold, first, min(size, stop - start), th)
            spread(v_reset, first, min(size, stop - start), vr)
            spread(reset_amount, first, min(size, stop - start), am)
        for j in range(n):
            d[j] = grad_v[first + j]
            c[j] = grad_w[first + j]
            gain[j] = zero if at[j] > zero else one
            free[j] = one
        for j in range(8 * BLOCK):
            sums[j] = zero
        for step in range(n_steps):
            t = n_steps - 1 - step
            h = saved_v[t, first : first + n]
            ad = saved_w[t, first : first + n]
            up = grad_spikes[t, first : first + n]
            out = grad_current[t, first : first + n]
            for j in range(n):
                level[j] = th[j] + at[j] * ad[j]
            surrogate_block(code, numbers, h, level, g, n)
            if skip:
                a = active[t, first : first + n]
                for j in range(n):
                    free[j] = a[j]
            for j in range(n):
                fired[j] = free[j] if h[j] >= level[j] else zero
            if learn:
                for j in range(n):
                    after = vr[j] if reset_zero else h[j] - am[j]
                    after = after if fired[j] > zero else h[j]
                    sums[BLOCK + j] += c[j] * ad[j]
                    sums[2 * BLOCK + j] += c[j] * after
                    sums[3 * BLOCK + j] += c[j] * fired[j]
            for j in range(n):
                d[j] += av[j] * c[j]
            for j in range(n):
                total = up[j] + asp[j] * c[j]
                if not detach_reset:
                    total += d[j] * (vr[j] - h[j]) if reset_zero else -(d[j] * am[j])
                g[j] = total * g[j] * free[j]
            for j in range(n):
                dh[j] = (d[j] - fired[j] * d[j] if reset_zero else d[j]) + g[j]
            if learn:
                if t > 0:
                    p = saved_v[t - 1, first : first + n]
                    q = saved_w[t - 1, first : first + n]
                    for j in range(n):
                        after = vr[j] if reset_zero else p[j] - am[j]
                        before[j] = after if p[j] >= th[j] + at[j] * q[j] else p[j]
                    if skip:
                        a = active[t - 1, first : first + n]
                        for j in range(n):
                            before[j] = before[j] if a[j] != 0 else p[j]
                else:
                    for j in range(n):
                        before[j] = v_start[first + j]
                for j in range(n):
                    sums[j] += dh[j] * before[j] * free[j]
                    sums[4 * BLOCK + j] -= g[j] * ad[j]
                    sums[5 * BLOCK + j] -= g[j]
                    sums[6 * BLOCK + j] += fired[j] * d[j]
            for j in range(n):
                c[j] = rh[j] * c[j] - (gain[j] * (dh[j] * free[j]) + at[j] * g[j])
            for j in range(n):
                out[j] = dh[j] * free[j]
                d[j] = (b[j] if free[j] > zero else one) * dh[j]
        for j in range(n):
            grad_v[first + j] = d[j]
            grad_w[first + j] = c[j]
        if learn:
            for k in range(6):
                for j in range(n):
                    grad_parameters[k, first + j] = sums[k * BLOCK + j]
            for j in range(n):
                grad_parameters[6, first + j] = sums[6 * BLOCK + j] if reset_zero else zero
                grad_parameters[7, first + j] = zero if reset_zero else -sums[6 * BLOCK + j]
