"""LIF neurons over a short stretch of time, a sample's whole row of units at once, without batch norm.

The numbers are those of :mod:`snnsim.kernels.norm_lif` without a norm, operation by operation; here the rows are long
and the steps few, so that states stay in the first-level cache and no sums over time are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.memory import fetch
from snnsim.kernels.simd import aligned_empty, lanes_of, load, splat, store, total_of, where_not_less
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["lif_stretch_backward", "lif_stretch_forward"]

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True)
def _advance(x, at, beta, threshold, low, amount, reset_zero, state, h, to, n):  # type: ignore[no-untyped-def]
    """Write the membranes of one step before the reset, and move the states on."""
    lanes = lanes_of(x)
    whole = n - n % lanes
    for j in range(0, whole, lanes):
        fetch(x, at + n + j)  # the next sample's row
        value = load(beta, j) * load(state, j) + load(x, at + j)
        store(h, to + j, value)
        after = load(low, j) if reset_zero else value - load(amount, j)
        store(state, j, where_not_less(value, load(threshold, j), after, value))
    for j in range(whole, n):
        value = beta[j] * state[j] + x[at + j]
        h[to + j] = value
        if value >= threshold[j]:
            state[j] = low[j] if reset_zero else value - amount[j]
        else:
            state[j] = value


@njit(cache=True, nogil=True)
def lif_stretch_forward(
    current: Floats,
    mask: npt.NDArray[np.uint8],
    neuron: Floats,
    reset_zero: bool,
    factors: Floats,
    v: Floats,
    out: Floats,
    counts: npt.NDArray[np.int64],
    start: int,
    stop: int,
) -> None:
    """Fire, reset and thin.

    ``h[t] = beta v[t-1] + current[t]``; a spike where ``h[t] >= threshold``; ``v[t]`` is h[t] after the reset;
    ``out[t]`` is the spike times the sample's factor.

    Args:
        current: Shape (time, batch, unit).
        mask: 1 for valid steps, uint8, shape (time, batch); zero steps long where all are.
        neuron: beta, threshold, v_reset and reset_amount, shape (4, unit).
        reset_zero: Whether a spike resets to ``v_reset`` instead of subtracting ``reset_amount``.
        factors: What dropout multiplies the spikes by, shape (batch, unit); zero samples long without dropout.
        v: Membrane before the first step, shape (batch, unit); overwritten by the last one.
        out: Output, thinned spikes, shape (time, batch, unit).
        counts: Spikes in valid steps before dropout, int64, shape (batch,); added to.
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, batch, n = current.shape
    x, y, lanes = current.reshape(-1), out.reshape(-1), lanes_of(current)
    beta, threshold, low, amount = neuron[0], neuron[1], neuron[2], neuron[3]
    masked, thinned = mask.shape[0] > 0, factors.shape[0] > 0
    kind = current.dtype.type
    one, zero = splat(kind(1)), splat(kind(0))
    whole = n - n % lanes
    h = aligned_empty(n, x)
    for b in range(start, stop):
        state = v[b]
        number, rest = zero, kind(0)
        factor = factors[b] if thinned else h
        for t in range(n_steps):
            at = (t * batch + b) * n
            counted = splat(kind(0) if masked and mask[t, b] == 0 else kind(1))
            _advance(x, at, beta, threshold, low, amount, reset_zero, state, h, 0, n)
            for j in range(0, whole, lanes):
                fired = where_not_less(load(h, j), load(threshold, j), one, zero)
                number = number + fired * counted
                store(y, at + j, fired * load(factor, j) if thinned else fired)
            for j in range(whole, n):
                fires = h[j] >= threshold[j]
                if fires and not (masked and mask[t, b] == 0):
                    rest += kind(1)
                y[at + j] = (factor[j] if thinned else kind(1)) if fires else kind(0)
        counts[b] += np.int64(total_of(number)) + np.int64(rest)


@njit(cache=True, nogil=True, error_model="numpy")
def lif_stretch_backward(
    current: Floats,
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
    start: int,
    stop: int,
) -> None:
    """Backpropagate through :func:`lif_stretch_forward` up to the current.

    Args:
        current: As in the forward pass, like the following.
        neuron: beta, threshold, v_reset and reset_amount.
        reset_zero: Kind of reset.
        detach_reset: Whether the reset passes no gradient to the spike.
        code: Code of the surrogate.
        numbers: Its coefficients from :func:`snnsim.kernels.surrogates.surrogate_numbers`.
        factors: Dropout's factors.
        v: Membrane before the first step, shape (batch, unit).
        up: Gradient of the thinned spikes, shape (time, batch, unit).
        grad_v: Gradient of the last membrane, shape (batch, unit); overwritten by that of ``v``.
        out: Output, gradient of the current, shape (time, batch, unit).
        start: First sample.
        stop: Sample after the last.
    """
    n_steps, batch, n = current.shape
    x, u, y, lanes = current.reshape(-1), up.reshape(-1), out.reshape(-1), lanes_of(current)
    beta, threshold, low, amount = neuron[0], neuron[1], neuron[2], neuron[3]
    thinned = factors.shape[0] > 0
    kind = current.dtype.type
    zero, one, nothing = splat(kind(0)), splat(kind(1)), kind(0)
    height, scale = splat(numbers[0]), splat(numbers[1])
    whole = n - n % lanes
    h, g, state = aligned_empty(n_steps * n, x), aligned_empty(n, x), aligned_empty(n, x)
    for b in range(start, stop):
        state[:] = v[b]
        d = grad_v[b]
        factor = factors[b] if thinned else state
        for t in range(n_steps):
            _advance(x, (t * batch + b) * n, beta, threshold, low, amount, reset_zero, state, h, t * n, n)
        for back in range(n_steps):
            t = n_steps - 1 - back
            at, row = (t * batch + b) * n, t * n
            if code != 0:
                surrogate_block(code, numbers, h[row : row + n], threshold, g, n)
            for j in range(0, whole, lanes):
                value, now = load(h, row + j), load(d, j)
                gradient = load(u, at + j)
                fetch(u, at + n + j)
                if thinned:
                    gradient = gradient * load(factor, j)
                if not detach_reset:
                    if reset_zero:
                        gradient = gradient + now * (load(low, j) - value)
                    else:
                        gradient = gradient - now * load(amount, j)
                if code == 0:  # the default surrogate (ATan) without a way through memory
                    z = scale * (value - load(threshold, j))
                    gradient = gradient * (height / (one + z * z))
                else:
                    gradient = gradient * load(g, j)
                through = where_not_less(value, load(threshold, j), zero, now) if reset_zero else now
                total = through + gradient
                store(y, at + j, total)
                store(d, j, load(beta, j) * total)
            for j in range(whole, n):
                slope = u[at + j] * factor[j] if thinned else u[at + j]
                if not detach_reset:
                    if reset_zero:
                        slope += d[j] * (low[j] - h[row + j])
                    else:
                        slope -= d[j] * amount[j]
                if code == 0:
                    distance = numbers[1] * (h[row + j] - threshold[j])
                    slope *= numbers[0] / (kind(1) + distance * distance)
                else:
                    slope *= g[j]
                kept = nothing if reset_zero and h[row + j] >= threshold[j] else d[j]
                y[at + j] = kept + slope
                d[j] = beta[j] * y[at + j]
