"""The law of Loihi's neurons, :func:`snnsim.kernels.reference_integer.loihi2`, for the integer engine."""

from __future__ import annotations

from numba import njit

from snnsim.kernels.integer_tables import CURRENT, LIF, V

__all__ = ["advance_loihi2"]

LIMIT = 2**23
V_DECAY, I_DECAY, V_THRESHOLD, BIAS = range(4)


@njit(inline="always")
def _towards_zero(value, factor):  # type: ignore[no-untyped-def]
    return (value * factor) >> 12 if value >= 0 else -((-value * factor) >> 12)


@njit(cache=True, nogil=True)
def advance_loihi2(kind, parameters, state, arrivals, counts, overflow, low, high):  # type: ignore[no-untyped-def]
    """Move the neurons ``low`` to ``high`` by one step; see :mod:`snnsim.kernels.integer`."""
    for n in range(low, high):
        u = _towards_zero(state[CURRENT, n], 4096 - parameters[I_DECAY, n]) + (arrivals[n] << 6)
        over = False
        if u > LIMIT or u <= -LIMIT:
            u += 2 * LIMIT * ((LIMIT - u) // (2 * LIMIT))
            over = True
        v = _towards_zero(state[V, n], 4096 - parameters[V_DECAY, n]) + u + (parameters[BIAS, n] << 6)
        if v >= LIMIT:
            v, over = LIMIT - 1, True
        elif v <= -LIMIT:
            v, over = 1 - LIMIT, True
        if over:
            overflow[n] += 1
        spike = (kind & LIF) != 0 and v > parameters[V_THRESHOLD, n] << 6
        counts[n] = 1 if spike else 0
        state[V, n] = 0 if spike else v
        state[CURRENT, n] = u
