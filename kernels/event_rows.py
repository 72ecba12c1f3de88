"""Event-driven simulation of neurons with currents whose projections have one delay a row: rows instead of arrivals.

Windows and stages are those of :mod:`snnsim.kernels.event`. What waits is one entry for each emitted event and
projection. When a stage of a window begins, its entries are sorted by arrival time, emission time, projection and
source, and each row of synapses is walked along in turn, adding to neurons in scaled coordinates
(:mod:`snnsim.kernels.event_scaled`): the exponentials are paid once a row. A neuron is looked at when its bound does
not cover the arrival or the rest of the window.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.bare import bare, bare_inline
from snnsim.kernels.decay import decay
from snnsim.kernels.event_law import GAIN_E, GAIN_I, RATE_E, RATE_I, RATE_M
from snnsim.kernels.event_neuron import BLOCK, DONE, N_SPIKES
from snnsim.kernels.event_scaled import (
    EPOCH,
    FIRST,
    SECOND,
    SLACK,
    TIME,
    UNTIL,
    Z,
    advance,
    epoch_of,
    meet,
    record,
    renew,
)
from snnsim.kernels.event_sort import sort_spikes
from snnsim.kernels.event_store import window_of, window_start
from snnsim.kernels.memory import fetch

__all__ = ["ROOM_FOR_ROWS", "Waiting", "drain_rows", "grown_waiting", "load_rows", "new_waiting", "run_rows"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# cursor; WINDOW as in event
WINDOW = 0
STAGE = 1
PHASE = 2
ENTRY = 3  # next input event
MANY = 4  # rows of this window and stage
AT = 5  # next of them, or next spike to deliver
BEFORE = 6  # spikes found before this stage
SYNAPSE = 7  # next of the row

GATHER = 0  # phases
WALK = 1
DUE = 2
DELIVER = 3

ROOM_FOR_ROWS = 3  # status

WINDOWS, ARRIVALS, SUMS, LOOKS = range(4)  # counts

PACE = 0.7  # of the mean pace: below it a bound that is seldom too short
LINES = 32  # cache lines of a row to ask for ahead

NEXT_FREE = 0  # meta
PENDING = 1


class Waiting(NamedTuple):
    """Rows on their way: one entry an emitted event and projection, in one list a window and stage.

    Attributes:
        time: When they arrive, ``(room,)``.
        emitted: When they went out.
        times_over: How many coincide.
        projection: Through which, int64.
        source: From which unit.
        next: Next entry of the list or of the free ones, -1 at the end.
        head: First entry of each list, int64 ``(slots * stages,)``.
        order: Entries of the present window and stage in order.
        spare: Room to sort.
        meta: NEXT_FREE and PENDING, int64 ``(2,)``.
    """

    time: Floats
    emitted: Floats
    times_over: Floats
    projection: Ints
    source: Ints
    next: Ints
    head: Ints
    order: Ints
    spare: Ints
    meta: Ints


def new_waiting(lists: int, room: int = 1024) -> Waiting:
    """Return empty lists."""
    floats = (np.zeros(room), np.zeros(room), np.zeros(room))
    ints = (np.zeros(room, np.int64), np.zeros(room, np.int64), np.append(np.arange(1, room, dtype=np.int64), -1))
    sorting = (np.zeros(room, np.int64), np.zeros(room, np.int64))
    return Waiting(*floats, *ints, np.full(lists, -1, np.int64), *sorting, np.zeros(2, np.int64))


def grown_waiting(old: Waiting, more: int = 0) -> Waiting:
    """Return the lists with room for twice as many entries and ``more``."""
    was = old.time.shape[0]
    new = new_waiting(old.head.shape[0], 2 * was + more)
    for name in ("time", "emitted", "times_over", "projection", "source", "next", "order"):
        getattr(new, name)[:was] = getattr(old, name)
    new.next[-1] = old.meta[NEXT_FREE]
    new.head[:] = old.head
    new.meta[:] = was, old.meta[PENDING]
    return new


@bare_inline
def _push(bucket, waiting, time, emitted, count, projection, source):  # type: ignore[no-untyped-def]
    e = waiting.meta[NEXT_FREE]
    waiting.meta[NEXT_FREE] = waiting.next[e]
    waiting.meta[PENDING] += 1
    waiting.time[e], waiting.emitted[e], waiting.times_over[e] = time, emitted, count
    waiting.projection[e], waiting.source[e] = projection, source
    waiting.next[e] = waiting.head[bucket]
    waiting.head[bucket] = e


@bare
def _send(plan, waiting, time, group, unit, count, now):  # type: ignore[no-untyped-def]
    """Let an event set out through all projections; return the status, not DONE if nothing was done."""
    stages = plan.stage_start.shape[0] - 1
    slots = waiting.head.shape[0] // stages
    first, last = plan.out_start[group], plan.out_start[group + 1]
    if waiting.meta[PENDING] + last - first >= waiting.time.shape[0]:
        return ROOM_FOR_ROWS
    for j in range(first, last):
        q = plan.out[j]
        row = plan.first_row[q] + unit
        if plan.row_start[row] == plan.row_start[row + 1]:
            continue
        low, high = plan.row_start[row], plan.row_start[row + 1]
        for s in range(low, min(high, low + LINES * 8), 8):  # they are far away and needed soon
            fetch(plan.weight, s)
        for s in range(low, min(high, low + LINES * 16), 16):
            fetch(plan.target, s)
        at = time + plan.row_delay[row]
        k = max(window_of(at, plan.window, plan.origin), now)
        _push((k % slots) * stages + plan.stage[q], waiting, at, time, count, q, unit)
    return DONE


@bare
def load_rows(plan, waiting, times, counts, emitted, projections, sources):  # type: ignore[no-untyped-def]
    """Put rows that a former run left back; there is room for them."""
    stages = plan.stage_start.shape[0] - 1
    slots = waiting.head.shape[0] // stages
    for s in range(times.shape[0]):
        k = window_of(times[s], plan.window, plan.origin)
        bucket = (k % slots) * stages + plan.stage[projections[s]]
        _push(bucket, waiting, times[s], emitted[s], counts[s], projections[s], sources[s])


@njit(cache=True, nogil=True)
def drain_rows(waiting):  # type: ignore[no-untyped-def]
    """Return times, counts, emission times, projections and sources of all rows on their way."""
    total = waiting.meta[PENDING]
    place = np.zeros(total, np.int64)
    at = 0
    for bucket in range(waiting.head.shape[0]):
        e = waiting.head[bucket]
        while e >= 0:
            place[at] = e
            at += 1
            e = waiting.next[e]
    return (
        *(waiting.time[place], waiting.times_over[place], waiting.emitted[place]),
        *(waiting.projection[place], waiting.source[place]),
    )


@bare_inline
def _before(a, b, waiting):  # type: ignore[no-untyped-def]
    """Whether entry a comes before b: by arrival time, emission time, projection, source."""
    if waiting.time[a] != waiting.time[b]:
        return waiting.time[a] < waiting.time[b]
    if waiting.emitted[a] != waiting.emitted[b]:
        return waiting.emitted[a] < waiting.emitted[b]
    if waiting.projection[a] != waiting.projection[b]:
        return waiting.projection[a] < waiting.projection[b]
    return waiting.source[a] < waiting.source[b]


@bare
def _gather(bucket, limit, waiting):  # type: ignore[no-untyped-def]
    """Take the entries before the limit off a list and sort them; return how many."""
    order, spare, following = waiting.order, waiting.spare, waiting.next
    many, kept = 0, -1
    e = waiting.head[bucket]
    while e >= 0:
        after = following[e]
        if waiting.time[e] < limit:
            order[many] = e
            many += 1
        else:
            following[e] = kept
            kept = e
        e = after
    waiting.head[bucket] = kept
    for i in range(many // 2):  # the last to come was the first of the list
        order[i], order[many - 1 - i] = order[many - 1 - i], order[i]
    width = 1
    while width < many:
        for low in range(0, many, 2 * width):
            middle, high = min(low + width, many), min(low + 2 * width, many)
            if middle >= high or not _before(order[middle], order[middle - 1], waiting):
                continue  # in order already
            for x in range(low, middle):
                spare[x] = order[x]
            a, b = low, middle
            for to in range(low, high):
                if a < middle and (b >= high or not _before(order[b], spare[a], waiting)):
                    order[to] = spare[a]
                    a += 1
                elif a < middle:
                    order[to] = order[b]
                    b += 1
        width *= 2
    return many


@bare
def _free(many, waiting):  # type: ignore[no-untyped-def]
    """Give the gathered entries back."""
    for j in range(many):
        e = waiting.order[j]
        waiting.next[e] = waiting.meta[NEXT_FREE]
        waiting.meta[NEXT_FREE] = e
    waiting.meta[PENDING] -= many


@bare
def _walk(plan, entry, begin, waiting, cells, spikes, grid, counts):  # type: ignore[no-untyped-def]
    """Let a row arrive, from its synapse ``begin`` on.

    Returns:
        How many synapses are done, and the status of the last; call again with more room for spikes if it is ROOM.
    """
    hot, laws = cells.hot, cells.laws
    target, weight = plan.target, plan.weight
    at, count = waiting.time[entry], waiting.times_over[entry]
    row = plan.first_row[waiting.projection[entry]] + waiting.source[entry]
    low, high = plan.row_start[row], plan.row_start[row + 1]
    c = cells.law[target[np.uint64(low)] >> 1]  # time constants are those of all its targets
    second = (target[np.uint64(low)] & 1) == 1
    epoch = epoch_of(at, cells)
    after = np.nextafter(at, math.inf)
    t = at - (cells.origin + epoch * cells.length)
    decay_m, decay_e, decay_i = decay(-t * laws[c, RATE_M]), decay(-t * laws[c, RATE_E]), decay(-t * laws[c, RATE_I])
    to_z = laws[c, GAIN_I if second else GAIN_E] / decay_m
    to_current = 1.0 / (decay_i if second else decay_e)
    current = np.uint64(SECOND if second else FIRST)
    recording = grid.next.shape[0] > 0
    plus = 0.0
    for s in range(low + begin, high):
        n = np.uint64(target[np.uint64(s)] >> 1)
        w = weight[np.uint64(s)] * count
        push = max(w, 0.0)
        slack = hot[n, np.uint64(SLACK)] - push
        plus += push
        look = (slack < 0.0) | (at >= hot[n, np.uint64(UNTIL)]) | (epoch != hot[n, np.uint64(EPOCH)]) | recording
        if look:
            counts[LOOKS] += at >= hot[n, np.uint64(UNTIL)]
            one, two = (0.0, w * to_current) if second else (w * to_current, 0.0)
            status = meet(
                np.int64(n), at, epoch, after, one, two, w * to_z, decay_m, decay_e, decay_i, cells, spikes, grid
            )
            if status != DONE:
                return s - low, status
        else:
            hot[n, np.uint64(TIME)] = at
            hot[n, np.uint64(Z)] += w * to_z
            hot[n, current] += w * to_current
            hot[n, np.uint64(SLACK)] = slack
    cells.pace[1] += plus
    counts[ARRIVALS] += high - low
    counts[SUMS] += high - low
    return 0, DONE


@bare
def _due(begin, end, limit, cells, spikes, grid, counts):  # type: ignore[no-untyped-def]
    """Take the neurons of a stage whose bounds end before the limit through the window; return the status."""
    check, least = cells.check, cells.least
    for b in range(begin // BLOCK, (end + BLOCK - 1) // BLOCK):
        if least[np.uint64(b)] >= limit:
            continue
        low, high = b * BLOCK, min((b + 1) * BLOCK, check.shape[0])
        for n in range(max(low, begin), min(high, end)):
            if check[np.uint64(n)] < limit:
                counts[LOOKS] += 1
                if not renew(n, limit, cells):
                    status = advance(n, limit, cells, spikes, grid)
                    if status != DONE:
                        return status
        smallest = math.inf
        for n in range(low, high):
            smallest = min(smallest, check[np.uint64(n)])
        least[np.uint64(b)] = smallest
    return DONE


@bare
def run_rows(plan, inputs, cells, waiting, spikes, grid, cursor, counts, stop):  # type: ignore[no-untyped-def]
    """Run a sample until ``stop`` seconds, from where the cursor stands; as :func:`snnsim.kernels.event.run`.

    Returns:
        DONE; TOO_FAST; or ROOM, ROOM_FOR_ROWS if a list is full: call again with a longer one.
    """
    stages = plan.stage_start.shape[0] - 1
    slots = waiting.head.shape[0] // stages
    meta = spikes.meta
    while window_start(cursor[WINDOW], plan.window, plan.origin) < stop:
        k = cursor[WINDOW]
        limit = min(window_start(k + 1, plan.window, plan.origin), stop)
        while cursor[ENTRY] < inputs.time.shape[0] and inputs.time[cursor[ENTRY]] < limit:
            j = cursor[ENTRY]
            status = _send(plan, waiting, inputs.time[j], inputs.group[j], inputs.unit[j], inputs.times_over[j], k)
            if status != DONE:
                return status
            cursor[ENTRY] += 1
        while cursor[STAGE] < stages:
            stage = cursor[STAGE]
            if cursor[PHASE] == GATHER:
                cursor[BEFORE] = meta[N_SPIKES]
                cursor[AT] = cursor[SYNAPSE] = 0
                cursor[MANY] = _gather((k % slots) * stages + stage, limit, waiting)
                cursor[PHASE] = WALK
            if cursor[PHASE] == WALK:
                while cursor[AT] < cursor[MANY]:
                    cursor[SYNAPSE], status = _walk(
                        plan, waiting.order[cursor[AT]], cursor[SYNAPSE], waiting, cells, spikes, grid, counts
                    )
                    if status != DONE:
                        return status
                    cursor[AT] += 1
                _free(cursor[MANY], waiting)
                cursor[PHASE] = DUE
            if cursor[PHASE] == DUE:
                status = _due(plan.stage_start[stage], plan.stage_start[stage + 1], limit, cells, spikes, grid, counts)
                if status != DONE:
                    return status
                sort_spikes(cursor[BEFORE], meta[N_SPIKES], spikes.time, spikes.neuron)
                cursor[AT] = cursor[BEFORE]
                cursor[PHASE] = DELIVER
            while cursor[AT] < meta[N_SPIKES]:
                s = cursor[AT]
                group = plan.group[spikes.neuron[s]]
                unit = spikes.neuron[s] - plan.first[group]
                status = _send(plan, waiting, spikes.time[s], group, unit, 1.0, k)
                if status != DONE:
                    return status
                cursor[AT] += 1
            cursor[PHASE] = GATHER
            cursor[STAGE] += 1
        counts[WINDOWS] += 1
        cursor[STAGE] = 0
        cursor[WINDOW] = k + 1
        cells.pace[0] = PACE * cells.pace[1] / (cells.check.shape[0] * (limit - cells.pace[2]))
        if waiting.meta[PENDING] == 0:  # nothing on its way: go where something can happen next
            nearest = math.inf
            for b in range(cells.least.shape[0]):
                nearest = min(nearest, cells.least[b])
            if cursor[ENTRY] < inputs.time.shape[0]:
                nearest = min(nearest, inputs.time[cursor[ENTRY]])
            if nearest >= stop:
                break
            cursor[WINDOW] = max(k + 1, window_of(nearest, plan.window, plan.origin))
    if grid.next.shape[0]:
        for n in range(cells.check.shape[0]):
            if grid.column[0, n] >= 0 or grid.column[1, n] >= 0 or grid.column[2, n] >= 0:
                record(n, math.inf, cells, grid)
    return DONE
