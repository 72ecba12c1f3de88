"""Time on a grid: the one map from seconds to steps, and the decays per step.

Step ``k`` is the instant ``k * dt``. Binning, the clock engine and the event engine's grid mode all use
:func:`time_to_step`; delays use :func:`delay_to_steps`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError

__all__ = ["check_dt", "decay", "delay_to_steps", "kappa", "kappa_rise", "time_to_step"]

GRID_TOLERANCE = 1e-6


def check_dt(dt: float) -> float:
    """Return ``dt`` as a float after checking that it is a positive, finite number of seconds."""
    value = float(dt)
    if not np.isfinite(value) or value <= 0:
        raise InputError(f"dt: expected a positive number of seconds, got {dt!r}; 0.001 is one millisecond")
    return value


def time_to_step(times: npt.ArrayLike, dt: float) -> npt.NDArray[np.int64]:
    """Map times to steps: the nearest grid point if within 1e-6 steps of it, else the step before.

    A plain floor loses 3 to 12 % of the times that lie on a 10 ms grid, because ``k * dt / dt`` can round
    below ``k``.

    Args:
        times: Seconds, any shape; float32 is first rounded to 1 microsecond.
        dt: Step in seconds.

    Returns:
        Steps, int64, same shape.

    >>> time_to_step([0.0, 0.03, 0.0349, 0.04], 0.01).tolist()
    [0, 3, 3, 4]
    """
    array = np.asarray(times)
    if array.dtype == np.float32:
        array = np.round(array.astype(np.float64), 6)
    ratio = array.astype(np.float64) / dt
    nearest = np.rint(ratio)
    on_grid = np.abs(ratio - nearest) < GRID_TOLERANCE
    return np.where(on_grid, nearest, np.floor(ratio)).astype(np.int64)


def delay_to_steps(delay: npt.ArrayLike, dt: float) -> npt.NDArray[np.int64]:
    """Round delays in seconds to steps, ties to even.

    Raises:
        InputError: A delay is negative or not finite.
    """
    array = np.asarray(delay, dtype=np.float64)
    if array.size and (not np.all(np.isfinite(array)) or array.min() < 0):
        raise InputError("delay: expected finite, non-negative seconds")
    return np.rint(array / dt).astype(np.int64)


def decay(tau: npt.ArrayLike, dt: float) -> npt.NDArray[np.float64]:
    """Return ``exp(-dt / tau)``, the factor by which a quantity with time constant ``tau`` (s) shrinks a step."""
    return np.asarray(np.exp(-dt / np.asarray(tau, dtype=np.float64)))


def kappa(tau_mem: npt.ArrayLike, tau_syn: npt.ArrayLike, dt: float) -> npt.NDArray[np.float64]:
    """Return the gain from synaptic current to membrane over one step, exact at equal time constants.

    ``kappa = dt/tau_mem * beta * (-expm1(-x) / x)`` with ``x = dt (tau_mem - tau_syn) / (tau_mem tau_syn)``
    and the ratio 1 at ``x = 0``: the exact solution of ``tau_mem dv/dt = -v + i``, ``tau_syn di/dt = -i``.
    """
    tau_m = np.asarray(tau_mem, dtype=np.float64)
    tau_s = np.asarray(tau_syn, dtype=np.float64)
    x: Any = dt * (tau_m - tau_s) / (tau_m * tau_s)
    safe = np.where(x == 0, 1.0, x)
    ratio = np.where(x == 0, 1.0, -np.expm1(-safe) / safe)
    return np.asarray(dt / tau_m * decay(tau_m, dt) * ratio)


def kappa_rise(tau_mem: npt.ArrayLike, tau_syn: npt.ArrayLike, dt: float) -> npt.NDArray[np.float64]:
    """Return the gain over one step from the variable behind an alpha current to the membrane.

    The exact solution of ``tau_mem dv/dt = -v + i``, ``tau_syn di/dt = -i + e r``, ``tau_syn dr/dt = -r``:
    ``kappa_rise = e dt^2 / (tau_mem tau_syn) * beta * phi(x)`` with ``x`` as in :func:`kappa` and
    ``phi(x) = (1 - (1 + x) exp(-x)) / x^2``, the integral of ``u exp(-x u)`` from 0 to 1. Where ``abs(x)`` is at most 1
    it is summed as a series, because the difference would lose its digits.
    """
    tau_m = np.asarray(tau_mem, dtype=np.float64)
    tau_s = np.asarray(tau_syn, dtype=np.float64)
    x: Any = dt * (tau_m - tau_s) / (tau_m * tau_s)
    near = np.abs(x) <= 1
    small = np.where(near, x, 0.0)
    series = np.zeros_like(small)
    power = np.ones_like(small)
    for n in range(20):
        series = series + power / (n + 2)
        power = power * -small / (n + 1)
    large = np.where(near, 2.0, x)
    phi = np.where(near, series, (1 - (1 + large) * np.exp(-large)) / large**2)
    return np.asarray(np.e * dt**2 / (tau_m * tau_s) * decay(tau_m, dt) * phi)
