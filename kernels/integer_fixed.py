"""The law ``fixed``, :func:`snnsim.kernels.reference_integer_fixed.fixed`, for the integer engine."""

from __future__ import annotations

from numba import njit

from snnsim.kernels.integer_tables import CURRENT, LEFT, LIF, SYNAPTIC, V

__all__ = ["advance_fixed"]

BETA, ALPHA, SHIFT, V_THRESHOLD, V_RESET, RESET_AMOUNT, RESET_ZERO, REFRACTORY_STEPS, DRIVE, DRIVE_SYN = range(10)
MEMBRANE_LIMIT = 2**30
CURRENT_LIMIT = 2**29


@njit(inline="always")
def _decay(value, factor):  # type: ignore[no-untyped-def]
    return (value * factor) >> 15 if value >= 0 else -((-value * factor) >> 15)


@njit(inline="always")
def _clamp(value, limit):  # type: ignore[no-untyped-def]
    return limit if value > limit else -limit if value < -limit else value


@njit(cache=True, nogil=True)
def advance_fixed(kind, parameters, state, arrivals, counts, overflow, low, high):  # type: ignore[no-untyped-def]
    """Move the neurons ``low`` to ``high`` by one step; see :mod:`snnsim.kernels.integer`."""
    for n in range(low, high):
        arrived = arrivals[n] << parameters[SHIFT, n]
        over = arrived >= MEMBRANE_LIMIT or arrived <= -MEMBRANE_LIMIT
        counts[n] = 0
        moved = _decay(state[V, n], parameters[BETA, n]) + parameters[DRIVE, n]
        if kind & SYNAPTIC:
            total = state[CURRENT, n] + arrived
            current = _clamp(total, CURRENT_LIMIT)
            kept = _decay(current, parameters[ALPHA, n]) + parameters[DRIVE_SYN, n]
            state[CURRENT, n] = _clamp(kept, CURRENT_LIMIT)
            over = over or current != total or state[CURRENT, n] != kept
            moved += current
        else:
            moved += arrived
        if state[LEFT, n] > 0:
            state[LEFT, n] -= 1
        else:
            v = _clamp(moved, MEMBRANE_LIMIT)
            over = over or v != moved
            if (kind & LIF) and v >= parameters[V_THRESHOLD, n]:
                v = parameters[V_RESET, n] if parameters[RESET_ZERO, n] == 1 else v - parameters[RESET_AMOUNT, n]
                state[LEFT, n] = parameters[REFRACTORY_STEPS, n]
                counts[n] = 1
            state[V, n] = v
        if over:
            overflow[n] += 1
