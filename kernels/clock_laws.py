"""The laws of neurons as the clock engine computes them: a thread's neurons of one population, one step.

Parameters come as one number for a population or as one a neuron; :func:`at` reads both, so every law is written
once and compiled for both. A law moves the state on, takes what arrived out of the ring and writes down who reached the
threshold; who is still refractory is put back afterwards by :func:`hold`.

Products and sums are rounded one by one (no fastmath), in the order of ``docs/model.md``. An index is unsigned,
because a signed one is tested for being negative at every access, and nothing is sliced, because a slice counts
references with atomic operations that all threads share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

__all__ = [
    "ADAPTIVE",
    "CURRENT",
    "MEMBRANE",
    "TWO_CURRENTS",
    "adaptive",
    "current",
    "hold",
    "membrane",
    "receive",
    "reset",
    "two_currents",
]

MEMBRANE, CURRENT, ADAPTIVE, TWO_CURRENTS = range(4)
"""Laws; those of :mod:`snnsim.kernels.clock_models` follow."""

BLOCK = 512  # neurons moved on together: the loop without a branch is the fast one
PART = 32  # of them looked at together for a spike: few fire


def at(numbers: Any, n: Any) -> Any:
    """Return a parameter of the thread's ``n``-th neuron."""


@overload(at, inline="always")
def _at(numbers, n):  # type: ignore[no-untyped-def]
    if isinstance(numbers, types.Array):
        return lambda numbers, n: numbers[n]
    return lambda numbers, n: numbers


@njit(cache=True, nogil=True)
def _who(values, a, block, end, theta, release, step, unit, spikes, total):  # type: ignore[no-untyped-def]
    """Write the neurons of a block at or above threshold and not refractory; return where the next spike goes."""
    for part in range(block, end, PART):
        stop = min(part + PART, end)
        ready = False
        for j in range(np.uint64(part), np.uint64(stop)):
            ready = ready | (values[a + j] >= at(theta, j))
        if ready:
            for j in range(np.uint64(part), np.uint64(stop)):
                if values[a + j] >= at(theta, j) and release[a + j] <= step:
                    spikes[total] = unit + j
                    total += 1
    return total


@njit(cache=True, nogil=True)
def membrane(values, a, begin, size, ring, o, beta, drive, theta, release, step, unit, spikes, total):  # type: ignore[no-untyped-def]
    """LIF, IF and LI: ``v <- (beta v + drive) + arrivals``.

    Args:
        values: State, variable after variable of all neurons.
        a: The first of the thread's neurons.
        begin: First of them to be moved on.
        size: One past the last.
        ring: Arrivals, set to zero when taken.
        o: Where theirs begin.
        beta: One number, or one a neuron of the thread's; and so on.
        drive: Per step.
        theta: Threshold.
        release: Step from which a neuron is not refractory, int64.
        step: This step.
        unit: Number of the first neuron within its population.
        spikes: Filled with units, int32.
        total: Where the next one goes.

    Returns:
        Where the next one after this step goes.
    """
    a, o = np.uint64(a), np.uint64(o)
    for block in range(begin, size, BLOCK):
        end = min(block + BLOCK, size)
        ready = False
        for j in range(np.uint64(block), np.uint64(end)):
            v = (at(beta, j) * values[a + j] + at(drive, j)) + ring[o + j]
            values[a + j] = v
            ring[o + j] = 0
            ready = ready | (v >= at(theta, j))
        if ready:
            total = _who(values, a, block, end, theta, release, step, unit, spikes, total)
    return total


@njit(cache=True, nogil=True)
def current(  # type: ignore[no-untyped-def]
    values,
    a,
    i,
    begin,
    size,
    ring,
    o,
    beta,
    kappa,
    drive,
    to_v,
    alpha,
    syn_step,
    theta,
    take,
    release,
    step,
    unit,
    spikes,
    total,
):
    """CubaLIF and CubaLI: ``v <- ((beta v + kappa i) + drive) + to_v``, ``i <- (alpha i + syn_step) + arrivals``.

    Args as for :func:`membrane`; ``i`` is where the currents begin, and without ``take`` the arrivals stay.
    """
    a, i, o = np.uint64(a), np.uint64(i), np.uint64(o)
    for block in range(begin, size, BLOCK):
        end = min(block + BLOCK, size)
        ready = False
        if take:
            for j in range(np.uint64(block), np.uint64(end)):
                v = ((at(beta, j) * values[a + j] + at(kappa, j) * values[i + j]) + at(drive, j)) + at(to_v, j)
                values[a + j] = v
                values[i + j] = (at(alpha, j) * values[i + j] + at(syn_step, j)) + ring[o + j]
                ring[o + j] = 0
                ready = ready | (v >= at(theta, j))
        else:
            for j in range(np.uint64(block), np.uint64(end)):
                v = ((at(beta, j) * values[a + j] + at(kappa, j) * values[i + j]) + at(drive, j)) + at(to_v, j)
                values[a + j] = v
                values[i + j] = at(alpha, j) * values[i + j] + at(syn_step, j)
                ready = ready | (v >= at(theta, j))
        if ready:
            total = _who(values, a, block, end, theta, release, step, unit, spikes, total)
    return total


