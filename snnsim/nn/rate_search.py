"""The search for the gain at which a layer of neurons fires at a wanted rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from snnsim.errors import InputError

__all__ = ["LayerRate", "RateSearch", "Total"]

Total = Callable[[list[float]], list[float]]
T = TypeVar("T")


@dataclass(frozen=True)
class LayerRate:
    """What the initialisation did to one hidden layer.

    Attributes:
        before: Mean spikes a valid neuron-step before.
        after: The same afterwards.
        factor: Factor on the gain; 1.0 if the rate was in range already.
    """

    before: float
    after: float
    factor: float


@dataclass(frozen=True)
class RateSearch:
    """What is looked for and how; see :func:`snnsim.nn.initialise.initialise_rates`.

    Attributes:
        target: Mean spikes a neuron-step, in (0, 1).
        tolerance: Accepted relative deviation, > 0.
        largest: Largest factor (and the inverse of the smallest) to be tried.
        evaluations: Most runs of one layer.
        nearest: Where a layer cannot reach the range, take the factor that came closest instead of raising.
        mask: Valid steps, bool, shape (time, batch), or None.
        total: Sums numbers over all processes, or None.
    """

    target: float
    tolerance: float
    largest: float
    evaluations: int
    nearest: bool
    mask: Tensor | None
    total: Total | None

    def __post_init__(self) -> None:
        if not 0 < self.target < 1 or self.tolerance <= 0 or self.largest <= 1:
            raise InputError(
                f"initialise_rates: expected target in (0, 1), tolerance > 0 and largest > 1, "
                f"got {self.target}, {self.tolerance}, {self.largest}"
            )

    def rate(self, spikes: Tensor) -> float:
        """Return mean spikes a valid neuron-step of all processes; spikes are (time, batch, unit)."""
        per_step = spikes.sum(dim=2).double()  # whole numbers: the same sum in any order and over any processes
        steps = per_step.numel() if self.mask is None else int(self.mask.sum())
        sums = [float(per_step.sum() if self.mask is None else (per_step * self.mask).sum()), float(steps)]
        count, steps_all = sums if self.total is None else self.total(sums)
        return count / (max(1.0, steps_all) * spikes.shape[2])

    def find(self, run: Callable[[float], tuple[float, T]], index: int, x: Tensor) -> tuple[LayerRate, T]:
        """Look for the factor of one layer by bisection on its logarithm.

        Args:
            run: Sets the layer's gain to its first value times a factor; returns the rate and an output.
            index: Number of the layer, from 0, for messages.
            x: The layer's input, for messages.

        Returns:
            Rates and factor, and the output at that factor, the last that was set.

        Raises:
            InputError: The rate is out of reach and :attr:`nearest` is not set; the gain is as it was.
        """
        target = self.target
        low_rate, high_rate = target / (1 + self.tolerance), target * (1 + self.tolerance)
        before, y = run(1.0)
        if low_rate <= before <= high_rate:
            return LayerRate(before, before, 1.0), y
        limit = math.log(self.largest)
        below, above = (0.0, limit) if before < target else (-limit, 0.0)
        best = (abs(math.log(max(before, 1e-12) / target)), 1.0, before)
        for _ in range(self.evaluations):
            middle = 0.5 * (below + above)
            factor = math.exp(middle)
            rate, y = run(factor)
            best = min(best, (abs(math.log(max(rate, 1e-12) / target)), factor, rate))
            if low_rate <= rate <= high_rate:
                return LayerRate(before, rate, factor), y
            below, above = (middle, above) if rate < target else (below, middle)
        if self.nearest:
            rate, y = run(best[1])
            return LayerRate(before, rate, best[1]), y
        run(1.0)
        raise InputError(
            f"initialise_rates: hidden layer {index + 1} does not reach {target:g} spikes a neuron-step: {best[2]:.3g} "
            f"at a factor of {best[1]:.3g}; is its input silent ({float((x != 0).float().mean()):.3g} of it is not "
            "zero), or its threshold out of reach?"
        )
