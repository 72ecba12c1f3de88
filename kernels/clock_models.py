"""Laws that only networks of biology use, as the clock engine computes them: one neuron after the other.

A law moves the state of neurons on that are free, takes what arrived out of the ring and leaves the spikes to
:func:`fire`. One row of the table of numbers holds one parameter; which one it is depends on the law, and
:data:`MODEL_NUMBERS` says so. A population whose neurons share their numbers is read with a stride of 0, so each law is
compiled once. Products and sums are rounded one by one, in the order of ``docs/model.md``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from snnsim.kernels.exponential import exponential, like
from snnsim.kernels.reference_models import FINE

__all__ = ["ADEX", "ALPHA_CURRENT", "CONDUCTANCE", "IZHIKEVICH", "META_DYNAMIC", "MODEL_NUMBERS", "advance", "fire"]

ALPHA_CURRENT, CONDUCTANCE, ADEX, IZHIKEVICH = range(4, 8)
"""Laws, numbered on from those of :mod:`snnsim.kernels.clock_laws`."""

META_DYNAMIC = 10

_FIRST = ("v_threshold", "drive_step", "v_reset", "reset_amount", "jump")

MODEL_NUMBERS = {
    ALPHA_CURRENT: (
        *_FIRST,
        *("beta", "alpha_exc", "alpha_inh", "kappa_exc", "kappa_inh"),
        *("rise_exc", "rise_inh", "kappa_rise_exc", "kappa_rise_inh"),
    ),
    CONDUCTANCE: (
        *_FIRST,
        "rate",
        "alpha_exc",
        "alpha_inh",
        "mean_exc",
        "mean_inh",
        "e_exc",
        "e_inh",
        "substeps",
        "fused",
    ),
    ADEX: (*_FIRST, "rate", "alpha_exc", "alpha_inh", "rate_w", "v_t", "slope", "steepness", "a"),
    IZHIKEVICH: (*_FIRST, "rate", "rate_u", "b"),
    META_DYNAMIC: (*_FIRST, "rate", "theta_v", "theta_u", "v_floor"),
}
"""Rows of a law's numbers per step; the drive stands where it does in :data:`snnsim.kernels.clock_tables.NUMBERS`."""

THRESHOLD, DRIVE, V_RESET, AMOUNT, JUMP, BETA, ALPHA_EXC, ALPHA_INH = range(8)
RATE = BETA
KAPPA_EXC, KAPPA_INH, RISE_EXC, RISE_INH, KAPPA_RISE_EXC, KAPPA_RISE_INH = range(8, 14)
MEAN_EXC, MEAN_INH, E_EXC, E_INH, SUBSTEPS, FUSED = range(8, 14)
RATE_W, V_T, SLOPE, STEEPNESS, A = range(8, 13)
RATE_U, B = 6, 7
THETA_V, THETA_U, V_FLOOR = 6, 7, 8


@njit(inline="always")
def _number(table, row, j):  # type: ignore[no-untyped-def]
    """Return a parameter of the thread's ``j``-th neuron."""
    numbers, base, row_stride, stride = table
    return numbers[np.uint64(base + row * row_stride + j * stride)]


@njit(inline="always")
def _arrive(values, place, x, ring, slot, take):  # type: ignore[no-untyped-def]
    """Store a variable, with what arrived added to it if it is time to take it."""
    if take:
        x = x + ring[slot]
        ring[slot] = 0
    values[place] = x


@njit(cache=True, nogil=True)
def _alpha_current(values, a, n, size, ring, o, q, table, release, step, take):  # type: ignore[no-untyped-def]
    """AlphaCurrentLIF, see :class:`snnsim.neurons_synaptic.AlphaCurrentLIF`."""
    two = n + n
    three, four = two + n, two + two
    for j in range(np.uint64(size)):
        m = a + j
        rise_exc, rise_inh = values[m + n], values[m + two]
        i_exc, i_inh = values[m + three], values[m + four]
        if release[m] <= step:
            v = _number(table, BETA, j) * values[m]
            v = (v + _number(table, KAPPA_RISE_EXC, j) * rise_exc) + _number(table, KAPPA_EXC, j) * i_exc
            v = (v + _number(table, KAPPA_RISE_INH, j) * rise_inh) + _number(table, KAPPA_INH, j) * i_inh
            values[m] = v + _number(table, DRIVE, j)
        alpha_exc, alpha_inh = _number(table, ALPHA_EXC, j), _number(table, ALPHA_INH, j)
        values[m + three] = alpha_exc * i_exc + _number(table, RISE_EXC, j) * rise_exc
        values[m + four] = alpha_inh * i_inh + _number(table, RISE_INH, j) * rise_inh
        _arrive(values, m + n, alpha_exc * rise_exc, ring, o + j, take)
        _arrive(values, m + two, alpha_inh * rise_inh, ring, q + j, take)


