"""Clock-driven simulation of one sample of any network, event-driven inside a step, on any number of threads.

Arrivals wait in rings of steps, one a population and receptor, a slot a step, a number a neuron. Threads own
targets: a thread moves its neurons on and adds to its columns of the rings, nobody else touches them. Steps are taken
in windows no longer than the shortest delay: in a window no neuron can feel another's spike, so the threads meet once
a window, to read each other's spikes, and not once a step.

A slot is filled in the order of semantics: emission step, path, source, synapse. Within a window all neurons move
first and what they sent is added afterwards, step by step; synapses with delay 0 are added when all their sources have
fired, just before a delta population is updated or after the current populations have fired, and they are the last
terms of the sum. So each slot holds the sum in canonical order without sorting anything, and the result has the same
bits as :func:`snnsim.kernels.reference.simulate_reference` for any window, any split of a run, any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from snnsim.kernels import clock_tables as tables
from snnsim.kernels.clock_laws import (
    ADAPTIVE,
    CURRENT,
    MEMBRANE,
    adaptive,
    current,
    hold,
    membrane,
    receive,
    reset,
    two_currents,
)
from snnsim.kernels.clock_models import ALPHA_CURRENT, advance
from snnsim.kernels.clock_ring import add_noise, mark, place_after, send, slot_after, take_marks
from snnsim.kernels.clock_rows import LIVE, NOW, SLOTS
from snnsim.kernels.clock_sleep import SLEEPERS, catch_up, fall_asleep, wake
from snnsim.kernels.memory import array_at, loose, wait_for_all
from snnsim.kernels.poisson import STEPS
from snnsim.kernels.stochastic import FIRES, advance_noisy, chance

__all__ = ["run_steps"]


@njit(cache=True, nogil=True)
def _numbers(each, row, first, size):  # type: ignore[no-untyped-def]
    """Return one number per step of ``size`` neurons from ``first`` on; counts no references."""
    place = (row * each.shape[1] + first) * each.itemsize
    return array_at(np.int64(each.ctypes.data) + place, size, each.dtype)


@njit(inline="always")
def _move(sample, a, n_neurons, begin, end, o, q, law, numbers, take, step, low, spikes, total):  # type: ignore[no-untyped-def]
    """Move some of a thread's neurons on by every law but the adaptive one; return where the next spike goes."""
    values, ring, release = sample.values, sample.ring, sample.release
    beta, drive, alpha, kappa, alpha_inh, kappa_inh, syn_step, to_v, theta = numbers
    i, h = a + n_neurons, a + 2 * n_neurons
    if law == MEMBRANE:
        return membrane(values, a, begin, end, ring, o, beta, drive, theta, release, step, low, spikes, total)
    if law == CURRENT:
        return current(
            *(values, a, i, begin, end, ring, o, beta, kappa, drive, to_v, alpha, syn_step, theta, take),
            *(release, step, low, spikes, total),
        )
    return two_currents(
        *(values, a, i, h, begin, end, ring, o, q, beta, kappa, kappa_inh, drive, alpha, alpha_inh, theta, take),
        *(release, step, low, spikes, total),
    )


