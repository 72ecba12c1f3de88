"""Planted errors: a network with one delay, one weight or one reset changed on purpose.

A comparison that cannot fail proves nothing. The synapse that is changed is the one that carries most: the
largest product of weight, spikes of its source and spikes of its target. A change without any effect (a weight
into a neuron that is far from its threshold) would test nothing and is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from snnsim.network import Network, Projection

__all__ = ["WEIGHT_FACTOR", "Mutation", "planted"]

WEIGHT_FACTOR = 1.1
"""A planted weight is the true one times this."""

CANDIDATES = 5
"""Synapses looked at: the first whose change makes a difference at all is planted."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Mutation:
    """A changed network: the ``kind`` of change, and ``what`` was changed in words."""

    kind: str
    what: str
    network: Network


@dataclass(frozen=True)
class _Place:
    projection: int
    synapse: int
    score: float


def planted(network: Network, input_spikes: Array, unit_spikes: dict[str, Array]) -> Iterator[list[Mutation]]:
    """Yield, for a delay, a weight and a reset, the changed networks to choose from, the most telling first.

    For a reset the other kind comes first, and after it another value, for targets that have one kind only.

    Args:
        network: The network, with one input.
        input_spikes: Events by input channel.
        unit_spikes: Spikes by neuron, for every spiking population.
    """
    spikes = {network.inputs[0].name: input_spikes, **unit_spikes}
    best = _busiest(network, spikes, delayed=False)
    late = _busiest(network, spikes, delayed=True) or best
    if best:
        yield [_delay(network, place) for place in late]
        yield [_weight(network, place) for place in best]
    names = sorted(unit_spikes, key=lambda key: -int(unit_spikes[key].sum()))
    hard = [name for name in names if getattr(network.population(name).neuron, "reset", "") == "zero"]
    yield [*(_reset(network, name) for name in names), *(_reset_value(network, name) for name in hard)]


def _busiest(network: Network, spikes: dict[str, Array], delayed: bool) -> list[_Place]:
    """Return the synapses that carry most, among those with a delay if ``delayed``."""
    places: list[_Place] = []
    for number, projection in enumerate(network.projections):
        target = network.population(projection.target)
        if not target.neuron.spiking:
            continue
        s = projection.synapses(network.dt)
        source = np.repeat(np.arange(projection.shape[1]), np.diff(s.indptr))
        threshold = np.abs(target.neuron.step(target.size, network.dt).v_threshold)
        scale = np.maximum(threshold, 1e-300)[s.target]
        score = np.abs(s.weight) / scale * spikes[projection.source][source] * spikes[projection.target][s.target]
        if delayed:
            score = score * (s.delay_steps > 0)
        top = np.argsort(-score, kind="stable")[:CANDIDATES]
        places += [_Place(number, int(index), float(score[index])) for index in top if score[index] > 0]
    return sorted(places, key=lambda place: -place.score)[:CANDIDATES]


def _changed(network: Network, place: _Place, delay: int, factor: float) -> tuple[Network, Projection]:
    """Return the network with one synapse changed, written as a sparse projection in the same order."""
    from snnsim.network import Projection, Sparse

    old = network.projections[place.projection]
    s = old.synapses(network.dt)
    weight, steps = s.weight.copy(), s.delay_steps.copy()
    weight[place.synapse] *= factor
    steps[place.synapse] += delay
    sparse = Sparse(s.indptr, s.target, weight, old.shape)
    new = Projection(old.source, old.target, sparse, np.asarray(steps * network.dt), old.receptor)
    projections = list(network.projections)
    projections[place.projection] = new
    return network.replace(projections=tuple(projections)), old


def _label(network: Network, place: _Place) -> str:
    projection = network.projections[place.projection]
    s = projection.synapses(network.dt)
    source = int(np.searchsorted(s.indptr, place.synapse, side="right")) - 1
    return f"of synapse {source} -> {int(s.target[place.synapse])} in '{projection.name}'"


def _delay(network: Network, place: _Place) -> Mutation:
    steps = int(network.projections[place.projection].synapses(network.dt).delay_steps[place.synapse])
    changed, _ = _changed(network, place, 1, 1.0)
    return Mutation("delay", f"delay {_label(network, place)}: {steps} -> {steps + 1} steps", changed)


def _weight(network: Network, place: _Place) -> Mutation:
    value = float(network.projections[place.projection].synapses(network.dt).weight[place.synapse])
    changed, _ = _changed(network, place, 0, WEIGHT_FACTOR)
    return Mutation("weight", f"weight {_label(network, place)}: {value:.6g} -> {value * WEIGHT_FACTOR:.6g}", changed)


def _reset_value(network: Network, name: str) -> Mutation:
    """Lower the value that a population is reset to by a threshold."""
    population = network.population(name)
    neuron: Any = population.neuron
    lower = neuron.v_reset - np.abs(neuron.step(population.size, network.dt).v_threshold).max()
    changed = replace(population, neuron=neuron.replace(v_reset=lower))
    populations = tuple(changed if item.name == name else item for item in network.populations)
    what = f"reset of '{name}': v_reset lowered by a threshold"
    return Mutation("reset", what, network.replace(populations=populations))


def _reset(network: Network, name: str) -> Mutation:
    populations = list(network.populations)
    index = [item.name for item in populations].index(name)
    population = populations[index]
    neuron: Any = population.neuron
    if not hasattr(neuron, "reset"):  # always to a value: another one
        field = "v_reset" if hasattr(neuron, "v_reset") else "c"
        low = getattr(neuron, field)
        lower = low - np.abs(neuron.step(population.size, network.dt).v_threshold).max()
        populations[index] = replace(population, neuron=neuron.replace(**{field: lower}))
        changed = network.replace(populations=tuple(populations))
        return Mutation("reset", f"reset of '{name}': {field} lowered by a threshold", changed)
    old = neuron.reset
    new = "subtract" if old == "zero" else "zero"
    changes: dict[str, Any] = {"reset": new}
    if new == "zero":
        changes["v_reset"] = 0.0
    populations[index] = replace(population, neuron=neuron.replace(**changes))
    return Mutation("reset", f"reset of '{name}': {old} -> {new}", network.replace(populations=tuple(populations)))