@njit(cache=True, nogil=True)
def _conductance(values, a, n, size, ring, o, q, table, release, step, take):  # type: ignore[no-untyped-def]
    """ConductanceLIF, see :class:`snnsim.neurons_synaptic.ConductanceLIF`."""
    two = n + n
    for j in range(np.uint64(size)):
        m = a + j
        g_exc, g_inh = values[m + n], values[m + two]
        alpha_exc, alpha_inh = _number(table, ALPHA_EXC, j), _number(table, ALPHA_INH, j)
        parts = int(_number(table, SUBSTEPS, j))
        if release[m] <= step:
            v, one, rate = values[m], like(1.0, g_exc), _number(table, RATE, j)
            fused = _number(table, FUSED, j) != 0
            for _ in range(parts):
                mean_exc, mean_inh = _number(table, MEAN_EXC, j) * g_exc, _number(table, MEAN_INH, j) * g_inh
                total = (one + mean_exc) + mean_inh
                pull = mean_exc * _number(table, E_EXC, j) + mean_inh * _number(table, E_INH, j)
                pull = pull + _number(table, DRIVE, j)
                if fused:
                    v = (v + rate * pull) / (one + rate * total)
                else:
                    end = pull / total
                    v = end + (v - end) * exponential(-(rate * total))
                g_exc, g_inh = alpha_exc * g_exc, alpha_inh * g_inh
            values[m] = v
        else:
            for _ in range(parts):
                g_exc, g_inh = alpha_exc * g_exc, alpha_inh * g_inh
        _arrive(values, m + n, g_exc, ring, o + j, take)
        _arrive(values, m + two, g_inh, ring, q + j, take)


@njit(cache=True, nogil=True)
def _adex(values, a, n, size, ring, o, q, table, release, step, take):  # type: ignore[no-untyped-def]
    """AdEx, see :class:`snnsim.neurons_recovery.AdEx`."""
    two = n + n
    three = two + n
    for j in range(np.uint64(size)):
        m = a + j
        v, w = values[m], values[m + three]
        x, y = values[m + n], values[m + two]
        coupling, rate_w = _number(table, A, j), _number(table, RATE_W, j)
        x_next, y_next = _number(table, ALPHA_EXC, j) * x, _number(table, ALPHA_INH, j) * y
        if release[m] <= step:
            peak, v_t = _number(table, THRESHOLD, j), _number(table, V_T, j)
            slope, steepness = _number(table, SLOPE, j), _number(table, STEEPNESS, j)
            drive, rate = _number(table, DRIVE, j), _number(table, RATE, j)
            parts = FINE if v > v_t else 1
            share = like(1 / FINE, v) if v > v_t else like(1.0, v)
            rate, rate_w = rate * share, rate_w * share
            x_part, y_part = (x_next - x) * share, (y_next - y) * share
            for _ in range(parts):
                bound = min(v, peak)
                up = slope * exponential((bound - v_t) * steepness)
                dv = ((((up - bound) + x) + y) - w) + drive
                dw = coupling * bound - w
                bound = min(v + rate * dv, peak)
                later = w + rate_w * dw
                x, y = x + x_part, y + y_part
                up = slope * exponential((bound - v_t) * steepness)
                dv = dv + (((((up - bound) + x) + y) - later) + drive)
                v = v + (like(0.5, v) * rate) * dv
                w = w + (like(0.5, v) * rate_w) * (dw + (coupling * bound - later))
                if v >= peak:
                    break
            values[m] = v
        else:
            dw = coupling * v - w
            w = w + (like(0.5, v) * rate_w) * (dw + (coupling * v - (w + rate_w * dw)))
        values[m + three] = w
        _arrive(values, m + n, x_next, ring, o + j, take)
        _arrive(values, m + two, y_next, ring, q + j, take)


