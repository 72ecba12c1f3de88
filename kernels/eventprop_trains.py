"""Spike trains, and the order in which their spikes arrive: what EventProp's kernels read.

A train holds the events of one sample by unit: those of unit u are ``offsets[u] .. offsets[u + 1]``, in order of time.
Its arrivals through a connection are sorted by time for every target; where all synapses of a source have one delay,
one list serves all targets. Arrivals at one instant keep the order of sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["Arrivals", "Train", "arrivals", "train_of_counts", "train_of_spikes"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MANY = 48  # arrivals in one bin above which they are sorted by merging
BINS = 8192


@dataclass(frozen=True, eq=False)
class Train:
    """Events of one sample.

    Attributes:
        offsets: First event of every unit, int64, shape (units + 1,).
        times: Seconds, shape (events,).
        units: Unit of every event, int64.
        counts: Factor of every event: coincident events, or a dropout factor.
        current: Synaptic current of the neuron at its spike; empty for inputs.
    """

    offsets: Integers
    times: Floats
    units: Integers
    counts: Floats
    current: Floats

    @property
    def n_events(self) -> int:
        """Number of events."""
        return int(self.times.shape[0])


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Arrivals of a train at the targets of a connection.

    Attributes:
        start: First arrival of every target, shape (targets + 1,), or (2,) if one list serves all.
        times: Seconds.
        events: Event of the train that arrives, int64.
    """

    start: Integers
    times: Floats
    events: Integers


def train_of_counts(counts: npt.NDArray[Any], dt: float) -> Train:
    """Return the train of counts on the grid, shape (steps, units): c events of unit u at ``k dt``."""
    units, steps = np.nonzero(counts.T)
    offsets = np.zeros(counts.shape[1] + 1, dtype=np.int64)
    np.cumsum(np.bincount(units, minlength=counts.shape[1]), out=offsets[1:])
    values = np.ascontiguousarray(counts.T[units, steps], dtype=np.float64)
    times: Floats = np.multiply(steps, dt, dtype=np.float64)
    return Train(offsets, times, units.astype(np.int64), values, np.zeros(0))


def train_of_spikes(times: Floats, units: Integers, current: Floats, n_units: int) -> Train:
    """Return the train of spikes that are in order of time for every unit."""
    order = np.argsort(units, kind="stable")
    offsets = np.zeros(n_units + 1, dtype=np.int64)
    np.cumsum(np.bincount(units, minlength=n_units), out=offsets[1:])
    return Train(offsets, times[order], units[order], np.ones(order.size), current[order])


@njit(cache=True, nogil=True, error_model="numpy")
def _sort(
    offsets: Integers,
    times: Floats,
    delay: Floats,
    stop: float,
    at: int,
    count: Integers,
    to_time: Floats,
    to: Integers,
) -> int:
    """Write the arrivals before ``stop`` in order from place ``at`` on; return the place after the last."""
    bins = count.shape[0] - 1
    scale = bins / stop
    count[:] = 0
    one = delay.shape[0] == 1
    for source in range(offsets.shape[0] - 1):
        d = delay[0] if one else delay[source]
        for e in range(offsets[source], offsets[source + 1]):
            t = times[e] + d
            if t < stop:
                count[min(int(t * scale), bins - 1) + 1] += 1
    for k in range(bins):
        count[k + 1] += count[k]
    total = int(count[bins])
    for source in range(offsets.shape[0] - 1):
        d = delay[0] if one else delay[source]
        for e in range(offsets[source], offsets[source + 1]):
            t = times[e] + d
            if t < stop:
                k = min(int(t * scale), bins - 1)
                to_time[at + count[k]] = t
                to[at + count[k]] = e
                count[k] += 1
    begin = 0  # count[k] is now the end of bin k
    for k in range(bins):
        end = count[k]
        if end - begin > MANY:
            order = np.argsort(to_time[at + begin : at + end], kind="mergesort")
            to_time[at + begin : at + end] = to_time[at + begin : at + end][order]
            to[at + begin : at + end] = to[at + begin : at + end][order]
        else:
            for p in range(at + begin + 1, at + end):
                t, e = to_time[p], to[p]
                q = p
                while q > at + begin and to_time[q - 1] > t:
                    to_time[q], to[q] = to_time[q - 1], to[q - 1]
                    q -= 1
                to_time[q], to[q] = t, e
        begin = end
    return at + total


@njit(cache=True, nogil=True, error_model="numpy")
def _sort_all(
    offsets: Integers, times: Floats, delay: Floats, stop: float, bins: int
) -> tuple[Integers, Floats, Integers]:
    targets, events = delay.shape[0], times.shape[0]
    start = np.zeros(targets + 1, np.int64)
    to_time, to = np.empty(targets * events), np.empty(targets * events, np.int64)
    count = np.zeros(bins + 1, np.int64)
    for j in range(targets):
        start[j + 1] = _sort(offsets, times, delay[j], stop, start[j], count, to_time, to)
    return start, to_time, to


def arrivals(train: Train, delay: Floats, stop: float) -> Arrivals:
    """Return the arrivals before ``stop``.

    Args:
        train: Events of the sources.
        delay: Seconds, shape (targets, sources), (targets, 1), (1, sources) or (1, 1).
        stop: Seconds.
    """
    bins = min(BINS, max(1, train.n_events // 2))
    return Arrivals(*_sort_all(train.offsets, train.times, np.ascontiguousarray(delay), stop, bins))
