"""Remove neurons that cannot matter: what pruning of synapses leaves behind, without changing a readout.

A neuron is dead if no path leads from it to the readout, or if nothing can ever make it fire: it has no live source,
and its own constant drive cannot bring it to its threshold. Removing the first kind changes nothing that is read;
removing the second kind removes spikes that never happen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network, Population, Projection, Sparse, Steps

__all__ = ["fires_alone", "live_neurons", "remove_dead"]

Mask = npt.NDArray[np.bool_]

MARGIN = 1 - 1e-9
"""Part of the threshold that a drive must stay below to be called silent: rounding cannot carry it further."""


def fires_alone(population: Population, dt: float) -> Mask:
    """Return which neurons may fire without any input; True where it is not certain that they cannot.

    From the zero state a constant drive d moves a leaky membrane monotonically towards ``d / (1 - beta)``, which it
    never passes; of a synaptic current the same holds with ``alpha``. Neurons with adaptation are silent for certain
    only without a drive; of other laws nothing is said: they may fire.

    Args:
        population: Neurons.
        dt: Time step, seconds.

    Returns:
        Bool, shape (size,).
    """
    size = population.size
    neuron = population.neuron
    if not neuron.spiking:
        return np.zeros(size, bool)
    if neuron.kind not in ("IF", "LIF", "CubaLIF", "AdaptiveLIF"):
        return np.ones(size, bool)
    p = neuron.step(size, dt)
    drives = p.drive_step, p.drive_syn_step, p.drive_syn_to_v
    pushed = np.any([drive > 0 for drive in drives], axis=0)
    if neuron.kind == "AdaptiveLIF":
        driven = np.any([drive != 0 for drive in drives], axis=0)
        return np.asarray(driven | (p.v_threshold <= 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        current = np.where(p.drive_syn_step > 0, p.drive_syn_step / (1 - p.alpha), 0.0)
        drive = np.maximum(p.drive_step, 0) + np.maximum(p.drive_syn_to_v, 0) + p.kappa * current
        highest = np.where(pushed, drive / (1 - p.beta), 0.0)
    fires: Mask = ~(highest < MARGIN * p.v_threshold)
    return fires


def live_neurons(network: Network, stimulated: Collection[str] = ()) -> dict[str, Mask]:
    """Return which neurons of every population can matter to the readout, bool ``(size,)`` by population.

    Args:
        network: Network with a readout; the neurons of the readout all count as live.
        stimulated: Populations that noise or currents reach in a run (:mod:`snnsim.stimuli`): any of them may fire.

    Raises:
        InputError: The network has no readout, or a population is unknown.
    """
    readout = network.readout
    if readout is None:
        raise InputError("remove_dead: expected a network with a readout, got none: any of its neurons may be watched")
    for name in stimulated:
        network.population(name)
    members: list[Any] = [*network.inputs, *network.populations]
    ends = [_ends(projection) for projection in network.projections]
    fires = {item.name: np.ones(item.size, bool) for item in network.inputs}
    for item in network.populations:
        alone = fires_alone(item, network.dt)
        fires[item.name] = np.ones(item.size, bool) if item.name in stimulated else alone
    matters = {item.name: np.zeros(item.size, bool) for item in members}
    matters[readout.population][:] = True
    spiking = {item.name: item.neuron.spiking for item in network.populations}
    _spread(network, ends, fires, forward=True, allowed=spiking)
    _spread(network, ends, matters, forward=False, allowed={})
    live = {}
    for item in network.populations:
        keep: Mask = matters[item.name] & (fires[item.name] if item.neuron.spiking else True)
        live[item.name] = np.ones(item.size, bool) if item.name == readout.population else keep
    return live


def _ends(projection: Projection) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return source and target of the synapses whose weight is not 0."""
    if isinstance(projection.weight, Sparse):
        sparse = projection.weight
        keep = sparse.existing(0, sparse.nnz)
        return sparse.source[keep], sparse.target[keep].astype(np.int64)
    targets, sources = np.nonzero(projection.weight)
    return sources, targets


