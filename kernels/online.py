"""Sensitivities of spikes to every synapse, carried forward in time and used for the gradient in the same walk.

A sensitivity a synapse and sample is large; one step reads and writes each once. A unit is one piece of work: the
gradient of its weights belongs to one thread, and the bits do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["trace_gradient"]

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _normal(value, least):  # type: ignore[no-untyped-def]
    """Return a number, or 0 below the smallest normal one: a trace of a silent source would stay there, slowly."""
    return value if abs(value) >= least else value * 0


@njit(cache=True, nogil=True, error_model="numpy")
def trace_gradient(
    x: Floats,
    cell: Floats,
    unit: Floats,
    decays: Floats,
    v: Floats,
    w: Floats,
    e: Floats,
    f: Floats,
    f2: Floats,
    direct: Floats,
    filtered: Floats,
    grad: Floats,
    start: int,
    stop: int,
) -> None:
    """Advance the traces of units ``start .. stop - 1`` by one step and add their part of the gradient.

    Per unit ``j``, sample ``b`` and source ``i``: the step of :func:`snnsim.kernels.reference_online.trace_step` with
    ``x_h = to_v x``, ``x_w = to_second x``, then :func:`~snnsim.kernels.reference_online.filter_step`, then
    ``grad[j, i] += sum over b of direct[b, j] e + filtered[b, j] f``. All arrays are changed in place; what falls below
    the smallest normal number becomes 0.

    Args:
        x: What the sources send, shape (batch, source); where ``v`` is empty, the sensitivity of the membrane before
            the reset itself, common to all units.
        cell: Rows ``reference_online.CELL_ROWS``, shape (5, batch, unit).
        unit: Rows ``reference_online.UNIT_ROWS``, shape (8, unit).
        decays: Of the readout: none, ``(beta,)`` or ``(beta, alpha, kappa)``.
        v: Traces of the membrane, shape (unit, batch, source), or (0, 0, 0).
        w: Traces of the second state, or (0, 0, 0) without one.
        e: Traces of the spike in the step before, or (0, 0, 0) where no unit has a synapse onto itself.
        f: Filtered traces, or (0, 0, 0) without decays.
        f2: Traces of the readout's synaptic current, or (0, 0, 0) without one.
        direct: Derivative of the loss by the spikes of this step, shape (batch, unit), or (0, 0).
        filtered: Factor of the filtered traces, shape (batch, unit), or (0, 0).
        grad: Gradient of the weights, shape (unit, source).
        start: First unit.
        stop: Unit after the last.
    """
    n = x.shape[1]
    new = np.empty(n, x.dtype)
    zero, least = x.dtype.type(0), np.finfo(x.dtype).tiny
    for j in range(start, stop):
        gain, lift, decay, by_v = unit[0, j], unit[1, j], unit[2, j], unit[3, j]
        by_spike, to_v, to_second, own = unit[4, j], unit[5, j], unit[6, j], unit[7, j]
        row = grad[j]
        for b in range(x.shape[0]):
            free, carry, psi = cell[0, b, j], cell[1, b, j], cell[2, b, j]
            passed, jumped = cell[3, b, j], cell[4, b, j]
            send = x[b]
            if v.shape[0] == 0:
                for i in range(n):
                    new[i] = psi * send[i]
            elif w.shape[0] == 0 and e.shape[0] == 0:
                vs, through = v[j, b], passed + jumped * psi
                for i in range(n):
                    h = carry * vs[i] + free * send[i]
                    new[i] = psi * h
                    vs[i] = _normal(through * h, least)
            elif w.shape[0] == 0:
                vs, es = v[j, b], e[j, b]
                for i in range(n):
                    h = carry * vs[i] + free * (send[i] + own * es[i])
                    new[i] = psi * h
                    vs[i] = _normal(passed * h + jumped * new[i], least)
                    es[i] = new[i]
            elif e.shape[0] == 0:
                vs, ws = v[j, b], w[j, b]
                for i in range(n):
                    h = carry * vs[i] + free * (gain * ws[i] + to_v * send[i])
                    new[i] = psi * (h - lift * ws[i])
                    vs[i] = _normal(passed * h + jumped * new[i], least)
                    ws[i] = _normal(decay * ws[i] + by_v * vs[i] + by_spike * new[i] + to_second * send[i], least)
            else:
                vs, ws, es = v[j, b], w[j, b], e[j, b]
                for i in range(n):
                    arrivals = send[i] + own * es[i]
                    h = carry * vs[i] + free * (gain * ws[i] + to_v * arrivals)
                    new[i] = psi * (h - lift * ws[i])
                    vs[i] = _normal(passed * h + jumped * new[i], least)
                    ws[i] = _normal(decay * ws[i] + by_v * vs[i] + by_spike * new[i] + to_second * arrivals, least)
                    es[i] = new[i]
            if direct.shape[0] and direct[b, j] != zero:
                error = direct[b, j]
                for i in range(n):
                    row[i] += error * new[i]
            if decays.shape[0] == 0:
                continue
            fs = f[j, b]
            error = filtered[b, j] if filtered.shape[0] else zero
            if decays.shape[0] == 1:
                for i in range(n):
                    fs[i] = _normal(decays[0] * fs[i] + new[i], least)
                    row[i] += error * fs[i]
            else:
                fs2 = f2[j, b]
                for i in range(n):
                    fs[i] = _normal(decays[0] * fs[i] + decays[2] * fs2[i], least)
                    fs2[i] = _normal(decays[1] * fs2[i] + new[i], least)
                    row[i] += error * fs[i]
