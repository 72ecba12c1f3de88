"""SpikeProp: times of first spikes in a network of one hidden layer, and their exact gradient.

A neuron's potential is a sum of alpha functions, ``u(t) = sum w eps(t - arrival)`` with
``eps(s) = s / tau exp(1 - s / tau)``. Between arrivals it has one extremum at most, so its first crossing is found
without a time step. Bohte, Kok and La Poutre (2002), "Error-backpropagation in temporally encoded networks of spiking
neurons".
``kernels/reference_spikeprop.py`` is the definition.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["first_crossing", "layer_times", "spikeprop_gradient", "spikeprop_times"]


@njit(cache=True, nogil=True)
def first_crossing(arrive, order, weight, tau, theta, end):  # type: ignore[no-untyped-def]
    """Return when the potential of one neuron first reaches theta before ``end``, or inf.

    Args:
        arrive: Arrivals, seconds, inf for none, any order.
        order: Their places by time.
        weight: Weight of each arrival.
        tau: Seconds.
        theta: Above 0.
        end: Seconds.
    """
    p = q = now = 0.0  # u(now + s) = e (q + p s / tau) exp(-s / tau)
    m = order.shape[0]
    level = theta / math.e
    for j in range(m + 1):
        stop = end
        if j < m and arrive[order[j]] < end:
            stop = arrive[order[j]]
        length = stop - now
        if p > 0.0 and length > 0.0:
            high = min(tau * (1.0 - q / p), length)
            if high > 0.0 and (q + p * high / tau) * math.exp(-high / tau) >= level:
                low, s = 0.0, 0.5 * high
                for _ in range(200):
                    fall = math.exp(-s / tau)
                    value = (q + p * s / tau) * fall - level
                    if value < 0.0:
                        low = s
                    else:
                        high = s
                    slope = (p - q - p * s / tau) / tau * fall
                    step = s - value / slope if slope > 0.0 else low
                    if not low < step < high:
                        step = 0.5 * (low + high)
                    if step == s or not low < step < high:
                        break
                    s = step
                return now + s
        if stop == end:
            return math.inf
        fall = math.exp(-length / tau)
        q, p, now = (q + p * length / tau) * fall, p * fall, stop
        p += weight[order[j]]
    return math.inf


@njit(cache=True, nogil=True)
def layer_times(source, weight, delays, tau, theta, end, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the first spikes of a layer.

    Args:
        source: First spikes of the sources, seconds, inf for none, (source,).
        weight: (neuron, source, delay).
        delays: Seconds.
        tau: Seconds.
        theta: Above 0.
        end: Seconds.
        out: (neuron,).
    """
    n, k = source.shape[0], delays.shape[0]
    arrive = np.empty(n * k)
    for i in range(n):
        for d in range(k):
            arrive[i * k + d] = source[i] + delays[d]
    order = np.argsort(arrive, kind="mergesort")
    for j in range(weight.shape[0]):
        out[j] = first_crossing(arrive, order, weight[j].reshape(n * k), tau, theta, end)


@njit(cache=True, nogil=True)
def spikeprop_times(i0, i1, first, w1, w2, delays, tau, theta, end, hidden, out):  # type: ignore[no-untyped-def]
    """Fill the first spikes of hidden and output neurons of samples i0 to i1, (sample, neuron)."""
    for i in range(i0, i1):
        layer_times(first[i], w1, delays, tau, theta, end, hidden[i])
        layer_times(hidden[i], w2, delays, tau, theta, end, out[i])


@njit(cache=True, nogil=True)
def _slope(source, weight, delays, tau, t, least):  # type: ignore[no-untyped-def]
    """Return du/dt of a neuron at its spike, at least ``least``."""
    total = 0.0
    for i in range(source.shape[0]):
        for d in range(delays.shape[0]):
            age = t - source[i] - delays[d]
            if age > 0.0:
                total += weight[i, d] * (1.0 - age / tau) / tau * math.exp(1.0 - age / tau)
    return max(total, least)


@njit(cache=True, nogil=True)
def spikeprop_gradient(first, wanted, w1, w2, delays, tau, end, least, hidden, out, g1, g2):  # type: ignore[no-untyped-def]
    """Add the gradient of ``1/2 sum (t - wanted)^2`` over all samples to g1 and g2; return the loss.

    An output neuron that does not fire counts as one that fires at ``end``, without gradient.

    Args:
        first: First spikes of the inputs, (sample, input).
        wanted: (sample, output).
        w1: (hidden, input, delay).
        w2: (output, hidden, delay).
        delays: Seconds.
        tau: Seconds.
        end: Seconds.
        least: Smallest slope of the potential at a spike that counts.
        hidden: First spikes of hidden neurons, (sample, hidden).
        out: First spikes of output neurons.
        g1: Like w1, changed in place.
        g2: Like w2, changed in place.
    """
    loss = 0.0
    error = np.zeros(w1.shape[0])
    for i in range(first.shape[0]):
        error[:] = 0.0
        for o in range(w2.shape[0]):
            t = out[i, o]
            miss = min(t, end) - wanted[i, o]
            loss += 0.5 * miss * miss
            if t == math.inf:
                continue
            share = miss / _slope(hidden[i], w2[o], delays, tau, t, least)
            for h in range(w1.shape[0]):
                for d in range(delays.shape[0]):
                    age = t - hidden[i, h] - delays[d]
                    if age > 0.0:
                        fall = math.exp(1.0 - age / tau)
                        g2[o, h, d] -= share * age / tau * fall
                        error[h] += share * w2[o, h, d] * (1.0 - age / tau) / tau * fall
        for h in range(w1.shape[0]):
            t = hidden[i, h]
            if t == math.inf or error[h] == 0.0:
                continue
            share = error[h] / _slope(first[i], w1[h], delays, tau, t, least)
            for j in range(first.shape[1]):
                for d in range(delays.shape[0]):
                    age = t - first[i, j] - delays[d]
                    if age > 0.0:
                        g1[h, j, d] -= share * age / tau * math.exp(1.0 - age / tau)
    return loss
