"""A pool of neurons under noise together with its tangent space, and the tangent flow of two chaotic systems.

The step of the pool is that of ``docs/model.md`` with every recurrent delay taken as the shortest one: one step for
delta synapses, none for synaptic currents. The tangent of the spike is a triangle of unit area,
``g(x) = max(0, 1 - |x| / width) / width`` with ``x = v - threshold``. The plain definitions are in
:mod:`snnsim.kernels.reference_lyapunov`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.philox import Stream
from snnsim.kernels.poisson import STEPS, fill_counts, thresholds

__all__ = ["LORENZ", "ROESSLER", "advance_pool", "flow_exponents", "noise_counts"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LORENZ, ROESSLER = 0, 1


def noise_counts(seed: int, run: int, n_steps: int, size: int, mean: float) -> npt.NDArray[np.uint8]:
    """Return Poisson counts of stream ``POOL_NOISE``, uint8 ``(n_steps, size)``.

    Args:
        seed: First word of the key.
        run: First word of the counter.
        n_steps: Steps.
        size: Neurons.
        mean: Mean of a count, at most 50.
    """
    groups = -(-n_steps // STEPS)
    counts = np.empty((groups, STEPS * size), np.uint8)
    table, which = thresholds(mean), np.empty(0, np.int64)
    for group in range(groups):
        fill_counts(seed, int(Stream.POOL_NOISE), run, group, 0, 0, size, table, which, counts[group])
    return counts.reshape(groups * STEPS, size)[:n_steps]


@njit(cache=True, nogil=True)
def advance_pool(
    numbers: Floats,
    refractory: Integers,
    zero: bool,
    cuba: bool,
    indptr: Integers,
    target: Integers,
    weight: Floats,
    external: Floats,
    width: Floats,
    v: Floats,
    current: Floats,
    left: Integers,
    pending: Floats,
    q: Floats,
    spikes: npt.NDArray[np.uint8],
) -> None:
    """Advance a pool by ``len(external)`` steps and push tangent vectors along; all states change in place.

    With ``s`` the spikes, ``g`` their slopes and ``r`` the slope of the reset (``1 - amount g``, or
    ``1 - s - (v - v_reset) g`` for a reset to a value), a step maps tangents by
    ``dv <- beta r dv + W g dv`` (delta synapses), or ``di <- alpha di + W g dv; dv <- beta r dv + kappa di``. A
    neuron whose next step is skipped keeps ``dv <- r dv``.

    Args:
        numbers: Rows beta, drive_step, alpha, kappa, drive_syn_step, drive_syn_to_v, threshold, v_reset, amount;
            ``(9, N)``.
        refractory: Steps skipped after a spike, ``(N,)``.
        zero: Reset to ``v_reset`` instead of subtracting.
        cuba: Whether synapses act through a current.
        indptr: Rows of the synapses by source, ``(N + 1,)``.
        target: Their targets.
        weight: Their weights.
        external: What arrives from outside, ``(n_steps, N)``.
        width: Half width of the triangle, ``(N,)``.
        v: Membrane after the reset.
        current: Synaptic current (unused without ``cuba``).
        left: Refractory steps left.
        pending: What the spikes of the last step bring (unused with ``cuba``).
        q: Tangents, ``(N, m)``, or ``(2 N, m)`` with ``cuba``: membranes, then currents; m may be 0.
        spikes: Filled, ``(n_steps, N)``.
    """
    n = v.shape[0]
    m = q.shape[1]
    slope = np.zeros(n)
    reset = np.zeros(n)
    moved = np.zeros((n, m))
    for step in range(external.shape[0]):
        for j in range(n):
            fired = False
            slope[j] = 0.0
            reset[j] = 1.0
            held = left[j] > 0
            if cuba:
                moving = numbers[0, j] * v[j] + numbers[3, j] * current[j] + numbers[1, j] + numbers[5, j]
                current[j] = numbers[2, j] * current[j] + numbers[4, j]
            else:
                moving = (numbers[0, j] * v[j] + numbers[1, j]) + (pending[j] + external[step, j])
            if held:
                left[j] -= 1
            else:
                x = moving - numbers[6, j]
                fired = x >= 0.0
                g = 1.0 - abs(x) / width[j]
                slope[j] = g / width[j] if g > 0.0 else 0.0
                if zero:
                    reset[j] = (0.0 if fired else 1.0) - (moving - numbers[7, j]) * slope[j]
                    v[j] = numbers[7, j] if fired else moving
                else:
                    reset[j] = 1.0 - numbers[8, j] * slope[j]
                    v[j] = moving - numbers[8, j] if fired else moving
                if fired:
                    left[j] = refractory[j]
            spikes[step, j] = fired
        pending[:] = 0.0
        for j in range(n):
            if spikes[step, j]:
                for k in range(indptr[j], indptr[j + 1]):
                    pending[target[k]] += weight[k]
        if cuba:
            for j in range(n):
                current[j] += pending[j] + external[step, j]
        if m == 0:
            continue
        moved[:] = 0.0
        for j in range(n):
            if slope[j] != 0.0:
                for k in range(indptr[j], indptr[j + 1]):
                    factor = weight[k] * slope[j]
                    row = target[k]
                    for c in range(m):
                        moved[row, c] += factor * q[j, c]
        for j in range(n):
            held = left[j] > 0
            along = reset[j] if held else numbers[0, j] * reset[j]
            if cuba:
                gain = 0.0 if held else numbers[3, j]
                for c in range(m):
                    q[n + j, c] = numbers[2, j] * q[n + j, c] + moved[j, c]
                    q[j, c] = along * q[j, c] + gain * q[n + j, c]
            elif held:
                for c in range(m):
                    q[j, c] *= along
            else:
                for c in range(m):
                    q[j, c] = along * q[j, c] + moved[j, c]


@njit(cache=True, nogil=True)
def _flow(kind: int, p: Floats, x: Floats, q: Floats, dx: Floats, dq: Floats) -> None:
    """Write the velocity of a point and of its three tangent vectors."""
    if kind == LORENZ:
        dx[0] = p[0] * (x[1] - x[0])
        dx[1] = x[0] * (p[1] - x[2]) - x[1]
        dx[2] = x[0] * x[1] - p[2] * x[2]
        for c in range(3):
            dq[0, c] = p[0] * (q[1, c] - q[0, c])
            dq[1, c] = (p[1] - x[2]) * q[0, c] - q[1, c] - x[0] * q[2, c]
            dq[2, c] = x[1] * q[0, c] + x[0] * q[1, c] - p[2] * q[2, c]
    else:
        dx[0] = -x[1] - x[2]
        dx[1] = x[0] + p[0] * x[1]
        dx[2] = p[1] + x[2] * (x[0] - p[2])
        for c in range(3):
            dq[0, c] = -q[1, c] - q[2, c]
            dq[1, c] = q[0, c] + p[0] * q[1, c]
            dq[2, c] = x[2] * q[0, c] + (x[0] - p[2]) * q[2, c]


@njit(cache=True, nogil=True)
def flow_exponents(kind: int, p: Floats, start: Floats, dt: float, n_steps: int, discard: int) -> Floats:
    """Return the three Lyapunov exponents of a flow, per unit of its time, descending as they come, ``(3,)``.

    Runge-Kutta steps of fourth order of the point and of its tangents; Gram-Schmidt after every step.

    Args:
        kind: :data:`LORENZ` (parameters sigma, rho, beta) or :data:`ROESSLER` (a, b, c).
        p: Three parameters.
        start: Where the point begins, ``(3,)``.
        dt: Step.
        n_steps: Steps that are averaged.
        discard: Steps before them.
    """
    x = start.copy()
    q = np.eye(3)
    total = np.zeros(3)
    kx = np.zeros((4, 3))
    kq = np.zeros((4, 3, 3))
    for step in range(discard + n_steps):
        _flow(kind, p, x, q, kx[0], kq[0])
        _flow(kind, p, x + 0.5 * dt * kx[0], q + 0.5 * dt * kq[0], kx[1], kq[1])
        _flow(kind, p, x + 0.5 * dt * kx[1], q + 0.5 * dt * kq[1], kx[2], kq[2])
        _flow(kind, p, x + dt * kx[2], q + dt * kq[2], kx[3], kq[3])
        x = x + dt / 6.0 * (kx[0] + 2.0 * kx[1] + 2.0 * kx[2] + kx[3])
        q = q + dt / 6.0 * (kq[0] + 2.0 * kq[1] + 2.0 * kq[2] + kq[3])
        for c in range(3):
            for b in range(c):
                dot = 0.0
                for r in range(3):
                    dot += q[r, b] * q[r, c]
                for r in range(3):
                    q[r, c] -= dot * q[r, b]
            norm = 0.0
            for r in range(3):
                norm += q[r, c] * q[r, c]
            norm = np.sqrt(norm)
            for r in range(3):
                q[r, c] /= norm
            if step >= discard:
                total[c] += np.log(norm)
    total /= n_steps * dt
    return total
