"""EventProp backward: the adjoint equations of one layer and one sample, from its last spike to its first.

The windows of the forward pass are walked in reverse; what a spike is worth is complete when its window is reached.
Before its last spike, going back, a neuron's lambda is zero, so silent neurons cost nothing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.decay import decay
from snnsim.kernels.event_law import GAIN_E, GAP, RATE_E, RATE_M, RESET, kernel
from snnsim.kernels.eventprop_layers import Layer, LayerGradients
from snnsim.kernels.eventprop_trains import Arrivals, Train, arrivals

__all__ = ["layer_backward"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@njit(cache=True, nogil=True, error_model="numpy")
def _backward(
    laws: Floats,
    weight: Floats,
    start: Integers,
    times: Floats,
    events: Integers,
    units: Integers,
    counts: Floats,
    loop_weight: Floats,
    loop_start: Integers,
    loop_times: Floats,
    loop_events: Integers,
    spike_start: Integers,
    spike_times: Floats,
    spike_units: Integers,
    spike_current: Floats,
    worth: Floats,
    push: Floats,
    rate: float,
    stop: float,
    clip: float,
    by_weight: Floats,
    by_delay: Floats,
    by_loop_weight: Floats,
    by_loop_delay: Floats,
    source_worth: Floats,
) -> int:
    """Add derivatives; ``worth`` must hold what comes from later layers. Returns the number of clipped spikes."""
    n = weight.shape[0]
    one, loop = start.shape[0] == 2, loop_weight.shape[0] > 0
    loop_one = loop_start.shape[0] == 2
    delays, loop_delays, upstream = by_delay.shape[0] > 0, by_loop_delay.shape[0] > 0, source_worth.shape[0] > 0
    lambda_v, lambda_i, last = np.zeros(n), np.zeros(n), np.zeros(n)
    place, loop_place, spike_place = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for j in range(n):
        place[j] = start[1] if one else start[j + 1]
        spike_place[j] = spike_start[j + 1]
        loop_place[j] = 0
        if loop:
            loop_place[j] = loop_start[1] if loop_one else loop_start[j + 1]
        if spike_place[j] > spike_start[j]:  # before its last spike, going back, lambda is zero
            t = spike_times[spike_place[j] - 1]
            low = start[0] if one else start[j]
            place[j] = low + np.searchsorted(times[low : place[j]], t, side="left")
            if loop:
                low = loop_start[0] if loop_one else loop_start[j]
                loop_place[j] = low + np.searchsorted(loop_times[low : loop_place[j]], t, side="left")
            last[j] = t
    clipped = 0
    for window in range(int(stop * rate), -1, -1):
        for j in range(n):
            first_spike = spike_start[j]
            if spike_start[j + 1] == first_spike:
                continue
            rate_m, rate_s, g = laws[j, RATE_M], laws[j, RATE_E], laws[j, GAIN_E]
            low = start[0] if one else start[j]
            loop_low = 0
            if loop:
                loop_low = loop_start[0] if loop_one else loop_start[j]
            p, r, s = place[j], loop_place[j], spike_place[j]
            l_v, l_i, then = lambda_v[j], lambda_i[j], last[j]
            while True:
                t_e = times[p - 1] if p > low else -math.inf
                t_r = loop_times[r - 1] if r > loop_low else -math.inf
                t_s = spike_times[s - 1] if s > first_spike else -math.inf
                t = max(t_e, t_r, t_s)
                if t == -math.inf or (loop and int(t * rate) < window):
                    break
                span = then - t
                if span > 0.0:
                    a, b = decay(-span * rate_m), decay(-span * rate_s)
                    l_i = l_i * b + l_v * kernel(span, a, b, g, rate_m, rate_s) * rate_s / rate_m
                    l_v *= a
                    then = t
                if t_e >= t_r and t_e >= t_s:
                    p -= 1
                    e = events[p]
                    u = units[e]
                    by_weight[j, u] -= counts[e] * l_i / rate_s
                    if delays or upstream:
                        gain = counts[e] * weight[j, u] * (l_v - l_i)
                        if delays:
                            by_delay[j, u] += gain
                        if upstream:
                            source_worth[e] += gain
                elif t_r >= t_s:
                    r -= 1
                    e = loop_events[r]
                    u = spike_units[e]
                    gain = loop_weight[j, u] * (l_v - l_i)
                    by_loop_weight[j, u] -= l_i / rate_s
                    worth[e] += gain
                    if loop_delays:
                        by_loop_delay[j, u] += gain
                else:
                    s -= 1
                    slope = spike_current[s] - laws[j, GAP]
                    factor = clip
                    if slope * clip >= 1.0:
                        factor = 1.0 / slope
                    else:
                        clipped += 1
                    l_v += factor * ((laws[j, GAP] - laws[j, RESET]) * l_v + worth[s]) + push[s]
            place[j], loop_place[j], spike_place[j] = p, r, s
            lambda_v[j], lambda_i[j], last[j] = l_v, l_i, then
    return clipped


def layer_backward(
    layer: Layer,
    train: Train,
    into: Arrivals,
    spikes: Train,
    worth: Floats,
    push: Floats,
    stop: float,
    clip: float,
    gradients: LayerGradients,
    source_worth: Floats,
) -> int:
    """Add the derivatives of one sample to ``gradients`` and ``source_worth``.

    Args:
        layer: Neurons and synapses.
        train: Events of the sources.
        into: Their arrivals.
        spikes: What :func:`layer_forward` returned.
        worth: Derivative of the loss by the time of every spike, as far as it does not come from this layer; recurrent
            synapses add to it.
        push: Added to lambda_v at every spike.
        stop: Seconds.
        clip: Largest factor ``1 / (i - v_threshold)``.
        gradients: Sums.
        source_worth: The same as ``worth`` for the sources, shape (events,), or (0,) if it is not asked for.

    Returns:
        Spikes whose factor was cut to ``clip``.
    """
    loop = Arrivals(np.zeros(2, np.int64), np.zeros(0), np.zeros(0, np.int64))
    if layer.recurrent_weight.size:
        loop = arrivals(spikes, layer.recurrent_delay, stop)
    return int(
        _backward(
            *(layer.laws, layer.weight, into.start, into.times, into.events, train.units, train.counts),
            *(layer.recurrent_weight, loop.start, loop.times, loop.events),
            *(spikes.offsets, spikes.times, spikes.units, spikes.current, worth, push),
            *(layer.window_rate, stop, clip, *gradients.parts(), source_worth),
        )
    )
