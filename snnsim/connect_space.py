"""Synapses whose probability depends on the distance between two neurons."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from snnsim.connect_plan import Group, Options, Plan
from snnsim.errors import InputError
from snnsim.kernels import connect_space as kernels
from snnsim.network import Projection

__all__ = ["Disc", "Falling", "Gaussian", "Profile", "distance_dependent"]

ROWS = 8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Profile(ABC):
    """A probability that depends on distance; lengths are in the unit of the positions."""

    @abstractmethod
    def law(self) -> tuple[int, float, float, float]:
        """Return kind, length, greatest probability and cutoff for :func:`snnsim.kernels.connect_space.near_rows`."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        for item, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                raise InputError(f"{name}: {item}: expected a number, got {value!r}")
            high = 1.0 if item == "p_max" else math.inf
            least = 0.0 if item == "p_max" else math.ulp(0.0)
            if not least <= value <= high or (math.isinf(value) and item != "cutoff"):
                raise InputError(f"{name}: {item}: expected {'0 to 1' if high == 1 else 'more than 0'}, got {value}")


@dataclass(frozen=True)
class Gaussian(Profile):
    """``p_max * exp(-d**2 / (2 sigma**2))`` up to the distance ``cutoff``, then 0."""

    sigma: float
    p_max: float = 1.0
    cutoff: float = math.inf

    def law(self) -> tuple[int, float, float, float]:
        """See :meth:`Profile.law`."""
        return kernels.GAUSSIAN, self.sigma, self.p_max, self.cutoff


@dataclass(frozen=True)
class Falling(Profile):
    """``p_max * exp(-d / length)`` up to the distance ``cutoff``, then 0."""

    length: float
    p_max: float = 1.0
    cutoff: float = math.inf

    def law(self) -> tuple[int, float, float, float]:
        """See :meth:`Profile.law`."""
        return kernels.FALLING, self.length, self.p_max, self.cutoff


@dataclass(frozen=True)
class Disc(Profile):
    """``p_max`` up to the distance ``cutoff``, then 0."""

    cutoff: float
    p_max: float = 1.0

    def law(self) -> tuple[int, float, float, float]:
        """See :meth:`Profile.law`."""
        return kernels.DISC, 1.0, self.p_max, self.cutoff