@njit(inline="always")
def _laws(  # type: ignore[no-untyped-def]
    sample, p, a, n_neurons, size, o, q, law, flags, numbers, rest, refractory, take, some, step, low, spikes, t, total
):
    """Move neurons on by every law but the adaptive one, reset those that fire and put refractory ones back."""
    values, release, since = sample.values, sample.release, sample.since
    v_reset, amount, calm, room, peak, peak_inh, i_rest = rest
    sleepy = flags & tables.SLEEPY != 0
    block = sample.first_block[t, p]
    i, h = a + n_neurons, a + 2 * n_neurons
    moving = numbers[:8]
    first = total
    if sleepy:
        if some == tables.SETTLE:
            catch_up(values, a, i, h, size, law, step, since, block, moving)
            return total
        awake = wake(values, a, i, h, size, sample.ring, o, q, some, law, step, since, block, moving)
        if awake == 0:
            return total
        begin = 0
        while begin < size:
            end = begin
            while end < size and since[block + end // SLEEPERS] < 0:
                end += SLEEPERS
            end = min(end, size)
            if end > begin:
                sample.moved[t, 0] += end - begin
                total = _move(sample, a, n_neurons, begin, end, o, q, law, numbers, take, step, low, spikes, total)
            begin = max(end, begin) + SLEEPERS
    elif some == tables.SETTLE:
        return total
    else:
        total = _move(sample, a, n_neurons, 0, size, o, q, law, numbers, take, step, low, spikes, total)
    refractory_some = flags & tables.REFRACTORY != 0
    if refractory_some:
        sample.n_held[t, p] = hold(values, a, sample.held, sample.until, sample.kept, sample.n_held[t, p], step)
    if total > first:
        zero = flags & tables.RESET_ZERO != 0
        reset(values, a, low, zero, v_reset, amount, refractory, release, step, spikes, first, total)
        if refractory_some:
            for event in range(first, total):
                n = a + spikes[event] - low
                if release[n] > step + 1:
                    entry = a + sample.n_held[t, p]
                    sample.held[entry] = n
                    sample.until[entry] = release[n]
                    sample.kept[entry] = values[n]
                    sample.n_held[t, p] += 1
    if sleepy:
        fall_asleep(values, a, i, h, size, law, step, release, since, block, calm, room, peak, peak_inh, i_rest)
    return total


@njit(cache=True, nogil=True)
def _model(  # type: ignore[no-untyped-def]
    populations, one, each, refractory, sample, p, n_neurons, low, size, o, q, take, step, spikes, total
):
    """Move a thread's neurons on by a law of :mod:`snnsim.kernels.clock_models`."""
    law, flags = populations[p, tables.LAW], populations[p, tables.FLAGS]
    a = populations[p, tables.OFFSET] + low
    if flags & tables.OWN == 0:
        numbers = array_at(np.int64(one.ctypes.data), one.size, one.dtype)
        table = (numbers, p * one.shape[1], 1, 0)
        place = np.int64(populations.ctypes.data)
        place += (p * populations.shape[1] + tables.REFRACTORY_STEPS) * populations.itemsize
        steps = array_at(place, 1, np.int64)
    else:
        e = populations[p, tables.EACH] + low
        numbers = array_at(np.int64(each.ctypes.data), each.size, each.dtype)
        table = (numbers, e, each.shape[1], 1)
        steps = array_at(np.int64(refractory.ctypes.data) + e * refractory.itemsize, size, np.int64)
    zero = flags & tables.RESET_ZERO != 0
    return advance(
        *(sample.values, a, n_neurons, size, sample.ring, o, q, law, table, steps, zero, sample.release, take, step),
        *(low, spikes, total),
    )


@njit(cache=True, nogil=True)
def _update(  # type: ignore[no-untyped-def]
    populations, one, each, refractory, sample, p, n_neurons, low, size, o, q, take, some, step, spikes, t, total
):
    """Move a thread's ``size`` neurons from unit ``low`` of population ``p`` on; return where its next spike goes."""
    law, flags = populations[p, tables.LAW], populations[p, tables.FLAGS]
    if law >= ALPHA_CURRENT:
        if some == tables.SETTLE:
            return total
        return _model(
            *(populations, one, each, refractory, sample, p, n_neurons, low, size, o, q, take, step, spikes, total),
        )
    a = populations[p, tables.OFFSET] + low
    if flags & tables.OWN == 0:
        numbers = (
            *(
                one[p, tables.BETA],
                one[p, tables.DRIVE],
                one[p, tables.ALPHA],
                one[p, tables.KAPPA],
                one[p, tables.ALPHA_INH],
                one[p, tables.KAPPA_INH],
            ),
            *(one[p, tables.SYN_STEP], one[p, tables.SYN_TO_V], one[p, tables.THRESHOLD]),
        )
        rest = (
            *(
                one[p, tables.V_RESET],
                one[p, tables.AMOUNT],
                one[p, tables.CALM],
                one[p, tables.ROOM],
                one[p, tables.PEAK],
                one[p, tables.PEAK_INH],
            ),
            one[p, tables.I_REST],
        )
        steps_of_all = populations[p, tables.REFRACTORY_STEPS]
        return _laws(
            sample,
            p,
            a,
            n_neurons,
            size,
            o,
            q,
            law,
            flags,
            numbers,
            rest,
            steps_of_all,
            take,
            some,
            step,
            low,
            spikes,
            t,
            total,
        )
    e = populations[p, tables.EACH] + low
    beta, drive = _numbers(each, tables.BETA, e, size), _numbers(each, tables.DRIVE, e, size)
    theta, v_reset = _numbers(each, tables.THRESHOLD, e, size), _numbers(each, tables.V_RESET, e, size)
    amount = _numbers(each, tables.AMOUNT, e, size)
    steps = array_at(np.int64(refractory.ctypes.data) + e * refractory.itemsize, size, np.int64)
    if law == ADAPTIVE:
        if some == tables.SETTLE:
            return total
        return adaptive(
            *(sample.values, a, a + n_neurons, size, sample.ring, o, beta, drive, theta, v_reset, amount),
            *(_numbers(each, tables.ADAPT_DECAY, e, size), _numbers(each, tables.ADAPT_V, e, size)),
            *(_numbers(each, tables.ADAPT_SPIKE, e, size), _numbers(each, tables.ADAPT_THRESHOLD, e, size), steps),
            *(flags & tables.RESET_ZERO != 0, flags & tables.STRICT != 0, sample.release, step, low, spikes, total),
        )
    numbers_of = (
        *(beta, drive, _numbers(each, tables.ALPHA, e, size), _numbers(each, tables.KAPPA, e, size)),
        *(_numbers(each, tables.ALPHA_INH, e, size), _numbers(each, tables.KAPPA_INH, e, size)),
        *(_numbers(each, tables.SYN_STEP, e, size), _numbers(each, tables.SYN_TO_V, e, size), theta),
    )
    rest_of = (
        *(v_reset, amount, _numbers(each, tables.CALM, e, size), _numbers(each, tables.ROOM, e, size)),
        *(
            _numbers(each, tables.PEAK, e, size),
            _numbers(each, tables.PEAK_INH, e, size),
            _numbers(each, tables.I_REST, e, size),
        ),
    )
    return _laws(
        sample,
        p,
        a,
        n_neurons,
        size,
        o,
        q,
        law,
        flags,
        numbers_of,
        rest_of,
        steps,
        take,
        some,
        step,
        low,
        spikes,
        t,
        total,
    )


@njit(cache=True, nogil=True)
def _drop(ring, first, size):  # type: ignore[no-untyped-def]
    for n in range(np.uint64(first), np.uint64(first + size)):
        ring[n] = 0


@njit(inline="always")
def _step(  # type: ignore[no-untyped-def]
    plan, sample, sample_id, dirty, filled, counts, origins, k, shift, step, events, spike_start, spike_unit, t, total
):
    """Move a thread's neurons on by one step, ``shift`` slots after the head; return where its next spike goes."""
    order, populations, ports, paths, own_edge = plan.order, plan.populations, plan.ports, plan.paths, plan.own_edge
    into, into_start, one, each, refractory = plan.into, plan.into_start, plan.one, plan.each, plan.refractory
    ring, head, noise = sample.ring, sample.head, plan.noise
    n_populations = order.shape[0]
    n_neurons = populations[n_populations - 1, tables.OFFSET] + populations[n_populations - 1, tables.SIZE]
    for stage in range(2):
        for rank in range(n_populations):
            p = order[rank]
            late = populations[p, tables.FLAGS] & tables.LATE != 0
            if stage == 1 and not late:
                continue
            low, high = own_edge[p, t], own_edge[p, t + 1]
            active = populations[p, tables.START] <= step < populations[p, tables.STOP]
            if late == (stage == 1):
                for entry in range(into_start[p], into_start[p + 1]):
                    q = into[entry]
                    if paths[q, NOW]:
                        send(
                            ring,
                            ports,
                            paths,
                            own_edge,
                            head,
                            dirty,
                            origins,
                            q,
                            k,
                            shift,
                            events,
                            spike_start,
                            spike_unit,
                            t,
                            (plan.seed, sample_id, step),
                        )
            port = populations[p, tables.FIRST_PORT]
            last = populations[p, tables.LAST_PORT] - 1
            if late == (stage == 1) and active:
                first = 0
                for number in range(noise.shape[0]):
                    owner = noise[number, tables.NOISE_OWNER]
                    if owner == p:
                        o = place_after(ports, head, noise[number, tables.NOISE_PORT], shift, t) + low
                        add_noise(noise, number, sample_id, step, filled, counts, first, ring, o, low, high)
                        mark(
                            dirty,
                            ports,
                            noise[number, tables.NOISE_PORT],
                            slot_after(ports, head, noise[number, tables.NOISE_PORT], shift, t),
                            0,
                            0,
                        )
                    first += STEPS * (own_edge[owner, t + 1] - own_edge[owner, t])
            if stage == 0:
                if active:
                    o = place_after(ports, head, port, shift, t) + low
                    other = place_after(ports, head, last, shift, t) + low
                    some = take_marks(dirty, ports, head, port, last, shift, t)
                    if chance(plan.seed, populations[p, tables.LAW] == FIRES):
                        total = advance_noisy(plan, sample, sample_id, p, low, high - low, o, step, spike_unit, total)
                    else:
                        total = _update(
                            *(populations, one, each, refractory, sample, p, n_neurons, low, high - low, o, other),
                            *(not late, some, step, spike_unit, t, total),
                        )
                spike_start[t, k * n_populations + rank + 1] = total
            if late == (stage == 0) or (active and not late):
                continue  # currents wait for stage 1; the others have taken what arrived
            for receptor in range(port, last + 1):
                o = place_after(ports, head, receptor, shift, t) + low
                if active:
                    i = (1 + receptor - port) * n_neurons + populations[p, tables.OFFSET] + low
                    receive(sample.values, i, high - low, ring, o)
                else:
                    _drop(ring, o, high - low)
    return total


@njit(cache=True, nogil=True)
def run_steps(  # type: ignore[no-untyped-def]
    plan,
    sample,
    sample_id,
    t,
    threads,
    counter,
    first_step,
    n_steps,
    events,
    columns,
    column_edge,
    record,
    spike_start,
    spike_unit,
):
    """Advance one sample by some steps: the part of thread ``t``; every thread calls this with the same arrays.

    Args:
        plan: The network, :class:`Plan`.
        sample: The state, :class:`Sample`, changed in place.
        sample_id: Its id in the data set, for random numbers.
        t: Which thread.
        threads: Of how many.
        counter: int64 ``(1,)``, 0.
        first_step: Step number of the first step (start and stop count from 0).
        n_steps: Steps.
        events: Where each input's events of each step begin, int64 ``(n_inputs, n_steps + 1)``; their units, ascending
            within a step, int32; how many of the unit coincide, in the dtype of the run; the number 1 in it, ``(1,)``.
        columns: Per recorded column its neuron, its variable and its place in ``record``, by thread, int64 ``(., 3)``.
        column_edge: First column of each thread, int64 ``(threads + 1,)``.
        record: Filled with the values at the end of each step, ``(n_steps, n_columns)``.
        spike_start: Filled: where each thread's spikes of each step and population (in ``order``) begin, int64
            ``(threads, n_steps P + 1)``; the first column says where its part of ``spike_unit`` begins.
        spike_unit: Filled with spiking units, ascending within a step and population, int32.
    """
    plan = tables.Plan(
        *(loose(plan.order), loose(plan.populations), loose(plan.ports), loose(plan.paths), loose(plan.into)),
        *(loose(plan.into_start), loose(plan.own_edge), loose(plan.one), loose(plan.each), loose(plan.refractory)),
        *(plan.window, loose(plan.noise), plan.seed),
    )
    sample = tables.Sample(
        *(
            loose(sample.values),
            loose(sample.release),
            loose(sample.held),
            loose(sample.until),
            loose(sample.kept),
            loose(sample.n_held),
        ),
        *(loose(sample.ring), loose(sample.head), loose(sample.since), loose(sample.first_block)),
        *(loose(sample.dirty), loose(sample.moved)),
    )
    events = (loose(events[0]), loose(events[1]), loose(events[2]), loose(events[3]))
    spike_start, spike_unit = loose(spike_start), loose(spike_unit)
    populations, ports, paths, own_edge = plan.populations, plan.ports, plan.paths, plan.own_edge
    ring, head, window = sample.ring, sample.head, plan.window
    n_populations = plan.order.shape[0]
    n_neurons = populations[n_populations - 1, tables.OFFSET] + populations[n_populations - 1, tables.SIZE]
    longest = 0
    for port in range(ports.shape[0]):
        longest = max(longest, ports[port, LIVE])
    origins = np.empty(longest + 1, np.uint64)
    drawn = 0
    for number in range(plan.noise.shape[0]):
        owner = plan.noise[number, tables.NOISE_OWNER]
        drawn += STEPS * (own_edge[owner, t + 1] - own_edge[owner, t])
    counts = np.empty(drawn, np.uint8)
    filled = np.full(plan.noise.shape[0], -1)
    slots = sample.dirty.shape[1]
    dirty = array_at(np.int64(sample.dirty.ctypes.data) + t * slots, slots, np.uint8)
    dirty[:] = 1  # what an earlier call sent on its way
    total = spike_start[t, 0]
    turn = 0
    for begin in range(0, n_steps, window):
        length = min(window, n_steps - begin)
        for j in range(length):
            k = begin + j
            total = _step(
                plan,
                sample,
                sample_id,
                dirty,
                filled,
                counts,
                origins,
                k,
                j,
                first_step + k,
                events,
                spike_start,
                spike_unit,
                t,
                total,
            )
            for column in range(column_edge[t], column_edge[t + 1]):
                record[k, columns[column, 2]] = sample.values[columns[column, 1] * n_neurons + columns[column, 0]]
        if threads > 1:
            turn += 1
            wait_for_all(counter, threads, turn)
        for j in range(length):
            for q in range(paths.shape[0]):
                if not paths[q, NOW]:
                    k = begin + j
                    send(
                        ring,
                        ports,
                        paths,
                        own_edge,
                        head,
                        dirty,
                        origins,
                        q,
                        k,
                        j,
                        events,
                        spike_start,
                        spike_unit,
                        t,
                        (plan.seed, sample_id, first_step + k),
                    )
        for port in range(ports.shape[0]):
            head[t, port] = (head[t, port] + length) % ports[port, SLOTS]
    if slots:
        for p in range(n_populations):
            low, high = own_edge[p, t], own_edge[p, t + 1]
            _update(
                *(populations, plan.one, plan.each, plan.refractory, sample, p, n_neurons, low, high - low, 0, 0),
                *(True, tables.SETTLE, first_step + n_steps - 1, spike_unit, t, total),
            )