def _spread(
    network: Network, ends: list[Any], reached: dict[str, Mask], *, forward: bool, allowed: dict[str, bool]
) -> None:
    """Mark what can be reached along synapses, in or against their direction, until nothing changes."""
    changed = True
    while changed:
        changed = False
        for projection, (sources, targets) in zip(network.projections, ends, strict=True):
            begin, end = (projection.source, projection.target) if forward else (projection.target, projection.source)
            if forward and not allowed[end]:
                continue
            by, to = (sources, targets) if forward else (targets, sources)
            hit = to[reached[begin][by]]
            if hit.size and not reached[end][hit].all():
                reached[end][hit] = True
                changed = True


def remove_dead(network: Network, *, stimulated: Collection[str] = ()) -> Network:
    """Return the network without the neurons that cannot matter to its readout.

    Spikes of the remaining neurons and all scores are the same bits. A population without live neurons disappears.
    Input channels and readout neurons stay, used or not. ``notes["removed"]`` tells what went, by population:
    ``before`` and ``after`` (sizes) and ``neurons`` (indices of the removed ones).

    Args:
        network: Network with a readout.
        stimulated: Populations that noise or currents reach in a run: their neurons count as firing.

    Raises:
        InputError: The network has no readout, or no path leads from an input to it.
    """
    live = live_neurons(network, stimulated)
    readout = network.readout
    assert readout is not None
    reaching = [
        item
        for item in network.projections
        if item.target == readout.population and live.get(item.source, np.ones(1, bool)).any() and item.n_synapses
    ]
    if not reaching:
        raise InputError(
            f"remove_dead: no path leads from an input to the readout {readout.population!r}, which would leave "
            "nothing; prune fewer synapses"
        )
    populations = []
    removed: dict[str, Any] = {}
    for item in network.populations:
        keep = live[item.name]
        if not keep.all():
            gone = np.flatnonzero(~keep).tolist()
            removed[item.name] = {"before": item.size, "after": int(keep.sum()), "neurons": gone}
        if keep.any():
            populations.append(item if keep.all() else _smaller(item, keep))
    if not removed:
        return network
    names = {given.name for given in network.inputs} | {kept.name for kept in populations}
    everything = live | {given.name: np.ones(given.size, bool) for given in network.inputs}
    projections = [
        _cut(item, everything[item.source], everything[item.target])
        for item in network.projections
        if item.source in names and item.target in names
    ]
    return network.replace(
        populations=tuple(populations),
        projections=tuple(projections),
        notes={**network.notes, "removed": removed},
    )


def _smaller(population: Population, keep: Mask) -> Population:
    values = population.neuron.parameters()
    arrays = {name: value[keep] for name, value in values.items() if isinstance(value, np.ndarray)}
    neuron = population.neuron.replace(**arrays) if arrays else population.neuron
    return Population(population.name, int(keep.sum()), neuron, population.start_step, population.stop_step)


def _cut(projection: Projection, source: Mask, target: Mask) -> Projection:
    """Return the part of a projection between the kept neurons, its synapses in the same order."""
    if source.all() and target.all():
        return projection
    delay: Any = projection.delay
    weight: Any = projection.weight
    rows, columns = np.flatnonzero(target), np.flatnonzero(source)
    shape = projection.delay_shape
    if len(shape) == 2:
        rows_of = rows if shape[0] > 1 else np.zeros(1, np.int64)
        delay = np.asarray(delay)[rows_of[:, None], columns if shape[1] > 1 else np.zeros(1, np.int64)]
    if not isinstance(weight, Sparse):
        return Projection(
            projection.source, projection.target, weight[np.ix_(rows, columns)], delay, projection.receptor
        )
    keep = np.flatnonzero(source[weight.source] & target[weight.target])
    new_source, new_target = np.cumsum(source) - 1, np.cumsum(target) - 1
    counts = np.bincount(new_source[weight.source[keep]], minlength=columns.size)
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    values = weight.weight if isinstance(weight.weight, float) else weight.weight[keep]
    small = Sparse(indptr, new_target[weight.target[keep]], values, (rows.size, columns.size))
    if len(shape) == 1:
        delay = Steps(delay.values[keep], delay.dt) if isinstance(delay, Steps) else np.asarray(delay)[keep]
    return Projection(projection.source, projection.target, small, delay, projection.receptor)
