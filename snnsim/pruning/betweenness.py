"""Step II of Lyapunov noise pruning: removal of the neurons that the fewest shortest paths go through.

Edges have length ``1 / |w|``. That neurons of low betweenness go is the paper's; ties, protection and the rule of
components are reconstructed, see ``docs/pruning.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.betweenness import betweenness_rows
from snnsim.network_checks import check_integer

__all__ = ["Removal", "betweenness", "choose_removed"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def _graph(weight: Any) -> Any:
    """Return a weight matrix as compressed rows by source, without loops."""
    from scipy.sparse import csc_matrix

    graph = csc_matrix(weight, dtype=np.float64, copy=True)
    if graph.shape[0] != graph.shape[1]:
        raise InputError(f"betweenness: expected a square matrix of weights, got shape {graph.shape}")
    if not np.isfinite(graph.data).all():
        raise InputError("betweenness: expected finite weights, got nan or infinity")
    graph.sum_duplicates()
    graph.setdiag(0.0)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def betweenness(weight: Any) -> Floats:
    """Return the betweenness centrality of every node of a directed graph with lengths ``1 / |w|``, ``(N,)``.

    ``C_B(u) = sum over s != u != t of sigma_st(u) / sigma_st``, divided by ``(N - 1)(N - 2)``; Brandes (2001).

    Args:
        weight: ``w[target, source]``, dense or of scipy.sparse; 0 is no edge.

    Raises:
        InputError: The matrix is not square or not finite.

    >>> path = np.diag(np.ones(4), 1); betweenness(path + path.T).round(6).tolist()
    [0.0, 0.5, 0.666667, 0.5, 0.0]
    """
    graph = _graph(weight)
    found: Floats = betweenness_rows(
        graph.indptr.astype(np.int64), graph.indices.astype(np.int64), 1.0 / np.abs(graph.data)
    )
    return found


@dataclass(frozen=True)
class Removal:
    """Which neurons go.

    Attributes:
        removed: Numbers of the neurons, ascending.
        kept: The others, ascending.
        protected: Neurons that could not be chosen.
        components: Weakly connected components of two neurons or more.
        spared: Times that the last neuron of a component was passed over.
    """

    removed: Integers
    kept: Integers
    protected: int
    components: int
    spared: int


def choose_removed(
    weight: Any, centrality: npt.ArrayLike, count: int, *, protected: npt.ArrayLike | None = None
) -> Removal:
    """Choose the ``count`` neurons of least centrality; ties go by smaller out-strength, then by number.

    A protected neuron stays, and so does the last one of a weakly connected component of two neurons or more; a
    neuron without any synapse belongs to no component.

    Args:
        weight: ``w[target, source]`` of the pool.
        centrality: ``(N,)``.
        count: Neurons to remove.
        protected: Boolean, ``(N,)``.

    Raises:
        InputError: So many cannot be removed.
    """
    from scipy.sparse.csgraph import connected_components

    graph = _graph(weight)
    n = graph.shape[0]
    values = np.asarray(centrality, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"choose_removed: centrality: expected ({n},), got {values.shape}")
    count = check_integer(count, "choose_removed: count", 0)
    safe = np.zeros(n, np.bool_) if protected is None else np.asarray(protected, dtype=np.bool_)
    if safe.shape != (n,):
        raise InputError(f"choose_removed: protected: expected ({n},), got {safe.shape}")
    _, label = connected_components(graph, directed=True, connection="weak")
    left = np.bincount(label)
    single = left[label] == 1
    components = int(np.sum(left > 1))
    strength = np.asarray(abs(graph).sum(axis=0)).reshape(-1)
    removed: list[int] = []
    spared = 0
    for unit in np.lexsort((np.arange(n), strength, values)).tolist():
        if len(removed) == count:
            break
        if safe[unit]:
            continue
        if left[label[unit]] == 1 and not single[unit]:
            spared += 1
            continue
        left[label[unit]] -= 1
        removed.append(unit)
    if len(removed) < count or count == n:
        raise InputError(
            f"neurons: cannot remove {count} of {n}: {int(safe.sum())} are protected and each of {components} "
            "components keeps one; raise keep_neurons, or protect fewer (protect_inputs=False)"
        )
    gone = np.sort(np.array(removed, np.int64))
    return Removal(gone, np.setdiff1d(np.arange(n), gone), int(safe.sum()), components, spared)
