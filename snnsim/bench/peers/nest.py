"""NEST: the same random network, the same start, a stretch of a run that goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {"nest-simulator": version("nest-simulator")}


def build(task: dict[str, Any]) -> Callable[[], object]:
    """Return a function that simulates one stretch."""
    import nest
    import numpy as np

    size, inputs = (250, 25) if task["samples"] else task["sizes"]
    excitatory = inputs * 4 // 5
    draw = np.random.default_rng(1)
    source = np.concatenate(
        [
            draw.integers(0, size * 4 // 5, (size, excitatory)),
            draw.integers(size * 4 // 5, size, (size, inputs - excitatory)),
        ],
        axis=1,
    ).reshape(-1)
    nest.ResetKernel()
    nest.resolution = 0.1
    nest.local_num_threads = task["threads"]
    parameters = {
        "E_L": 0.0,
        "V_th": 20.0,
        "V_reset": 10.0,
        "tau_m": 20.0,
        "t_ref": 2.0,
        "C_m": 1.0,
        "I_e": 24.0 / 20.0,
    }
    neurons = nest.Create("iaf_psc_delta", size, parameters)
    neurons.V_m = np.random.default_rng(2).uniform(0, 20, size)
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    first = neurons[0].global_id
    synapses = {
        "weight": np.where(source < size * 4 // 5, 0.1, -0.5),
        "delay": np.full(source.shape, 1.5),
        "synapse_model": "static_synapse",
    }
    nest.Connect(source + first, np.repeat(np.arange(size), inputs) + first, "one_to_one", synapses)

    def step() -> object:
        nest.Simulate(task["n_steps"] * 0.1)
        return recorder.n_events

    return step
