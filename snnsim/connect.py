"""Large networks by rule: each function joins two groups and returns a projection, without any dense matrix.

The synapses lie by source, targets ascending, in the narrowest numbers that hold them: 2 or 4 bytes a target, 0 for a
shared weight or 2, 4, 8 for an own one, 0 for a shared delay or 1, 2 for drawn ones. The same arguments give the same
bits on any number of threads. Every function also takes the keyword arguments of :class:`Options`; what they mean, and
what differs between machines, is in ``docs/networks.md``.

>>> from snnsim.network import Population
>>> from snnsim.neurons import LIF
>>> exc = Population("exc", 1000, LIF())
>>> made = fixed_indegree(exc, exc, 20, weight=Normal(0.1, 0.01, low=0.0), delay=0.0015, seed=1)
>>> made.n_synapses, made.weight.target.dtype, made.weight.weight.dtype
(20000, dtype('uint16'), dtype('float32'))
"""

from __future__ import annotations

import math
from typing import Unpack

import numpy as np
import numpy.typing as npt

from snnsim.connect_plan import Group, Options, Plan, check_size, projection_key
from snnsim.connect_space import Disc, Falling, Gaussian, Profile, distance_dependent
from snnsim.connect_values import Distribution, Exponential, LogNormal, Normal, Uniform
from snnsim.errors import InputError
from snnsim.kernels import connect as kernels
from snnsim.network import Projection
from snnsim.network_checks import MAX_UNITS, check_integer

__all__ = [
    "Disc",
    "Distribution",
    "Exponential",
    "Falling",
    "Gaussian",
    "LogNormal",
    "Normal",
    "Options",
    "Profile",
    "Uniform",
    "all_to_all",
    "distance_dependent",
    "fixed_indegree",
    "fixed_outdegree",
    "fixed_probability",
    "fixed_total",
    "from_edges",
    "one_to_one",
    "projection_key",
    "total_for_probability",
]

ROWS = 8  # rows that one thread takes at a time, at least
SCRATCH = 24  # synapses for each count that a thread keeps of the sources: a twentieth of their bytes or less


