"""One population of a network as arrays, and back: effective synapses, numbers per step, and rewritten networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network, Population, Projection, Sparse, Steps
from snnsim.neurons import LIF, CubaLIF, Neuron
from snnsim.pruning.spectrum import DENSE_MAX

__all__ = ["PoolArrays", "add_synapses", "edge_matrix", "keep_neurons", "pool_arrays", "scale_synapses", "with_taus"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolArrays:
    """A recurrent population as arrays. Edges are ordered by source, then target; parallel synapses are summed.

    Attributes:
        name: Of the population.
        size: N.
        dt: Time step, seconds.
        cuba: Whether synapses act through a current.
        numbers: Rows as in :func:`snnsim.kernels.lyapunov.advance_pool`, ``(9, N)``.
        refractory: Steps, ``(N,)``.
        reset_zero: Reset to a value instead of subtracting.
        tau_mem: Seconds, ``(N,)``.
        tau_syn: Seconds, ``(N,)``; zero without currents.
        drive: Mean potential that the drive alone gives, ``(N,)``.
        indptr: Rows of the edges by source, ``(N + 1,)``.
        target: ``(E,)``.
        source: ``(E,)``.
        weight: ``(E,)``, none is zero.
    """

    name: str
    size: int
    dt: float
    cuba: bool
    numbers: Floats
    refractory: Integers
    reset_zero: bool
    tau_mem: Floats
    tau_syn: Floats
    drive: Floats
    indptr: Integers
    target: Integers
    source: Integers
    weight: Floats

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return int(self.target.shape[0])

    def matrix(self, values: npt.ArrayLike | None = None) -> Any:
        """Return edge values (default the weights) as ``scipy.sparse.csc_matrix``, ``(target, source)``."""
        return edge_matrix(self.size, self.target, self.source, self.weight if values is None else values)


def edge_matrix(size: int, target: Integers, source: Integers, values: npt.ArrayLike) -> Any:
    """Return edge values as ``scipy.sparse.csc_matrix`` of shape ``(size, size)``; those of one pair are added."""
    from scipy.sparse import csc_matrix

    return csc_matrix((np.asarray(values, dtype=np.float64), (target, source)), shape=(size, size))


def _recurrent(network: Network, name: str) -> list[int]:
    return [k for k, item in enumerate(network.projections) if item.source == name and item.target == name]


def pool_arrays(network: Network, population: str) -> PoolArrays:
    """Take a population and its recurrent synapses out of a network.

    Raises:
        InputError: The population is unknown, not LIF or CubaLIF, has no leak, or no recurrent synapse.
    """
    pool = network.population(population)
    neuron: Any = pool.neuron
    what = f"population {population!r}"
    if type(neuron) not in (LIF, CubaLIF):
        raise InputError(f"{what}: expected LIF or CubaLIF neurons, got {neuron.kind}; prune a population of these")
    n = pool.size
    step = neuron.step(n, network.dt)
    places = _recurrent(network, population)
    ends: list[tuple[Any, ...]] = []
    for place in places:
        found = network.projections[place].synapses(network.dt)
        ends.append((found.target, np.repeat(np.arange(n), np.diff(found.indptr)), found.weight))
    if not any(len(item[0]) for item in ends):
        raise InputError(f"{what}: expected recurrent synapses, it has none; name a population that reaches itself")
    target, source, weight = (np.concatenate([item[k] for item in ends]) for k in range(3))
    joined = edge_matrix(n, target, source, weight)
    joined.sum_duplicates()
    joined.eliminate_zeros()
    joined.sort_indices()
    tau_mem = np.broadcast_to(np.asarray(neuron.tau_mem, np.float64), (n,)).copy()
    if not np.all(np.isfinite(tau_mem)) or np.any(step.beta >= 1):
        raise InputError(f"{what}: expected a leak in every neuron, {int(np.sum(step.beta >= 1))} have beta = 1")
    cuba = type(neuron) is CubaLIF
    tau_syn = np.broadcast_to(np.asarray(getattr(neuron, "tau_syn", 0.0), np.float64), (n,)).copy()
    drive = np.asarray(neuron.drive, np.float64) * tau_mem
    if cuba:
        drive = drive + np.asarray(neuron.drive_syn, np.float64) * tau_syn
    threshold = np.nextafter(step.v_threshold, np.inf) if step.strict else step.v_threshold
    rows = (step.beta, step.drive_step, step.alpha, step.kappa, step.drive_syn_step, step.drive_syn_to_v)
    return PoolArrays(
        name=population,
        size=n,
        dt=network.dt,
        cuba=cuba,
        numbers=np.ascontiguousarray(np.stack([*rows, threshold, step.v_reset, step.reset_amount])),
        refractory=step.refractory_steps,
        reset_zero=step.reset_zero,
        tau_mem=tau_mem,
        tau_syn=tau_syn,
        drive=np.broadcast_to(drive, (n,)).copy(),
        indptr=joined.indptr.astype(np.int64),
        target=joined.indices.astype(np.int64),
        source=np.repeat(np.arange(n), np.diff(joined.indptr)),
        weight=np.asarray(joined.data, dtype=np.float64),
    )


def _triples(item: Projection, dt: float) -> tuple[Integers, Integers, Floats, Integers]:
    """Return source, target, weight and delay steps of the existing synapses."""
    found = item.synapses(dt)
    source = np.repeat(np.arange(item.shape[1], dtype=np.int64), np.diff(found.indptr))
    return source, found.target.astype(np.int64), found.weight, found.delay_steps


def _sparse(
    item: Projection,
    source: Integers,
    target: Integers,
    weight: Floats,
    steps: Integers,
    dt: float,
    shape: tuple[int, int],
) -> Projection:
    """Return a projection with other synapses: sparse, delays shared if they are all equal."""
    order = np.argsort(source, kind="stable")
    made = Sparse.from_triples(source, target, weight, shape)
    delay: Any = 0.0
    if steps.size and np.all(steps == steps[0]):
        delay = item.delay if isinstance(item.delay, float) else float(steps[0]) * dt
    elif steps.size:
        delay = Steps(steps[order], dt) if steps.max() < 2**16 else steps[order] * dt
    return replace(item, weight=made, delay=delay)


def scale_synapses(network: Network, population: str, factor: Any) -> Network:
    """Multiply every recurrent synapse by a factor of its pair of neurons; those with factor 0 are gone.

    Dense projections stay dense, sparse ones lose the synapses. Delays stay.

    Args:
        network: The network.
        population: Name of the pool.
        factor: ``(N, N)`` by ``[target, source]``, dense or of scipy.sparse.
    """
    projections = list(network.projections)
    for place in _recurrent(network, population):
        item = projections[place]
        if isinstance(item.weight, Sparse):
            source, target, weight, steps = _triples(item, network.dt)
            scale = np.asarray(factor[target, source]).reshape(-1)
            kept = scale != 0
            parts = (source[kept], target[kept], (weight * scale)[kept], steps[kept])
            projections[place] = _sparse(item, *parts, network.dt, item.shape)
        else:
            dense = factor.toarray() if hasattr(factor, "toarray") else np.asarray(factor)
            projections[place] = replace(item, weight=item.weight * dense)
    return network.replace(projections=tuple(projections))


def add_synapses(network: Network, population: str, source: Integers, target: Integers, weight: Floats) -> Network:
    """Add recurrent synapses to the first recurrent projection, with the median of its delays.

    Args:
        network: The network.
        population: Name of the pool.
        source: Of every new synapse, ``(n,)``.
        target: Of every new synapse, ``(n,)``; the pairs must not be joined yet.
        weight: Of every new synapse, ``(n,)``.
    """
    if not source.size:
        return network
    place = _recurrent(network, population)[0]
    item = network.projections[place]
    old = _triples(item, network.dt)
    middle = int(np.median(old[3])) if old[3].size else max(1, network.max_delay_steps())
    if not isinstance(item.weight, Sparse) and item.delay_shape in ((), (1, 1)):
        dense = item.weight.copy()
        dense[target, source] = weight
        changed = replace(item, weight=dense)
    elif not isinstance(item.weight, Sparse) and item.delay_shape == item.shape:
        dense, delay = item.weight.copy(), np.array(item.delay)
        dense[target, source] = weight
        delay[target, source] = middle * network.dt
        changed = replace(item, weight=dense, delay=delay)
    else:
        steps = np.full(source.shape[0], middle, np.int64)
        joined = [np.concatenate(pair) for pair in zip(old, (source, target, weight, steps), strict=True)]
        order = np.lexsort((joined[1], joined[0]))
        parts = [values[order] for values in joined]
        changed = _sparse(item, parts[0], parts[1], parts[2], parts[3], network.dt, item.shape)
    projections = list(network.projections)
    projections[place] = changed
    return network.replace(projections=tuple(projections))


def _fewer(neuron: Neuron, kept: Integers) -> Neuron:
    values = {name: value[kept] for name, value in neuron.parameters().items() if isinstance(value, np.ndarray)}
    return neuron.replace(**values) if values else neuron


def keep_neurons(network: Network, population: str, kept: Integers) -> Network:
    """Take neurons out of a population, with all their synapses; the others keep their order.

    Args:
        network: The network.
        population: Name of the pool.
        kept: Numbers of the neurons that stay, ascending.

    Raises:
        InputError: The readout reads this population (its classes would change), or nothing is left.
    """
    pool = network.population(population)
    if kept.shape[0] == pool.size:
        return network
    if not kept.size:
        raise InputError(f"population {population!r}: expected at least one neuron to stay")
    if network.readout is not None and network.readout.population == population:
        raise InputError(f"population {population!r} is the readout; its neurons are classes and cannot be removed")
    populations = tuple(
        Population(item.name, kept.shape[0], _fewer(item.neuron, kept), item.start_step, item.stop_step)
        if item.name == population
        else item
        for item in network.populations
    )
    place = np.full(pool.size, -1, np.int64)
    place[kept] = np.arange(kept.shape[0])
    projections = []
    for item in network.projections:
        as_target, as_source = item.target == population, item.source == population
        if not (as_target or as_source):
            projections.append(item)
            continue
        shape = (kept.shape[0] if as_target else item.shape[0], kept.shape[0] if as_source else item.shape[1])
        if isinstance(item.weight, Sparse):
            source, target, weight, steps = _triples(item, network.dt)
            source = place[source] if as_source else source
            target = place[target] if as_target else target
            stays = (source >= 0) & (target >= 0)
            parts = (source[stays], target[stays], weight[stays], steps[stays])
            projections.append(_sparse(item, *parts, network.dt, shape))
            continue
        rows = kept if as_target else np.arange(shape[0])
        columns = kept if as_source else np.arange(shape[1])
        delay: Any = item.delay
        if np.ndim(delay) == 2:
            delay = np.asarray(delay)
            delay = delay[rows if delay.shape[0] > 1 else slice(None)]
            delay = delay[:, columns if delay.shape[1] > 1 else slice(None)]
        projections.append(replace(item, weight=item.weight[np.ix_(rows, columns)], delay=delay))
    return network.replace(populations=populations, projections=tuple(projections))


def with_taus(network: Network, population: str, tau_mem: Floats, tau_syn: Floats | None = None) -> Network:
    """Give the neurons of a population other time constants.

    Args:
        network: The network.
        population: Name of the pool.
        tau_mem: Seconds, ``(N,)``.
        tau_syn: Seconds, ``(N,)``; None: as they are.

    Raises:
        InputError: The neurons hold numbers per step, which are authoritative.
    """
    pool = network.population(population)
    if pool.neuron.dt is not None:
        raise InputError(
            f"population {population!r}: its decays are numbers per step, which a change of time constants would "
            "overwrite; build it from time constants, LIF(tau_mem=...), or leave this step out"
        )
    changes: dict[str, Any] = {"tau_mem": tau_mem}
    if tau_syn is not None:
        changes["tau_syn"] = tau_syn
    populations = tuple(
        replace(item, neuron=item.neuron.replace(**changes)) if item.name == population else item
        for item in network.populations
    )
    return network.replace(populations=populations)


def dense_or_sparse(matrix: Any) -> Any:
    """Return a matrix as an array up to :data:`snnsim.pruning.spectrum.DENSE_MAX` neurons, else as it is."""
    return matrix.toarray() if matrix.shape[0] <= DENSE_MAX else matrix
