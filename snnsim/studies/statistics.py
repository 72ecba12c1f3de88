"""Means over seeds and paired differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from snnsim.errors import InputError

__all__ = ["Interval", "paired_difference", "summary"]


class Interval(NamedTuple):
    """A mean over n seeds with its confidence interval.

    Attributes:
        mean: Mean.
        low: Lower end; NaN for fewer than two seeds.
        high: Upper end.
        n: Seeds.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside, which one seed can never say."""
        return self.low > 0 or self.high < 0


def summary(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of values that are independent from seed to seed, with Student's t interval.

    Where all values are equal the interval has no width.

    >>> [round(value, 3) for value in summary([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484, 3]
    """
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise InputError(f"summary: expected finite numbers of at least one seed, got {values!r}")
    mean = float(array.mean())
    if array.size < 2:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(t.ppf(0.5 + confidence / 2, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(mean, mean - half, mean + half, int(array.size))


def paired_difference(new: Sequence[float], old: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean and interval of ``new - old``, seed by seed.

    Raises:
        InputError: The numbers of seeds differ.
    """
    if len(new) != len(old):
        raise InputError(f"paired_difference: expected the same seeds on both sides, got {len(new)} and {len(old)}")
    return summary([a - b for a, b in zip(new, old, strict=True)], confidence)
