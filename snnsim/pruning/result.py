"""What a pruning gives: the network, what is left of the pool, how sparse it is, and whether it is still connected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network

__all__ = ["PruneResult", "check_paths", "sparsity"]


@dataclass(frozen=True, eq=False)
class PruneResult:
    """A pruned network.

    Attributes:
        network: Without the removed synapses and neurons.
        mask: ``[target, source]`` by the numbers of the unpruned pool: True where a synapse is (added ones too), a
            Boolean ``scipy.sparse`` matrix ``(N, N)``.
        kept: Old numbers of the neurons that are left, ascending.
        report: Every step; JSON values.
    """

    network: Network
    mask: Any
    kept: npt.NDArray[np.int64]
    report: dict[str, Any]


def _count(network: Network, population: str) -> tuple[int, int]:
    """Return the synapses inside a population, and those from it to others."""
    inside = outside = 0
    for item in network.projections:
        if item.source == population:
            inside += item.n_synapses if item.target == population else 0
            outside += item.n_synapses if item.target != population else 0
    return inside, outside


def sparsity(before: Network, after: Network, population: str) -> dict[str, dict[str, float | int]]:
    """Return the removed shares of neurons and synapses: of the pool alone, and of pool and readers together.

    Args:
        before: The unpruned network.
        after: The pruned one.
        population: The pool.
    """
    first, second = _count(before, population), _count(after, population)
    readers = {item.target for item in before.projections if item.source == population} - {population}
    others = sum(before.population(name).size for name in readers)
    n_before, n_after = before.population(population).size, after.population(population).size
    return {
        "pool": {"synapses": 1 - second[0] / first[0], "neurons": 1 - n_after / n_before},
        "with_readout": {
            "synapses": 1 - sum(second) / sum(first),
            "neurons": 1 - (n_after + others) / (n_before + others),
        },
        "counts": {
            "pool_synapses": second[0],
            "readout_synapses": second[1],
            "pool_neurons": n_after,
        },
    }


def _reached(network: Network, population: str) -> dict[str, bool]:
    """Return for every population that reads the pool whether a path from outside through the pool ends there."""
    n = network.population(population).size
    projections = [item for item in network.projections if population in (item.source, item.target)]
    fed = np.zeros(n, np.bool_)
    inside: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for item in projections:
        synapses = item.synapses(network.dt)
        source = np.repeat(np.arange(item.shape[1]), np.diff(synapses.indptr))
        if item.source == item.target:
            inside.append((source, synapses.target.astype(np.int64)))
        elif item.target == population:
            fed[synapses.target] = True
    if not fed.any():  # nothing comes from outside: every neuron counts as a beginning
        fed[:] = True
    while True:
        grown = fed.copy()
        for source, target in inside:
            grown[target[grown[source]]] = True
        if np.array_equal(grown, fed):
            break
        fed = grown
    reached: dict[str, bool] = {}
    for item in projections:
        if item.source == population and item.target != population:
            active = bool(np.any(fed & (item.out_degree > 0)))
            reached[item.target] = reached.get(item.target, False) or active
    return reached


def check_paths(before: Network, after: Network, population: str) -> None:
    """Refuse a pruning after which a population that read the pool is no longer reached through it.

    Raises:
        InputError: A way from outside through the pool is cut.
    """
    was, now = _reached(before, population), _reached(after, population)
    for name, open_before in was.items():
        if open_before and not now.get(name, False):
            raise InputError(
                f"pruning: no path through {population!r} reaches {name!r} any more; raise keep or keep_neurons, or "
                "protect neurons on the way (protected=...)"
            )
