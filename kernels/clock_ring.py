"""What goes into and comes out of the rings of the clock engine: spikes sent on their way, noise, marks of sleepers."""

from __future__ import annotations

import numpy as np
from numba import njit

from snnsim.kernels import clock_tables as tables
from snnsim.kernels.clock_rows import (
    DIRTY,
    DRAWN,
    LIVE,
    LONGEST,
    OWNER,
    PORT,
    PORT_SIZE,
    RING,
    SHORTEST,
    SLOTS,
    SOURCE,
    deliver,
    slot_of,
)
from snnsim.kernels.memory import array_at
from snnsim.kernels.poisson import STEPS, add_counts, fill_counts
from snnsim.kernels.stochastic import chance, deliver_drawn

__all__ = ["add_noise", "mark", "place_after", "send", "slot_after", "take_marks"]


@njit(cache=True, nogil=True)
def mark(dirty, ports, port, now, shortest, longest):  # type: ignore[no-untyped-def]
    """Note that something may arrive in some slots of a receptor, if anybody sleeps in this run."""
    if dirty.shape[0]:
        first, slots = ports[port, DIRTY], ports[port, SLOTS]
        for delay in range(shortest, longest + 1):
            slot = now + delay
            dirty[first + (slot - slots if slot >= slots else slot)] = 1


@njit(inline="always")
def send(  # type: ignore[no-untyped-def]
    ring, ports, paths, own_edge, head, dirty, origins, q, k, shift, events, spike_start, spike_unit, t, who
):
    """Deliver what the source of path ``q`` emitted in step ``k`` of the call, ``shift`` slots after the head.

    ``who`` is for synapses that release at random: the seed, the sample's id and the number of the step in the run.
    """
    seed, sample_id, step = who

    event_start, event_unit, event_count, one = events
    p, number, source = paths[q, OWNER], paths[q, PORT], paths[q, SOURCE]
    low, high = own_edge[p, t], own_edge[p, t + 1]
    now = head[t, number] + shift
    if now >= ports[number, SLOTS]:
        now -= ports[number, SLOTS]
    n_inputs = event_start.shape[0]
    if source < n_inputs:
        first, last = event_start[source, k], event_start[source, k + 1]
        if first < last:
            mark(dirty, ports, number, now, paths[q, SHORTEST], paths[q, LONGEST])
            port = (ports[number, PORT_SIZE], ports[number, RING], ports[number, SLOTS], ports[number, LIVE])
            if chance(seed, paths[q, DRAWN] != 0):
                deliver_drawn(ring, port, now, paths, q, event_unit, event_count, 1, first, last, t, sample_id, step)
            else:
                deliver(ring, port, now, origins, paths, q, event_unit, event_count, 1, first, last, t, low, high)
        return
    place = k * own_edge.shape[0] + source - n_inputs
    for other in range(spike_start.shape[0]):
        first, last = spike_start[other, place], spike_start[other, place + 1]
        if first < last:
            mark(dirty, ports, number, now, paths[q, SHORTEST], paths[q, LONGEST])
            port = (ports[number, PORT_SIZE], ports[number, RING], ports[number, SLOTS], ports[number, LIVE])
            if chance(seed, paths[q, DRAWN] != 0):
                deliver_drawn(ring, port, now, paths, q, spike_unit, one, 0, first, last, t, sample_id, step)
            else:
                deliver(ring, port, now, origins, paths, q, spike_unit, one, 0, first, last, t, low, high)


@njit(cache=True, nogil=True)
def slot_after(ports, head, port, shift, t):  # type: ignore[no-untyped-def]
    """Return a receptor's slot of the step ``shift`` after the head."""
    slot = head[t, port] + shift
    return slot - ports[port, SLOTS] if slot >= ports[port, SLOTS] else slot


@njit(inline="always")
def place_after(ports, head, port, shift, t):  # type: ignore[no-untyped-def]
    """Return where a receptor's slot of the step ``shift`` after the head begins."""
    size, begin = ports[port, PORT_SIZE], ports[port, RING]
    return np.int64(slot_of(head[t, port] + shift, ports[port, SLOTS], size, begin))


@njit(cache=True, nogil=True)
def take_marks(dirty, ports, head, port, last, shift, t):  # type: ignore[no-untyped-def]
    """Return whether something may arrive at the receptors ``port`` to ``last`` in a step, and take the marks away."""
    if dirty.shape[0] == 0:
        return tables.SOMETHING
    some = tables.NOTHING
    for receptor in range(port, last + 1):
        mark = ports[receptor, DIRTY] + slot_after(ports, head, receptor, shift, t)
        if dirty[mark]:
            some = tables.SOMETHING
        dirty[mark] = 0
    return some


@njit(cache=True, nogil=True)
def add_noise(noise, number, sample_id, step, filled, counts, first, ring, o, low, high):  # type: ignore[no-untyped-def]
    """Add a Poisson stimulus to the arrivals of units ``low`` to ``high``; its counts are kept from ``first`` on."""
    size = high - low
    if filled[number] != step // STEPS:
        filled[number] = step // STEPS
        table = array_at(
            noise[number, tables.TABLE], (noise[number, tables.RATES], noise[number, tables.LEVELS]), np.uint32
        )
        which = array_at(noise[number, tables.WHICH], high if noise[number, tables.WHICH] else 0, np.int32)
        drawn = counts[first : first + STEPS * size]
        seed, place = noise[number, tables.NOISE_SEED], noise[number, tables.NOISE_NUMBER]
        fill_counts(seed, tables.POISSON, sample_id, step // STEPS, place, low, high, table, which, drawn)
    weights = array_at(noise[number, tables.NOISE_WEIGHT], noise[number, tables.N_WEIGHTS], ring.dtype)
    add_counts(ring, o, size, counts, first + step % STEPS * size, weights, low)
