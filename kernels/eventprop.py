"""EventProp forward: the exact spikes of one layer and one sample.

Neurons are taken one by one through windows of time no longer than the shortest recurrent delay: within a window no
neuron of a layer affects another, so each walks its own arrivals. Where every event reaches all neurons at one time,
the arrivals of a window are summed for all neurons at once, and only those that could reach the threshold walk.
``kernels/reference_eventprop.py`` is the definition, ``docs/eventprop.md`` the equations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.bare import bare
from snnsim.kernels.decay import decay, decays
from snnsim.kernels.event_law import GAIN_E, GAP, RATE_E, RATE_M, RESET, TAU, first_crossing, kernel
from snnsim.kernels.eventprop_layers import Layer
from snnsim.kernels.eventprop_trains import Arrivals, Train, train_of_spikes

__all__ = ["layer_forward"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MARGIN = 1e-12  # relative margin of the bounds on a crossing


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


@bare
def _add_row(rows, begin, n, count, left_m, left_s, plus, sum_m, sum_s):  # type: ignore[no-untyped-def]
    """Add the arrival of one event at all targets: its positive part, and what is left of both transients."""
    for j in range(n):
        k = np.uint64(j)  # a signed index is tested for being negative, and then nothing is vectorised
        jump = count * rows[np.uint64(begin) + k]
        plus[k] += 0.5 * (jump + abs(jump))
        sum_m[k] += jump * left_m
        sum_s[k] += jump * left_s


@bare
def _leap(v, i, last, cross, gaps, laws, plus, sum_m, sum_s, until, edge, done):  # type: ignore[no-untyped-def]
    """Bring the neurons that cannot reach the threshold before ``edge`` past all arrivals of a window.

    tau_mem v' <= -v + p, p being the positive part of the current now and of all arrivals: v stays below p, and below
    the tangent of the solution of that bound.
    """
    rate_m, rate_s, g = laws[0, RATE_M], laws[0, RATE_E], laws[0, GAIN_E]
    span = a = b = k = -1.0
    for j in range(v.shape[0]):
        p = max(i[j], 0.0) + plus[j]
        room = gaps[j] - v[j] - MARGIN * (abs(gaps[j]) + abs(v[j]) + p)
        rise = p - v[j]
        done[j] = room > 0.0 and (rise < room or rise * (edge - last[j]) * rate_m < room)
        if done[j]:
            wait = until - last[j]
            if wait != span:
                span, a, b = wait, decay(-wait * rate_m), decay(-wait * rate_s)
                k = kernel(wait, a, b, g, rate_m, rate_s)
            v[j] = v[j] * a + i[j] * k + g * (sum_m[j] - sum_s[j])
            i[j] = i[j] * b + sum_s[j]
            last[j] = until
            cross[j] = math.nan


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
    shared: bool,
    by_source: Floats,
    by_recurrent_source: Floats,
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
    left_m, left_s = np.empty(256), np.empty(256)
    plus, sum_m, sum_s = np.zeros(n), np.zeros(n), np.zeros(n)
    done, gaps = np.zeros(n, np.bool_), laws[:, GAP].copy()
    end, until, many = 0, 0.0, 0
    span = a = b = -1.0
    for window in range(windows):
        edge = min(stop, (window + 1) / rate * (1.0 + 1e-9))
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
            m = int(filled[slot])
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
        if shared:
            p, m = int(place[0]), int(at[n]) if loop else 0
            end = p
            while end < start[1] and int(times[end] * rate) <= window:
                end += 1
            many = end - p + m
            if many > 1:
                until = max(times[end - 1] if end > p else 0.0, list_time[m - 1] if m else 0.0)
                while many > left_m.shape[0]:
                    left_m, left_s = _longer(left_m), _longer(left_s)
                for k in range(many):
                    wait = until - (times[p + k] if k < end - p else list_time[k - (end - p)])
                    left_m[k], left_s[k] = -wait * laws[0, RATE_M], -wait * laws[0, RATE_E]
                decays(left_m, 0, many)
                decays(left_s, 0, many)
                plus[:], sum_m[:], sum_s[:] = 0.0, 0.0, 0.0
                for k in range(end - p):
                    e = events[p + k]
                    _add_row(by_source, units[e] * n, n, counts[e], left_m[k], left_s[k], plus, sum_m, sum_s)
                for k in range(m):
                    row = out_unit[list_spike[k]] * n
                    q = end - p + k
                    _add_row(by_recurrent_source, row, n, 1.0, left_m[q], left_s[q], plus, sum_m, sum_s)
                _leap(v, i, last, cross, gaps, laws, plus, sum_m, sum_s, until, edge, done)
        for j in range(n):
            if many > 1 and done[j]:
                place[j] = end
                continue
            r, m = 0, 0
            if loop and common:
                m = int(at[n])
            elif loop:
                r, m = int(at[j]), int(at[j + 1])
                for k in range(r + 1, m):
                    t, s = list_time[k], list_spike[k]
                    q = k
                    while q > r and (list_time[q - 1] > t or (list_time[q - 1] == t and list_spike[q - 1] > s)):
                        list_time[q], list_spike[q] = list_time[q - 1], list_spike[q - 1]
                        q -= 1
                    list_time[q], list_spike[q] = t, s
            gap, tau, rate_m, rate_s, g = laws[j, GAP], laws[j, TAU], laws[j, RATE_M], laws[j, RATE_E], laws[j, GAIN_E]
            p = int(place[j])
            high = start[1] if one else start[j + 1]
            while True:
                t_e = times[p] if p < high else math.inf
                t_r = list_time[r] if r < m else math.inf
                t = min(t_e, t_r)
                inside = t < stop and int(t * rate) <= window
                crossing = math.inf
                v1 = i1 = 0.0
                if inside:
                    wait = t - last[j]
                    if wait != span or not shared:
                        span, a, b = wait, decay(-wait * rate_m), decay(-wait * rate_s)
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
                    if cross[j] < stop and int(cross[j] * rate) <= window:
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
    times, units, current, code = _forward(
        *(layer.laws, layer.weight, into.start, into.times, into.events, train.units, train.counts),
        *(layer.recurrent_weight, layer.recurrent_delay, layer.shared, *layer.by_source, layer.fine_rate, stop, most),
    )
    return train_of_spikes(times, units, current, layer.size), int(code)
