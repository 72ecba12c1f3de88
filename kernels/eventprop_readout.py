"""Readouts of EventProp: means of their membrane in closed form, or its values on the grid, and derivatives of both.

A readout never fires, so what one arrival at t adds to the mean of ``e^(-rate (s - begin)) v(s)`` over
``begin .. stop`` is a function phi(t), and the mean is the sum of ``weight phi`` over arrivals. With
``q_m = rate + 1 / tau_mem``, ``q_s = rate + 1 / tau_syn`` and D = stop - t, for t >= begin::

    phi(t) = e^(-rate (t - begin)) / (stop - begin) / tau_mem (1 - e^(-q_m D) - q_m D e^(-q_m D) psi) / (q_m q_s)
    psi = (1 - e^-x) / x,   x = D (1 / tau_syn - 1 / tau_mem),   1 at equal time constants

before ``begin`` it follows from the state that the arrival has led to at ``begin``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.bare import bare
from snnsim.kernels.decay import decay
from snnsim.kernels.event_law import GAIN_E, RATE_E, RATE_M, kernel
from snnsim.kernels.eventprop_layers import Layer, LayerGradients
from snnsim.kernels.eventprop_trains import Arrivals, Train

__all__ = ["mean_backward", "mean_forward", "trace_backward", "trace_forward"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@bare
def _tail(span, rate, rate_m, rate_s):  # type: ignore[no-untyped-def]
    """Return the integrals over 0 .. span of e^(-rate s) times e^(-s / tau_mem), K(s) and e^(-s / tau_syn)."""
    q_m, q_s = rate + rate_m, rate + rate_s
    left = -math.expm1(-q_m * span)
    x = span * (rate_s - rate_m)
    psi = 1.0 if x == 0.0 else -math.expm1(-x) / x
    by_i = rate_m * (left - q_m * span * math.exp(-q_m * span) * psi) / (q_m * q_s)
    return left / q_m, by_i, -math.expm1(-q_s * span) / q_s


@bare
def _phi(t, rate, begin, stop, laws, row):  # type: ignore[no-untyped-def]
    """Return phi(t) and its derivative."""
    rate_m, rate_s = laws[row, RATE_M], laws[row, RATE_E]
    size = 1.0 / (stop - begin)
    if t >= begin:
        size *= math.exp(-rate * (t - begin))
        _, by_i, by_decay = _tail(stop - t, rate, rate_m, rate_s)
        return size * by_i, size * rate_m * (by_i - by_decay)
    wait = begin - t
    a, b = decay(-wait * rate_m), decay(-wait * rate_s)
    reached = kernel(wait, a, b, laws[row, GAIN_E], rate_m, rate_s)
    by_v, by_i, _ = _tail(stop - begin, rate, rate_m, rate_s)
    return size * (reached * by_v + b * by_i), size * (rate_m * (reached - b) * by_v + rate_s * b * by_i)


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_forward(
    laws: Floats,
    weight: Floats,
    delay: Floats,
    times: Floats,
    units: Integers,
    counts: Floats,
    rate: float,
    begin: float,
    stop: float,
    same: bool,
    mean: Floats,
) -> None:
    rows, columns = delay.shape
    for e in range(times.shape[0]):
        u = units[e]
        value = 0.0
        for c in range(weight.shape[0]):
            if c == 0 or rows > 1 or not same:
                t = times[e] + delay[c if rows > 1 else 0, u if columns > 1 else 0]
                value = counts[e] * _phi(t, rate, begin, stop, laws, c)[0] if t < stop else 0.0
            mean[c] += value * weight[c, u]


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_backward(
    laws: Floats,
    weight: Floats,
    delay: Floats,
    times: Floats,
    units: Integers,
    counts: Floats,
    rate: float,
    begin: float,
    stop: float,
    same: bool,
    by_mean: Floats,
    by_weight: Floats,
    by_delay: Floats,
    worth: Floats,
) -> None:
    rows, columns = delay.shape
    delays = by_delay.shape[0] > 0
    for e in range(times.shape[0]):
        u = units[e]
        value = slope = 0.0
        for c in range(weight.shape[0]):
            if c == 0 or rows > 1 or not same:
                t = times[e] + delay[c if rows > 1 else 0, u if columns > 1 else 0]
                value = slope = 0.0
                if t < stop:
                    value, slope = _phi(t, rate, begin, stop, laws, c)
                    value, slope = counts[e] * value, counts[e] * slope
            by_weight[c, u] += by_mean[c] * value
            gain = by_mean[c] * weight[c, u] * slope
            worth[e] += gain
            if delays:
                by_delay[c, u] += gain


def _same(layer: Layer) -> bool:
    return bool(np.all(layer.laws == layer.laws[:1]))


def mean_forward(layer: Layer, train: Train, rate: float, begin: float, stop: float) -> Floats:
    """Return the weighted means of the readouts, ``1 / (stop - begin)`` times the integral, shape (classes,).

    Args:
        layer: Readouts: laws with an infinite threshold, no recurrence.
        train: Spikes of the last hidden layer.
        rate: Of the weight ``e^(-rate (t - begin))``, per second.
        begin: Seconds.
        stop: Seconds, above ``begin``.
    """
    mean = np.zeros(layer.size)
    _mean_forward(
        *(layer.laws, layer.weight, layer.delay, train.times, train.units, train.counts, rate, begin, stop),
        *(_same(layer), mean),
    )
    return mean


def mean_backward(
    layer: Layer,
    train: Train,
    rate: float,
    begin: float,
    stop: float,
    by_mean: Floats,
    gradients: LayerGradients,
    worth: Floats,
) -> None:
    """Add the derivatives of a loss whose derivative by :func:`mean_forward` is ``by_mean``.

    Args:
        layer: Readouts.
        train: Spikes of the last hidden layer.
        rate: As in :func:`mean_forward`, like the next two.
        begin: Seconds.
        stop: Seconds.
        by_mean: Shape (classes,).
        gradients: Sums of derivatives by weights and delays.
        worth: Sums of derivatives by the times of the spikes, shape (spikes,).
    """
    _mean_backward(
        *(layer.laws, layer.weight, layer.delay, train.times, train.units, train.counts, rate, begin, stop),
        *(_same(layer), by_mean, gradients.weight, gradients.delay, worth),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _trace_forward(
    laws: Floats,
    weight: Floats,
    start: Integers,
    times: Floats,
    events: Integers,
    units: Integers,
    counts: Floats,
    dt: float,
    trace: Floats,
) -> None:
    one = start.shape[0] == 2
    for c in range(weight.shape[0]):
        rate_m, rate_s, g = laws[c, RATE_M], laws[c, RATE_E], laws[c, GAIN_E]
        v = i = last = 0.0
        p, high = (start[0], start[1]) if one else (start[c], start[c + 1])
        for k in range(trace.shape[0]):
            now = k * dt
            while True:
                arrives = p < high and times[p] <= now
                t = times[p] if arrives else now
                if t > last:
                    a, b = decay(-(t - last) * rate_m), decay(-(t - last) * rate_s)
                    v = v * a + i * kernel(t - last, a, b, g, rate_m, rate_s)
                    i *= b
                    last = t
                if not arrives:
                    break
                i += counts[events[p]] * weight[c, units[events[p]]]
                p += 1
            trace[k, c] = v


@njit(cache=True, nogil=True, error_model="numpy")
def _trace_backward(
    laws: Floats,
    weight: Floats,
    start: Integers,
    times: Floats,
    events: Integers,
    units: Integers,
    counts: Floats,
    dt: float,
    by_trace: Floats,
    by_weight: Floats,
    by_delay: Floats,
    worth: Floats,
) -> None:
    one, delays = start.shape[0] == 2, by_delay.shape[0] > 0
    for c in range(weight.shape[0]):
        rate_m, rate_s, g = laws[c, RATE_M], laws[c, RATE_E], laws[c, GAIN_E]
        l_v = l_i = 0.0
        low, p = (start[0], start[1]) if one else (start[c], start[c + 1])
        k = by_trace.shape[0] - 1
        then = k * dt
        while p > low and times[p - 1] > then:  # seen by no sample
            p -= 1
        while p > low:
            sampled = k >= 0 and k * dt >= times[p - 1]
            t = k * dt if sampled else times[p - 1]
            span = then - t
            if span > 0.0:
                a, b = decay(-span * rate_m), decay(-span * rate_s)
                l_i = l_i * b + l_v * kernel(span, a, b, g, rate_m, rate_s) * rate_s / rate_m
                l_v *= a
                then = t
            if sampled:
                l_v -= by_trace[k, c] * rate_m
                k -= 1
                continue
            p -= 1
            e = events[p]
            u = units[e]
            by_weight[c, u] -= counts[e] * l_i / rate_s
            gain = counts[e] * weight[c, u] * (l_v - l_i)
            worth[e] += gain
            if delays:
                by_delay[c, u] += gain


def trace_forward(layer: Layer, train: Train, into: Arrivals, dt: float, n_steps: int) -> Floats:
    """Return v of the readouts at ``k dt``, after what arrives at that instant, shape (n_steps, classes)."""
    trace = np.zeros((n_steps, layer.size))
    _trace_forward(
        *(layer.laws, layer.weight, into.start, into.times, into.events, train.units, train.counts, dt, trace)
    )
    return trace


def trace_backward(
    layer: Layer, train: Train, into: Arrivals, dt: float, by_trace: Floats, gradients: LayerGradients, worth: Floats
) -> None:
    """Add the derivatives of a loss whose derivative by :func:`trace_forward` is ``by_trace``.

    Args:
        layer: Readouts.
        train: Spikes of the last hidden layer.
        into: Their arrivals.
        dt: Seconds.
        by_trace: Shape (n_steps, classes).
        gradients: Sums of derivatives by weights and delays.
        worth: Sums of derivatives by the times of the spikes, shape (spikes,).
    """
    _trace_backward(
        *(layer.laws, layer.weight, into.start, into.times, into.events, train.units, train.counts, dt, by_trace),
        *(gradients.weight, gradients.delay, worth),
    )
