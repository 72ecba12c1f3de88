"""Integer networks for the tests of chip exports."""

from __future__ import annotations

from typing import Any

import numpy as np

from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.network import Input, Readout


def projection(source: str, target: str, weight: Any, delay: Any) -> IntegerProjection:
    """Return synapses from matrices ``(source, target)``."""
    row, unit = np.nonzero(weight)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=weight.shape[0]))))
    steps = np.broadcast_to(delay, weight.shape)[row, unit]
    return IntegerProjection(source, target, indptr, unit, weight[row, unit], steps)


def lava_network(seed: int = 0, sizes: tuple[int, ...] = (6, 12, 9, 4), longest: int = 63) -> IntegerNetwork:
    """Return a chain of layers, plain and with a current, with biases and one delay a synapse."""
    rng = np.random.default_rng(seed)
    names = ["in", *(f"h{k}" for k in range(1, len(sizes) - 1)), "out"]
    populations, projections = [], []
    for k in range(1, len(sizes)):
        current = k == 2
        values = {"v_decay": 400, "i_decay": 1024 if current else 4096, "v_threshold": 600 if current else 300}
        values["bias"] = rng.integers(-20, 20, sizes[k])
        populations.append(IntegerPopulation(names[k], sizes[k], "cubalif" if current else "lif", values))
        weight = 2 * rng.integers(-40, 100, (sizes[k - 1], sizes[k]))
        delay = rng.integers(1, longest + 1, weight.shape)
        projections.append(projection(names[k - 1], names[k], weight, delay))
    readout = Readout("out", variable="spikes", reduce="count")
    return IntegerNetwork(
        "loihi2", tuple(populations), tuple(projections), (Input("in", sizes[0]),), readout, 0.001, {"out": 3.5}
    )


def xylo_network(seed: int = 0, weight: int = 30, recurrent: int = 6) -> IntegerNetwork:
    """Return two hidden populations, the first recurrent, and an output."""
    rng = np.random.default_rng(seed)

    def population(name: str, size: int, most: int) -> IntegerPopulation:
        values = {
            "dash_mem": rng.integers(1, 7, size),
            "dash_syn": rng.integers(1, 5, size),
            "v_threshold": rng.integers(300, 3000, size),
            "bias": rng.integers(-60, 60, size),
            "max_spikes": np.int64(most),
        }
        return IntegerPopulation(name, size, "cubalif", values)

    def matrix(most: int, *shape: int) -> Any:
        return rng.integers(-most, most + 1, shape)

    return IntegerNetwork(
        "xylo",
        (population("a", 35, 31), population("b", 25, 31), population("o", 8, 1)),
        (
            projection("in", "a", matrix(weight, 16, 35), 0),
            projection("a", "a", matrix(recurrent, 35, 35), 1),
            projection("a", "b", matrix(2 * recurrent, 35, 25), 1),
            projection("b", "o", matrix(weight, 25, 8), 1),
        ),
        (Input("in", 16),),
        Readout("o", variable="spikes", reduce="count"),
        0.001,
        {"a": 2.5},
    )
