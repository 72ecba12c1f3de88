"""What a call of the clock kernel leaves behind, in the order in which it is kept: spikes, and what is on its way."""

from __future__ import annotations

import numpy as np
from numba import njit

from snnsim.kernels.clock_rows import PORT_SIZE, RING, SLOTS

__all__ = ["pending_sums", "spikes_of"]


@njit(cache=True, nogil=True)
def spikes_of(spike_start, spike_unit, rank, n_populations, length, first_step):  # type: ignore[no-untyped-def]
    """Return the spikes of one population, by step, then unit.

    Args:
        spike_start: As :func:`snnsim.kernels.clock.run_steps` fills it, ``(threads, n_steps P + 1)``.
        spike_unit: As it fills it.
        rank: Place of the population in the order of updating.
        n_populations: P.
        length: Steps of the call.
        first_step: Number of the first of them.

    Returns:
        Steps, int64, and units, int32.
    """
    total = 0
    for row in range(spike_start.shape[0]):
        for place in range(rank, length * n_populations, n_populations):
            total += spike_start[row, place + 1] - spike_start[row, place]
    steps, units = np.empty(total, np.int64), np.empty(total, np.int32)
    at = 0
    for k in range(length):
        place = k * n_populations + rank
        for row in range(spike_start.shape[0]):  # the units of a thread come before those of the next one
            for s in range(spike_start[row, place], spike_start[row, place + 1]):
                steps[at], units[at] = first_step + k, spike_unit[s]
                at += 1
    return steps, units


@njit(cache=True, nogil=True)
def pending_sums(ring, ports, head):  # type: ignore[no-untyped-def]
    """Return where sums that are not 0 stand when every ring begins with the next step, and the sums.

    Args:
        ring: Sums of what is on its way.
        ports: Of the plan, ``(S, PORT_COLUMNS)``.
        head: Slot of the next step in each ring, ``(S,)``.

    Returns:
        Places in ``ring`` with every head moved to slot 0, int64, ascending, and their values.
    """
    total = 0
    for at in range(ring.shape[0]):
        total += ring[at] != 0
    places, values = np.empty(total, np.int64), np.empty(total, ring.dtype)
    n = 0
    for port in range(ports.shape[0]):
        size, begin, slots = ports[port, PORT_SIZE], ports[port, RING], ports[port, SLOTS]
        for slot in range(slots):
            row = begin + (slot + head[port]) % slots * size
            for unit in range(size):
                if ring[row + unit] != 0:
                    places[n], values[n] = begin + slot * size + unit, ring[row + unit]
                    n += 1
    return places[:n], values[:n]
