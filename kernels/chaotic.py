"""Fourth-order Runge-Kutta of two chaotic flows and of the Mackey-Glass delay equation, with its tangent."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["LORENZ", "ROESSLER", "flow", "mackey_glass", "mackey_glass_exponent"]

Floats = npt.NDArray[np.float64]

LORENZ, ROESSLER = 0, 1


@njit(cache=True, nogil=True)
def _slope(kind: int, x: Floats, out: Floats) -> None:
    if kind == LORENZ:
        out[0] = 10.0 * (x[1] - x[0])
        out[1] = x[0] * (28.0 - x[2]) - x[1]
        out[2] = x[0] * x[1] - 8.0 / 3.0 * x[2]
    else:
        out[0] = -x[1] - x[2]
        out[1] = x[0] + 0.2 * x[1]
        out[2] = 0.2 + x[2] * (x[0] - 5.7)


@njit(cache=True, nogil=True)
def flow(kind: int, start: Floats, step: float, discard: int, n: int, every: int) -> Floats:
    """Return n states, ``(n, 3)``, one every ``every`` steps after ``discard`` steps.

    Args:
        kind: :data:`LORENZ` or :data:`ROESSLER`.
        start: First state, ``(3,)``.
        step: Step.
        discard: Steps before the first state.
        n: States.
        every: Steps between two of them.
    """
    x = start.copy()
    moved = np.empty(3)
    k1, k2, k3, k4 = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    out = np.empty((n, 3))
    for place in range(discard + (n - 1) * every + 1):
        if place >= discard and (place - discard) % every == 0:
            out[(place - discard) // every] = x
        _slope(kind, x, k1)
        for i in range(3):
            moved[i] = x[i] + 0.5 * step * k1[i]
        _slope(kind, moved, k2)
        for i in range(3):
            moved[i] = x[i] + 0.5 * step * k2[i]
        _slope(kind, moved, k3)
        for i in range(3):
            moved[i] = x[i] + step * k3[i]
        _slope(kind, moved, k4)
        for i in range(3):
            x[i] += step / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i])
    return out


@njit(cache=True, nogil=True)
def _production(delayed: float) -> float:
    return 0.2 * delayed / (1.0 + delayed**10)


@njit(cache=True, nogil=True)
def _production_slope(delayed: float) -> float:
    power = delayed**10
    return 0.2 * (1.0 - 9.0 * power) / (1.0 + power) ** 2


@njit(cache=True, nogil=True)
def _linear_step(x: float, step: float, p0: float, p1: float, p2: float) -> float:
    """One Runge-Kutta step of ``dx = p(t) - 0.1 x``, p known at its beginning, middle and end."""
    k1 = p0 - 0.1 * x
    k2 = p1 - 0.1 * (x + 0.5 * step * k1)
    k3 = p1 - 0.1 * (x + 0.5 * step * k2)
    k4 = p2 - 0.1 * (x + step * k3)
    return x + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


@njit(cache=True, nogil=True)
def _middle(x0: float, x1: float, d0: float, d1: float, step: float) -> float:
    """The middle of the cubic through two values and slopes."""
    return 0.5 * (x0 + x1) + step / 8.0 * (d0 - d1)


@njit(cache=True, nogil=True)
def mackey_glass(start: float, lag: int, step: float, discard: int, n: int, every: int) -> Floats:
    """Return n values of ``dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x``, ``(n,)``.

    Args:
        start: Value at all times up to 0.
        lag: tau in steps.
        step: Step.
        discard: Steps before the first value.
        n: Values.
        every: Steps between two of them.
    """
    size = lag + 1
    history = np.full(size, start)  # values of the last lag + 1 steps, a ring
    slopes = np.zeros(size)  # at time 0 that from the left, until the stretch before it has been used
    out = np.empty(n)
    for place in range(discard + (n - 1) * every + 1):
        at, old, next_old = place % size, (place + 1) % size, (place + 2) % size
        x = history[at]
        if place == lag:
            slopes[0] = _production(start) - 0.1 * start
        if place >= discard and (place - discard) % every == 0:
            out[(place - discard) // every] = x
        x0, x1 = history[old], history[next_old]
        middle = _middle(x0, x1, slopes[old], slopes[next_old], step)
        moved = _linear_step(x, step, _production(x0), _production(middle), _production(x1))
        history[old] = moved
        slopes[old] = _production(x1) - 0.1 * moved
    return out


@njit(cache=True, nogil=True)
def mackey_glass_exponent(start: float, lag: int, step: float, discard: int, n_steps: int) -> float:
    """Return the largest exponent of the equation of :func:`mackey_glass` per unit of time.

    Args:
        start: Value at all times up to 0.
        lag: tau in steps.
        step: Step.
        discard: Steps before averaging.
        n_steps: Steps that are averaged.
    """
    size = lag + 1
    history = np.full(size, start)
    slopes = np.zeros(size)
    tangent = np.cos(np.arange(size) * 1.0)
    tangent_slopes = np.zeros(size)
    total, since = 0.0, 0
    for place in range(discard + n_steps):
        at, old, next_old = place % size, (place + 1) % size, (place + 2) % size
        x0, x1 = history[old], history[next_old]
        middle = _middle(x0, x1, slopes[old], slopes[next_old], step)
        t0, t1 = tangent[old], tangent[next_old]
        t_middle = _middle(t0, t1, tangent_slopes[old], tangent_slopes[next_old], step)
        g0, g1, g2 = _production_slope(x0) * t0, _production_slope(middle) * t_middle, _production_slope(x1) * t1
        moved = _linear_step(history[at], step, _production(x0), _production(middle), _production(x1))
        moved_tangent = _linear_step(tangent[at], step, g0, g1, g2)
        history[old], slopes[old] = moved, _production(x1) - 0.1 * moved
        tangent[old], tangent_slopes[old] = moved_tangent, g2 - 0.1 * moved_tangent
        since += 1
        if since == lag:
            since = 0
            size_of = math.sqrt(np.sum(tangent**2))
            if place >= discard:
                total += math.log(size_of)
            tangent /= size_of
            tangent_slopes /= size_of
    size_of = math.sqrt(np.sum(tangent**2))
    return (total + math.log(size_of)) / (n_steps * step)
