"""Event-driven simulation of one sample with plastic synapses: the windows of :mod:`snnsim.kernels.event`.

Weights and traces belong to the target neuron, so inside a window and stage each neuron is still on its own, and its
arrivals and spikes are taken in order of time. A plastic synapse waits as its number, and its weight is taken when it
arrives. In the plan ``weight`` of a plastic projection therefore holds the synapses' numbers in
:class:`snnsim.kernels.event_stdp.Plastic`.
"""

from __future__ import annotations

import math

from snnsim.kernels.bare import bare
from snnsim.kernels.event import (
    ARRIVALS,
    AT,
    BEFORE,
    DELIVER,
    DUE,
    ENTRY,
    GATHER,
    MANY,
    PHASE,
    ROOM_IN_BUFFER,
    ROOM_TO_DELIVER,
    STAGE,
    SUMS,
    TOUCH,
    WINDOW,
    WINDOWS,
)
from snnsim.kernels.event_neuron import BLOCK, DONE, N_SPIKES, ROOM, arrive, fill, spontaneous
from snnsim.kernels.event_sort import sort_arrivals, sort_spikes
from snnsim.kernels.event_stdp import neuron_fires, synapse_receives
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

__all__ = ["load_plastic", "run_plastic"]


@bare
def _deliver(plan, pool, log, copies, plastic, time, group, unit, count, now):  # type: ignore[no-untyped-def]
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
        copies[number] = count
        times_over = count if plastic.rule[q] < 0 else 1.0
        row_own, stage = plan.row_own[row], plan.stage[q]
        if row_own < 0:
            at = time + plan.row_delay[row]
            k = max(window_of(at, plan.window, plan.origin), now)
            append_row((k % slots) * stages + stage, pool, plan, begin, end, at, times_over, number)
        else:
            append_spread(stage, now, pool, plan, begin, end, row_own, time, times_over, number)
    return DONE


@bare
def load_plastic(plan, pool, log, copies, times, weights, targets, emitted, projections, sources, counts):  # type: ignore[no-untyped-def]
    """Put arrivals that a former run left back into buckets; the pool and the log have room for them."""
    stages = plan.stage_start.shape[0] - 1
    slots = pool.head.shape[0] // stages
    for s in range(times.shape[0]):
        number = new_delivery(log, emitted[s], projections[s], sources[s])
        copies[number] = counts[s]
        k = window_of(times[s], plan.window, plan.origin)
        bucket = (k % slots) * stages + plan.stage[projections[s]]
        append(bucket, pool, times[s], weights[s], targets[s], number)


@bare
def _alone(n, limit, cells, spikes, grid, plastic):  # type: ignore[no-untyped-def]
    """Let a neuron fire at all its crossings before a limit and change its synapses; return the status."""
    before = spikes.meta[N_SPIKES]
    status = spontaneous(n, limit, cells, spikes, grid)
    for k in range(before, spikes.meta[N_SPIKES]):
        neuron_fires(n, spikes.time[k], plastic)
    return status


@bare
def _touch(begin, many, limit, scratch, buffer, log, copies, cells, spikes, grid, counts, plastic):  # type: ignore[no-untyped-def]
    """Take neurons with arrivals through the window, from the ``begin``-th on.

    Returns:
        How many are done, and the status of the last; call again with more room for spikes if it is ROOM.
    """
    start, time, weight, target, meta = scratch.begin, buffer.time, buffer.weight, buffer.target, spikes.meta
    recording = grid.next.shape[0] > 0
    for j in range(begin, many):
        n = scratch.touched[j]
        i, end = start[j], start[j + 1]
        while i < end:
            at = time[i]
            status = DONE
            if cells.check[n] < at:
                counts[DUE] += 1
                status = _alone(n, at, cells, spikes, grid, plastic)
            if meta[N_SPIKES] == spikes.time.shape[0]:
                status = ROOM
            if status != DONE:
                start[j] = i
                return j, status
            first = second = 0.0
            while i < end and time[i] == at:
                w, number = weight[i], buffer.number[i]
                r = plastic.rule[log.projection[number]]
                if r >= 0:
                    w = synapse_receives(int(w), r, n, at, copies[number], plastic) * copies[number]
                if target[i] & 1:
                    second += w
                else:
                    first += w
                i += 1
            counts[SUMS] += 1
            if recording:
                fill(n, at, cells, grid)
            before = meta[N_SPIKES]
            arrive(n, at, first, second, cells, spikes)
            if meta[N_SPIKES] > before:
                neuron_fires(n, at, plastic)
        start[j] = end
        if cells.check[n] < limit:
            counts[DUE] += 1
            status = _alone(n, limit, cells, spikes, grid, plastic)
            if status != DONE:
                return j, status
    return many, DONE


@bare
def _due(begin, end, limit, cells, spikes, grid, counts, plastic):  # type: ignore[no-untyped-def]
    """Take the neurons of a stage that may fire without arrivals through the window; return the status."""
    check, least = cells.check, cells.least
    for b in range(begin // BLOCK, (end + BLOCK - 1) // BLOCK):
        if least[b] >= limit:
            continue
        low, high = b * BLOCK, min((b + 1) * BLOCK, check.shape[0])
        for n in range(max(low, begin), min(high, end)):
            if check[n] < limit:
                counts[DUE] += 1
                status = _alone(n, limit, cells, spikes, grid, plastic)
                if status != DONE:
                    return status
        smallest = math.inf
        for n in range(low, high):
            smallest = min(smallest, check[n])
        least[b] = smallest
    return DONE


@bare
def run_plastic(plan, inputs, cells, pool, log, copies, buffer, scratch, spikes, grid, cursor, counts, stop, plastic):  # type: ignore[no-untyped-def]
    """Run a sample until ``stop`` seconds, as :func:`snnsim.kernels.event.run`, and change its plastic synapses.

    Args:
        plan: The network; see the module about its weights.
        inputs: Events of its inputs.
        cells: The neurons; changed in place.
        pool: Arrivals on their way.
        log: Deliveries.
        copies: Coincident events of each delivery, as long as the log.
        buffer: Room for the arrivals of one window and stage.
        scratch: Room.
        spikes: List to fill.
        grid: What to record; filled in place.
        cursor: Where the run stands, int64 ``(8,)``; :func:`snnsim.kernels.event.new_cursor`.
        counts: Counters, int64 ``(4,)``.
        stop: Seconds.
        plastic: The plastic synapses; changed in place.

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
            time, group, unit = inputs.time[j], inputs.group[j], inputs.unit[j]
            status = _deliver(plan, pool, log, copies, plastic, time, group, unit, inputs.times_over[j], k)
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
                        *(cursor[AT], cursor[MANY], limit, scratch, buffer, log, copies),
                        *(cells, spikes, grid, counts, plastic),
                    )
                    if status != DONE:
                        return status
                begin, end = plan.stage_start[stage], plan.stage_start[stage + 1]
                status = _due(begin, end, limit, cells, spikes, grid, counts, plastic)
                if status != DONE:
                    return status
                sort_spikes(cursor[BEFORE], meta[N_SPIKES], spikes.time, spikes.neuron)
                cursor[AT] = cursor[BEFORE]
                cursor[PHASE] = DELIVER
            while cursor[AT] < meta[N_SPIKES]:
                s = cursor[AT]
                group = plan.group[spikes.neuron[s]]
                unit = spikes.neuron[s] - plan.first[group]
                status = _deliver(plan, pool, log, copies, plastic, spikes.time[s], group, unit, 1.0, k)
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
