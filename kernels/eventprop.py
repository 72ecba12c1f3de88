"""EventProp for one layer and one sample: exact spikes forward, exact gradients backward.

Neurons are taken one by one through windows of time no longer than the shortest recurrent delay: within a window no
neuron of a layer affects another, so each walks its own arrivals (one window is all there is without recurrence).
Backward the windows are walked in reverse; what a spike is worth is complete when its window is reached.
``kernels/reference_eventprop.py`` is the definition, ``docs/eventprop.md`` the equations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.decay import decay
from snnsim.kernels.event_law import GAIN_E, GAP, RATE_E, RATE_M, RESET, TAU, first_crossing, kernel
from snnsim.kernels.eventprop_trains import Arrivals, Train, arrivals, train_of_spikes

__all__ = ["Layer", "LayerGradients", "layer_backward", "layer_forward", "window_rate"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SHORTER = 1.0 - 1e-6  # windows are this much shorter than the delay they must not exceed: room for rounding
MARGIN = 1e-12  # relative margin of the bound on a crossing

NO_RECURRENCE = np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class Layer:
    """Neurons of a layer and the synapses into them.

    Attributes:
        laws: One row a neuron, see :mod:`snnsim.kernels.event_law`: one current, no drive, reset to a value.
        weight: Shape (targets, sources).
        delay: Seconds, shape (targets or 1, sources or 1).
        recurrent_weight: Shape (targets, targets); (0, 0) without recurrence.
        recurrent_delay: Seconds, above 0, shape (targets, targets) or (1, 1).
    """

    laws: Floats
    weight: Floats
    delay: Floats
    recurrent_weight: Floats
    recurrent_delay: Floats

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class LayerGradients:
    """Sums of derivatives, in the shapes of :class:`Layer`; delays by second, one for every synapse.

    Attributes:
        weight: By weights.
        delay: By delays; shape (0, 0) if they are not asked for.
        recurrent_weight: By recurrent weights.
        recurrent_delay: By recurrent delays; shape (0, 0) if they are not asked for.
    """

    weight: Floats
    delay: Floats
    recurrent_weight: Floats
    recurrent_delay: Floats

    @classmethod
    def zeros(cls, layer: Layer, delay: bool, recurrent_delay: bool) -> LayerGradients:
        """Return sums of nothing."""
        return cls(
            np.zeros_like(layer.weight),
            np.zeros_like(layer.weight) if delay else NO_RECURRENCE.copy(),
            np.zeros_like(layer.recurrent_weight),
            np.zeros_like(layer.recurrent_weight) if recurrent_delay else NO_RECURRENCE.copy(),
        )

    def parts(self) -> tuple[Floats, ...]:
        """Return the four arrays."""
        return self.weight, self.delay, self.recurrent_weight, self.recurrent_delay


def window_rate(layer: Layer) -> float:
    """Return windows a second; 0 stands for one window."""
    if not layer.recurrent_weight.size:
        return 0.0
    return 1.0 / (float(layer.recurrent_delay.min()) * SHORTER)


@njit(cache=True, nogil=True, error_model="numpy")
def _longer(array: Any) -> Any:
    new = np.empty(2 * array.shape[0], array.dtype)
    new[: array.shape[0]] = array
    return new


@njit(cache=True, nogil=True, error_model="numpy")
def _wider(array: Any) -> Any:
    new = np.empty((array.shape[0], 2 * array.shape[1]), array.dtype)
    new[:, : array.shape[1]] = array
    return new


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(
    laws: Floats,
    weight: Floats,
    start: Integers,
    times: Floats,
    events: Integers,
    units: Integers,
    counts: Floats,
    recurrent_weight: Floats,
    recurrent_delay: Floats,
    rate: float,
    stop: float,
    most: int,
) -> tuple[Floats, Integers, Floats, int]:
    """Return time, neuron and current of every spike; the last number is 0, 1 (no progress) or 2 (too many)."""
    n = weight.shape[0]
    one = start.shape[0] == 2
    v, i, last, cross = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, np.nan)
    place = np.empty(n, np.int64)
    for j in range(n):
        place[j] = start[0] if one else start[j]
    out_time, out_unit, out_current, found = np.empty(1024), np.empty(1024, np.int64), np.empty(1024), 0
    loop = recurrent_weight.shape[0] > 0
    windows = int(stop * rate) + 1
    slots = 1
    if loop:
        slots = int(recurrent_delay.max() * rate) + 3
    common = recurrent_delay.shape[0] == 1
    # recurrent arrivals wait in a bucket for each window; with one delay for all the spikes themselves do, in order
    bucket_time = np.empty((slots, 1 if common else 256))
    bucket_spike = np.empty(bucket_time.shape, np.int64)
    bucket_target = np.empty(bucket_time.shape, np.int64)
    filled = np.zeros(slots, np.int64)
    order, ordered, next_one = np.empty(1024 if common else 1, np.int64), 0, 0
    at = np.zeros(n + 1, np.int64)  # arrivals of a window by target
    list_time, list_spike = np.empty(256), np.empty(256, np.int64)
    for window in range(windows):
        edge = min(stop, (window + 1) / rate * (1.0 + 1e-9)) if loop else stop
        before = found
        if loop and common:
            m = 0
            while next_one < ordered:
                t = out_time[order[next_one]] + recurrent_delay[0, 0]
                if t >= stop or int(t * rate) > window:
                    break
                if m == list_time.shape[0]:
                    list_time, list_spike = _longer(list_time), _longer(list_spike)
                list_time[m], list_spike[m] = t, order[next_one]
                m += 1
                next_one += 1
            at[n] = m
        elif loop:
            slot = window % slots
            m = filled[slot]
            while m > list_time.shape[0]:
                list_time, list_spike = _longer(list_time), _longer(list_spike)
            at[:] = 0
            for k in range(m):
                at[bucket_target[slot, k] + 1] += 1
            for j in range(n):
                at[j + 1] += at[j]
            for k in range(m - 1, -1, -1):
                j = bucket_target[slot, k] + 1
                at[j] -= 1
                list_time[at[j]], list_spike[at[j]] = bucket_time[slot, k], bucket_spike[slot, k]
            for j in range(n):  # at[j + 1] is now where target j begins
                at[j] = at[j + 1]
            at[n] = m
            filled[slot] = 0
        for j in range(n):
            r, m = 0, 0
            if loop and common:
                m = at[n]
            elif loop:
                r, m = at[j], at[j + 1]
                for k in range(r + 1, m):
                    t, s = list_time[k], list_spike[k]
                    q = k
                    while q > r and (list_time[q - 1] > t or (list_time[q - 1] == t and list_spike[q - 1] > s)):
                        list_time[q], list_spike[q] = list_time[q - 1], list_spike[q - 1]
                        q -= 1
                    list_time[q], list_spike[q] = t, s
            gap, tau, rate_m, rate_s, g = laws[j, GAP], laws[j, TAU], laws[j, RATE_M], laws[j, RATE_E], laws[j, GAIN_E]
            p = place[j]
            high = start[1] if one else start[j + 1]
            while True:
                t_e = times[p] if p < high else math.inf
                t_r = list_time[r] if r < m else math.inf
                t = min(t_e, t_r)
                inside = t < stop and (not loop or int(t * rate) <= window)
                crossing = math.inf
                v1 = i1 = 0.0
                if inside:
                    span = t - last[j]
                    a, b = decay(-span * rate_m), decay(-span * rate_s)
                    v1 = v[j] * a + i[j] * kernel(span, a, b, g, rate_m, rate_s)
                    i1 = i[j] * b
                    if i[j] > gap:
                        if not math.isnan(cross[j]):
                            crossing = cross[j]
                        elif v1 >= gap:
                            crossing = min(last[j] + first_crossing(v[j], i[j], 0.0, laws, j), t)
                        elif i1 < v1 and i[j] > v[j]:
                            # it has risen and fallen: the peak lies between
                            crossing = last[j] + first_crossing(v[j], i[j], 0.0, laws, j)
                            cross[j] = crossing
                    if crossing > t:
                        crossing = math.inf
                elif i[j] > gap:
                    if math.isnan(cross[j]) and last[j] + tau * (gap - v[j]) / (i[j] - v[j]) * (1.0 - MARGIN) <= edge:
                        cross[j] = last[j] + first_crossing(v[j], i[j], 0.0, laws, j)
                    if cross[j] < stop and (not loop or int(cross[j] * rate) <= window):
                        crossing = cross[j]
                if crossing < math.inf:
                    if crossing <= last[j] and last[j] > 0.0:
                        return out_time[:found], out_unit[:found], out_current[:found], 1
                    if found == most:
                        return out_time[:found], out_unit[:found], out_current[:found], 2
                    if found == out_time.shape[0]:
                        out_time, out_unit, out_current = _longer(out_time), _longer(out_unit), _longer(out_current)
                    i[j] *= decay(-(crossing - last[j]) * rate_s)
                    v[j] = laws[j, RESET]
                    last[j] = crossing
                    cross[j] = np.nan
                    out_time[found], out_unit[found], out_current[found] = crossing, j, i[j]
                    if loop and not common:
                        for target in range(n):
                            arrival = crossing + recurrent_delay[target, j]
                            if arrival >= stop:
                                continue
                            to = max(int(arrival * rate), window + 1) % slots
                            k = filled[to]
                            if k == bucket_time.shape[1]:
                                bucket_time, bucket_spike = _wider(bucket_time), _wider(bucket_spike)
                                bucket_target = _wider(bucket_target)
                            bucket_time[to, k], bucket_spike[to, k], bucket_target[to, k] = arrival, found, target
                            filled[to] = k + 1
                    found += 1
                    continue
                if not inside:
                    break
                v[j], i[j], last[j] = v1, i1, t
                cross[j] = np.nan
                if t_e <= t_r:
                    e = events[p]
                    i[j] += counts[e] * weight[j, units[e]]
                    p += 1
                else:
                    i[j] += recurrent_weight[j, out_unit[list_spike[r]]]
                    r += 1
            place[j] = p
        if loop and common:
            while found > order.shape[0]:
                order = _longer(order)
            order[before:found] = before + np.argsort(out_time[before:found], kind="mergesort")
            ordered = found
    return out_time[:found], out_unit[:found], out_current[:found], 0


def layer_forward(layer: Layer, train: Train, into: Arrivals, stop: float, most: int = 10_000_000) -> tuple[Train, int]:
    """Run the neurons of a layer from silence at time 0 until ``stop``.

    Args:
        layer: Neurons and synapses.
        train: Events of the sources.
        into: Their arrivals, of :func:`~snnsim.kernels.eventprop_trains.arrivals`.
        stop: Seconds; nothing arrives or fires at ``stop`` or later.
        most: Spikes at which the run is given up.

    Returns:
        The spikes with the current at each, and 0; or 1 if a neuron would fire twice at one instant of float64, 2 if
        there are too many spikes.
    """
    *found, code = _forward(
        *(layer.laws, layer.weight, into.start, into.times, into.events, train.units, train.counts),
        *(layer.recurrent_weight, layer.recurrent_delay, window_rate(layer), stop, most),
    )
    return train_of_spikes(*found, layer.size), int(code)


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
            *(window_rate(layer), stop, clip, *gradients.parts(), source_worth),
        )
    )