@njit(cache=True, nogil=True)
def _izhikevich(values, a, n, size, ring, o, table, release, step):  # type: ignore[no-untyped-def]
    """Izhikevich, see :class:`snnsim.neurons_recovery.Izhikevich`."""
    for j in range(np.uint64(size)):
        m = a + j
        v, u = values[m], values[m + n]
        arrived = ring[o + j]
        ring[o + j] = 0
        if release[m] <= step:
            dv = like(0.04, v) * v * v + like(5.0, v) * v + like(140.0, v) - u + _number(table, DRIVE, j)
            values[m] = v + (_number(table, RATE, j) * dv + arrived)
        values[m + n] = u + _number(table, RATE_U, j) * (_number(table, B, j) * v - u)


@njit(cache=True, nogil=True)
def _meta_dynamic(values, a, n, size, ring, o, table, release, step):  # type: ignore[no-untyped-def]
    """MetaDynamicNeuron, see :class:`snnsim.neurons_meta_dynamic.MetaDynamicNeuron`."""
    for j in range(np.uint64(size)):
        m = a + j
        v, u = values[m], values[m + n]
        rate = _number(table, RATE, j)
        arrived = ring[o + j]
        ring[o + j] = 0
        if release[m] <= step:
            dv = (v * v - v) - u
            values[m] = max(((v + rate * dv) + _number(table, DRIVE, j)) + arrived, _number(table, V_FLOOR, j))
        values[m + n] = u + rate * (_number(table, THETA_V, j) * v - _number(table, THETA_U, j) * u)


@njit(cache=True, nogil=True)
def fire(values, a, size, jumps, table, refractory, stride, zero, release, step, unit, spikes, total):  # type: ignore[no-untyped-def]
    """Reset the neurons at or above threshold and note them; return where the next spike goes.

    Args:
        values: State.
        a: The first of the thread's neurons.
        size: How many they are.
        jumps: How far from the membrane the variable lies that jumps at a spike, 0 for none.
        table: Their numbers.
        refractory: Their refractory steps, int64.
        stride: From one neuron's to the next one's.
        zero: Reset to ``v_reset`` instead of subtracting.
        release: Step from which a neuron is not refractory, int64.
        step: This step.
        unit: Number of the first neuron within its population.
        spikes: Filled with units, int32.
        total: Where the next one goes.
    """
    for j in range(np.uint64(size)):
        m = a + j
        if values[m] >= _number(table, THRESHOLD, j) and release[m] <= step:
            values[m] = _number(table, V_RESET, j) if zero else values[m] - _number(table, AMOUNT, j)
            if jumps > 0:
                values[m + jumps] += _number(table, JUMP, j)
            release[m] = step + 1 + refractory[np.uint64(j * stride)]
            spikes[total] = unit + j
            total += 1
    return total


@njit(cache=True, nogil=True)
def advance(  # type: ignore[no-untyped-def]
    values, a, n, size, ring, o, q, law, table, refractory, zero, release, take, step, unit, spikes, total
):
    """Move a thread's neurons on by one step of one of these laws; return where the next spike goes.

    Args:
        values: State, variable after variable of all neurons.
        a: The first of the thread's neurons.
        n: Neurons of the network.
        size: How many are the thread's.
        ring: Arrivals, set to zero when taken.
        o: Where those of the first receptor begin.
        q: Where those of the last one begin.
        law: Which law.
        table: Numbers per step, flat; where theirs begin; from row to row; from neuron to neuron, 0 if they share them.
        refractory: Refractory steps, int64, with the same stride.
        zero: Reset to ``v_reset`` instead of subtracting.
        release: Step from which a neuron is not refractory, int64.
        take: Whether currents take what arrived now.
        step: This step.
        unit: Number of the first neuron within its population.
        spikes: Filled with units, int32.
        total: Where the next one goes.
    """
    a, n, o, q = np.uint64(a), np.uint64(n), np.uint64(o), np.uint64(q)
    base, row_stride, stride = np.uint64(table[1]), np.uint64(table[2]), np.uint64(table[3])
    numbers = (table[0], base, row_stride, stride)
    jumps = np.uint64(0)
    if law == ALPHA_CURRENT:
        _alpha_current(values, a, n, size, ring, o, q, numbers, release, step, take)
    elif law == CONDUCTANCE:
        _conductance(values, a, n, size, ring, o, q, numbers, release, step, take)
    elif law == ADEX:
        _adex(values, a, n, size, ring, o, q, numbers, release, step, take)
        jumps = n + n + n
    elif law == META_DYNAMIC:
        _meta_dynamic(values, a, n, size, ring, o, numbers, release, step)
        jumps = n
    else:
        _izhikevich(values, a, n, size, ring, o, numbers, release, step)
        jumps = n
    return fire(values, a, size, jumps, numbers, refractory, stride, zero, release, step, unit, spikes, total)
