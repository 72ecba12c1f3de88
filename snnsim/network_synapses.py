"""Synapses of a network: weights, dense or sparse, with delays, as one projection between two groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import delay_to_steps
from snnsim.network_checks import check_finite, check_name, frozen_array
from snnsim.network_sparse import Sparse, Steps, pieces

__all__ = ["Projection", "Sparse", "Steps", "Synapses"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


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
            n_source)``; or for a sparse weight ``(nnz,)``, one a synapse, or :class:`Steps`, the same as whole
            steps.
        receptor: Where the synapses end, for target neurons with several receptors; else empty.
    """

    source: str
    target: str
    weight: Floats | Sparse
    delay: float | Floats | Steps = 0.0
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
        if isinstance(self.delay, Steps):
            self._check_steps(self.delay, what)
            return
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

    def _check_steps(self, delay: Steps, what: str) -> None:
        if not isinstance(self.weight, Sparse):
            raise InputError(f"{what}: delay: Steps are for a sparse weight; give a dense weight delays in seconds")
        if delay.values.shape != (self.weight.nnz,):
            raise InputError(
                f"{what}: delay has {delay.values.shape[0]} steps, expected {self.weight.nnz}, one a synapse"
            )

    @property
    def name(self) -> str:
        """``source->target``; parallel projections share it."""
        return f"{self.source}->{self.target}"

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_target, n_source)``."""
        rows, columns = self.weight.shape
        return int(rows), int(columns)

    @property
    def delay_each(self) -> bool:
        """Whether every stored synapse of a sparse weight has its own delay, in stored order."""
        return len(self.delay_shape) == 1

    @property
    def delay_shape(self) -> tuple[int, ...]:
        """Shape of the delays as given; ``()`` is one for all."""
        return self.delay.values.shape if isinstance(self.delay, Steps) else np.shape(self.delay)

    def delay_steps(self, dt: float) -> npt.NDArray[np.integer[Any]]:
        """Return the delays in steps of ``dt``, in the shape they were given in (ties round to even).

        Returns:
            int64; for :class:`Steps` the stored uint8 or uint16 array itself.

        Raises:
            InputError: The delays are steps of another ``dt``.
        """
        try:
            return self.delay.on_grid(dt) if isinstance(self.delay, Steps) else delay_to_steps(self.delay, dt)
        except InputError as error:
            raise InputError(f"projection {self.name!r}: {error}") from None

    def longest_delay(self, dt: float) -> float:
        """Return the longest stored delay in steps of ``dt``, not rounded; 0 if there is none."""
        if isinstance(self.delay, Steps):
            return float(np.max(self.delay_steps(dt), initial=0))
        return float(np.max(self.delay, initial=0.0)) / dt

    def existing_delays(self, dt: float) -> Iterator[npt.NDArray[np.integer[Any]]]:
        """Yield the delays of the existing synapses in steps of ``dt``, by source, a piece at a time."""
        if not isinstance(self.weight, Sparse):
            yield self.synapses(dt).delay_steps
            return
        sparse, delay = self.weight, self.delay
        steps = self.delay_steps(dt) if isinstance(delay, Steps) or not self.delay_each else None
        for start, stop in pieces(sparse.nnz):
            if not self.delay_each:
                ends = (sparse.target[start:stop], sparse.sources_of(start, stop))
                piece = np.broadcast_to(np.asarray(steps), sparse.shape)[ends]
            elif steps is not None:
                piece = steps[start:stop]
            else:
                piece = delay_to_steps(np.asarray(delay)[start:stop], dt)
            keep = sparse.existing(start, stop)
            yield piece if keep.all() else piece[keep]

    def synapses(self, dt: float) -> Synapses:
        """Return the existing synapses, by source, then target (dense) or stored order (sparse).

        A weight of exactly 0 is no synapse: leaving it out changes no bit of any sum.
        """
        steps = self.delay_steps(dt)
        if isinstance(self.weight, Sparse):
            sparse = self.weight
            sources = sparse.sources_of(0, sparse.nnz)
            targets = sparse.target.astype(np.int32, copy=False)
            weights: Floats = np.broadcast_to(np.asarray(sparse.weight, dtype=np.float64), targets.shape)
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
        whole = np.ascontiguousarray(delays, dtype=np.int64)
        return Synapses(indptr, targets, np.ascontiguousarray(weights), whole, index)

    @cached_property
    def out_degree(self) -> Integers:
        """Number of synapses of every source whose weight is not zero, int64 ``(n_source,)``."""
        if isinstance(self.weight, Sparse):
            return self.weight.out_degree
        degree: Integers = np.count_nonzero(self.weight, axis=0).astype(np.int64)
        return degree

    @property
    def n_synapses(self) -> int:
        """Number of synapses whose weight is not zero."""
        return int(self.out_degree.sum())
