"""Neurons that draw random numbers, as engines see them: what has to be drawn, and what is plain after all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network, Population, Projection, Sparse
from snnsim.neurons import LIF, MetaNeuron, Neuron
from snnsim.neurons_stochastic import StochasticNeuron

__all__ = ["Releases", "plain", "refuse_random", "releases", "synapse_words"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MAX_WORD = 2**32


def _lif(neuron: StochasticNeuron, size: int, dt: float) -> Neuron:
    """Return the LIF neuron with the same membrane, threshold and reset."""
    p: dict[str, Any] = neuron.parameters()
    if isinstance(neuron, MetaNeuron):
        names = ("tau_mem", "v_threshold", "v_reset", "reset", "reset_amount", "t_ref", "drive", "beta", "drive_step")
        return LIF(**{name: p[name] for name in names}, dt=neuron.dt)
    drive = p["drive_step"] if neuron.dt is not None else np.asarray(p["drive"]) * dt
    return LIF.from_step(dt=dt, beta=0.0, drive_step=drive, v_threshold=p["v_threshold"])


def _scaled(projection: Projection, gain: Floats) -> Projection:
    """Return the projection with the mean of what its synapses give."""
    weight = projection.weight
    if not isinstance(weight, Sparse):
        return replace(projection, weight=weight * gain[:, None])
    values = np.broadcast_to(np.asarray(weight.weight, dtype=np.float64), (weight.nnz,))
    return replace(projection, weight=replace(weight, weight=values * gain[weight.target]))


def plain(network: Network) -> Network:
    """Return a network that computes the same with LIF neurons wherever nothing has to be drawn.

    Populations in mode "mean" become LIF neurons, and their weights are multiplied by the mean of a release; so do
    neurons that always release, always alike, and have a sharp threshold.
    """
    changed: dict[str, Population] = {}
    gains: dict[str, Floats] = {}
    for item in network.populations:
        neuron = item.neuron
        if not isinstance(neuron, StochasticNeuron):
            continue
        law = neuron.synapse_law(item.size)
        if neuron.mode == "mean":  # type: ignore[attr-defined]
            gains[item.name] = law.gain
        elif neuron.noisy or not law.certain:
            continue
        changed[item.name] = replace(item, neuron=_lif(neuron, item.size, network.dt))
    if not changed:
        return network
    return network.replace(
        populations=tuple(changed.get(item.name, item) for item in network.populations),
        projections=tuple(
            _scaled(item, gains[item.target]) if item.target in gains and np.any(gains[item.target] != 1) else item
            for item in network.projections
        ),
    )


def refuse_random(network: Network, engine: str) -> None:
    """Refuse a network, already :func:`plain`, that draws random numbers.

    Raises:
        InputError: With the name of the population and what to do.
    """
    for item in network.populations:
        if isinstance(item.neuron, StochasticNeuron):
            raise InputError(
                f"engine {engine!r}: population {item.name!r}: {item.neuron.kind} draws random numbers step by step; "
                "use engine='clock', resolution=dt, or mode='mean' of the neurons"
            )


@dataclass(frozen=True, eq=False)
class Releases:
    """What the random synapses of one projection need.

    Attributes:
        number: Place of the projection in its network.
        word: Word of each existing synapse, in the order of ``Projection.synapses``, int64.
        release: Probability of a release, one a target, float64, like the following.
        low: Lowest amplitude.
        span: Highest amplitude less the lowest.
    """

    number: int
    word: Integers
    release: Floats
    low: Floats
    span: Floats


def synapse_words(source: Integers, target: npt.NDArray[Any], n_source: int, what: str) -> Integers:
    """Return the word of every synapse: ``source + n_source * k``, k counting earlier synapses of the same pair.

    Raises:
        InputError: A word would not fit 32 bits.
    """
    key = target.astype(np.int64) * n_source + source
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    again = np.empty(key.shape[0], np.int64)
    again[order] = np.arange(key.shape[0]) - np.searchsorted(ordered, ordered)
    word: Integers = source + n_source * again
    if word.size and int(word.max()) >= MAX_WORD:
        raise InputError(
            f"{what}: {int(again.max()) + 1} parallel random synapses of {n_source} sources need more than 32 bits; "
            "split them into several projections"
        )
    return word


def releases(network: Network) -> dict[int, Releases]:
    """Return, by place, the projections of a :func:`plain` network whose synapses release at random."""
    found: dict[int, Releases] = {}
    for number, item in enumerate(network.projections):
        population = network.population(item.target)
        if not isinstance(population.neuron, StochasticNeuron):
            continue
        law = population.neuron.synapse_law(population.size)
        if law.certain:
            continue
        synapses = item.synapses(network.dt)
        source = np.repeat(np.arange(item.shape[1], dtype=np.int64), np.diff(synapses.indptr))
        word = synapse_words(source, synapses.target, item.shape[1], f"projection {item.name!r}")
        found[number] = Releases(number, word, *law)
    return found