@njit(cache=True, nogil=True)
def two_currents(  # type: ignore[no-untyped-def]
    values,
    a,
    i,
    h,
    begin,
    size,
    ring,
    o,
    q,
    beta,
    kappa_exc,
    kappa_inh,
    drive,
    alpha_exc,
    alpha_inh,
    theta,
    take,
    release,
    step,
    unit,
    spikes,
    total,
):
    """ExpCurrentLIF: ``v <- ((beta v + kappa_exc i) + kappa_inh h) + drive``, then both currents as in :func:`current`.

    Args as for :func:`current`; ``h`` and ``q`` are where the inhibitory currents and arrivals begin.
    """
    a, i, h, o, q = np.uint64(a), np.uint64(i), np.uint64(h), np.uint64(o), np.uint64(q)
    for block in range(begin, size, BLOCK):
        end = min(block + BLOCK, size)
        ready = False
        for j in range(np.uint64(block), np.uint64(end)):
            x, y = values[i + j], values[h + j]
            v = ((at(beta, j) * values[a + j] + at(kappa_exc, j) * x) + at(kappa_inh, j) * y) + at(drive, j)
            values[a + j] = v
            x, y = at(alpha_exc, j) * x, at(alpha_inh, j) * y
            if take:
                x, y = x + ring[o + j], y + ring[q + j]
                ring[o + j] = 0
                ring[q + j] = 0
            values[i + j] = x
            values[h + j] = y
            ready = ready | (v >= at(theta, j))
        if ready:
            total = _who(values, a, block, end, theta, release, step, unit, spikes, total)
    return total


@njit(cache=True, nogil=True)
def receive(values, i, size, ring, o):  # type: ignore[no-untyped-def]
    """Add what arrived to a synaptic current, after all populations have fired."""
    i, o = np.uint64(i), np.uint64(o)
    for j in range(np.uint64(size)):
        values[i + j] += ring[o + j]
        ring[o + j] = 0


@njit(cache=True, nogil=True)
def reset(values, a, unit, zero, v_reset, amount, refractory, release, step, spikes, first, last):  # type: ignore[no-untyped-def]
    """Reset the neurons whose spikes are ``first:last`` and note until when they are refractory."""
    for event in range(first, last):
        j = spikes[event] - unit
        values[a + j] = at(v_reset, j) if zero else values[a + j] - at(amount, j)
        release[a + j] = step + 1 + at(refractory, j)


@njit(cache=True, nogil=True)
def hold(values, a, held, until, kept, n_held, step):  # type: ignore[no-untyped-def]
    """Put the membranes of refractory neurons back; return how many neurons are still on the list.

    Args:
        values: State.
        a: First neuron of the thread's share, and where its part of the lists begins.
        held: Neurons that fired within their refractory time, int64.
        until: Step from which each is free, int64.
        kept: Their membranes after the reset.
        n_held: How many.
        step: This step.
    """
    freed = 0
    for entry in range(np.uint64(a), np.uint64(a + n_held)):
        if until[entry] <= step:
            freed += 1
            continue
        values[np.uint64(held[entry])] = kept[entry]
        if freed:
            place = entry - np.uint64(freed)
            held[place], until[place], kept[place] = held[entry], until[entry], kept[entry]
    return n_held - freed


@njit(cache=True, nogil=True)
def adaptive(  # type: ignore[no-untyped-def]
    values,
    a,
    w,
    size,
    ring,
    o,
    beta,
    drive,
    theta,
    v_reset,
    amount,
    adapt_decay,
    adapt_v,
    adapt_spike,
    adapt_threshold,
    refractory,
    zero,
    strict,
    release,
    step,
    unit,
    spikes,
    total,
):
    """AdaptiveLIF, whole: charge, spike, reset, adaptation; ``w`` is where the adaptation begins.

    Args as for :func:`membrane` and :func:`reset`; numbers are one a neuron.
    """
    for j in range(size):
        n = a + j
        arrived = ring[o + j]
        ring[o + j] = 0
        adapt = values[w + j]
        spike = False
        if release[n] <= step:
            v = (beta[j] * values[n] + drive[j]) + arrived
            level = theta[j]
            if adapt_threshold[j] > 0:
                level = level + adapt_threshold[j] * adapt
            else:
                v = v - adapt
            spike = v > level if strict else v >= level
            if spike:
                v = v_reset[j] if zero else v - amount[j]
                release[n] = step + 1 + refractory[j]
                spikes[total] = unit + j
                total += 1
            values[n] = v
        adapt = adapt_decay[j] * adapt + adapt_v[j] * values[n]
        if spike:
            adapt = adapt + adapt_spike[j]
        values[w + j] = adapt
    return total
