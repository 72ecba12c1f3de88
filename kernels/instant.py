"""Neurons whose state counts as a constant: one kernel advances them and writes the local gradient of every step.

Spatial learning through time (Meng et al. 2023) drops the derivative of a state with respect to the state before. What
is left of a step, ``d spike / d current = g(h - threshold)``, is known in the step itself: the backward pass of such
neurons is one multiplication, and the membrane need not be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import BLOCK, block_size, spread
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["lif_instant"]

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True, error_model="numpy")
def lif_instant(
    current: Floats,
    v: Floats,
    refractory: npt.NDArray[np.int32],
    beta: Floats,
    threshold: Floats,
    v_reset: Floats,
    reset_amount: Floats,
    refractory_steps: npt.NDArray[np.int32],
    reset_zero: bool,
    code: int,
    numbers: Floats,
    spikes: Floats,
    slope: Floats,
    before: Floats,
    skip: bool,
    start: int,
    stop: int,
) -> None:
    """Advance LIF neurons as :func:`snnsim.kernels.neurons.lif_forward`, and write their local gradients.

    ``h[t] = beta v[t-1] + current[t]``; ``spikes[t] = h[t] >= threshold``; ``slope[t] = g(h[t] - threshold)``, 0 where
    the neuron was refractory; ``before[t] = v[t-1]``.

    Args:
        current: Arrivals plus drive, shape (time, lanes).
        v: Membrane before the first step, shape (lanes,); overwritten by the last one.
        refractory: Steps still to be skipped, int32, shape (lanes,); overwritten.
        beta: Decay per step, shape (unit,), as are all following parameters.
        threshold: Firing threshold.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        refractory_steps: Steps skipped after a spike, int32.
        reset_zero: Whether a spike resets to ``v_reset``.
        code: Code of the surrogate.
        numbers: Its coefficients from :func:`snnsim.kernels.surrogates.surrogate_numbers`.
        spikes: Output, shape (time, lanes).
        slope: Output, shape (time, lanes); zero time steps long to skip.
        before: Output, shape (time, lanes); zero time steps long to skip.
        skip: Whether any neuron may be refractory.
        start: First lane.
        stop: Lane after the last.
    """
    one = current.dtype.type(1)
    zero = current.dtype.type(0)
    rows = np.empty(6 * BLOCK, current.dtype)  # one array: loops over rows of it need no aliasing checks
    b = rows[0 * BLOCK : 1 * BLOCK]
    th = rows[1 * BLOCK : 2 * BLOCK]
    vr = rows[2 * BLOCK : 3 * BLOCK]
    am = rows[3 * BLOCK : 4 * BLOCK]
    state = rows[4 * BLOCK : 5 * BLOCK]
    h = rows[5 * BLOCK : 6 * BLOCK]
    wait = np.zeros(BLOCK, np.int32)
    steps = np.zeros(BLOCK, np.int32)
    learn = slope.shape[0] > 0
    keep = before.shape[0] > 0
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
        for t in range(current.shape[0]):
            x = current[t, first : first + n]
            s = spikes[t, first : first + n]
            if keep:
                for j in range(n):
                    before[t, first + j] = state[j]
            for j in range(n):
                h[j] = b[j] * state[j] + x[j]
            if learn:
                surrogate_block(code, numbers, h, th, slope[t, first : first + n], n)
            if skip:
                for j in range(n):
                    free = wait[j] <= 0
                    fire = free and h[j] >= th[j]
                    s[j] = one if fire else zero
                    after = vr[j] if reset_zero else h[j] - am[j]
                    state[j] = after if fire else (h[j] if free else state[j])
                    if learn:
                        slope[t, first + j] *= one if free else zero
                    wait[j] = steps[j] if fire else max(wait[j] - 1, 0)
            elif reset_zero:
                for j in range(n):
                    s[j] = one if h[j] >= th[j] else zero
                    state[j] = vr[j] if h[j] >= th[j] else h[j]
            else:
                for j in range(n):
                    s[j] = one if h[j] >= th[j] else zero
                    state[j] = h[j] - am[j] if h[j] >= th[j] else h[j]
        for j in range(n):
            v[first + j] = state[j]
        if skip:
            for j in range(n):
                refractory[first + j] = wait[j]
