"""Synapses of a network: weights, dense or sparse, with delays, as one projection between two groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import delay_to_steps
from snnsim.network_checks import MAX_UNITS, check_finite, check_integer, check_name, frozen_array

__all__ = ["Projection", "Sparse", "Synapses"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sparse:
    """Synapses as compressed rows by source. Parallel synapses are allowed; their order is kept.

    The synapses of source ``j`` are the entries ``indptr[j] : indptr[j + 1]``.

    Attributes:
        indptr: int64, shape ``(n_source + 1,)``, from 0 to nnz, never falling.
        target: int32, shape ``(nnz,)``.
        weight: float64, shape ``(nnz,)``.
        shape: ``(n_target, n_source)``.
    """

    indptr: Integers
    target: npt.NDArray[np.int32]
    weight: Floats
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if len(shape) != 2:
            raise InputError(f"sparse weight: shape: expected (n_target, n_source), got {shape}")
        n_target = check_integer(shape[0], "sparse weight: n_target", 1, MAX_UNITS)
        n_source = check_integer(shape[1], "sparse weight: n_source", 1, MAX_UNITS)
        object.__setattr__(self, "shape", (n_target, n_source))
        indptr = frozen_array(self.indptr, np.int64, "sparse weight: indptr")
        target = frozen_array(self.target, np.int32, "sparse weight: target")
        weight = frozen_array(self.weight, np.float64, "sparse weight: weight")
        if indptr.shape != (n_source + 1,):
            raise InputError(
                f"sparse weight: indptr has shape {indptr.shape}, expected ({n_source + 1},) for {n_source} sources"
            )
        if target.ndim != 1 or weight.shape != target.shape:
            raise InputError(
                f"sparse weight: target {target.shape} and weight {weight.shape} must be equally long rows"
            )
        if indptr[0] != 0 or indptr[-1] != target.shape[0] or np.any(np.diff(indptr) < 0):
            raise InputError(f"sparse weight: indptr must rise from 0 to {target.shape[0]}, the number of synapses")
        if target.size and (target.min() < 0 or target.max() >= n_target):
            raise InputError(
                f"sparse weight: targets must lie in 0..{n_target - 1}, got {target.min()}..{target.max()}"
            )
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

    @cached_property
    def sorted(self) -> bool:
        """Whether targets never fall within a row."""
        falls = np.flatnonzero(np.diff(self.target) < 0) + 1
        return not np.setdiff1d(falls, self.indptr).size

    @cached_property
    def source(self) -> Integers:
        """Source of every synapse, int64 ``(nnz,)``."""
        return np.repeat(np.arange(self.shape[1], dtype=np.int64), np.diff(self.indptr))


@dataclass(frozen=True)
class Synapses:
    """The existing synapses of a projection, by source: what an engine walks along.

    Attributes:
        indptr: int64 ``(n_source + 1,)``.
        target: int32 ``(n,)``.
        weight: float64 ``(n,)``, none is zero.
        delay_steps: int64 ``(n,)``.
        index: int64 ``(n,)``, flat index into the projection's weight.
    """

    indptr: Integers
    target: npt.NDArray[np.int32]
    weight: Floats
    delay_steps: Integers
    index: Integers


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from an input or a spiking population to a population.

    Attributes:
        source: Name of an input or population.
        target: Name of a population.
        weight: float64 ``(n_target, n_source)``, where 0 means no synapse, or :class:`Sparse`.
        delay: Seconds: a number; ``(1, n_source)`` axonal; ``(n_target, 1)`` dendritic; ``(n_target,
            n_source)``; or for a sparse weight ``(nnz,)``, one a synapse.
        receptor: Where the synapses end, for target neurons with several receptors; else empty.
    """

    source: str
    target: str
    weight: Floats | Sparse
    delay: float | Floats = 0.0
    receptor: str = ""

    def __post_init__(self) -> None:
        check_name(self.source, "projection source")
        check_name(self.target, "projection target")
        what = f"projection {self.name!r}"
        if not isinstance(self.receptor, str):
            raise InputError(f"{what}: receptor: expected text, got {type(self.receptor).__name__}")
        weight = self.weight
        if not isinstance(weight, Sparse):
            weight = frozen_array(weight, np.float64, f"{what}: weight")
            if weight.ndim != 2:
                raise InputError(f"{what}: weight has shape {weight.shape}, expected (n_target, n_source)")
            check_finite(weight, f"{what}: weight")
            object.__setattr__(self, "weight", weight)
        delay = frozen_array(self.delay, np.float64, f"{what}: delay")
        check_finite(delay, f"{what}: delay")
        if delay.size and delay.min() < 0:
            raise InputError(f"{what}: delay: expected non-negative seconds, got {delay.min()}")
        n_target, n_source = weight.shape
        allowed = [(1, 1), (1, n_source), (n_target, 1), (n_target, n_source)]
        if isinstance(weight, Sparse):
            if delay.ndim and delay.shape not in [*allowed, (weight.nnz,)]:
                raise InputError(
                    f"{what}: delay has shape {delay.shape}, expected a number, ({weight.nnz},) for one a synapse, "
                    f"(1, {n_source}) axonal, ({n_target}, 1) dendritic or ({n_target}, {n_source})"
                )
        elif delay.ndim == 1:
            raise InputError(
                f"{what}: delay has shape {delay.shape}, which does not say whose delays they are; "
                f"use (1, {n_source}) for one a source or ({n_target}, 1) for one a target"
            )
        elif delay.ndim and delay.shape not in allowed:
            raise InputError(
                f"{what}: delay has shape {delay.shape}, expected a number, (1, {n_source}) axonal, "
                f"({n_target}, 1) dendritic or ({n_target}, {n_source})"
            )
        object.__setattr__(self, "delay", delay if delay.ndim else float(delay))

    @property
    def name(self) -> str:
        """``source->target``; parallel projections share it."""
        return f"{self.source}->{self.target}"

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_target, n_source)``."""
        rows, columns = self.weight.shape
        return int(rows), int(columns)

    def delay_steps(self, dt: float) -> Integers:
        """Return the delays in steps of ``dt``, in the shape they were given in (ties round to even)."""
        try:
            steps = delay_to_steps(self.delay, dt)
        except InputError as error:
            raise InputError(f"projection {self.name!r}: {error}") from None
        return steps

    def synapses(self, dt: float) -> Synapses:
        """Return the existing synapses, by source, then target (dense) or stored order (sparse).

        A weight of exactly 0 is no synapse: leaving it out changes no bit of any sum.
        """
        steps = self.delay_steps(dt)
        if isinstance(self.weight, Sparse):
            sparse = self.weight
            sources, targets, weights = sparse.source, sparse.target, sparse.weight
            delays = steps if steps.ndim == 1 else np.broadcast_to(steps, sparse.shape)[targets, sources]
            keep = np.flatnonzero(weights)
            index = keep
            if keep.shape[0] != weights.shape[0]:
                sources, targets, weights, delays = sources[keep], targets[keep], weights[keep], delays[keep]
        else:
            sources, rows = np.nonzero(self.weight.T)
            targets = rows.astype(np.int32)
            weights = self.weight[rows, sources]
            delays = np.broadcast_to(steps, self.shape)[rows, sources]
            index = rows * self.shape[1] + sources
        counts = np.bincount(sources, minlength=self.shape[1])
        indptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
        return Synapses(indptr, targets, np.ascontiguousarray(weights), np.ascontiguousarray(delays), index)

    @cached_property
    def out_degree(self) -> Integers:
        """Number of synapses of every source whose weight is not zero, int64 ``(n_source,)``."""
        if isinstance(self.weight, Sparse):
            existing = np.concatenate((np.zeros(1, np.int64), np.cumsum(self.weight.weight != 0, dtype=np.int64)))
            degree: Integers = np.diff(existing[self.weight.indptr])
        else:
            degree = np.count_nonzero(self.weight, axis=0).astype(np.int64)
        return degree

    @property
    def n_synapses(self) -> int:
        """Number of synapses whose weight is not zero."""
        return int(self.out_degree.sum())
