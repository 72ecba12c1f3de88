"""The law ``xylo``, :func:`snnsim.kernels.reference_integer_xylo.xylo`, for the integer engine."""

from __future__ import annotations

from numba import njit

from snnsim.kernels.integer_tables import CURRENT, V

__all__ = ["advance_xylo"]

HIGH, LOW = 2**15 - 1, -(2**15)
DASH_MEM, DASH_SYN, V_THRESHOLD, BIAS, MAX_SPIKES = range(5)


@njit(inline="always")
def _loss(value, dash):  # type: ignore[no-untyped-def]
    shifted = value >> dash
    return 1 if shifted == 0 and value > 0 else shifted


@njit(inline="always")
def _clamp(value):  # type: ignore[no-untyped-def]
    return HIGH if value > HIGH else LOW if value < LOW else value


@njit(cache=True, nogil=True)
def advance_xylo(kind, parameters, state, arrivals, counts, overflow, low, high):  # type: ignore[no-untyped-def]
    """Move the neurons ``low`` to ``high`` by one step; see :mod:`snnsim.kernels.integer`."""
    for n in range(low, high):
        total = state[CURRENT, n] + arrivals[n]
        current = _clamp(total)
        over = current != total
        current -= _loss(current, parameters[DASH_SYN, n])
        lost = -_loss(state[V, n], parameters[DASH_MEM, n])
        if lost > HIGH:
            lost = LOW
        change = _clamp(lost + current)
        over = over or change != lost + current
        total = change + parameters[BIAS, n]
        change = _clamp(total)
        over = over or change != total
        total = state[V, n] + change
        v = _clamp(total)
        over = over or v != total
        spikes = 0
        while spikes < parameters[MAX_SPIKES, n] and v >= parameters[V_THRESHOLD, n]:
            v -= parameters[V_THRESHOLD, n]
            spikes += 1
        counts[n] = spikes
        state[V, n] = v
        state[CURRENT, n] = current
        if over:
            overflow[n] += 1
