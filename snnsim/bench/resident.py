"""By how much a process grows that reads a network and runs it.

``python -m snnsim.bench.resident SMALL FILE ENGINE STEPS``: a small network of the same kind runs first, so that code
is loaded and compiled.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from snnsim.bench.worker import settled_bytes
from snnsim.engines import ENGINES, Inputs, Runner, grid_inputs
from snnsim.events import Events
from snnsim.network import Network

__all__ = ["prepared"]

RATE = 10.0
"""Events a second of an input channel."""


def random_events(units: int, steps: int, dt: float) -> Events:
    """Return one sample of random events."""
    step, unit = np.nonzero(np.random.default_rng(2).random((steps, units)) < RATE * dt)
    offsets = np.array([0, step.shape[0]])
    times = np.asarray((step + 0.5) * dt, np.float64)
    return Events(times, unit.astype(np.int32), offsets, np.array([-1]), units, np.array([steps * dt]))


def prepared(network: Network, engine: str, steps: int) -> tuple[Runner, Inputs]:
    """Return a network laid out for one thread and its input, random events over some steps."""
    inputs = grid_inputs(network, random_events(network.inputs[0].size, steps, network.dt))
    return ENGINES[engine]().prepare(network, "float64" if engine == "event" else "float32", 1), inputs


def main(small: str, path: str, engine: str, steps: int) -> None:
    """Print the bytes as a JSON object."""
    runner, inputs = prepared(Network.load(small), engine, steps)
    runner.run(inputs)
    del runner, inputs
    before = settled_bytes()
    runner, inputs = prepared(Network.load(path), engine, steps)
    runner.run(inputs)
    print(json.dumps({"bytes": settled_bytes() - before}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
