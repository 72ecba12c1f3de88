"""The floor of a simulation: what its synaptic events and neuron-steps take at least, from bare loops on this machine.

A synaptic event reads its synapse once and adds to one sum: 2 bytes (uint16 target) and one addition; 7 bytes where
the synapse has a float32 weight and a delay in a byte of its own. A step of a neuron with delta synapses reads and
writes its potential and reads and clears one sum, 4 numbers (16 bytes in float32, 32 in float64), with 1
multiplication, 2 additions and 1 comparison; with two exponential currents it moves 10 numbers (three variables, two
sums) with 5 multiplications, 5 additions and 1 comparison.

The bare loops do these and nothing else: rows of synapses as long as the task's, in random order, and all neurons in
turn. They know no thresholds, resets, rings, order of summation or noise, so a simulator stays above them. Their arrays
are as large as the task's, so they lie in the same cache or memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from snnsim.bench.sim_tasks import SimTask

__all__ = ["Limits", "measure_limits"]

MIN_SECONDS = 0.02
ROUNDS = 7
SLOTS = 32
MAX_SYNAPSES = 16_000_000


@dataclass(frozen=True)
class Limits:
    """What bare loops reach with the arrays of a task.

    Attributes:
        threads: Threads.
        events: Synaptic events a second.
        updates: Neuron-steps a second.
        event_bytes: Bytes of a synapse.
        update_bytes: Bytes that a neuron-step moves.
    """

    threads: int
    events: float
    updates: float
    event_bytes: int
    update_bytes: int

    def or_better(self, other: Limits) -> Limits:
        """Return the better of two measurements: a machine that is shared gives less now and then."""
        events, updates = max(self.events, other.events), max(self.updates, other.updates)
        return Limits(self.threads, events, updates, self.event_bytes, self.update_bytes)

    def seconds(self, events: float, updates: float) -> float:
        """Return the least seconds of some synaptic events and neuron-steps."""
        return events / self.events + updates / self.updates


@njit(cache=True, nogil=True)
def _shared_rows(sums, target, order, degree, weight):  # type: ignore[no-untyped-def]
    for row in order:
        for s in range(np.uint64(row * degree), np.uint64((row + 1) * degree)):
            sums[np.uint64(target[s])] += weight


@njit(cache=True, nogil=True)
def _own_rows(sums, target, order, degree, weight, delay, size):  # type: ignore[no-untyped-def]
    for row in order:
        for s in range(np.uint64(row * degree), np.uint64((row + 1) * degree)):
            sums[np.uint64(delay[s]) * np.uint64(size) + np.uint64(target[s])] += weight[s]


@njit(cache=True, nogil=True)
def _delta_steps(v, sums, beta, drive, steps):  # type: ignore[no-untyped-def]
    size, fired = v.shape[0], 0
    for step in range(steps):
        a = sums[step % sums.shape[0]]
        for n in range(size):
            v[n] = (beta * v[n] + drive) + a[n]
            a[n] = 0
        fired += v[step % size] >= 1
    return fired


@njit(cache=True, nogil=True)
def _current_steps(v, first, second, sums, beta, drive, steps):  # type: ignore[no-untyped-def]
    size, fired = v.shape[0], 0
    for step in range(steps):
        row = sums[step % sums.shape[0]]
        a, b = row[:size], row[size:]
        for n in range(size):
            e, i = first[n], second[n]
            v[n] = ((beta * v[n] + beta * e) + beta * i) + drive
            first[n] = beta * e + a[n]
            second[n] = beta * i + b[n]
            a[n] = 0
            b[n] = 0
        fired += v[step % size] >= 1
    return fired


def _best(parts: list[Callable[[], object]]) -> float:
    """Return the seconds of all parts at once, the best of some rounds of repetitions."""
    with ThreadPoolExecutor(len(parts)) as pool:

        def once() -> float:
            begin = time.perf_counter()
            for future in [pool.submit(part) for part in parts]:
                future.result()
            return time.perf_counter() - begin

        once()
        repeats = max(1, round(MIN_SECONDS / max(once(), 1e-9)))
        return min(sum(once() for _ in range(repeats)) / repeats for _ in range(ROUNDS))


def measure_limits(task: SimTask, threads: int) -> Limits:
    """Measure the bare loops with arrays of a task's sizes; every thread has rows, sums and neurons of its own."""
    draw: Any = np.random.default_rng(0)
    kind: Any = np.float32 if task.dtype == "float32" else np.float64
    stream = task.net == "stream"
    own = stream or task.own
    size = max(task.sizes[1:]) if stream else task.sizes[0]
    degree = size if stream else task.sizes[1]
    rows = sum(task.sizes[:-1]) if stream else task.sizes[0]
    rows = max(threads, min(rows, MAX_SYNAPSES // degree))
    target = draw.integers(0, size, (rows, degree), np.int32).astype(np.uint16 if size <= 2**16 else np.int32)
    target.sort(axis=1)
    target = target.reshape(-1)
    parts: list[Callable[[], object]] = []
    weight = draw.random(target.size, np.float32) if own else kind(0.001)
    delay = draw.integers(0, SLOTS, target.size, np.uint8) if own else None
    for order in np.array_split(draw.permutation(rows), threads):
        sums = np.zeros(SLOTS * size if own else size, kind)
        if own:
            parts.append(_call(_own_rows, sums, target, order, degree, weight, delay, size))
        else:
            parts.append(_call(_shared_rows, sums, target, order, degree, weight))
    seconds = _best(parts)
    slots = 2 if task.net == "cuba" else SLOTS
    numbers = 10 if task.net == "cuba" else 4
    neurons, steps = task.n_neurons, max(4, 2_000_000 // task.n_neurons)
    parts = []
    for share in np.array_split(np.arange(neurons), threads):
        v = np.zeros(share.size, kind)
        beta, drive = kind(0.99), kind(0.001)
        if task.net == "cuba":
            sums = np.zeros((slots, 2 * v.size), kind)
            parts.append(_call(_current_steps, v, v.copy(), v.copy(), sums, beta, drive, steps))
        else:
            parts.append(_call(_delta_steps, v, np.zeros((slots, v.size), kind), beta, drive, steps))
    update_bytes = numbers * np.dtype(kind).itemsize
    event_bytes = target.itemsize + (5 if own else 0)
    return Limits(threads, target.size / seconds, neurons * steps / _best(parts), event_bytes, update_bytes)


def _call(function: Callable[..., object], *arguments: Any) -> Callable[[], object]:
    return lambda: function(*arguments)
