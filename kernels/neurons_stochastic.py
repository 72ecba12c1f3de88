"""Membranes with a threshold that may be noisy, over all time steps of one stretch (Numba), with their gradients.

The law is that of :class:`snnsim.neurons_stochastic.MetaNeuron` after the sum of arrivals. Samples are shared out among
threads; every number is computed by one thread in one order. Twin: the step-by-step form of
:class:`snnsim.nn.meta.StochasticModule`, with the firings of
:func:`snnsim.kernels.reference_stochastic.fires_reference`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from snnsim.kernels.exponential import exponential
from snnsim.kernels.stochastic import fires
from snnsim.kernels.surrogates import surrogate_block

__all__ = ["ROWS", "stochastic_backward", "stochastic_forward"]

ROWS = ("beta", "drive", "v_threshold", "v_reset", "reset_amount", "temperature")
"""Rows of the numbers of the neurons, and of their gradients."""

BETA, DRIVE, THETA, V_RESET, AMOUNT, TEMPERATURE = range(6)


@njit(cache=True, nogil=True)
def stochastic_forward(  # type: ignore[no-untyped-def]
    current,
    numbers,
    wait_steps,
    reset_zero,
    noisy,
    seed,
    stream,
    samples,
    first_step,
    v,
    wait,
    spikes,
    h,
    free,
    log_prob,
    start,
    stop,
):
    """Run the samples ``start:stop``.

    Args:
        current: Arrivals, shape (time, batch, unit).
        numbers: Same type, shape (6, unit), see :data:`ROWS`.
        wait_steps: Refractory steps after a spike, int32, shape (unit,).
        reset_zero: Reset to ``v_reset`` instead of subtracting.
        noisy: Whether temperatures above 0 draw; else the threshold is sharp.
        seed: Seed of the run.
        stream: Second word of the key.
        samples: Ids, int64, shape (batch,).
        first_step: Number of the first step.
        v: Membranes, shape (batch, unit), moved on.
        wait: Refractory steps left, int32, moved on.
        spikes: Filled, shape (time, batch, unit).
        h: Filled with membranes before the reset; where a neuron waits, the membrane it holds.
        free: Filled with 1 where a neuron does not wait, uint8.
        log_prob: Added to: the logarithm of the probability of what fired and what did not, float64, shape (batch,).
        start: First sample.
        stop: One past the last.
    """
    n_steps, _, units = current.shape
    for b in range(start, stop):
        for step in range(n_steps):
            for n in range(units):
                if wait[b, n] > 0:
                    wait[b, n] -= 1
                    h[step, b, n], free[step, b, n], spikes[step, b, n] = v[b, n], 0, 0
                    continue
                before = (numbers[BETA, n] * v[b, n] + numbers[DRIVE, n]) + current[step, b, n]
                theta, temperature = numbers[THETA, n], numbers[TEMPERATURE, n]
                if noisy:
                    fired = fires(before, theta, temperature, seed, stream, samples[b], first_step + step, n)
                    if temperature > 0:
                        x = (np.float64(before) - np.float64(theta)) / np.float64(temperature)
                        x = -x if fired else x
                        log_prob[b] -= max(x, 0.0) + math.log1p(math.exp(-abs(x)))
                else:
                    fired = before >= theta
                h[step, b, n], free[step, b, n], spikes[step, b, n] = before, 1, 1 if fired else 0
                if fired:
                    v[b, n] = numbers[V_RESET, n] if reset_zero else before - numbers[AMOUNT, n]
                    wait[b, n] = wait_steps[n]
                else:
                    v[b, n] = before


@njit(cache=True, nogil=True)
def stochastic_backward(  # type: ignore[no-untyped-def]
    dspikes,
    dlog,
    numbers,
    v_start,
    spikes,
    h,
    free,
    reset_zero,
    detach,
    noisy,
    score,
    code,
    coefficients,
    dv,
    dcurrent,
    rows,
    start,
    stop,
):
    """Go back over the samples ``start:stop``.

    A spike has the derivative ``p (1 - p) / temperature`` by the membrane, that of its probability (straight-through);
    the surrogate's where the temperature is 0; with ``score`` it has none. The logarithm of the probability of what was
    drawn has ``(spike - p) / temperature``.

    Args:
        dspikes: Gradient of the spikes, shape (time, batch, unit).
        dlog: Gradient of ``log_prob``, float64, shape (batch,).
        numbers: As in :func:`stochastic_forward`, like the others that are there.
        v_start: Membranes before the first step, shape (batch, unit).
        spikes: Spikes.
        h: Membranes before the reset.
        free: 1 where a neuron did not wait.
        reset_zero: Which reset.
        detach: Whether the reset passes no gradient to the spike.
        noisy: Whether firing was drawn.
        score: Which estimator.
        code: Surrogate.
        coefficients: Its numbers.
        dv: Gradient of the last membranes, moved back to the first, shape (batch, unit).
        dcurrent: Filled, shape (time, batch, unit).
        rows: Filled with the gradients of ``numbers`` by sample, float64, shape (6, batch, unit).
        start: First sample.
        stop: One past the last.
    """
    n_steps, _, units = dspikes.shape
    psi = np.empty(units, dspikes.dtype)
    for b in range(start, stop):
        rows[:, b, :] = 0
        for back in range(n_steps):
            step = n_steps - 1 - back
            surrogate_block(code, coefficients, h[step, b], numbers[THETA], psi, units)
            for n in range(units):
                if free[step, b, n] == 0:
                    dcurrent[step, b, n] = 0
                    continue
                z, before, after = spikes[step, b, n], h[step, b, n], dv[b, n]
                upstream = dspikes[step, b, n]
                if reset_zero:
                    rows[V_RESET, b, n] += np.float64(after * z)
                    dh = after * (1 - z)
                    if not detach:
                        upstream += after * (numbers[V_RESET, n] - before)
                else:
                    rows[AMOUNT, b, n] -= np.float64(after * z)
                    dh = after
                    if not detach:
                        upstream -= after * numbers[AMOUNT, n]
                temperature = np.float64(numbers[TEMPERATURE, n])
                slope = np.float64(psi[n])
                x = 0.0
                p = 0.0
                if temperature > 0:
                    x = (np.float64(before) - np.float64(numbers[THETA, n])) / temperature
                    p = 1.0 / (1.0 + exponential(-x))
                    e = exponential(-abs(x))
                    slope = e / ((1.0 + e) * (1.0 + e)) / temperature
                flow = 0.0 if score else np.float64(upstream) * slope
                if noisy and temperature > 0:
                    flow += dlog[b] * (np.float64(z) - p) / temperature
                dh = dh + dspikes.dtype.type(flow)
                rows[THETA, b, n] -= flow
                rows[TEMPERATURE, b, n] -= flow * x
                if step > 0:
                    before_step = h[step - 1, b, n]
                    if spikes[step - 1, b, n] > 0:
                        before_step = numbers[V_RESET, n] if reset_zero else before_step - numbers[AMOUNT, n]
                else:
                    before_step = v_start[b, n]
                rows[BETA, b, n] += np.float64(dh * before_step)
                rows[DRIVE, b, n] += np.float64(dh)
                dcurrent[step, b, n] = dh
                dv[b, n] = numbers[BETA, n] * dh
