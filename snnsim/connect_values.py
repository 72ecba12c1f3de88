"""Distributions of weights and delays, with the bounds that numbers are redrawn to."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from snnsim.errors import InputError
from snnsim.kernels import random_laws as kernels

__all__ = ["Distribution", "Exponential", "LogNormal", "Normal", "Uniform"]

LEAST_INSIDE = 1e-3


def _number(value: object, what: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{what}: expected a number, got {value!r}")
    return float(value)


@dataclass(frozen=True)
class Distribution(ABC):
    """A law that numbers are drawn from, again until they lie in ``low .. high``, both included."""

    @abstractmethod
    def law(self) -> tuple[int, float, float, float, float, float]:
        """Return kind, two parameters, low, high and scale, for :func:`snnsim.kernels.connect.draw_values`."""

    @abstractmethod
    def inside(self) -> float:
        """Return the probability that one draw lies inside."""

    def least(self) -> float:
        """Return a bound that no number lies below."""
        kind, a, _, low, _, scale = self.law()
        positive = (kind == kernels.EXPONENTIAL and a > 0) or (kind == kernels.LOG_NORMAL and scale > 0)
        return max(low, 0.0) if positive else low

    def __post_init__(self) -> None:
        name = type(self).__name__
        for item, value in vars(self).items():
            number = _number(value, f"{name}: {item}")
            if math.isnan(number) or (math.isinf(number) and item not in ("low", "high")):
                raise InputError(f"{name}: {item}: expected a finite number, got {number}")
            object.__setattr__(self, item, number)
        self._check()
        if not self.inside() >= LEAST_INSIDE:
            _, _, _, low, high, _ = self.law()
            raise InputError(
                f"{name}: fewer than one draw in {1 / LEAST_INSIDE:.0f} lies in {low} .. {high}; "
                "widen the bounds or move the mean"
            )

    @abstractmethod
    def _check(self) -> None:
        """Refuse parameters that make no distribution."""


def _below(z: float) -> float:
    """Return the probability that a standard normal number is less than ``z``."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _normal_inside(mean: float, sd: float, low: float, high: float) -> float:
    if sd == 0:
        return float(low <= mean <= high)
    return _below((high - mean) / sd) - _below((low - mean) / sd)


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal numbers, redrawn until they lie inside.

    Attributes:
        mean: Of the law without bounds.
        sd: Standard deviation without bounds, >= 0.
        low: Least value.
        high: Greatest value; 0 for inhibitory weights.
    """

    mean: float
    sd: float
    low: float = -math.inf
    high: float = math.inf

    def _check(self) -> None:
        if self.sd < 0:
            raise InputError(f"Normal: sd: expected at least 0, got {self.sd}")

    def law(self) -> tuple[int, float, float, float, float, float]:
        """See :meth:`Distribution.law`."""
        return kernels.NORMAL, self.mean, self.sd, self.low, self.high, 1.0

    def inside(self) -> float:
        """See :meth:`Distribution.inside`."""
        return _normal_inside(self.mean, self.sd, self.low, self.high)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Numbers of equal probability between ``low`` and ``high``, both finite."""

    low: float
    high: float

    def _check(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise InputError(f"Uniform: expected finite low <= high, got {self.low} and {self.high}")

    def law(self) -> tuple[int, float, float, float, float, float]:
        """See :meth:`Distribution.law`."""
        return kernels.UNIFORM, self.low, self.high, self.low, self.high, 1.0

    def inside(self) -> float:
        """See :meth:`Distribution.inside`."""
        return 1.0


@dataclass(frozen=True)
class LogNormal(Distribution):
    """``scale * exp(x)`` with normal x, redrawn until it lies inside.

    Attributes:
        mu: Mean of x.
        sigma: Standard deviation of x, >= 0.
        scale: Median where ``mu`` is 0; negative for inhibitory weights.
        low: Least value.
        high: Greatest value.
    """

    mu: float
    sigma: float
    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf

    def _check(self) -> None:
        if self.sigma < 0 or self.scale == 0:
            raise InputError(f"LogNormal: expected sigma >= 0 and scale not 0, got {self.sigma} and {self.scale}")

    def law(self) -> tuple[int, float, float, float, float, float]:
        """See :meth:`Distribution.law`."""
        return kernels.LOG_NORMAL, self.mu, self.sigma, self.low, self.high, self.scale

    def inside(self) -> float:
        """See :meth:`Distribution.inside`."""
        ends = sorted((self.low / self.scale, self.high / self.scale))
        low, high = (math.log(end) if end > 0 else -math.inf for end in ends)
        return _normal_inside(self.mu, self.sigma, low, high)


@dataclass(frozen=True)
class Exponential(Distribution):
    """Exponential numbers, redrawn until they lie inside.

    Attributes:
        mean: Of the law without bounds; negative for inhibitory weights.
        low: Least value.
        high: Greatest value.
    """

    mean: float
    low: float = -math.inf
    high: float = math.inf

    def _check(self) -> None:
        if self.mean == 0:
            raise InputError("Exponential: mean: expected a number that is not 0")

    def law(self) -> tuple[int, float, float, float, float, float]:
        """See :meth:`Distribution.law`."""
        return kernels.EXPONENTIAL, self.mean, 0.0, self.low, self.high, 1.0

    def inside(self) -> float:
        """See :meth:`Distribution.inside`."""
        low, high = (max(end, 0.0) for end in sorted((self.low / self.mean, self.high / self.mean)))
        return math.exp(-low) - math.exp(-high)
