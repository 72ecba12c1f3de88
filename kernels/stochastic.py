"""Synapses that release at random and noisy thresholds in the clock engine: what is drawn, and by which number.

Every number is one block of Philox4x32-10. Of a release: key ``(seed, RELEASE | projection << 8)`` with the place of
the projection in its network, counter ``(sample, step of emission, target, word)`` with
``word = source + n_source * k``, where k counts the synapses between the same two units that come before it in stored
order (0 where there are no parallel ones within the projection). Words 0 and 1 of the block make the number that
decides about the release, words 2 and 3 that of the amplitude. Of a firing: key ``(seed, FIRING | population << 8)``,
counter ``(sample, step, unit, 0)``. Numbers and probabilities are float64 in every run, so that float32 and float64
draw the same. Twin: :mod:`snnsim.kernels.reference_stochastic`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from snnsim.kernels import clock_tables as tables
from snnsim.kernels.clock_rows import (
    DELAY,
    DRAWN,
    EDGES,
    N_SOURCE,
    N_SYNAPSES,
    PORT_SIZE,
    RING,
    ROW_EDGE,
    SLOTS,
    TARGET,
    WEIGHT,
    slot_of,
)
from snnsim.kernels.exponential import exponential, like
from snnsim.kernels.memory import array_at
from snnsim.kernels.philox import Stream, philox_words

__all__ = [
    "DRAWN_COLUMNS",
    "FIRES",
    "FIRES_NUMBERS",
    "FIRING",
    "RELEASE",
    "advance_noisy",
    "chance",
    "deliver_drawn",
    "draw_firings",
    "draw_row",
    "fires",
    "fires_by",
    "pair_of",
    "stream_of",
    "whole_seed",
]

RELEASE, FIRING = int(Stream.RELEASE), int(Stream.FIRING)

FIRES = 32
"""Law of a membrane whose threshold is noisy, in the table of populations."""

FIRES_NUMBERS = ("v_threshold", "drive_step", "v_reset", "reset_amount", "beta", "temperature")
"""Its rows of numbers per step; the drive stands where it does in :data:`snnsim.kernels.clock_tables.NUMBERS`."""

THRESHOLD, DRIVE, V_RESET, AMOUNT, BETA, TEMPERATURE = range(6)

TOGETHER = 64
"""Synapses whose numbers are drawn in one go."""

DRAWN_COLUMNS = 6
"""What the address of a path with random synapses points at, int64: addresses of the words (uint32, one a synapse), the
releases, the lowest amplitudes and their spans (float64, one a target); seed; stream of the projection."""


def stream_of(stream: int, number: int) -> int:
    """Return the second word of a key: a stream and the place of a projection or population."""
    return stream | number << 8


@njit(inline="always")
def pair_of(seed, stream, sample, step, unit, word):  # type: ignore[no-untyped-def]
    """Return the two float64 numbers in [0, 1) of one block, 53 bits each."""
    x0, x1, x2, x3 = philox_words(sample, step, unit, word, seed, stream)
    first = np.float64(x0 >> np.uint64(5)) * 67108864.0 + np.float64(x1 >> np.uint64(6))
    second = np.float64(x2 >> np.uint64(5)) * 67108864.0 + np.float64(x3 >> np.uint64(6))
    return first * (1.0 / 9007199254740992.0), second * (1.0 / 9007199254740992.0)


@njit(inline="always")
def fires(v, theta, temperature, seed, stream, sample, step, unit):  # type: ignore[no-untyped-def]
    """Return whether a neuron fires: at the threshold, or with probability ``1 / (1 + exp((theta - v) / temp))``."""
    if temperature == 0:
        return v >= theta
    u, _ = pair_of(seed, stream, sample, step, unit, 0)
    return fires_by(u, v, theta, temperature)


@njit(inline="always")
def fires_by(u, v, theta, temperature):  # type: ignore[no-untyped-def]
    """Return what a noisy threshold decides with the number ``u``; the temperature is not 0."""
    x = (np.float64(v) - np.float64(theta)) / np.float64(temperature)
    return u < 1.0 / (1.0 + exponential(-x))


@njit(cache=True, nogil=True)
def draw_row(release, seed, stream, sample, step, source, start, stop, kept, others):  # type: ignore[no-untyped-def]
    """Write which of a source's synapses to ``start:stop`` released, 0 or 1, and the draws of their amplitudes.

    Nothing but numbers is computed in the loop, so that it runs in the processor's vectors.
    """
    for n in range(stop - start):
        u, other = pair_of(seed, stream, sample, step, start + n, source)
        kept[n] = 1.0 if u < release[start + n] else 0.0
        others[n] = other


@njit(cache=True, nogil=True)
def draw_firings(seed, stream, sample, step, out):  # type: ignore[no-untyped-def]
    """Write the numbers by which the neurons ``0, 1, ...`` fire in a step."""
    for n in range(out.shape[0]):
        out[n] = pair_of(seed, stream, sample, step, n, 0)[0]


def chance(seed: Any, flag: Any) -> Any:
    """Return whether a flag is set; without a seed none is, and what would follow is not compiled in."""


@overload(chance, inline="always")
def _chance(seed, flag):  # type: ignore[no-untyped-def]
    if seed == types.none:
        return lambda seed, flag: False
    return lambda seed, flag: flag


def whole_seed(seed: Any) -> Any:
    """Return the seed, 0 without one."""


@overload(whole_seed, inline="always")
def _whole_seed(seed):  # type: ignore[no-untyped-def]
    if seed == types.none:
        return lambda seed: 0
    return lambda seed: seed


@njit(cache=True, nogil=True)
def deliver_drawn(ring, port, now, paths, q, units, counts, stride, first, last, t, sample, step):  # type: ignore[no-untyped-def]
    """Send the events ``first:last`` along a path whose synapses release at random, to the targets of one thread.

    Args:
        ring: Sums of what is on its way, as in :func:`snnsim.kernels.clock_rows.deliver`.
        port: The receptor where the path ends.
        now: Slot of the step of emission.
        paths: The table of paths.
        q: Which path; its targets are int32, its weights of the ring's type, its delays uint16, one a synapse each.
        units: Units of the events.
        counts: How many coincide.
        stride: 1, or 0 if one count holds for all.
        first: First event.
        last: One past the last.
        t: Thread.
        sample: Id of the sample.
        step: Step of emission.
    """
    size, begin, slots = port[PORT_SIZE], port[RING], port[SLOTS]
    n, edges, n_synapses = paths[q, N_SOURCE], paths[q, EDGES], paths[q, N_SYNAPSES]
    row_edge = array_at(paths[q, ROW_EDGE], n * edges, np.int64)
    targets = array_at(paths[q, TARGET], n_synapses, np.int32)
    weights = array_at(paths[q, WEIGHT], n_synapses, ring.dtype)
    delays = array_at(paths[q, DELAY], n_synapses, np.uint16)
    drawn = array_at(paths[q, DRAWN], DRAWN_COLUMNS, np.int64)
    words = array_at(drawn[0], n_synapses, np.uint32)
    release, low, span = (
        array_at(drawn[1], size, np.float64),
        array_at(drawn[2], size, np.float64),
        array_at(drawn[3], size, np.float64),
    )
    seed, stream = drawn[4], drawn[5]
    chances, others = np.empty(TOGETHER), np.empty(TOGETHER)
    for event in range(first, last):
        r = units[event]
        count = counts[event * stride]
        stop = row_edge[r * edges + t + 1]
        for piece in range(row_edge[r * edges + t], stop, TOGETHER):
            n = min(TOGETHER, stop - piece)
            for m in range(n):  # nothing but numbers: this loop runs in the processor's vectors
                s = np.uint64(piece + m)
                chances[m], others[m] = pair_of(seed, stream, sample, step, targets[s], words[s])
            for m in range(n):
                s = np.uint64(piece + m)
                j = np.uint64(targets[s])
                if chances[m] < release[j]:
                    term = count * weights[s]
                    origin = slot_of(now + np.int64(delays[s]), slots, size, begin)
                    ring[origin + j] += term * like(low[j] + span[j] * others[m], term)


@njit(cache=True, nogil=True)
def advance_noisy(plan, sample, sample_id, p, low, size, o, step, spikes, total):  # type: ignore[no-untyped-def]
    """Move a thread's neurons with a noisy threshold on by one step; return where the next spike goes.

    Args:
        plan: The network.
        sample: The state.
        sample_id: Id of the sample.
        p: Place of the population.
        low: First unit of the thread's share.
        size: Units of its share.
        o: Where their arrivals begin.
        step: This step.
        spikes: Filled with units, int32.
        total: Where the next one goes.
    """
    populations, each, one = plan.populations, plan.each, plan.one
    seed = whole_seed(plan.seed)
    values, ring, release = sample.values, sample.ring, sample.release
    a = np.uint64(populations[p, tables.OFFSET] + low)
    own = populations[p, tables.FLAGS] & tables.OWN != 0
    zero = populations[p, tables.FLAGS] & tables.RESET_ZERO != 0
    e, o = np.uint64(populations[p, tables.EACH] + low), np.uint64(o)
    stream = FIRING | p << 8
    for j in range(np.uint64(size)):
        m, place = a + j, e + j
        arrived = ring[o + j]
        ring[o + j] = 0
        if release[m] > step:
            continue
        if own:
            beta, drive, theta = each[BETA, place], each[DRIVE, place], each[THRESHOLD, place]
            temperature = each[TEMPERATURE, place]
        else:
            beta, drive, theta = one[p, BETA], one[p, DRIVE], one[p, THRESHOLD]
            temperature = one[p, TEMPERATURE]
        v = (beta * values[m] + drive) + arrived
        if fires(v, theta, temperature, seed, stream, sample_id, step, low + np.int64(j)):
            if zero:
                v = each[V_RESET, place] if own else one[p, V_RESET]
            else:
                v = v - (each[AMOUNT, place] if own else one[p, AMOUNT])
            steps = plan.refractory[place] if own else populations[p, tables.REFRACTORY_STEPS]
            release[m] = step + 1 + steps
            spikes[total] = low + np.int64(j)
            total += 1
        values[m] = v
    return total
