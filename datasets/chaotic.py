"""Chaotic series with known Lyapunov exponents: Lorenz-63, Roessler and Mackey-Glass, made, not loaded.

>>> made = make_series("lorenz63", 500, seed=1)
>>> made.values.shape, round(made.exponent * made.dt, 4)
((500, 3), 0.0181)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels import chaotic as kernels
from snnsim.kernels.philox import Stream, uniform

__all__ = ["SERIES", "Series", "SeriesName", "mackey_glass_exponent", "make_series"]

Floats = npt.NDArray[np.float64]
SeriesName = Literal["lorenz63", "roessler", "mackey-glass"]
SERIES: tuple[SeriesName, ...] = get_args(SeriesName)


@dataclass(frozen=True)
class _System:
    """What a series is made with: step, steps between two values, steps before the first, largest exponent."""

    step: float
    every: int
    discard: int
    exponent: float


SYSTEMS: dict[str, _System] = {
    "lorenz63": _System(step=0.02, every=1, discard=2000, exponent=0.906),
    "roessler": _System(step=0.05, every=8, discard=8000, exponent=0.071),
    "mackey-glass": _System(step=0.1, every=40, discard=20_000, exponent=0.0052),
}
"""Lorenz (J. Atmos. Sci. 1963) with sigma 10, rho 28, beta 8/3; Roessler (Phys. Lett. A 1976) with a = b = 0.2,
c = 5.7; Mackey and Glass (Science 1977) with beta 0.2, gamma 0.1, n 10, tau 17. The exponents of the first two are
those of the literature, the third is what :func:`mackey_glass_exponent` measures."""


@dataclass(frozen=True, eq=False)
class Series:
    """A chaotic series.

    Attributes:
        name: Which system.
        values: Every dimension with mean 0 and standard deviation 1 over the whole series, float64 ``(n, d)``.
        dt: Time between two values, in the system's own unit.
        exponent: Largest Lyapunov exponent per unit of the same time.
        mean: What was subtracted, ``(d,)``.
        scale: What was divided by, ``(d,)``.
    """

    name: SeriesName
    values: Floats
    dt: float
    exponent: float
    mean: Floats
    scale: Floats


def make_series(name: SeriesName, n: int, *, seed: int = 0) -> Series:
    """Make a series of n values, from a start that depends on the seed, after the transient.

    Flows by fourth-order Runge-Kutta: Lorenz-63 with step 0.02 and a value each step, Roessler with step 0.05 and a
    value every 8 steps. Mackey-Glass likewise with step 0.1 and a value every 40: its delay of 170 steps is exact,
    and the delayed value half a step on is that of the cubic through two stored values and slopes, which keeps the
    order at four.

    Args:
        name: One of :data:`SERIES`.
        n: Values, from 2 to 1e8.
        seed: Of the start, below 2**32.

    Raises:
        InputError: The name is unknown, or an argument is out of range.
    """
    if name not in SERIES:
        raise InputError(f"make_series: expected one of {', '.join(SERIES)}, got {name!r}")
    for what, number, low, high in (("n", n, 2, 10**8), ("seed", seed, 0, 2**32 - 1)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not low <= number <= high:
            raise InputError(f"make_series: {what}: expected an integer from {low} to {high}, got {number!r}")
    system = SYSTEMS[name]
    start = uniform(seed, Stream.SOURCE, SERIES.index(name), 0, np.arange(3), 10)
    if name == "mackey-glass":
        raw: Any = kernels.mackey_glass(0.5 + start[0], 170, system.step, system.discard, n, system.every)
        values = raw[:, None]
    else:
        first = np.array([1.0, 1.0, 20.0 if name == "lorenz63" else 0.0]) + start
        kind = kernels.LORENZ if name == "lorenz63" else kernels.ROESSLER
        values = kernels.flow(kind, first, system.step, system.discard, n, system.every)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    return Series(name, (values - mean) / scale, system.step * system.every, system.exponent, mean, scale)


def mackey_glass_exponent(*, step: float = 0.1, n_steps: int = 1_000_000, discard: int = 100_000) -> float:
    """Return the largest Lyapunov exponent of the Mackey-Glass equation, per unit of its own time.

    A tangent of the whole delayed stretch is carried along by the same Runge-Kutta steps and shortened after each
    delay (Farmer, Physica D 1982).

    Args:
        step: Step; 17 must be a multiple of it.
        n_steps: Steps that are averaged.
        discard: Steps before them.

    Raises:
        InputError: The delay is not a multiple of the step.
    """
    lag = round(17.0 / step) if step > 0 and math.isfinite(step) else 0
    if lag < 2 or abs(lag * step - 17.0) > 1e-9:
        raise InputError(f"mackey_glass_exponent: step: expected a part of the delay of 17, got {step!r}")
    return float(kernels.mackey_glass_exponent(0.9, lag, step, discard, n_steps))