def _positions(plan: Plan, value: npt.ArrayLike, what: str, size: int) -> Floats:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{plan.what}: {what}: expected numbers, got {array.dtype}")
    array = array.astype(np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[0] != size or not 1 <= array.shape[1] <= 3:
        raise InputError(f"{plan.what}: {what}: expected ({size}, 1 to 3) coordinates, got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{plan.what}: {what}: expected finite coordinates")
    return array


def _period(plan: Plan, periodic: npt.ArrayLike | None, groups: list[Floats]) -> Floats:
    """Return the period of each axis, 0 where it does not repeat."""
    axes = groups[0].shape[1]
    if periodic is None:
        return np.zeros(axes)
    extent = np.asarray(periodic, dtype=np.float64)
    if extent.shape not in ((), (axes,)) or not np.isfinite(extent).all() or np.any(extent < 0):
        raise InputError(f"{plan.what}: periodic: expected one length or {axes}, at least 0, got {periodic}")
    extent = np.broadcast_to(extent, axes).copy()
    for array in groups:
        if np.any((extent > 0) & ((array < 0) | (array >= extent))):
            raise InputError(f"{plan.what}: periodic: coordinates must lie from 0 to below {extent.tolist()}")
    return extent


def _padded(array: Floats) -> Floats:
    return np.ascontiguousarray(np.pad(array, ((0, 0), (0, 3 - array.shape[1]))))


def _grid(targets: Floats, extent: Floats, cutoff: float) -> tuple[Any, ...]:
    """Return origin, cell size and cells of a grid whose cells are no smaller than ``cutoff``, and its content."""
    low = np.where(extent > 0, 0.0, targets.min(axis=0))
    width = np.where(extent > 0, extent, targets.max(axis=0) - low)
    axes = max(1, int(np.count_nonzero(width)))
    most = max(1.0, targets.shape[0] ** (1 / axes))  # about a cell a target, whatever the cutoff
    reach = cutoff * (1 + 1e-9)  # a distance of just the cutoff must not lead over two cells because of rounding
    with np.errstate(over="ignore"):
        count = np.clip(np.floor(width / reach), 1, most).astype(np.int64)
    size = np.maximum(width / count, reach)
    start = np.zeros(int(np.prod(count)) + 1, np.int64)
    member = np.empty(targets.shape[0], np.int32)
    kernels.fill_cells(targets, low, size, count, start, member)
    return low, size, count, start, member


def distance_dependent(
    source: Group,
    target: Group,
    source_positions: npt.ArrayLike,
    target_positions: npt.ArrayLike,
    probability: Profile | Callable[[Floats], npt.ArrayLike],
    *,
    periodic: npt.ArrayLike | None = None,
    autapses: bool = True,
    **options: Unpack[Options],
) -> Projection:
    """Connect every ordered pair, at most once, with a probability that depends on its distance.

    With a profile that has a cutoff the work grows with the pairs nearer than it; without one, or with a function,
    with all pairs.

    Args:
        source: Where the synapses begin.
        target: Where they end.
        source_positions: ``(n_source, 1 to 3)``, or ``(n_source,)`` on a line.
        target_positions: ``(n_target, 1 to 3)``, or ``(n_target,)``.
        probability: A profile, or a function from distances ``(n_target,)`` to probabilities of that shape. A
            function is called twice for each source and must answer the same both times.
        periodic: Length after which space repeats, for all axes or each (0: it does not). Coordinates then lie
            from 0 to below it.
        autapses: Whether a neuron may reach itself, if source and target are one population.
        **options: See :class:`snnsim.connect_plan.Options`.

    Raises:
        InputError: An argument is out of range, or the synapses would not fit in memory.
    """
    plan = Plan(source, target, options)
    sources = _positions(plan, source_positions, "source_positions", source.size)
    targets = _positions(plan, target_positions, "target_positions", target.size)
    if sources.shape[1] != targets.shape[1]:
        raise InputError(f"{plan.what}: positions: {sources.shape[1]} and {targets.shape[1]} coordinates; expected one")
    extent = _period(plan, periodic, [sources, targets])
    own = plan.own and not autapses
    indptr = np.zeros(source.size + 1, np.int64)
    reached: npt.NDArray[Any] = np.empty(0, plan.target_kind)
    if isinstance(probability, Profile):
        wide = np.concatenate((extent, np.zeros(3 - extent.shape[0])))
        sources, targets = _padded(sources), _padded(targets)
        law = np.array(probability.law(), dtype=np.float64)
        fixed = (plan.seed, plan.key, sources, targets, wide, own, law, *_grid(targets, wide, float(law[3])))

        def rows(write: bool) -> None:
            plan.run(kernels.near_rows, (*fixed, write, indptr, reached), source.size, ROWS)
    elif callable(probability):

        def rows(write: bool) -> None:
            for row in range(source.size):
                apart = np.abs(targets - sources[row])
                apart = np.where(extent > 0, np.minimum(apart, extent - apart), apart)
                p = _checked(plan, probability(np.sqrt(np.sum(apart * apart, axis=1))), target.size)
                part = reached[indptr[row] : indptr[row + 1]] if write else reached
                n = kernels.given_row(plan.seed, plan.key, row, p, own, False, part)
                if not write:
                    indptr[row + 1] = n
                elif n != part.shape[0]:
                    raise InputError(f"{plan.what}: probability: the function answered differently when called again")
                else:
                    kernels.given_row(plan.seed, plan.key, row, p, own, True, part)
    else:
        raise InputError(f"{plan.what}: probability: expected a profile such as Gaussian or a function")
    rows(False)
    np.cumsum(indptr, out=indptr)
    plan.reserve(int(indptr[-1]))
    reached = np.empty(indptr[-1], plan.target_kind)
    rows(True)
    return plan.finish(indptr, reached)


def _checked(plan: Plan, value: npt.ArrayLike, size: int) -> Floats:
    p = np.ascontiguousarray(value, dtype=np.float64)
    if p.shape != (size,) or not np.all((p >= 0) & (p <= 1)):
        raise InputError(f"{plan.what}: probability: expected {size} numbers from 0 to 1 from the function")
    return p
