"""Step III of Lyapunov noise pruning: a few new synapses that spread localised modes over the network.

That edges are added, and that they raise the heterogeneity of degrees in neighbourhoods, is the paper's; the loop, its
limit and its weights are reconstructed, see ``docs/pruning.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform
from snnsim.network_checks import check_integer
from snnsim.pruning.spectrum import DENSE_MAX, inverse_participation, leading_modes

__all__ = ["Added", "degree_heterogeneity", "delocalise"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def degree_heterogeneity(joined: npt.ArrayLike, unit: int) -> float:
    """Return ``sum over z in N(i) of Var(deg N(z)) / mean(deg N(z))**2`` of an undirected graph.

    Args:
        joined: Symmetric, True where two nodes are joined, ``(N, N)``.
        unit: i.
    """
    graph = np.asarray(joined, dtype=np.bool_)
    degree = graph.sum(axis=1)
    total = 0.0
    for z in np.flatnonzero(graph[unit]):
        around = degree[graph[z]].astype(np.float64)
        total += float(around.var() / around.mean() ** 2)
    return total


def _after_each(graph: npt.NDArray[np.bool_], unit: int, candidates: Integers) -> Floats:
    """Return :func:`degree_heterogeneity` of ``unit`` after an edge to each of the candidates, all at once."""
    degree = graph.sum(axis=1).astype(np.float64)
    near = np.flatnonzero(graph[unit])
    own = degree[unit]
    adjacency = graph.astype(np.float64)
    rows = np.concatenate((near, candidates))
    count, first, second = degree[rows], adjacency[rows] @ degree, adjacency[rows] @ degree**2
    a = near.shape[0]
    touched = adjacency[np.ix_(near, candidates)]  # whether the candidate, whose degree rises, is around z
    d = degree[candidates]
    s1 = first[:a, None] + 1 + touched
    s2 = second[:a, None] + 2 * own + 1 + touched * (2 * d + 1)
    mean = s1 / count[:a, None]
    total = np.sum((s2 / count[:a, None] - mean**2) / mean**2, axis=0)
    s1, s2 = first[a:] + own + 1, second[a:] + (own + 1) ** 2  # around the candidate itself
    mean = s1 / (count[a:] + 1)
    return np.asarray(total + (s2 / (count[a:] + 1) - mean**2) / mean**2, dtype=np.float64)


@dataclass(frozen=True)
class Added:
    """Synapses that were added.

    Attributes:
        source: Of every new synapse.
        target: Of every new synapse.
        weight: Of every new synapse, in the pool's own unit.
        rejected: Synapses that would have made the linearised pool unstable.
        participation_before: Mean inverse participation ratio of the leading modes.
        participation_after: The same at the end.
        limit: Where the loop stops by itself.
        modes: Number of leading modes.
    """

    source: Integers
    target: Integers
    weight: Floats
    rejected: int
    participation_before: float
    participation_after: float
    limit: float
    modes: int


def delocalise(
    weight: Any,
    linear: Callable[[Any], Any],
    budget: int,
    *,
    factor: float = 1.5,
    share: float = 0.05,
    seed: int = 0,
    labels: npt.ArrayLike | None = None,
) -> Added:
    """Add synapses while the mean inverse participation ratio of the leading modes exceeds ``factor 3 / N``.

    The neuron with the largest part in the worst of the leading ``q = ceil(share N)`` modes gets a synapse to that
    neuron two steps away (undirected) that maximises :func:`degree_heterogeneity` around it. Its size is the median of
    the neuron's outgoing sizes, its sign drawn from the signs of its outgoing synapses (of all, if it has none). A
    synapse that makes the abscissa of A reach 0 is taken back, the last one first; after twice the budget of these (or
    10) the loop ends. With a large budget a fortieth of it is added between two eigendecompositions.

    Args:
        weight: ``w[target, source]``, dense or of scipy.sparse.
        linear: Function from such a matrix to A, whose right eigenvectors are the modes.
        budget: Most synapses to add.
        factor: c of the limit.
        share: Of the modes that are looked at.
        seed: Of the signs.
        labels: Numbers of the neurons that signs are drawn by, ``(N,)``; default their places.

    Raises:
        InputError: A is unstable to begin with, or an argument is out of range.
    """
    from scipy.sparse import csc_matrix

    matrix = csc_matrix(weight, dtype=np.float64, copy=True).tolil()
    n = matrix.shape[0]
    budget = check_integer(budget, "delocalise: budget", 0)
    if not (math.isfinite(factor) and factor > 0 and 0 < share <= 1):
        raise InputError(f"delocalise: expected factor > 0 and share in (0, 1], got {factor!r} and {share!r}")
    named = np.arange(n) if labels is None else np.asarray(labels)
    q = min(math.ceil(share * n), n if n <= DENSE_MAX else n - 2)
    limit = factor * 3 / n
    each = max(1, budget // 40)

    def measure() -> tuple[float, Floats, Any]:
        values, vectors = leading_modes(linear(matrix.tocsc()), q)
        return float(values[0].real), inverse_participation(vectors), vectors

    abscissa, parts, vectors = measure()
    if not abscissa < 0:
        raise InputError(
            f"delocalise: expected a stable network, the spectral abscissa is {abscissa:.4g}; scale it down"
        )
    before = float(parts.mean())
    graph = np.asarray((abs(csc_matrix(weight)) > 0).toarray(), dtype=np.bool_)
    graph = graph | graph.T
    np.fill_diagonal(graph, False)
    signs_of_all = np.sign(matrix.tocsc().data)
    sizes_of_all = np.abs(matrix.tocsc().data)
    added: list[tuple[int, int, float]] = []
    banned: set[tuple[int, int]] = set()
    stuck: set[int] = set()
    rejected = 0
    while float(parts.mean()) > limit and len(added) < budget and rejected < max(10, 2 * budget):
        progress = False
        kept = len(added)
        for mode in np.argsort(-parts, kind="stable").tolist():
            part = np.abs(vectors[:, mode])
            unit = next((i for i in np.argsort(-part, kind="stable").tolist() if i not in stuck), None)
            if unit is None or len(added) == min(kept + each, budget):
                break
            pick = _pick(graph, unit, banned)
            if pick is None:
                stuck.add(unit)
                progress = True
                continue
            banned.add((unit, pick))
            column = csc_matrix(matrix.tocsc()[:, [unit]])
            signs, sizes = (np.sign(column.data), np.abs(column.data)) if column.nnz else (signs_of_all, sizes_of_all)
            if not sizes.size:
                raise InputError("delocalise: the network has no synapse, so a new one has no size; keep more of them")
            drawn = float(uniform(seed, Stream.LNP_EDGE, 0, 0, int(named[pick]), int(named[unit])))
            value = float(np.median(sizes)) * (1.0 if drawn < np.mean(signs > 0) else -1.0)
            matrix[pick, unit] = value
            progress = True
            graph[unit, pick] = graph[pick, unit] = True
            added.append((unit, pick, value))
        if not progress:
            break
        if len(added) == kept:
            continue
        abscissa, parts, vectors = measure()
        while not abscissa < 0:  # the last ones of this round are taken back until it is
            unit, pick, _ = added.pop()
            matrix[pick, unit] = 0.0
            graph[unit, pick] = graph[pick, unit] = False
            rejected += 1
            abscissa, parts, vectors = measure()
    return Added(
        np.array([item[0] for item in added], np.int64),
        np.array([item[1] for item in added], np.int64),
        np.array([item[2] for item in added], np.float64),
        rejected,
        before,
        float(parts.mean()),
        limit,
        q,
    )


def _pick(graph: npt.NDArray[np.bool_], unit: int, banned: set[tuple[int, int]]) -> int | None:
    """Return the neuron two steps from ``unit`` that an edge should go to, or None if there is none left."""
    near = graph[unit]
    if not near.any():
        return None
    two = graph[near].any(axis=0) & ~near
    two[unit] = False
    candidates = np.array([k for k in np.flatnonzero(two).tolist() if (unit, k) not in banned], np.int64)
    if not candidates.size:
        return None
    return int(candidates[int(np.argmax(_after_each(graph, unit, candidates)))])
