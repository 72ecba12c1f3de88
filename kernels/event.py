"""Event-driven simulation of one sample in continuous time, window by window, without a queue of all events.

Time is cut into windows so short that no spike comes back to its own neuron within one: around every loop of
projections some delay is at least a window long. Populations are put into stages, such that a spike reaches,
within its window, only neurons of later stages. So in one window and stage each neuron is on its own: it is given
its arrivals in order of time, and what it emits is delivered when the stage is done. A neuron without arrivals is
looked at only if the proven bound of :mod:`snnsim.kernels.event_law` lets it fire before the window ends.

The state of a neuron is the one at its last event and changes at its own events only, so its bits depend neither on
the windows nor on where a run was split. Arrivals of one neuron at one instant are summed in order of emission time,
projection, source and synapse; then the threshold is tested once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.bare import bare
from snnsim.kernels.decay import decays
from snnsim.kernels.event_law import CURRENT, KIND, RATE_E, RATE_I, RATE_M
from snnsim.kernels.event_neuron import (
    BLOCK,
    DONE,
    HELD,
    N_SPIKES,
    ROOM,
    TIME,
    arrive,
    arrive_current,
    fill,
    new_check,
    spontaneous,
)
from snnsim.kernels.event_sort import sort_arrivals, sort_spikes
from snnsim.kernels.event_store import (
    PENDING,
    append,
    append_row,
    append_spread,
    count_targets,
    keep_late,
    new_delivery,
    release,
    room_in_pool,
    sort_targets,
    window_of,
    window_start,
)

__all__ = ["ROOM_IN_BUFFER", "ROOM_TO_DELIVER", "Buffer", "Inputs", "Plan", "Scratch"]
__all__ += ["begin_checks", "load", "new_buffer", "new_cursor", "run"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Small = npt.NDArray[np.int32]


class Plan(NamedTuple):
    """A network as flat arrays: N neurons in order of stages, G sources of events, Q projections, R rows.

    Attributes:
        group: Source group of each neuron, the inputs come first, int32 ``(N,)``.
        first: First neuron of each group (0 for inputs), int64 ``(G,)``.
        stage_start: First neuron of each stage, int64 ``(stages + 1,)``.
        out_start: Where the projections of a group begin in ``out``, int64 ``(G + 1,)``.
        out: Projections, int64 ``(Q,)``.
        first_row: First row of each projection, int64 ``(Q,)``.
        stage: Stage of its target, int64 ``(Q,)``.
        row_start: First synapse of each row, int64 ``(R + 1,)``.
        row_delay: Delay of the row, seconds, ``(R,)``; not used where synapses have their own.
        row_own: Where the row's own delays begin in ``delay``, -1 if all have the row's, int64 ``(R,)``.
        target: ``2 * neuron + receptor`` of each synapse, int32.
        weight: Weight of each synapse.
        delay: Own delays, seconds.
        window: Length of a window, seconds.
        origin: Where the first window begins, seconds.
    """

    group: Small
    first: Ints
    stage_start: Ints
    out_start: Ints
    out: Ints
    first_row: Ints
    stage: Ints
    row_start: Ints
    row_delay: Floats
    row_own: Ints
    target: Small
    weight: Floats
    delay: Floats
    window: float
    origin: float


class Inputs(NamedTuple):
    """Events of the inputs of one sample by time: absolute time, group, unit, how many coincide; all ``(events,)``."""

    time: Floats
    group: Ints
    unit: Ints
    times_over: Floats


class Scratch(NamedTuple):
    """Room for one window and stage: arrivals of each neuron, which neurons have some, where theirs begin."""

    fill: Ints
    touched: Ints
    begin: Ints


class Buffer(NamedTuple):
    """The arrivals of one window and stage, sorted by neuron and time, room to sort them, and their decays.

    ``base`` is the time of the neuron's event before the arrival, ``decay_*`` what is left of y and the currents since.
    """

    time: Floats
    weight: Floats
    target: Small
    number: Small
    order: Ints
    spare: Ints
    moved: Floats
    base: Floats
    decay_m: Floats
    decay_e: Floats
    decay_i: Floats


# cursor
WINDOW = 0
STAGE = 1
PHASE = 2
ENTRY = 3  # next input event
MANY = 4  # neurons with arrivals
AT = 5  # next of them, or next spike to deliver
BEFORE = 6  # spikes found before this stage

GATHER = 0  # phases
TOUCH = 1
DELIVER = 2

ROOM_TO_DELIVER = 3  # status, beside those of event_neuron
ROOM_IN_BUFFER = 4

TOGETHER = 128  # touched neurons whose decays are computed at once

WINDOWS = 0  # counts: windows visited
ARRIVALS = 1  # arrivals given to neurons
SUMS = 2  # instants at which a neuron had arrivals
DUE = 3  # times a neuron was looked at because its bound let it fire


def new_buffer(room: int = 1024) -> Buffer:
    """Return room for so many arrivals."""
    return Buffer(
        *(np.zeros(room), np.zeros(room), np.zeros(room, np.int32), np.zeros(room, np.int32)),
        *(np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room)),
        *(np.zeros(room), np.zeros(room), np.zeros(room), np.zeros(room)),
    )


def new_cursor(begin: float, plan: Plan) -> Ints:
    """Return the cursor of a run that begins at a time."""
    cursor = np.zeros(8, np.int64)
    cursor[WINDOW] = window_of(begin, plan.window, plan.origin)
    return cursor


@bare
def _deliver(plan, pool, log, time, group, unit, count, now):  # type: ignore[no-untyped-def]
    """Put the arrivals that an event causes into their buckets; return the status, not DONE if nothing was done."""
    stages = plan.stage_start.shape[0] - 1
    slots = pool.head.shape[0] // stages
    first, last = plan.out_start[group], plan.out_start[group + 1]
    total = 0
    for j in range(first, last):
        row = plan.first_row[plan.out[j]] + unit
        total += plan.row_start[row + 1] - plan.row_start[row]
    if room_in_pool(total, pool) or log.used[0] + last - first > log.time.shape[0]:
        return ROOM_TO_DELIVER
    for j in range(first, last):
        q = plan.out[j]
        row = plan.first_row[q] + unit
        begin, end = plan.row_start[row], plan.row_start[row + 1]
        if begin == end:
            continue
        number = new_delivery(log, time, q, unit)
        row_own, stage = plan.row_own[row], plan.stage[q]
        if row_own < 0:
            at = time + plan.row_delay[row]
            k = max(window_of(at, plan.window, plan.origin), now)
            bucket = (k % slots) * stages + stage
            append_row(bucket, pool, plan, begin, end, at, count, number)
        else:
            append_spread(stage, now, pool, plan, begin, end, row_own, time, count, number)
    return DONE


@bare
def load(plan, pool, log, times, weights, targets, emitted, projections, sources):  # type: ignore[no-untyped-def]
    """Put arrivals that a former run left back into buckets; the pool and the log have room for them."""
    stages = plan.stage_start.shape[0] - 1
    slots = pool.head.shape[0] // stages
    for s in range(times.shape[0]):
        number = new_delivery(log, emitted[s], projections[s], sources[s])
        k = window_of(times[s], plan.window, plan.origin)
        bucket = (k % slots) * stages + plan.stage[projections[s]]
        append(bucket, pool, times[s], weights[s], targets[s], number)


@bare
def begin_checks(cells):  # type: ignore[no-untyped-def]
    """Set the first bounds of all neurons."""
    for n in range(cells.check.shape[0]):
        new_check(n, cells)


@bare
def _decays(begin, end, scratch, buffer, cells):  # type: ignore[no-untyped-def]
    """Compute the decays between the arrivals of some touched neurons, many at a time."""
    start, time, base, law = scratch.begin, buffer.time, buffer.base, cells.law
    rates_m, rates_e, rates_i = buffer.decay_m, buffer.decay_e, buffer.decay_i
    laws = cells.laws
    currents = False
    for j in range(begin, end):
        n = scratch.touched[j]
        c = law[n]
        last = cells.state[n, TIME]
        if laws[c, KIND] != CURRENT:
            for i in range(start[j], start[j + 1]):
                rates_m[i] = rates_e[i] = rates_i[i] = 0.0
            continue
        currents = True
        for i in range(start[j], start[j + 1]):
            gone = min(last - time[i], 0.0)
            base[i] = last
            rates_m[i], rates_e[i], rates_i[i] = gone * laws[c, RATE_M], gone * laws[c, RATE_E], gone * laws[c, RATE_I]
            last = time[i]
    if currents:
        decays(rates_m, start[begin], start[end])
        decays(rates_e, start[begin], start[end])
        decays(rates_i, start[begin], start[end])


@bare
def _touch(begin, many, limit, scratch, buffer, cells, spikes, grid, counts):  # type: ignore[no-untyped-def]
    """Take neurons with arrivals through the window, from the ``begin``-th on.

    Returns:
        How many are done, and the status of the last; call again with more room for spikes if it is ROOM.
    """
    start, time, weight, target, meta = scratch.begin, buffer.time, buffer.weight, buffer.target, spikes.meta
    recording = grid.next.shape[0] > 0
    ready = begin
    for j in range(begin, many):
        n = scratch.touched[j]
        if j == ready:
            ready = min(j + TOGETHER, many)
            _decays(j, ready, scratch, buffer, cells)
        i, end = start[j], start[j + 1]
        current = cells.laws[cells.law[n], KIND] == CURRENT
        while i < end:
            at, k = time[i], i
            status = DONE
            if cells.check[n] < at:
                counts[DUE] += 1
                status = spontaneous(n, at, cells, spikes, grid)
            if meta[N_SPIKES] == spikes.time.shape[0]:
                status = ROOM
            if status != DONE:
                start[j] = i
                return j, status
            first = second = 0.0
            while i < end and time[i] == at:
                if target[i] & 1:
                    second += weight[i]
                else:
                    first += weight[i]
                i += 1
            counts[SUMS] += 1
            if recording:
                fill(n, at, cells, grid)
            if current and cells.state[n, TIME] == buffer.base[k] and at > cells.state[n, HELD] <= buffer.base[k]:
                e, m, s = buffer.decay_e[k], buffer.decay_m[k], buffer.decay_i[k]
                arrive_current(n, at, first, second, m, e, s, cells, spikes)
            else:
                arrive(n, at, first, second, cells, spikes)
        start[j] = end
        if cells.check[n] < limit:
            counts[DUE] += 1
            status = spontaneous(n, limit, cells, spikes, grid)
            if status != DONE:
                return j, status
    return many, DONE


@bare
def _due(begin, end, limit, cells, spikes, grid, counts):  # type: ignore[no-untyped-def]
    """Take the neurons of a stage that may fire without arrivals through the window; return the status."""
    check, least = cells.check, cells.least
    for b in range(begin // BLOCK, (end + BLOCK - 1) // BLOCK):
        if least[np.uint64(b)] >= limit:
            continue
        low, high = b * BLOCK, min((b + 1) * BLOCK, check.shape[0])
        for n in range(max(low, begin), min(high, end)):
            if check[np.uint64(n)] < limit:
                counts[DUE] += 1
                status = spontaneous(n, limit, cells, spikes, grid)
                if status != DONE:
                    return status
        smallest = math.inf
        for n in range(low, high):
            smallest = min(smallest, check[np.uint64(n)])
        least[np.uint64(b)] = smallest
    return DONE


@bare
def run(plan, inputs, cells, pool, log, buffer, scratch, spikes, grid, cursor, counts, stop):  # type: ignore[no-untyped-def]
    """Run a sample until ``stop`` seconds, from where the cursor stands.

    Args:
        plan: The network.
        inputs: Events of its inputs.
        cells: The neurons; changed in place.
        pool: Arrivals on their way.
        log: Deliveries.
        buffer: Room for the arrivals of one window and stage.
        scratch: Room.
        spikes: List to fill.
        grid: What to record; filled in place.
        cursor: Where the run stands, int64 ``(8,)``; :func:`new_cursor`.
        counts: Counters, int64 ``(4,)``.
        stop: Seconds.

    Returns:
        DONE; TOO_FAST; or ROOM, ROOM_TO_DELIVER, ROOM_IN_BUFFER if a list is full: call again with a longer one.
    """
    stages = plan.stage_start.shape[0] - 1
    slots = pool.head.shape[0] // stages
    meta = spikes.meta
    while window_start(cursor[WINDOW], plan.window, plan.origin) < stop:
        k = cursor[WINDOW]
        limit = min(window_start(k + 1, plan.window, plan.origin), stop)
        while cursor[ENTRY] < inputs.time.shape[0] and inputs.time[cursor[ENTRY]] < limit:
            j = cursor[ENTRY]
            status = _deliver(plan, pool, log, inputs.time[j], inputs.group[j], inputs.unit[j], inputs.times_over[j], k)
            if status != DONE:
                return status
            cursor[ENTRY] += 1
        while cursor[STAGE] < stages:
            stage = cursor[STAGE]
            if cursor[PHASE] == GATHER:
                cursor[BEFORE] = meta[N_SPIKES]
                cursor[MANY] = cursor[AT] = 0
                bucket = (k % slots) * stages + stage
                if pool.used[bucket]:
                    if pool.used[bucket] > buffer.time.shape[0]:
                        return ROOM_IN_BUFFER
                    many = count_targets(bucket, limit, pool, scratch)
                    sort_targets(bucket, limit, pool, scratch, buffer)
                    for j in range(many):
                        scratch.fill[scratch.touched[j]] = 0
                    if scratch.begin[many] < pool.used[bucket]:
                        keep_late(bucket, limit, pool)
                    else:
                        release(pool, bucket)
                    sort_arrivals(many, scratch.begin, buffer, log)
                    counts[ARRIVALS] += scratch.begin[many]
                    cursor[MANY] = many
                cursor[PHASE] = TOUCH
            if cursor[PHASE] == TOUCH:
                if cursor[AT] < cursor[MANY]:
                    cursor[AT], status = _touch(
                        cursor[AT], cursor[MANY], limit, scratch, buffer, cells, spikes, grid, counts
                    )
                    if status != DONE:
                        return status
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
                status = _deliver(plan, pool, log, spikes.time[s], group, unit, 1.0, k)
                if status != DONE:
                    return status
                cursor[AT] += 1
            cursor[PHASE] = GATHER
            cursor[STAGE] += 1
        counts[WINDOWS] += 1
        cursor[STAGE] = 0
        cursor[WINDOW] = k + 1
        if pool.meta[PENDING] == 0:  # nothing on its way: go where something can happen next
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
                fill(n, math.inf, cells, grid)
    return DONE
