"""Parameters on a grid while a step is computed, in full precision between steps.

Forward and backward pass see ``offset + unit n`` with whole ``n``; the gradient found there moves the value in full
precision, as if rounding had the derivative 1 (straight-through estimator: Bengio, Leonard and Courville 2013; weights
rounded in the pass and kept in full between: Courbariaux, Bengio and David 2015, "BinaryConnect").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Grid", "on_grid"]


@dataclass(frozen=True)
class Grid:
    """The values that one parameter may take.

    Attributes:
        parameter: Which one.
        unit: Value of the integer 1, positive, float64, of a shape that broadcasts to the parameter's.
        offset: Value of the integer 0, likewise.
        step: Distance of the integers: 1, or 2 where only even ones are allowed.
        low: Lowest integer, a multiple of ``step``.
        high: Highest integer, likewise.
    """

    parameter: nn.Parameter
    unit: Tensor
    offset: Tensor
    step: int
    low: int
    high: int

    def integers(self) -> Tensor:
        """Return the nearest allowed integers, float64."""
        given = (self.parameter.detach().double() - self.offset) / self.unit
        return (torch.round(given / self.step) * self.step).clamp(self.low, self.high)

    def values(self) -> Tensor:
        """Return the nearest values of the grid, in the parameter's dtype."""
        return (self.offset + self.integers() * self.unit).to(self.parameter.dtype)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the value in full precision back between the grid's ends, so that it does not run away there."""
        low, high = self.offset + self.low * self.unit, self.offset + self.high * self.unit
        self.parameter.copy_(torch.minimum(torch.maximum(self.parameter.double(), low), high))


@contextmanager
def on_grid(grids: Iterable[Grid]) -> Iterator[None]:
    """Put parameters on their grids; afterwards they have their full precision again."""
    chosen = list(grids)
    kept = [grid.parameter.detach().clone() for grid in chosen]
    with torch.no_grad():
        for grid in chosen:
            grid.parameter.copy_(grid.values())
    try:
        yield
    finally:
        with torch.no_grad():
            for grid, value in zip(chosen, kept, strict=True):
                grid.parameter.copy_(value)
