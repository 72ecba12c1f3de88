"""Planted errors in integers: a network with one delay, one weight or one reset changed on purpose.

The integer twin of :mod:`snnsim.export.mutations`: the change is made to the integers themselves, so that nothing
else of the network moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.integer_network import IntegerNetwork

__all__ = ["planted_integers"]

CANDIDATES = 5
"""Synapses looked at: the first whose change makes a difference at all is planted."""

Changed = tuple[str, IntegerNetwork]


def planted_integers(
    network: IntegerNetwork, spikes: Mapping[str, npt.NDArray[Any]]
) -> Iterator[tuple[str, list[Changed]]]:
    """Yield, for a delay, a weight and a reset, changed networks with what was changed, the most telling first.

    Args:
        network: A network of the law ``fixed``.
        spikes: Events by unit of every input, and spikes by neuron of every population with a threshold.
    """
    places: list[tuple[float, int, int]] = []
    for number, item in enumerate(network.projections):
        if item.target in spikes and item.n_synapses:
            scale = np.maximum(np.abs(network.population(item.target).parameters["v_threshold"]), 1)[item.unit]
            score = np.abs(item.weight) / scale * spikes[item.source][item.sources()] * spikes[item.target][item.unit]
            top = np.argsort(-score, kind="stable")[:CANDIDATES]
            places += [(-float(score[index]), number, int(index)) for index in top]
    best = sorted(places)[:CANDIDATES]
    if best:
        yield "delay", [_synapse(network, number, index, "delay") for _, number, index in best]
        yield "weight", [_synapse(network, number, index, "weight") for _, number, index in best]
    names = sorted((item.name for item in network.populations if item.spiking), key=lambda n: -int(spikes[n].sum()))
    yield "reset", [_reset(network, name) for name in names]


def _synapse(network: IntegerNetwork, number: int, index: int, what: str) -> Changed:
    item = network.projections[number]
    values = getattr(item, what).copy()
    old = int(values[index])
    new = old + 1
    if what == "weight":  # a tenth, towards 0, which every bound still holds
        new = old - (max(1, abs(old) // 10) if old > 0 else -max(1, abs(old) // 10))
    values[index] = new
    projections = list(network.projections)
    projections[number] = replace(item, **{what: values})
    source = int(np.searchsorted(item.indptr, index, side="right")) - 1
    text = f"{what} of synapse {source} -> {int(item.unit[index])} in '{item.name}': {old} -> {new}"
    return text, network.replace(projections=tuple(projections))


def _reset(network: IntegerNetwork, name: str) -> Changed:
    populations = list(network.populations)
    place = [item.name for item in populations].index(name)
    item = populations[place]
    p = dict(item.parameters)
    zero = bool(p["reset_zero"][0])
    p["reset_zero"] = np.full(item.size, int(not zero))
    p["reset_amount"] = np.maximum(p["v_threshold"], 0) if zero else p["reset_amount"]
    p["v_reset"] = np.minimum(0, p["v_threshold"] - 1)
    populations[place] = type(item)(item.name, item.size, item.kind, p)
    text = f"reset of '{name}': {'zero -> subtract' if zero else 'subtract -> zero'}"
    return text, network.replace(populations=tuple(populations))
