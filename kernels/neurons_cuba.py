"""Fused kernels of CubaLIF and CubaLI, neurons with a synaptic current; see :mod:`snnsim.kernels.neurons`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import BLOCK, block_size, spread
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["cuba_backward", "cuba_forward"]

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True, error_model="numpy")
def cuba_forward(
    current: Floats,
    v: Floats,
    i_syn: Floats,
    refractory: npt.NDArray[np.int32],
    beta: Floats,
    alpha: Floats,
    kappa: Floats,
    threshold: Floats,
    v_reset: Floats,
    reset_amount: Floats,
    refractory_steps: npt.NDArray[np.int32],
    reset_zero: bool,
    spikes: Floats,
    saved_v: Floats,
    saved_i: Floats,
    active: npt.NDArray[np.uint8],
    start: int,
    stop: int,
) -> None:
    """Advance neurons with a synaptic current over all time steps.

    ``h = beta v + kappa i``; ``i <- alpha i``; ``spikes[t] = h >= threshold``; ``v = h`` after the reset;
    ``i <- i + current[t]``. A refractory neuron holds ``v`` while ``i`` goes on.

    Args:
        current: Arrivals, shape (time, lanes).
        v: Membrane before the first step, shape (lanes,); overwritten by the last one.
        i_syn: Synaptic current before the first step, shape (lanes,); overwritten.
        refractory: Steps still to be skipped, int32, shape (lanes,); overwritten.
        beta: Membrane decay per step, shape (unit,), as are all following parameters.
        alpha: Synaptic decay per step.
        kappa: Gain from current to membrane.
        threshold: Firing threshold; infinite for neurons that never fire.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        refractory_steps: Steps skipped after a spike, int32.
        reset_zero: Whether a spike resets to ``v_reset``.
        spikes: Output, shape (time, lanes); zero time steps long for neurons that never fire.
        saved_v: Output, membrane before the reset, shape (time, lanes); zero time steps long to skip.
        saved_i: Output, current before the step, shape (time, lanes); zero time steps long to skip.
        active: Output, whether the step was not skipped, shape (time, lanes); zero time steps long where no
            neuron is ever refractory.
        start: First lane.
        stop: Lane after the last.
    """
    one = current.dtype.type(1)
    zero = current.dtype.type(0)
    spiking = spikes.shape[0] > 0
    save_v = saved_v.shape[0] > 0
    save_i = saved_i.shape[0] > 0
    skip = active.shape[0] > 0
    rows = np.empty(9 * BLOCK, current.dtype)
    b = rows[0 * BLOCK : 1 * BLOCK]
    al = rows[1 * BLOCK : 2 * BLOCK]
    ka = rows[2 * BLOCK : 3 * BLOCK]
    th = rows[3 * BLOCK : 4 * BLOCK]
    vr = rows[4 * BLOCK : 5 * BLOCK]
    am = rows[5 * BLOCK : 6 * BLOCK]
    state = rows[6 * BLOCK : 7 * BLOCK]
    syn = rows[7 * BLOCK : 8 * BLOCK]
    h = rows[8 * BLOCK : 9 * BLOCK]
    wait = np.zeros(BLOCK, np.int32)
    steps = np.zeros(BLOCK, np.int32)
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
            spread(alpha, first, min(size, stop - start), al)
            spread(kappa, first, min(size, stop - start), ka)
            spread(threshold, first, min(size, stop - start), th)
            spread(v_reset, first, min(size, stop - start), vr)
            spread(reset_amount, first, min(size, stop - start), am)
        for j in range(n):
            state[j] = v[first + j]
            syn[j] = i_syn[first + j]
        if skip:
            spread(refractory_steps, first, n, steps)
            for j in range(n):
                wait[j] = refractory[first + j]
        for t in range(current.shape[0]):
            x = current[t, first : first + n]
            if save_i:
                keep_i = saved_i[t, first : first + n]
                for j in range(n):
                    keep_i[j] = syn[j]
            for j in range(n):
                h[j] = b[j] * state[j] + ka[j] * syn[j]
                syn[j] = al[j] * syn[j] + x[j]
            if skip:
                a = active[t, first : first + n]
                for j in range(n):
                    h[j] = h[j] if wait[j] <= 0 else state[j]
                    a[j] = 1 if wait[j] <= 0 else 0
            if save_v:
                keep_v = saved_v[t, first : first + n]
                for j in range(n):
                    keep_v[j] = h[j]
            if skip:
                s = spikes[t, first : first + n]
                a = active[t, first : first + n]
                for j in range(n):
                    fire = a[j] != 0 and h[j] >= th[j]
                    s[j] = one if fire else zero
                    after = vr[j] if reset_zero else h[j] - am[j]
                    state[j] = after if fire else h[j]
                    wait[j] = steps[j] if fire else max(wait[j] - 1, 0)
            elif spiking:
                s = spikes[t, first : first + n]
                for j in range(n):
                    s[j] = one if h[j] >= th[j] else zero
                for j in range(n):
                    after = vr[j] if reset_zero else h[j] - am[j]
                    state[j] = after if h[j] >= th[j] else h[j]
            else:
                for j in range(n):
                    state[j] = h[j]
        for j in range(n):
            v[first + j] = state[j]
            i_syn[first + j] = syn[j]
        if skip:
            for j in range(n):
                refractory[first + j] = wait[j]


@njit(cache=True, nogil=True, error_model="numpy")
def cuba_backward(
    saved_v: Floats,
    saved_i: Floats,
    active: npt.NDArray[np.uint8],
    v_start: Floats,
    grad_spikes: Floats,
    grad_trace: Floats,
    grad_v: Floats,
    grad_i: Floats,
    beta: Floats,
    alpha: Floats,
    kappa: Floats,
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
    """Backpropagate through :func:`cuba_forward`.

    With ``d``, ``c`` upstream on membrane and current after the step, ``e = (G + r) g(h - threshold)`` and
    ``dh = d (1 - s) + e`` for zero, ``d + e`` for subtract (as in ``lif_backward``)::

        grad_current = c;  c <- alpha c + kappa dh;  d <- beta dh      (skipped: c <- alpha c, d unchanged)

    Args:
        saved_v: Membrane before the reset, shape (time, lanes); read only by spiking neurons and for gradients
            of parameters.
        saved_i: Current before the step, shape (time, lanes); read only for gradients of parameters.
        active: Whether the step was not skipped.
        v_start: Membrane before the first step, shape (lanes,).
        grad_spikes: Gradient of the spikes, shape (time, lanes); zero time steps long without spikes.
        grad_trace: Gradient of the membrane before the reset, shape (time, lanes); zero time steps long for none.
        grad_v: Gradient of the last membrane, shape (lanes,); overwritten by that of ``v_start``.
        grad_i: Gradient of the last current, shape (lanes,); overwritten by that of the first.
        beta: As in the forward pass, like the following.
        alpha: Synaptic decay per step.
        kappa: Gain from current to membrane.
        threshold: Firing threshold.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        reset_zero: Whether a spike resets to ``v_reset``.
        detach_reset: Whether the reset passes no gradient to the spike.
        code: Code of the surrogate.
        numbers: Its coefficients.
        grad_current: Output, shape (time, lanes).
        grad_parameters: Output, gradients by lane of beta, alpha, kappa, threshold, v_reset, reset_amount,
            shape (6, lanes); zero lanes long to skip them.
        start: First lane.
        stop: Lane after the last.
    """
    one = grad_current.dtype.type(1)
    zero = grad_current.dtype.type(0)
    n_steps = grad_current.shape[0]
    spiking = grad_spikes.shape[0] > 0
    traced = grad_trace.shape[0] > 0
    skip = active.shape[0] > 0
    learn = grad_parameters.shape[1] > 0
    rows = np.empty(19 * BLOCK, grad_current.dtype)
    b = rows[0 * BLOCK : 1 * BLOCK]
    al = rows[1 * BLOCK : 2 * BLOCK]
    ka = rows[2 * BLOCK : 3 * BLOCK]
    th = rows[3 * BLOCK : 4 * BLOCK]
    vr = rows[4 * BLOCK : 5 * BLOCK]
    am = rows[5 * BLOCK : 6 * BLOCK]
    d = rows[6 * BLOCK : 7 * BLOCK]
    c = rows[7 * BLOCK : 8 * BLOCK]
    g = rows[8 * BLOCK : 9 * BLOCK]
    free = rows[9 * BLOCK : 10 * BLOCK]
    spiked = rows[10 * BLOCK : 11 * BLOCK]
    before = rows[11 * BLOCK : 12 * BLOCK]
    dh = rows[12 * BLOCK : 13 * BLOCK]
    sums = rows[13 * BLOCK :]
    units = beta.shape[0]
    size = block_size(units)
    for first in range(start, stop, size):
        n = min(size, stop - first)
        if first == start or units > BLOCK:
            spread(beta, first, min(size, stop - start), b)
            spread(alpha, first, min(size, stop - start), al)
            spread(kappa, first, min(size, stop - start), ka)
            spread(threshold, first, min(size, stop - start), th)
            spread(v_reset, first, min(size, stop - start), vr)
            spread(reset_amount, first, min(size, stop - start), am)
        for j in range(n):
            d[j] = grad_v[first + j]
            c[j] = grad_i[first + j]
            g[j] = zero
            spiked[j] = zero
            free[j] = one
        for j in range(6 * BLOCK):
            sums[j] = zero
        for step in range(n_steps):
            t = n_steps - 1 - step
            out = grad_current[t, first : first + n]
            if traced:
                up = grad_trace[t, first : first + n]
                for j in range(n):
                    dh[j] = up[j]
            else:
                for j in range(n):
                    dh[j] = zero
            if spiking:
                h = saved_v[t, first : first + n]
                up = grad_spikes[t, first : first + n]
                surrogate_block(code, numbers, h, th, g, n)
                if skip:
                    a = active[t, first : first + n]
                    for j in range(n):
                        free[j] = a[j]
                for j in range(n):
                    fired = free[j] if h[j] >= th[j] else zero
                    total = up[j]
                    if not detach_reset:
                        total += d[j] * (vr[j] - h[j]) if reset_zero else -(d[j] * am[j])
                    e = total * g[j] * free[j]
                    spiked[j] = fired * d[j]
                    g[j] = e
            for j in range(n):
                dh[j] += (d[j] - spiked[j] if reset_zero else d[j]) + g[j]
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
                i_before = saved_i[t, first : first + n]
                for j in range(n):
                    sums[j] += dh[j] * before[j] * free[j]
                    sums[BLOCK + j] += c[j] * i_before[j]
                    sums[2 * BLOCK + j] += dh[j] * i_before[j] * free[j]
                    sums[3 * BLOCK + j] -= g[j]
                    sums[4 * BLOCK + j] += spiked[j]
            for j in range(n):
                out[j] = c[j]
                c[j] = al[j] * c[j] + ka[j] * (dh[j] * free[j])
                d[j] = (b[j] if free[j] > zero else one) * dh[j]
        for j in range(n):
            grad_v[first + j] = d[j]
            grad_i[first + j] = c[j]
        if learn:
            for k in range(4):
                for j in range(n):
                    grad_parameters[k, first + j] = sums[k * BLOCK + j]
            for j in range(n):
                grad_parameters[4, first + j] = sums[4 * BLOCK + j] if reset_zero else zero
                grad_parameters[5, first + j] = zero if reset_zero else -sums[4 * BLOCK + j]
