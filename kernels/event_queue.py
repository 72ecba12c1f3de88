"""Continuous time for networks in which a spike can come back at the instant at which it was emitted.

Some loop of projections has no delay at all, so there are no windows: one queue holds all arrivals. At one instant
arrivals are given stage by stage (stages are the groups of populations that reach one another without delay). All
that is known for one neuron is summed, in order of emission time, projection, source and synapse, then it is tested
once. What a spike causes at the same instant in its own stage is a later event; a neuron that has fired at the
instant is given it untested, so every instant comes to an end. For small networks: each event costs the logarithm of
the queue's length, and a look at every block of neurons.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.bare import bare
from snnsim.kernels.event_neuron import (
    BLOCK,
    DONE,
    EXACT,
    N_SPIKES,
    ROOM,
    arrive,
    cross,
    examine,
    fill,
)

__all__ = ["ROOM_IN_QUEUE", "Queue", "grown_queue", "new_queue", "refill", "run_queue", "waiting"]

ROOM_IN_QUEUE = 5  # status, beside those of event and event_neuron

ARRIVALS = 1  # counts, as in event
SUMS = 2
DUE = 3

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Queue(NamedTuple):
    """A binary heap of arrivals; an entry is at the same place in all arrays.

    Attributes:
        time: When it arrives.
        emitted: When it was emitted.
        weight: What arrives.
        stage: Of its target, int64.
        target: ``2 * neuron + receptor``, int64.
        projection: int64.
        source: Unit, int64.
        number: Of the push, which orders the synapses of one event, int64.
        used: Length of the heap, and pushes so far, int64 ``(2,)``.
    """

    time: Floats
    emitted: Floats
    weight: Floats
    stage: Ints
    target: Ints
    projection: Ints
    source: Ints
    number: Ints
    used: Ints


def new_queue(room: int = 4096) -> Queue:
    """Return an empty queue."""

    def numbers() -> Ints:
        return np.zeros(room, np.int64)

    return Queue(
        *(np.zeros(room), np.zeros(room), np.zeros(room)),
        *(numbers(), numbers(), numbers(), numbers(), numbers()),
        np.zeros(2, np.int64),
    )


def grown_queue(queue: Queue, more: int) -> Queue:
    """Return the queue with room for so many arrivals more, and twice its length."""
    longer = new_queue(2 * queue.time.shape[0] + more)
    for old, new in zip(queue, longer, strict=True):
        new[: old.shape[0]] = old
    return longer


def waiting(queue: Queue) -> tuple[npt.NDArray[Any], ...]:
    """Return what is on its way, in order: times, weights, targets, emission times, projections, sources."""
    n = int(queue.used[0])
    keys = (queue.number, queue.source, queue.projection, queue.emitted, queue.target >> 1, queue.stage, queue.time)
    order = np.lexsort([key[:n] for key in keys])
    columns = (queue.time, queue.weight, queue.target, queue.emitted, queue.projection, queue.source)
    return tuple(column[:n][order] for column in columns)


@bare
def refill(plan, q, times, weights, targets, emitted, projections, sources):  # type: ignore[no-untyped-def]
    """Put back what :func:`waiting` returned; there is room."""
    for k in range(times.shape[0]):
        stage = plan.stage[projections[k]]
        push(q, times[k], emitted[k], weights[k], stage, targets[k], projections[k], sources[k])


@bare
def _less(q, a, b):  # type: ignore[no-untyped-def]
    """Whether entry a comes before entry b."""
    if q.time[a] != q.time[b]:
        return q.time[a] < q.time[b]
    if q.stage[a] != q.stage[b]:
        return q.stage[a] < q.stage[b]
    if q.target[a] >> 1 != q.target[b] >> 1:
        return q.target[a] >> 1 < q.target[b] >> 1
    if q.emitted[a] != q.emitted[b]:
        return q.emitted[a] < q.emitted[b]
    if q.projection[a] != q.projection[b]:
        return q.projection[a] < q.projection[b]
    if q.source[a] != q.source[b]:
        return q.source[a] < q.source[b]
    return q.number[a] < q.number[b]


@bare
def _swap(q, a, b):  # type: ignore[no-untyped-def]
    for column in (q.time, q.emitted, q.weight):
        column[a], column[b] = column[b], column[a]
    for small in (q.stage, q.target, q.projection, q.source, q.number):
        small[a], small[b] = small[b], small[a]


@bare
def push(q, time, emitted, weight, stage, target, projection, source):  # type: ignore[no-untyped-def]
    """Add an arrival; there is room."""
    at = q.used[0]
    q.time[at], q.emitted[at], q.weight[at] = time, emitted, weight
    q.stage[at], q.target[at], q.projection[at], q.source[at] = stage, target, projection, source
    q.number[at] = q.used[1]
    q.used[0] += 1
    q.used[1] += 1
    while at > 0 and _less(q, at, (at - 1) // 2):
        _swap(q, at, (at - 1) // 2)
        at = (at - 1) // 2


@bare
def _pop(q):  # type: ignore[no-untyped-def]
    """Take the first arrival off; it stays readable one place behind the end of the heap."""
    q.used[0] -= 1
    n = q.used[0]
    _swap(q, 0, n)
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and _less(q, child + 1, child):
            child += 1
        if not _less(q, child, at):
            break
        _swap(q, child, at)
        at = child


@bare
def _emit(plan, q, time, group, unit, count):  # type: ignore[no-untyped-def]
    """Queue what an event causes; return the status, not DONE if nothing was done."""
    total = 0
    for j in range(plan.out_start[group], plan.out_start[group + 1]):
        row = plan.first_row[plan.out[j]] + unit
        total += plan.row_start[row + 1] - plan.row_start[row]
    if q.used[0] + total > q.time.shape[0]:
        return ROOM_IN_QUEUE
    for j in range(plan.out_start[group], plan.out_start[group + 1]):
        p = plan.out[j]
        row = plan.first_row[p] + unit
        begin, own = plan.row_start[row], plan.row_own[row]
        for s in range(begin, plan.row_start[row + 1]):
            delay = plan.row_delay[row] if own < 0 else plan.delay[own + s - begin]
            push(q, time + delay, time, plan.weight[s] * count, plan.stage[p], plan.target[s], p, unit)
    return DONE


@bare
def run_queue(plan, inputs, cells, q, spikes, grid, cursor, counts, stop):  # type: ignore[no-untyped-def]
    """Run a sample until ``stop`` seconds; as :func:`snnsim.kernels.event.run`, with a queue.

    ``cursor`` holds the next input event and the next spike to emit, int64 ``(2,)``.
    """
    meta, state, check, least = spikes.meta, cells.state, cells.check, cells.least
    while True:
        while cursor[1] < meta[N_SPIKES]:
            n = spikes.neuron[cursor[1]]
            group = plan.group[n]
            status = _emit(plan, q, spikes.time[cursor[1]], group, n - plan.first[group], 1.0)
            if status != DONE:
                return status
            cursor[1] += 1
        b = 0
        for k in range(1, least.shape[0]):
            if least[k] < least[b]:
                b = k
        n = b * BLOCK
        for k in range(n + 1, min(n + BLOCK, state.shape[0])):
            if check[k] < check[n]:
                n = k
        if least[b] < check[n]:
            least[b] = check[n]
            continue
        given = inputs.time[cursor[0]] if cursor[0] < inputs.time.shape[0] else math.inf
        arrival = q.time[0] if q.used[0] else math.inf
        limit = min(stop, given, arrival)
        if check[n] < limit:
            counts[DUE] += 1
            if state[n, EXACT] == 0.0:
                examine(n, limit, cells, spikes, grid)
            else:
                status = cross(n, cells, spikes, grid)
                if status != DONE:
                    return status
            continue
        if limit >= stop:
            break
        if given <= arrival:
            j = cursor[0]
            status = _emit(plan, q, given, inputs.group[j], inputs.unit[j], inputs.times_over[j])
            if status != DONE:
                return status
            cursor[0] += 1
            continue
        if meta[N_SPIKES] + q.used[0] > spikes.time.shape[0]:
            return ROOM
        stage = q.stage[0]
        while q.used[0] and q.time[0] == arrival and q.stage[0] == stage:
            n = q.target[0] >> 1
            first = second = 0.0
            while q.used[0] and q.time[0] == arrival and q.target[0] >> 1 == n:
                _pop(q)
                counts[ARRIVALS] += 1
                if q.target[q.used[0]] & 1:
                    second += q.weight[q.used[0]]
                else:
                    first += q.weight[q.used[0]]
            counts[SUMS] += 1
            if grid.next.shape[0]:
                fill(n, arrival, cells, grid)
            arrive(n, arrival, first, second, cells, spikes)
    if grid.next.shape[0]:
        for n in range(state.shape[0]):
            if grid.column[0, n] >= 0 or grid.column[1, n] >= 0 or grid.column[2, n] >= 0:
                fill(n, math.inf, cells, grid)
    return DONE
