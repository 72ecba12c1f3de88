"""The usual ways to prune an untrained recurrent pool, to an exact budget of synapses and neurons.

What Lyapunov noise pruning is compared with. Neurons go first, then synapses among those that are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network
from snnsim.network_checks import check_integer
from snnsim.pruning.baselines import neuron_norms
from snnsim.pruning.betweenness import choose_removed
from snnsim.pruning.exponents import Probe, probe_input
from snnsim.pruning.masks import random_scores
from snnsim.pruning.noise import linearise
from snnsim.pruning.pool_arrays import PoolArrays, edge_matrix, keep_neurons, pool_arrays, scale_synapses
from snnsim.pruning.result import PruneResult, check_paths, sparsity

__all__ = ["HOW", "How", "prune_pool"]

Floats = npt.NDArray[np.float64]
How = Literal["activity", "magnitude", "random", "neurons"]
HOW: tuple[How, ...] = get_args(How)


def prune_pool(
    network: Network,
    population: str,
    how: How,
    *,
    synapses: float = 0.45,
    neurons: float = 0.7,
    seed: int = 0,
    probe: Probe | None = None,
    protect_inputs: bool = True,
    protected: Sequence[int] = (),
) -> PruneResult:
    """Prune a recurrent pool of LIF or CubaLIF neurons without data or labels.

    ========== ================================== ================================== ==================
    how        neurons that go                    synapses that go                   factor on the rest
    ========== ================================== ================================== ==================
    activity   lowest rates in noise              lowest ``rate of source * |w|``    1
    magnitude  least ``|w in| |w out|``           least ``|w|``                      1
    random     any                                any                                1 / share kept
    neurons    least ``|w in| |w out|``, as many  none                               1
               as the budget of synapses takes
    ========== ================================== ================================== ==================

    The rates are those of the untrained pool in the Poisson noise that :func:`snnsim.pruning.lnp.prune_lnp` uses.

    Args:
        network: The network; it is not changed.
        population: Name of the pool.
        how: One of :data:`HOW`.
        synapses: Share of the recurrent synapses that is left in the end, exactly.
        neurons: Share of the neurons that is left (``neurons``: at most).
        seed: Of the noise and of everything random, below 2**32.
        probe: The noise of ``activity``.
        protect_inputs: Neurons with synapses from outside the pool stay.
        protected: Numbers of further neurons that stay.

    Returns:
        The pruned network, the synapses and neurons that are left, and a report.

    Raises:
        InputError: An argument is out of range, or the budget cannot be met.
    """
    if how not in HOW:
        raise InputError(f"prune_pool: how: expected one of {', '.join(HOW)}, got {how!r}")
    for name, value in (("synapses", synapses), ("neurons", neurons)):
        if isinstance(value, bool) or not (math.isfinite(value) and 0 < value <= 1):
            raise InputError(f"prune_pool: {name}: expected a share above 0 and at most 1, got {value!r}")
    seed = check_integer(seed, "prune_pool: seed", 0, 2**32 - 1)
    first = pool_arrays(network, population)
    budget = max(1, round(synapses * first.n_edges))
    report: dict[str, Any] = {"method": how, "population": population, "seed": seed, "budget": budget}
    rates = np.zeros(first.size)
    if how == "activity":
        used = probe if probe is not None else Probe()
        rate, weight = probe_input(first, used)
        used = replace(used, rate=rate, weight=weight)
        rates = linearise(first, used, seed=seed).rates
        report |= {"probe": asdict(used), "rate": float(rates.mean())}
    kept = _kept(first, how, neurons, budget, rates, seed, _safe(network, first, protect_inputs, protected))
    smaller = keep_neurons(network, population, kept)
    pool = pool_arrays(smaller, population)
    if how != "neurons":
        if pool.n_edges < budget:
            raise InputError(
                f"prune_pool: {pool.n_edges} synapses are left among {kept.size} neurons, fewer than the budget of "
                f"{budget}; keep more neurons, or lower synapses"
            )
        scores = {
            "activity": rates[kept][pool.source] * np.abs(pool.weight),
            "magnitude": np.abs(pool.weight),
            "random": random_scores((pool.n_edges,), seed, 1),
        }[how]
        stays = np.zeros(pool.n_edges)
        factor = pool.n_edges / budget if how == "random" else 1.0
        stays[np.argsort(-scores, kind="stable")[:budget]] = factor
        report["factor"] = factor
        smaller = scale_synapses(smaller, population, pool.matrix(stays))
        pool = pool_arrays(smaller, population)
    check_paths(network, smaller, population)
    report["sparsity"] = sparsity(network, smaller, population)
    mask = edge_matrix(first.size, kept[pool.target], kept[pool.source], np.ones(pool.n_edges))
    notes = {**network.notes, "pruned": {key: report[key] for key in ("method", "population", "seed", "sparsity")}}
    return PruneResult(smaller.replace(notes=notes), (mask > 0).tocsc(), kept, report)


def _safe(network: Network, pool: PoolArrays, inputs: bool, protected: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which neurons stay whatever their score."""
    safe = np.zeros(pool.size, np.bool_)
    for unit in protected:
        safe[check_integer(unit, "prune_pool: protected", 0, pool.size - 1)] = True
    for item in network.projections:
        if inputs and item.target == pool.name and item.source != pool.name:
            safe[item.synapses(network.dt).target] = True
    return safe


def _kept(
    pool: PoolArrays,
    how: How,
    share: float,
    budget: int,
    rates: Floats,
    seed: int,
    safe: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Return the neurons that stay, ascending."""
    weight = pool.matrix()
    count = pool.size - max(1, round(share * pool.size))
    score: npt.NDArray[Any] = rates
    if how == "random":
        score = random_scores((pool.size,), seed, 0)
    elif how != "activity":
        dense = weight.toarray()
        score = neuron_norms(dense, dense)
    kept: npt.NDArray[np.int64] = choose_removed(weight, score, count, protected=safe).kept
    while how == "neurons":
        inside = np.zeros(pool.size, np.bool_)
        inside[kept] = True
        if int(np.sum(inside[pool.target] & inside[pool.source])) <= budget:
            break
        count += 1
        kept = choose_removed(weight, score, count, protected=safe).kept
    return kept
