"""Every spike equal to NEST's: the same synapses, the same start, float64, no noise.

NEST runs in a process of its own. Its step k + 1 is our step k: our zero state lies one step before step 0.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from snnsim.engines import simulate
from snnsim.network import Network, Population, Projection, Sparse
from snnsim.neurons import LIF

MS = 0.001
DT = 0.1 * MS

needs_nest = pytest.mark.skipif(importlib.util.find_spec("nest") is None, reason="needs the extra 'nest'")

SCRIPT = """
import sys
import nest
import numpy as np

given = np.load(sys.argv[1])
nest.ResetKernel()
nest.resolution = 0.1
parameters = {"E_L": 0.0, "V_th": 20.0, "V_reset": 10.0, "tau_m": 20.0, "t_ref": 2.0, "C_m": 1.0}
neurons = nest.Create("iaf_psc_delta", len(given["v"]), {**parameters, "I_e": float(given["end"]) / 20.0})
neurons.V_m = given["v"]
recorder = nest.Create("spike_recorder")
nest.Connect(neurons, recorder)
first = neurons[0].global_id
synapses = {"weight": given["weight"], "delay": given["delay"], "synapse_model": "static_synapse"}
nest.Connect(given["source"] + first, given["target"] + first, "one_to_one", synapses)
nest.Simulate(float(given["duration"]))
events = recorder.events
np.savez(sys.argv[2], step=np.rint(events["times"] * 10).astype(int) - 1, unit=events["senders"] - first)
"""


class Problem:
    """A random network of excitatory and inhibitory neurons whose drive alone lets them fire."""

    def __init__(
        self, source: npt.NDArray[np.int64], target: npt.NDArray[np.int64], size: int, delay_steps: Any
    ) -> None:
        self.source, self.target, self.size = source, target, size
        self.weight = np.where(source < 0.8 * size, 0.1, -0.5) * (1000 / (len(source) / size * 0.8))
        self.delay_steps = np.broadcast_to(delay_steps, source.shape)
        self.v = np.random.default_rng(2).uniform(0, 20, size)
        self.end = 24.0  # where the drive alone would bring the membrane, mV

    def ours(self, duration: float, **options: Any) -> set[tuple[int, int]]:
        order = np.argsort(self.source, kind="stable")
        weight = Sparse.from_triples(self.source, self.target, self.weight, (self.size, self.size))
        neuron = LIF(tau_mem=20 * MS, v_threshold=20.0, v_reset=10.0, t_ref=2 * MS, drive=self.end / (20 * MS))
        delays = self.delay_steps[order] * DT
        network = Network((Population("n", self.size, neuron),), (Projection("n", "n", weight, delays),), (), None, DT)
        result = simulate(network, None, n_steps=round(duration * 10), initial={"n.v": self.v}, **options)
        spikes = result.spikes["n"]
        return set(zip(np.rint(spikes.times / DT).astype(int).tolist(), spikes.units.tolist(), strict=True))

    def nest(self, duration: float, folder: Path) -> set[tuple[int, int]]:
        given, made = folder / "given.npz", folder / "made.npz"
        np.savez(
            given,
            source=self.source.astype(np.int64),
            target=self.target.astype(np.int64),
            weight=self.weight,
            delay=self.delay_steps * 0.1,
            v=self.v,
            end=self.end,
            duration=duration,
        )
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(given), str(made)], check=True, capture_output=True
        )
        with np.load(made) as spikes:
            return set(zip(spikes["step"].tolist(), spikes["unit"].tolist(), strict=True))


@needs_nest
@pytest.mark.parametrize("own_delays", [False, True])
def test_delta_synapses_have_the_spikes_of_nest(own_delays: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    size, inputs = 1000, 100
    source, target = rng.integers(0, size, size * inputs), np.repeat(np.arange(size), inputs)
    delay_steps: Any = rng.integers(1, 32, len(source)) if own_delays else 15
    problem = Problem(source, target, size, delay_steps)
    wanted = problem.nest(200.0, tmp_path)
    assert len(wanted) > 2000
    for threads in (1, 2):
        assert problem.ours(200.0, threads=threads) == wanted
    problem.delay_steps = problem.delay_steps + (problem.source == source[0])
    assert problem.ours(200.0) != wanted


@needs_nest
@pytest.mark.slow
def test_brunel_network_has_the_spikes_of_nest(tmp_path: Path) -> None:
    rng, size = np.random.default_rng(1), 12500
    source = np.empty((size, 1250), np.int32)
    source[:, :1000] = rng.integers(0, 10000, (size, 1000), np.int32)
    source[:, 1000:] = rng.integers(10000, 12500, (size, 250), np.int32)
    degrees = np.bincount(source.reshape(-1))
    assert (degrees.min(), degrees.max()) == (1102, 1397)
    problem = Problem(source.reshape(-1).astype(np.int64), np.repeat(np.arange(size), 1250), size, 15)
    wanted = problem.nest(300.0, tmp_path)
    assert len(wanted) > 50_000
    assert problem.ours(300.0) == wanted
