"""Bayesian optimisation of a function of a few numbers: Gaussian process, Matern 5/2, expected improvement.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006 (algorithm 2.1, equation 4.17);
Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions", 1998 (expected
improvement). Everything drawn comes from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform
from snnsim.network_checks import check_integer

__all__ = ["Search", "expected_improvement", "gaussian_process", "matern", "minimise"]

Floats = npt.NDArray[np.float64]

CANDIDATES = 2000
LENGTHS = np.exp(np.linspace(np.log(0.05), np.log(2.0), 16))
NOISES = (1e-6, 1e-3, 1e-2, 1e-1)


def matern(first: Floats, second: Floats, length: float) -> Floats:
    """Return ``(1 + a + a**2 / 3) exp(-a)``, ``a = sqrt(5) |x - y| / length``, of every two points.

    Args:
        first: ``(n, d)``.
        second: ``(m, d)``.
        length: > 0.
    """
    distance = np.sqrt(np.maximum(((first[:, None] - second[None]) ** 2).sum(axis=-1), 0.0))
    a = np.sqrt(5.0) * distance / length
    return np.asarray((1 + a + a**2 / 3) * np.exp(-a), dtype=np.float64)


def gaussian_process(points: Floats, values: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation at ``at`` of the process that the values have the most likelihood under.

    Length scale and noise are the most likely of a fixed grid, the variance is the most likely one in closed form.

    Args:
        points: ``(n, d)``, coordinates from 0 to 1.
        values: ``(n,)``, standardised by the caller.
        at: ``(m, d)``.
    """
    from scipy.linalg import cho_factor, cho_solve

    n = points.shape[0]
    best: tuple[float, float, float] | None = None
    for length in LENGTHS:
        kernel = matern(points, points, float(length))
        for noise in NOISES:
            factor = cho_factor(kernel + noise * np.eye(n), lower=True)
            variance = max(float(values @ cho_solve(factor, values)) / n, 1e-12)
            likelihood = -0.5 * n * np.log(variance) - float(np.log(np.diagonal(factor[0])).sum())
            if best is None or likelihood > best[0] + 1e-12:
                best = (likelihood, float(length), noise)
    assert best is not None
    _, length, noise = best
    factor = cho_factor(matern(points, points, length) + noise * np.eye(n), lower=True)
    weights = cho_solve(factor, values)
    variance = max(float(values @ weights) / n, 1e-12)
    across = matern(at, points, length)
    left = 1.0 - np.sum(across * cho_solve(factor, across.T).T, axis=1)
    return across @ weights, np.sqrt(variance * np.maximum(left, 1e-12))


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Return ``E[max(0, best - y)]`` for normal y, ``(m,)``."""
    from scipy.special import ndtr

    z = (best - mean) / deviation
    return np.asarray((best - mean) * ndtr(z) + deviation * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), dtype=np.float64)


@dataclass(frozen=True)
class Search:
    """A search that is done.

    Attributes:
        best: The point of the least value, ``(d,)``.
        value: The least value.
        points: All points in the order they were tried, ``(n, d)``.
        values: Their values, ``(n,)``.
    """

    best: Floats
    value: float
    points: Floats
    values: Floats


def minimise(
    function: Callable[[Floats], float],
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    *,
    initial: int = 8,
    iterations: int = 30,
    seed: int = 0,
    start: npt.ArrayLike | None = None,
) -> Search:
    """Minimise a function in a box.

    Args:
        function: From a point ``(d,)`` to a finite number.
        low: Least coordinates, ``(d,)``.
        high: Greatest coordinates.
        initial: Random points to begin with.
        iterations: Points chosen by expected improvement among 2000 random ones.
        seed: Of random points.
        start: A point that is tried before all others, if given.

    Raises:
        InputError: The box is empty, a count is negative, or a value is not finite.
    """
    lowest, highest = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if lowest.ndim != 1 or lowest.shape != highest.shape or not np.all(lowest < highest):
        raise InputError("minimise: expected bounds low < high of equal length")
    initial = check_integer(initial, "minimise: initial", 1)
    iterations = check_integer(iterations, "minimise: iterations", 0)
    d = lowest.shape[0]
    span = highest - lowest
    points: list[Floats] = []
    values: list[float] = []

    def attempt(unit_point: Floats) -> None:
        value = float(function(lowest + span * unit_point))
        if not np.isfinite(value):
            raise InputError(f"minimise: the function is {value} at {(lowest + span * unit_point).tolist()}")
        points.append(unit_point)
        values.append(value)

    if start is not None:
        attempt(np.clip((np.asarray(start, np.float64) - lowest) / span, 0.0, 1.0))
    coordinates = np.arange(d)
    for point in uniform(seed, Stream.LNP_SEARCH, 0, 0, np.arange(initial)[:, None], coordinates):
        attempt(point)
    for count in range(iterations):
        known, y = np.array(points), np.array(values)
        scale = float(y.std()) or 1.0
        standard = (y - y.mean()) / scale
        pool = uniform(seed, Stream.LNP_SEARCH, 0, 1 + count, np.arange(CANDIDATES)[:, None], coordinates)
        near = known[int(np.argmin(y))] + 0.1 * (pool[: CANDIDATES // 4] - 0.5)
        pool = np.concatenate((pool, np.clip(near, 0.0, 1.0)))
        mean, deviation = gaussian_process(known, standard, pool)
        attempt(pool[int(np.argmax(expected_improvement(mean, deviation, float(standard.min()))))])
    place = int(np.argmin(values))
    tried = lowest + span * np.array(points)
    return Search(tried[place], values[place], tried, np.array(values))
