"""Blocks of neurons that sleep: the event-driven way through the steps of the clock engine.

A block whose neurons cannot reach their thresholds before something arrives is left alone, and a step in which nothing
arrives at a population that sleeps costs nothing. When something arrives the steps it slept through are done one after
another by the recursion itself, without tests, so every state has the bits of the clock engine; that no test was
missed is proved in ``docs/engines.md``: between arrivals ``v`` stays below ``max(v, v_inf) + peak max(i - i_inf, 0)``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from snnsim.kernels.clock_laws import CURRENT, MEMBRANE, TWO_CURRENTS, at

__all__ = ["DEEPEST", "SLEEPERS", "catch_up", "fall_asleep", "wake"]

SLEEPERS = 64
"""Neurons that sleep together."""

DEEPEST = 64.0
"""How many thresholds below rest a neuron may be and sleep: what bounds the rounding of the steps slept through."""


@njit(cache=True, nogil=True)
def _replay(values, a, i, h, begin, end, law, steps, numbers):  # type: ignore[no-untyped-def]
    """Do steps without arrivals and without tests: the recursions of :mod:`snnsim.kernels.clock_laws`."""
    beta, drive, alpha, kappa, alpha_inh, kappa_inh, syn_step, to_v = numbers
    a, i, h = np.uint64(a), np.uint64(i), np.uint64(h)
    nothing = values.dtype.type(0)
    for _ in range(steps):
        if law == MEMBRANE:
            for j in range(np.uint64(begin), np.uint64(end)):
                values[a + j] = (at(beta, j) * values[a + j] + at(drive, j)) + nothing
        elif law == CURRENT:
            for j in range(np.uint64(begin), np.uint64(end)):
                v = (at(beta, j) * values[a + j] + at(kappa, j) * values[i + j]) + at(drive, j)
                values[a + j] = v + at(to_v, j)
                values[i + j] = (at(alpha, j) * values[i + j] + at(syn_step, j)) + nothing
        else:
            for j in range(np.uint64(begin), np.uint64(end)):
                x, y = values[i + j], values[h + j]
                v = (at(beta, j) * values[a + j] + at(kappa, j) * x) + at(kappa_inh, j) * y
                values[a + j] = v + at(drive, j)
                values[i + j] = at(alpha, j) * x + nothing
                values[h + j] = at(alpha_inh, j) * y + nothing


@njit(cache=True, nogil=True)
def catch_up(values, a, i, h, size, law, step, since, first, numbers):  # type: ignore[no-untyped-def]
    """Wake everybody up to ``step``, which is done too.

    Args:
        values: State.
        a: Where the membranes of the thread's neurons begin.
        i: Where their first currents begin.
        h: Where their second currents begin.
        size: How many neurons.
        law: Their law.
        step: Last step that is done.
        since: Step up to which a sleeping block is done, -1 for one that is awake, int64.
        first: Where the population's blocks begin.
        numbers: beta, drive, alpha, kappa, alpha_inh, kappa_inh, syn_step, to_v; each one number or one a neuron.
    """
    block = first
    for begin in range(0, size, SLEEPERS):
        if since[block] >= 0:
            end = min(begin + SLEEPERS, size)
            _replay(values, a, i, h, begin, end, law, step - since[block], numbers)
            since[block] = -1
        block += 1


@njit(cache=True, nogil=True)
def wake(values, a, i, h, size, ring, o, q, some, law, step, since, first, numbers):  # type: ignore[no-untyped-def]
    """Wake the blocks at which something arrives, up to the step before this one; return how many are awake.

    Args as for :func:`catch_up`; ``o`` and ``q`` are where the arrivals of this step begin, and ``some`` says whether
    there can be any.
    """
    awake = 0
    block = first
    o, q = np.uint64(o), np.uint64(q)
    for begin in range(0, size, SLEEPERS):
        if since[block] >= 0 and some:
            end = min(begin + SLEEPERS, size)
            touched = False
            for j in range(np.uint64(begin), np.uint64(end)):
                touched = touched | (ring[o + j] != 0)
            if law == TWO_CURRENTS:
                for j in range(np.uint64(begin), np.uint64(end)):
                    touched = touched | (ring[q + j] != 0)
            if touched:
                _replay(values, a, i, h, begin, end, law, step - 1 - since[block], numbers)
                since[block] = -1
        awake += since[block] < 0
        block += 1
    return awake


@njit(cache=True, nogil=True)
def fall_asleep(values, a, i, h, size, law, step, release, since, first, calm, room, peak, peak_inh, rest):  # type: ignore[no-untyped-def]
    """Let blocks sleep whose neurons cannot reach the threshold before something arrives.

    Args as for :func:`catch_up`, and one number or one a neuron: ``calm`` (the threshold less a margin for rounding, or
    -inf for a neuron that never sleeps), ``room`` (``calm - v_inf``), ``peak`` and ``peak_inh`` (the most that a
    unit current adds to the membrane) and ``rest`` (``i_inf``).
    """
    a, i, h = np.uint64(a), np.uint64(i), np.uint64(h)
    block = first
    nothing = values.dtype.type(0)
    for begin in range(0, size, SLEEPERS):
        if since[block] < 0:
            end = min(begin + SLEEPERS, size)
            busy = False
            for j in range(np.uint64(begin), np.uint64(end)):
                v, top = values[a + j], at(calm, j)
                low = -values.dtype.type(DEEPEST) * top
                busy = busy | (v >= top) | (v <= low) | (release[a + j] > step + 1)
            if not busy and law != MEMBRANE:
                for j in range(np.uint64(begin), np.uint64(end)):
                    x = (values[i + j] - at(rest, j)) * at(peak, j)
                    y = values[h + j] * at(peak_inh, j) if law == TWO_CURRENTS else nothing
                    push = max(x, nothing) + max(y, nothing)
                    deep = values.dtype.type(DEEPEST) * at(calm, j)
                    busy = busy | (values[a + j] + push >= at(calm, j)) | (push >= at(room, j))
                    busy = busy | (abs(x) + abs(y) >= deep)
            if not busy:
                since[block] = step
        block += 1
