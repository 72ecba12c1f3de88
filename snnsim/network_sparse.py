"""Sparse synapses in the narrowest numbers that hold them: targets, weights and delays, each in its own width.

Nothing here makes a second array as long as the synapses: large arrays are checked a piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import check_dt
from snnsim.network_checks import MAX_UNITS, check_finite, check_integer, frozen_array

__all__ = ["MAX_NARROW", "PIECE", "Sparse", "Steps", "pieces"]

Integers = npt.NDArray[np.int64]

PIECE = 2**17
"""Synapses that are looked at together."""

MAX_NARROW = 2**16
"""Targets that uint16 can tell apart."""

WEIGHT_KINDS = ("float16", "float32", "float64")
STEP_KINDS = ("uint8", "uint16")


def pieces(n: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` of consecutive pieces of ``n`` synapses."""
    for start in range(0, n, PIECE):
        yield start, min(start + PIECE, n)


def _shared(value: Any, what: str) -> float | None:
    """Return a number that stands for all synapses, or None if ``value`` is no single number."""
    if isinstance(value, (bool, np.bool_)) or not (
        isinstance(value, (int, float, np.integer, np.floating))
        or (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf")
    ):
        return None
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{what}: expected a finite number, got {number}")
    return number


@dataclass(frozen=True, eq=False)
class Sparse:
    """Synapses as compressed rows by source. Parallel synapses are allowed; their order is kept.

    The synapses of source ``j`` are the entries ``indptr[j] : indptr[j + 1]``. Arrays that nobody can write to and
    that have one of the types below are taken as they are; others are copied.

    Attributes:
        indptr: int64, shape ``(n_source + 1,)``, from 0 to nnz, never falling.
        target: uint16 if given so and ``n_target <= 65536``, else int32; shape ``(nnz,)``.
        weight: A number that all synapses share (0: there are none), or shape ``(nnz,)``: float16, float32 or
            float64 as given, other numbers become float64.
        shape: ``(n_target, n_source)``.

    Raises:
        InputError: Lengths disagree, ``indptr`` falls, a target is out of range or a weight is not finite.
    """

    indptr: Integers
    target: npt.NDArray[np.int32] | npt.NDArray[np.uint16]
    weight: npt.NDArray[np.floating[Any]] | float
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if len(shape) != 2:
            raise InputError(f"sparse weight: shape: expected (n_target, n_source), got {shape}")
        n_target = check_integer(shape[0], "sparse weight: n_target", 1, MAX_UNITS)
        n_source = check_integer(shape[1], "sparse weight: n_source", 1, MAX_UNITS)
        object.__setattr__(self, "shape", (n_target, n_source))
        indptr = frozen_array(self.indptr, np.int64, "sparse weight: indptr")
        narrow = getattr(self.target, "dtype", None) == np.uint16 and n_target <= MAX_NARROW
        target = frozen_array(self.target, np.uint16 if narrow else np.int32, "sparse weight: target")
        weight: Any = _shared(self.weight, "sparse weight")
        if weight is None:
            given = getattr(self.weight, "dtype", None)
            kind = str(given) if str(given) in WEIGHT_KINDS else "float64"
            weight = frozen_array(self.weight, kind, "sparse weight: weight")
        if indptr.shape != (n_source + 1,):
            raise InputError(
                f"sparse weight: indptr has shape {indptr.shape}, expected ({n_source + 1},) for {n_source} sources"
            )
        if target.ndim != 1 or (not isinstance(weight, float) and weight.shape != target.shape):
            raise InputError(
                f"sparse weight: target {target.shape} and weight {np.shape(weight)} must be equally long rows"
            )
        if indptr[0] != 0 or indptr[-1] != target.shape[0] or np.any(indptr[1:] < indptr[:-1]):
            raise InputError(f"sparse weight: indptr must rise from 0 to {target.shape[0]}, the number of synapses")
        if target.size and (target.min() < 0 or target.max() >= n_target):
            raise InputError(
                f"sparse weight: targets must lie in 0..{n_target - 1}, got {target.min()}..{target.max()}"
            )
        if not isinstance(weight, float):
            check_finite(weight, "sparse weight")
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "weight", weight)

    @classmethod
    def from_triples(
        cls, source: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike, shape: tuple[int, int]
    ) -> Self:
        """Build from one ``(source, target, weight)`` a synapse; synapses of a source keep their order."""
        sources = frozen_array(source, np.int64, "sparse weight: source")
        if sources.size and (sources.min() < 0 or sources.max() >= shape[1]):
            raise InputError(f"sparse weight: sources must lie in 0..{shape[1] - 1}")
        order = np.argsort(sources, kind="stable")
        indptr = np.concatenate(([0], np.cumsum(np.bincount(sources, minlength=shape[1]))))
        return cls(indptr, np.asarray(target)[order], np.asarray(weight)[order], shape)

    @property
    def nnz(self) -> int:
        """Number of stored synapses."""
        return int(self.target.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes as stored; a shared weight is one float64."""
        return self.indptr.nbytes + self.target.nbytes + (8 if isinstance(self.weight, float) else self.weight.nbytes)

    @cached_property
    def sorted(self) -> bool:
        """Whether the targets of every source never fall."""
        for start, stop in pieces(self.nnz):
            stop = min(stop + 1, self.nnz)  # the step from this piece to the next belongs to this one
            falls = start + 1 + np.flatnonzero(self.target[start + 1 : stop] < self.target[start : stop - 1])
            if falls.size and np.any(self.indptr[np.searchsorted(self.indptr, falls)] != falls):
                return False  # a fall is allowed only where a row begins
        return True

    @cached_property
    def source(self) -> Integers:
        """Source of every synapse, int64 ``(nnz,)``."""
        return np.repeat(np.arange(self.shape[1], dtype=np.int64), np.diff(self.indptr))

    def sources_of(self, start: int, stop: int) -> Integers:
        """Return the sources of the synapses ``start .. stop - 1``, int64."""
        if stop <= start:
            return np.zeros(0, np.int64)
        first, last = np.searchsorted(self.indptr, [start, stop - 1], side="right") - 1
        edges = np.clip(self.indptr[first : last + 2], start, stop)
        return np.repeat(np.arange(first, last + 1, dtype=np.int64), np.diff(edges))

    def existing(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Return which of the synapses ``start .. stop - 1`` have a weight that is not 0."""
        if isinstance(self.weight, float):
            return np.full(stop - start, self.weight != 0)
        exists: npt.NDArray[np.bool_] = self.weight[start:stop] != 0
        return exists

    @cached_property
    def out_degree(self) -> Integers:
        """Number of synapses of every source whose weight is not zero, int64 ``(n_source,)``."""
        if isinstance(self.weight, float):
            return np.diff(self.indptr) if self.weight else np.zeros(self.shape[1], np.int64)
        degree = np.diff(self.indptr)
        for start, stop in pieces(self.nnz):
            absent = np.flatnonzero(~self.existing(start, stop))
            if absent.size:
                rows, counts = np.unique(self.sources_of(start, stop)[absent], return_counts=True)
                degree[rows] -= counts
        return degree


@dataclass(frozen=True, eq=False)
class Steps:
    """Delays of sparse synapses as whole steps of the network's own grid.

    Attributes:
        values: uint8 or uint16, shape ``(nnz,)``, one a synapse; other whole numbers become the narrowest of the two.
        dt: Seconds a step: a synapse is delayed by ``values * dt`` seconds. The network must have the same ``dt``.

    Raises:
        InputError: ``values`` are no whole numbers from 0 to 65535, or ``dt`` is not positive.

    >>> Steps(np.array([3, 15]), 1e-4).values.dtype
    dtype('uint8')
    """

    values: npt.NDArray[np.integer[Any]]
    dt: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "dt", check_dt(self.dt))
        values = np.asarray(self.values)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InputError(f"delay steps: expected whole numbers, shape (nnz,), got {values.dtype} {values.shape}")
        kind = str(values.dtype)
        if kind not in STEP_KINDS:
            low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
            if low < 0 or high > 65535:
                raise InputError(f"delay steps: expected 0 to 65535, got {low} to {high}; use seconds or a larger dt")
            kind = "uint8" if high < 256 else "uint16"
        object.__setattr__(self, "values", frozen_array(values, kind, "delay steps"))

    def on_grid(self, dt: float) -> npt.NDArray[np.integer[Any]]:
        """Return the steps, the stored array itself, after checking that ``dt`` is the same.

        Raises:
            InputError: They were counted on another grid.
        """
        if not math.isclose(dt, self.dt, rel_tol=1e-9):
            raise InputError(
                f"delay: its steps are counted in {self.dt} s and cannot be used at dt = {dt} s; "
                "give the delays in seconds, or build them for this dt"
            )
        return self.values
