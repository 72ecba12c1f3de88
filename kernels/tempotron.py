"""The Tempotron in continuous time: peak of the potential, its derivatives, and learning by error.

Between two events the potential of a neuron is ``V(s) = V0 (a e^(-s/tau) - b e^(-s/tau_s))``, with one extremum at
most, so its peak and its first crossing of the threshold are found exactly, interval by interval. Guetig and
Sompolinsky (2006), "The tempotron: a neuron that learns spike timing-based decisions", equations 1 to 3.
``kernels/reference_tempotron.py`` is the definition.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from snnsim.kernels.weight_bounds import keep_bounds

__all__ = ["peak_gain", "tempotron_derivatives", "tempotron_peak", "tempotron_peaks", "tempotron_train"]


@njit(cache=True, nogil=True)
def peak_gain(tau, tau_s):  # type: ignore[no-untyped-def]
    """Return V0, so that the kernel's peak is 1, and its derivatives by tau and tau_s (``tau > tau_s``)."""
    peak = tau * tau_s / (tau - tau_s) * math.log(tau / tau_s)
    slow, fast = math.exp(-peak / tau), math.exp(-peak / tau_s)
    gain = 1.0 / (slow - fast)
    return gain, -gain * gain * peak / (tau * tau) * slow, gain * gain * peak / (tau_s * tau_s) * fast


@njit(cache=True, nogil=True)
def _top(a, b, tau, tau_s):  # type: ignore[no-untyped-def]
    """Return where the potential is largest after now, or 0 if it does not rise first."""
    if a > 0.0 and b * tau > a * tau_s:
        return tau * tau_s / (tau - tau_s) * math.log(b * tau / (a * tau_s))
    return 0.0


@njit(cache=True, nogil=True)
def _crossing(a, b, tau, tau_s, level, high):  # type: ignore[no-untyped-def]
    """Return where ``a e^(-s/tau) - b e^(-s/tau_s)`` reaches the level; it rises from 0 to ``high``."""
    low = 0.0
    s = 0.5 * high
    for _ in range(200):
        slow, fast = a * math.exp(-s / tau), b * math.exp(-s / tau_s)
        value = slow - fast - level
        if value < 0.0:
            low = s
        else:
            high = s
        slope = fast / tau_s - slow / tau
        step = s - value / slope if slope > 0.0 else low
        if not low < step < high:
            step = 0.5 * (low + high)
        if step == s or not low < step < high:
            break
        s = step
    return s


@njit(cache=True, nogil=True)
def tempotron_peak(times, units, first, last, end, weight, tau, tau_s, theta, shunt):  # type: ignore[no-untyped-def]
    """Find the peak of the potential of one neuron in one sample, after its first event.

    Before and at its first event V is 0 whatever the weights are; that would hide the peak of a neuron that is only
    pushed down, which could then never learn. Without events the peak is 0, at time 0.

    Args:
        times: Seconds of all events, float64.
        units: Their units, int32.
        first: First event of the sample.
        last: The event after its last.
        end: Duration of the sample; later events do not count.
        weight: Incoming weights, float64, shape (n_inputs,).
        tau: Membrane time constant, seconds.
        tau_s: Synaptic time constant, below tau.
        theta: Threshold, above 0.
        shunt: Whether events after the first crossing have no effect.

    Returns:
        Potential at the peak, its time, the event after the last one that has an effect on it, the time of the first
        crossing (inf: none).
    """
    gain = peak_gain(tau, tau_s)[0]
    a = b = now = 0.0
    best, when, used, spike = -math.inf, 0.0, first, math.inf
    j = first
    while True:
        stop = end
        if j < last and times[j] < end:
            stop = times[j]
        length = stop - now
        top = _top(a, b, tau, tau_s)
        inside = min(top, length)
        at = inside if inside > 0.0 else length
        value = gain * (a * math.exp(-at / tau) - b * math.exp(-at / tau_s))
        if value >= theta and spike == math.inf and inside > 0.0:
            spike = now + _crossing(a, b, tau, tau_s, theta / gain, inside)
            if shunt:
                at = min(top, end - now)
                return gain * (a * math.exp(-at / tau) - b * math.exp(-at / tau_s)), now + at, j, spike
        if value > best and j > first:
            best, when, used = value, now + at, j
        if j >= last or times[j] >= end:
            return (best, when, used, spike) if j > first else (0.0, 0.0, first, spike)
        slow, fast = math.exp(-length / tau), math.exp(-length / tau_s)
        a, b, now = a * slow, b * fast, stop
        while j < last and times[j] == now:
            a += weight[units[j]]
            b += weight[units[j]]
            j += 1


