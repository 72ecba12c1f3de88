"""What flows along the edges of a NIR graph: delayed, weighted spikes and a constant; and matrices that mix them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Matrix", "Signal", "Taps", "dense", "join", "product"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass
class Taps:
    """Synapses from one source, as rows of equal length."""

    row: Integers
    column: Integers
    weight: Floats
    steps: Integers


@dataclass
class Signal:
    """What flows along an edge: a sum of delayed, weighted spikes of sources, and a constant.

    Attributes:
        shape: Shape of the values; units are numbered row by row.
        parts: Synapses by source.
        bias: Constant, (size,), or None.
    """

    shape: tuple[int, ...]
    parts: dict[str, Taps] = field(default_factory=dict)
    bias: Floats | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Matrix:
    """A linear map as its non-zero entries, sorted by column, then row; shape (n_rows, n_columns)."""

    row: Integers
    column: Integers
    weight: Floats
    n_rows: int
    n_columns: int

    def apply(self, values: Floats) -> Floats:
        """Return the image of a vector."""
        image: Floats = np.bincount(self.row, self.weight * values[self.column], minlength=self.n_rows)  # type: ignore[assignment]
        return image


def dense(weight: Floats) -> Matrix:
    """Return a dense matrix (n_rows, n_columns) as its non-zero entries."""
    column, row = np.nonzero(weight.T)
    return Matrix(row, column, weight[row, column], *weight.shape)


def join(first: Taps, second: Taps) -> Taps:
    """Return the synapses of both."""
    return Taps(
        np.concatenate([first.row, second.row]),
        np.concatenate([first.column, second.column]),
        np.concatenate([first.weight, second.weight]),
        np.concatenate([first.steps, second.steps]),
    )


def product(matrix: Matrix, taps: Taps) -> Taps:
    """Return the taps behind a matrix; equal (row, column, delay) are added."""
    count = np.bincount(matrix.column, minlength=matrix.n_columns)
    begin = np.concatenate(([0], np.cumsum(count)))
    repeat = count[taps.row]
    total = int(repeat.sum())
    offset = np.arange(total) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    place = np.repeat(begin[taps.row], repeat) + offset
    row, column = matrix.row[place], np.repeat(taps.column, repeat)
    value = matrix.weight[place] * np.repeat(taps.weight, repeat)
    steps = np.repeat(taps.steps, repeat)
    order = np.lexsort((steps, column, row))
    row, column, value, steps = row[order], column[order], value[order], steps[order]
    if not total:
        return Taps(row, column, value, steps)
    fresh = np.concatenate(([True], (np.diff(row) != 0) | (np.diff(column) != 0) | (np.diff(steps) != 0)))
    first = np.flatnonzero(fresh)
    return Taps(row[first], column[first], np.add.reduceat(value, first), steps[first])