def _blocks(n: int, parts: int, unit: int = 1) -> npt.NDArray[np.int64]:
    """Return the edges of ``parts`` blocks of ``n`` items, the inner ones multiples of ``unit``."""
    edges = (np.arange(parts + 1) * n // parts) // unit * unit
    edges[-1] = n
    return edges.astype(np.int64)


def _parts(plan: Plan, nnz: int) -> int:
    """Return how many threads may count by source: their counts must stay small beside the synapses."""
    return max(1, min(plan.threads, nnz // (SCRATCH * plan.source.size)))


def fixed_probability(
    source: Group, target: Group, p: float, *, autapses: bool = True, **options: Unpack[Options]
) -> Projection:
    """Connect every ordered pair with probability ``p``, at most once.

    Args:
        source: Where the synapses begin.
        target: Where they end.
        p: 0 to 1.
        autapses: Whether a neuron may reach itself, if source and target are one population.
        **options: See :class:`Options`.

    Raises:
        InputError: An argument is out of range, or the synapses would not fit in memory.
    """
    plan = Plan(source, target, options)
    if isinstance(p, (bool, np.bool_)) or not isinstance(p, (int, float, np.floating)) or not 0 <= p <= 1:
        raise InputError(f"{plan.what}: p: expected a probability from 0 to 1, got {p!r}")
    if p == 1:
        return all_to_all(source, target, autapses=autapses, **options)
    own = plan.own and not autapses
    plan.reserve(int(p * source.size * (target.size - own)))
    indptr = np.zeros(source.size + 1, np.int64)
    none = np.empty(0, plan.target_kind)
    if p > 0:
        arguments = (plan.seed, plan.key, target.size, own, 1.0 / math.log1p(-p))
        plan.run(kernels.gap_rows, (*arguments, False, indptr, none), source.size, ROWS)
        np.cumsum(indptr, out=indptr)
    plan.reserve(int(indptr[-1]))
    reached = np.empty(indptr[-1], plan.target_kind)
    if p > 0:
        plan.run(kernels.gap_rows, (*arguments, True, indptr, reached), source.size, ROWS)
    return plan.finish(indptr, reached)


def fixed_outdegree(
    source: Group, target: Group, n: int, *, multapses: bool = True, autapses: bool = True, **options: Unpack[Options]
) -> Projection:
    """Give every source ``n`` synapses, whose targets are drawn uniformly.

    Args:
        source: Where the synapses begin.
        target: Where they end.
        n: Synapses of every source.
        multapses: Whether a target may be drawn several times.
        autapses: Whether a neuron may reach itself, if source and target are one population.
        **options: See :class:`Options`.

    Raises:
        InputError: An argument is out of range, or the synapses would not fit in memory.
    """
    plan = Plan(source, target, options)
    n = check_integer(n, f"{plan.what}: n", 0)
    own = plan.own and not autapses
    check_size(plan, n, target.size - own, not multapses, "target")
    plan.reserve(n * source.size)
    indptr = plan.rows(n)
    reached = np.empty(n * source.size, plan.target_kind)
    kernel = kernels.bounded_rows if multapses else kernels.distinct_rows
    if n:
        plan.run(kernel, (plan.seed, plan.key, target.size, own, indptr, reached), source.size, ROWS)
    return plan.finish(indptr, reached)


def fixed_indegree(
    source: Group, target: Group, n: int, *, multapses: bool = True, autapses: bool = True, **options: Unpack[Options]
) -> Projection:
    """Give every target ``n`` synapses, whose sources are drawn uniformly.

    Args:
        source: Where the synapses begin.
        target: Where they end.
        n: Synapses of every target.
        multapses: Whether a source may be drawn several times.
        autapses: Whether a neuron may reach itself, if source and target are one population.
        **options: See :class:`Options`.

    Raises:
        InputError: An argument is out of range, or the synapses would not fit in memory.
    """
    plan = Plan(source, target, options)
    n = check_integer(n, f"{plan.what}: n", 0)
    own = plan.own and not autapses
    check_size(plan, n, source.size - own, not multapses, "source")
    nnz = n * target.size
    plan.reserve(nnz)
    parts = _parts(plan, nnz)
    edges = _blocks(target.size, parts)
    cursor = np.zeros((parts, source.size), np.int32)
    indptr = plan.rows(0)
    reached = np.empty(nnz, plan.target_kind)
    arguments = (plan.seed, plan.key, source.size, n, not multapses, own, edges, cursor)
    if n:
        plan.run(kernels.place_columns, (*arguments, False, indptr, reached), parts, 1)
        np.cumsum(cursor.sum(axis=0, dtype=np.int64), out=indptr[1:])
        before = np.zeros(source.size, np.int32)
        for counts in cursor:  # from the number of synapses of each block to its first place in the row
            counts[:], before = before, before + counts
        plan.run(kernels.place_columns, (*arguments, True, indptr, reached), parts, 1)
    del cursor
    return plan.finish(indptr, reached)


def fixed_total(source: Group, target: Group, n: int, **options: Unpack[Options]) -> Projection:
    """Make ``n`` synapses, each with a source and a target drawn uniformly and independently.

    Multapses and autapses occur. This is the rule of Potjans and Diesmann, Cerebral Cortex 24, 785 (2014).

    Args:
        source: Where the synapses begin.
        target: Where they end.
        n: Number of synapses.
        **options: See :class:`Options`.

    Raises:
        InputError: An argument is out of range, or the synapses would not fit in memory.
    """
    plan = Plan(source, target, options)
    n = check_integer(n, f"{plan.what}: n", 0)
    plan.reserve(n)
    parts = _parts(plan, n)
    counts = np.zeros((parts, source.size), np.int64)
    plan.run(kernels.count_sources, (plan.seed, plan.key, source.size, _blocks(n, parts, 4), counts), parts, 1)
    indptr = plan.rows(counts.sum(axis=0))
    del counts
    reached = np.empty(n, plan.target_kind)
    plan.run(kernels.bounded_rows, (plan.seed, plan.key, target.size, False, indptr, reached), source.size, ROWS)
    return plan.finish(indptr, reached)


def total_for_probability(source: Group, target: Group, p: float) -> int:
    """Return the ``n`` of :func:`fixed_total` with which a pair is joined by at least one synapse with probability p.

    ``log(1 - p) / log(1 - 1 / (n_source n_target))``, rounded; the rule of Potjans and Diesmann (2014).

    Args:
        source: Where the synapses begin.
        target: Where they end.
        p: 0 to below 1.

    Raises:
        InputError: ``p`` is out of range.

    >>> from snnsim.network import Population
    >>> from snnsim.neurons import LIF
    >>> layer = Population("L23E", 20683, LIF())
    >>> total_for_probability(layer, layer, 0.1009)
    45499806
    """
    if not 0 <= p < 1:
        raise InputError(f"total_for_probability: p: expected 0 to below 1, got {p!r}")
    pairs = source.size * target.size
    return round(math.log1p(-p) / math.log1p(-1 / pairs)) if pairs > 1 else round(p)


def one_to_one(source: Group, target: Group, **options: Unpack[Options]) -> Projection:
    """Connect every source with the target of the same number.

    Args:
        source: Where the synapses begin.
        target: Where they end; of the same size.
        **options: See :class:`Options`; weight and delay may be arrays, ``(size,)``.

    Raises:
        InputError: The sizes differ, or an option is out of range.
    """
    plan = Plan(source, target, options, listed=True)
    if source.size != target.size:
        raise InputError(f"{plan.what}: one to one: expected equal sizes, got {source.size} and {target.size}")
    return plan.listed(plan.rows(1), np.arange(source.size, dtype=plan.target_kind), None)


def all_to_all(source: Group, target: Group, *, autapses: bool = True, **options: Unpack[Options]) -> Projection:
    """Connect every source with every target.

    Args:
        source: Where the synapses begin.
        target: Where they end.
        autapses: Whether a neuron reaches itself, if source and target are one population.
        **options: See :class:`Options`.

    Raises:
        InputError: An option is out of range, or the synapses would not fit in memory.
    """
    plan = Plan(source, target, options)
    own = plan.own and not autapses
    degree = target.size - own
    plan.reserve(source.size * degree)
    indptr = plan.rows(degree)
    reached = np.empty(source.size * degree, plan.target_kind)
    plan.run(kernels.all_rows, (target.size, own, indptr, reached), source.size, ROWS)
    return plan.finish(indptr, reached)


def _ids(plan: Plan, value: npt.ArrayLike, what: str, size: int) -> npt.NDArray[np.integer]:
    array = np.asarray(value)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{plan.what}: {what}: expected whole numbers, one an edge, got {array.dtype} {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise InputError(f"{plan.what}: {what}: expected 0 to {size - 1}, got {array.min()} to {array.max()}")
    return array


def from_edges(
    source: Group,
    target: Group,
    source_ids: npt.ArrayLike,
    target_ids: npt.ArrayLike,
    **options: Unpack[Options],
) -> Projection:
    """Connect listed pairs; parallel synapses keep the order of the list.

    Besides the result this takes 8 bytes an edge (16 from 2**31 edges on) while it sorts.

    Args:
        source: Where the synapses begin.
        target: Where they end.
        source_ids: Number of the source of every edge, ``(n,)``.
        target_ids: Number of its target, ``(n,)``.
        **options: See :class:`Options`; weight and delay may be arrays, ``(n,)``. An array of delays is rounded to
            steps if ``dt`` is given, and else kept in seconds, float64.

    Raises:
        InputError: Lengths differ, a number is out of range, or the synapses would not fit in memory.
    """
    plan = Plan(source, target, options, listed=True)
    sources = _ids(plan, source_ids, "source_ids", source.size)
    targets = _ids(plan, target_ids, "target_ids", target.size)
    n = sources.shape[0]
    if targets.shape[0] != n:
        raise InputError(f"{plan.what}: expected equally long lists, got {n} sources and {targets.shape[0]} targets")
    kind = np.int32 if n <= MAX_UNITS else np.int64
    plan.reserve(n, scratch=2 * np.dtype(kind).itemsize)
    order, spare = np.empty(n, kind), np.empty(n, kind)
    indptr = plan.rows(0)
    kernels.sort_edges(sources, targets, source.size, target.size, order, spare, indptr)
    del spare
    reached = np.empty(n, plan.target_kind)
    for start in range(0, n, 2**17):
        reached[start : start + 2**17] = targets[order[start : start + 2**17]]
    return plan.listed(indptr, reached, order)
