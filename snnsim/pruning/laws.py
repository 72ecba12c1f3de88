"""Distributions over the neurons of a pool, drawn by inversion so that numbers move smoothly with the parameters.

>>> Gamma(shape=2.0, scale=0.01).mean()
0.02
>>> Gamma(shape=2.0, scale=0.01).homogeneous()
Constant(value=0.02)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform

__all__ = ["Constant", "Empirical", "Gamma", "Law", "LogNormal", "draw"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Law(ABC):
    """A distribution of positive numbers."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                raise InputError(f"{type(self).__name__}: {item.name}: expected a number, got {value!r}")
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{type(self).__name__}: {item.name}: expected a positive number, got {value}")
            object.__setattr__(self, item.name, float(value))
        if not (math.isfinite(self.mean()) and self.mean() > 0):
            raise InputError(f"{self}: expected a mean above 0 that float64 holds, got {self.mean()}")

    @abstractmethod
    def quantile(self, share: npt.ArrayLike) -> Floats:
        """Return the numbers that the shares (0 to below 1) of the distribution lie below."""

    @abstractmethod
    def mean(self) -> float:
        """Return the mean."""

    def homogeneous(self) -> Constant:
        """Return the control without heterogeneity: the same mean for all."""
        return Constant(self.mean())


@dataclass(frozen=True)
class Constant(Law):
    """One number for all.

    Attributes:
        value: The number, > 0.
    """

    value: float

    def quantile(self, share: npt.ArrayLike) -> Floats:
        """See :meth:`Law.quantile`."""
        return np.full(np.shape(share), self.value)

    def mean(self) -> float:
        """See :meth:`Law.mean`."""
        return self.value


@dataclass(frozen=True)
class Gamma(Law):
    """Gamma distribution with mean ``shape scale`` and variance ``shape scale**2``.

    Attributes:
        shape: k, > 0.
        scale: theta, in the unit of the numbers, > 0.
    """

    shape: float
    scale: float

    def quantile(self, share: npt.ArrayLike) -> Floats:
        """See :meth:`Law.quantile`."""
        from scipy.special import gammaincinv

        return np.asarray(gammaincinv(self.shape, np.asarray(share, np.float64)) * self.scale, dtype=np.float64)

    def mean(self) -> float:
        """See :meth:`Law.mean`."""
        return self.shape * self.scale


@dataclass(frozen=True)
class LogNormal(Law):
    """``median exp(sigma x)`` with standard normal x.

    Attributes:
        median: In the unit of the numbers, > 0.
        sigma: Standard deviation of the logarithm, > 0.
    """

    median: float
    sigma: float

    def quantile(self, share: npt.ArrayLike) -> Floats:
        """See :meth:`Law.quantile`."""
        from scipy.special import ndtri

        return np.asarray(self.median * np.exp(self.sigma * ndtri(np.asarray(share, np.float64))), dtype=np.float64)

    def mean(self) -> float:
        """See :meth:`Law.mean`."""
        with np.errstate(over="ignore"):
            return float(self.median * np.exp(np.square(self.sigma) / 2))


@dataclass(frozen=True)
class Empirical(Law):
    """The distribution of measured numbers, linear between them.

    Attributes:
        values: At least one number, all > 0.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            values = tuple(sorted(float(value) for value in self.values))
        except (TypeError, ValueError):
            raise InputError(f"Empirical: values: expected a sequence of numbers, got {self.values!r}") from None
        if not values or not all(math.isfinite(value) and value > 0 for value in values):
            raise InputError("Empirical: values: expected at least one number, all positive and finite")
        object.__setattr__(self, "values", values)

    def quantile(self, share: npt.ArrayLike) -> Floats:
        """See :meth:`Law.quantile`."""
        return np.asarray(np.quantile(np.asarray(self.values), np.asarray(share, np.float64)), dtype=np.float64)

    def mean(self) -> float:
        """See :meth:`Law.mean`: of the interpolated distribution."""
        values = np.asarray(self.values)
        return float(values[0]) if values.size == 1 else float(np.mean((values[1:] + values[:-1]) / 2))


def draw(law: Law, size: int, *, seed: int, parameter: int, low: float, high: float) -> tuple[Floats, float]:
    """Draw one number a neuron and clip it.

    Args:
        law: The distribution.
        size: Neurons.
        seed: Of the random numbers; neuron j keeps its number if the pool grows.
        parameter: Which parameter: different ones are independent.
        low: Least value.
        high: Greatest value.

    Returns:
        The numbers, float64 ``(size,)``, and the share of them that was clipped.

    Raises:
        InputError: ``low`` exceeds ``high``.
    """
    if not low <= high:
        raise InputError(f"{type(law).__name__}: bounds: expected low <= high, got {low} and {high}")
    share = uniform(seed, Stream.POOL_VALUE, 0, parameter, np.arange(size))
    values = law.quantile(share)
    clipped = np.clip(values, low, high)
    return clipped, float(np.mean(clipped != values)) if size else 0.0