@njit(cache=True, nogil=True)
def tempotron_derivatives(times, units, first, used, when, weight, tau, tau_s, by_weight):  # type: ignore[no-untyped-def]
    """Add dV/dw at a time to ``by_weight`` and return dV/dtau and dV/dtau_s there.

    V0 depends on both time constants. At a peak its time may be taken as fixed: V is flat there, or the time is that
    of an event or of the end.

    Args:
        times: As in :func:`tempotron_peak`.
        units: As there.
        first: As there.
        used: The event after the last one that counts.
        when: Time of the peak.
        weight: Incoming weights.
        tau: Membrane time constant.
        tau_s: Synaptic time constant.
        by_weight: Shape (n_inputs,), changed in place.
    """
    gain, by_tau, by_tau_s = peak_gain(tau, tau_s)
    d_tau = d_tau_s = 0.0
    for j in range(first, used):
        age = when - times[j]
        slow, fast = math.exp(-age / tau), math.exp(-age / tau_s)
        w = weight[units[j]]
        by_weight[units[j]] += gain * (slow - fast)
        d_tau += w * (by_tau * (slow - fast) + gain * age / (tau * tau) * slow)
        d_tau_s += w * (by_tau_s * (slow - fast) - gain * age / (tau_s * tau_s) * fast)
    return d_tau, d_tau_s


@njit(cache=True, nogil=True)
def tempotron_peaks(n0, n1, times, units, offsets, end, weight, tau, tau_s, theta, shunt, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (sample, neuron, 3) with peak, its time and first crossing, for neurons n0 to n1."""
    for n in range(n0, n1):
        for i in range(offsets.shape[0] - 1):
            best, when, _, spike = tempotron_peak(
                times, units, offsets[i], offsets[i + 1], end[i], weight[n], tau[n], tau_s[n], theta[n], shunt
            )
            out[i, n, 0], out[i, n, 1], out[i, n, 2] = best, when, spike


@njit(cache=True, nogil=True)
def tempotron_train(  # type: ignore[no-untyped-def]
    n0, n1, times, units, offsets, end, order, wanted, weight, velocity, tau, tau_s, theta, shunt, rates, learns, limits
):
    """Show samples in order to neurons n0 to n1; change those that err after each sample.

    Args:
        n0: First neuron.
        n1: The neuron after the last.
        times: Seconds of all events.
        units: Their units.
        offsets: First event of each sample.
        end: Duration of each sample.
        order: Samples in the order in which they are shown.
        wanted: Whether a neuron should fire, bool (sample, neuron).
        weight: (neuron, input), changed in place.
        velocity: Last change of the weights, (neuron, input), changed in place.
        tau: (neuron,), changed in place if it is learned.
        tau_s: Likewise.
        theta: Likewise.
        shunt: Whether events after the first crossing have no effect.
        rates: Learning rate of weights, of the neurons' parameters, momentum, margin.
        learns: Whether tau, tau_s and theta are learned, bool (3,).
        limits: w_min, w_max, kind of normalisation, its total, smallest and largest time constant, smallest theta,
            smallest ratio of tau to tau_s.

    Returns:
        Errors: how often a neuron was changed.
    """
    rate, intrinsic, momentum, margin = rates
    w_min, w_max, kind, total, tau_low, tau_high, theta_low, ratio = limits
    errors = 0
    by_weight = np.zeros(weight.shape[1])
    for n in range(n0, n1):
        w, change = weight[n], velocity[n]
        for i in order:
            best, when, used, _ = tempotron_peak(
                times, units, offsets[i], offsets[i + 1], end[i], w, tau[n], tau_s[n], theta[n], shunt
            )
            if wanted[i, n]:
                if best >= theta[n] + margin:
                    continue
                sign = 1.0
            else:
                if best < theta[n] - margin:
                    continue
                sign = -1.0
            errors += 1
            by_weight[:] = 0.0
            d_tau, d_tau_s = tempotron_derivatives(times, units, offsets[i], used, when, w, tau[n], tau_s[n], by_weight)
            for j in range(w.shape[0]):
                change[j] = sign * rate * by_weight[j] + momentum * change[j]
                w[j] += change[j]
            keep_bounds(w, w_min, w_max, kind, total)
            if learns[0]:
                moved = tau[n] * math.exp(sign * intrinsic * tau[n] * d_tau)
                tau[n] = min(max(moved, max(tau_low, ratio * tau_s[n])), tau_high)
            if learns[1]:
                moved = tau_s[n] * math.exp(sign * intrinsic * tau_s[n] * d_tau_s)
                tau_s[n] = min(max(moved, tau_low), tau[n] / ratio)
            if learns[2]:
                theta[n] = max(theta[n] - sign * intrinsic, theta_low)
    return errors
