"""Betweenness centrality of a directed weighted graph: Brandes' accumulation on compressed rows.

Source: Brandes, "A faster algorithm for betweenness centrality", Journal of Mathematical Sociology 25, 163 (2001).
The plain definition is :func:`snnsim.kernels.reference_lyapunov.betweenness`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["betweenness_rows"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def _push(keys: Floats, nodes: Integers, count: int, key: float, node: int) -> None:
    """Put an entry into a heap of ``count`` entries."""
    at = count
    while at > 0:
        up = (at - 1) // 2
        if keys[up] <= key:
            break
        keys[at], nodes[at] = keys[up], nodes[up]
        at = up
    keys[at], nodes[at] = key, node


@njit(cache=True, nogil=True)
def _pop(keys: Floats, nodes: Integers, count: int) -> int:
    """Take the least entry out of a heap of ``count`` entries and return its node."""
    first = nodes[0]
    last = count - 1
    key, node = keys[last], nodes[last]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= last:
            break
        if below + 1 < last and keys[below + 1] < keys[below]:
            below += 1
        if keys[below] >= key:
            break
        keys[at], nodes[at] = keys[below], nodes[below]
        at = below
    keys[at], nodes[at] = key, node
    return int(first)


@njit(cache=True, nogil=True)
def betweenness_rows(indptr: Integers, target: Integers, length: Floats) -> Floats:
    """Return the betweenness of every node divided by ``(N - 1)(N - 2)``, ``(N,)``.

    Paths of equal length (in floating point, summed from their start) share a pair's weight equally.

    Args:
        indptr: Rows of the edges by source, ``(N + 1,)``.
        target: Their targets; no node reaches itself, no edge is listed twice.
        length: Their lengths, > 0.
    """
    n = indptr.shape[0] - 1
    centrality = np.zeros(n)
    distance = np.empty(n)
    paths = np.empty(n)
    share = np.empty(n)
    order = np.empty(n, np.int64)
    settled = np.empty(n, np.bool_)
    keys = np.empty(target.shape[0] + 1)
    nodes = np.empty(target.shape[0] + 1, np.int64)
    for source in range(n):
        distance[:] = np.inf
        paths[:] = 0.0
        share[:] = 0.0
        settled[:] = False
        distance[source] = 0.0
        paths[source] = 1.0
        _push(keys, nodes, 0, 0.0, source)
        waiting = 1
        done = 0
        while waiting > 0:
            j = _pop(keys, nodes, waiting)
            waiting -= 1
            if settled[j]:
                continue
            settled[j] = True
            order[done] = j
            done += 1
            for k in range(indptr[j], indptr[j + 1]):
                i = target[k]
                reach = distance[j] + length[k]
                if reach < distance[i]:
                    distance[i] = reach
                    paths[i] = paths[j]
                    _push(keys, nodes, waiting, reach, i)
                    waiting += 1
                elif reach == distance[i]:
                    paths[i] += paths[j]
        for place in range(done - 1, -1, -1):
            j = order[place]
            for k in range(indptr[j], indptr[j + 1]):
                i = target[k]
                if distance[j] + length[k] == distance[i]:
                    share[j] += paths[j] / paths[i] * (1.0 + share[i])
            if j != source:
                centrality[j] += share[j]
    if n > 2:
        centrality /= float((n - 1) * (n - 2))
    return centrality
