"""Every spike of the simulator review's CUBA network equal to NEST's `iaf_psc_exp`: exponential currents, float64."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from snnsim.connect import from_edges
from snnsim.engines import simulate
from snnsim.network import Network, Population
from snnsim.neurons import ExpCurrentLIF

MS = 0.001
DT = 0.1 * MS
SIZE = 4000

needs_nest = pytest.mark.skipif(importlib.util.find_spec("nest") is None, reason="needs the extra 'nest'")

SCRIPT = """
import sys
import nest
import numpy as np

given = np.load(sys.argv[1])
nest.ResetKernel()
nest.resolution = 0.1
parameters = {"E_L": -49.0, "V_th": -50.0, "V_reset": -60.0, "tau_m": 20.0, "C_m": 20.0, "t_ref": 5.0}
neurons = nest.Create("iaf_psc_exp", len(given["v"]), {**parameters, "tau_syn_ex": 5.0, "tau_syn_in": 10.0})
neurons.V_m = given["v"]
recorder = nest.Create("spike_recorder")
nest.Connect(neurons, recorder)
first = neurons[0].global_id
weight = np.where(given["source"] < 3200, 1.62, -9.0)
synapses = {"weight": weight, "delay": np.full(weight.shape, 0.1), "synapse_model": "static_synapse"}
nest.Connect(given["source"] + first, given["target"] + first, "one_to_one", synapses)
nest.Simulate(float(given["duration"]) + 0.1)
events = recorder.events
np.savez(sys.argv[2], step=np.rint(events["times"] * 10).astype(int) - 1, unit=events["senders"] - first)
"""


def fixture() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return sources, targets and initial potentials of the network "cuba-1"."""
    draw = np.random.default_rng(1)
    targets = []
    for source in range(SIZE):
        row = draw.random(SIZE) < 0.02
        row[source] = False
        targets.append(np.flatnonzero(row))
    source = np.repeat(np.arange(SIZE), [len(row) for row in targets])
    target = np.concatenate(targets)
    assert (len(target), int(target.sum()), int(np.sum(source < 3200))) == (320_933, 641_135_054, 256_799)
    return source, target, draw.uniform(-60, -50, SIZE)


def ours(duration: float, t_ref: float = 5 * MS, **options: object) -> set[tuple[int, int]]:
    source, target, v = fixture()
    neuron = ExpCurrentLIF(
        tau_mem=20 * MS, tau_exc=5 * MS, tau_inh=10 * MS, v_threshold=-1.0, v_reset=-11.0, t_ref=t_ref
    )
    population = Population("n", SIZE, neuron)
    exc = source < 3200
    projections = (
        from_edges(population, population, source[exc], target[exc], weight=1.62, delay=DT, receptor="exc"),
        from_edges(population, population, source[~exc], target[~exc], weight=-9.0, delay=DT, receptor="inh"),
    )
    network = Network((population,), projections, (), None, DT)
    result = simulate(network, None, n_steps=round(duration * 10), initial={"n.v": v + 49.0}, **options)  # type: ignore[arg-type]
    spikes = result.spikes["n"]
    return set(zip(np.rint(spikes.times / DT).astype(int).tolist(), spikes.units.tolist(), strict=True))


def nest(duration: float, folder: Path) -> set[tuple[int, int]]:
    source, target, v = fixture()
    given, made = folder / "given.npz", folder / "made.npz"
    np.savez(given, source=source, target=target, v=v, duration=duration)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(given), str(made)], check=True, capture_output=True
    )
    with np.load(made) as spikes:
        kept = spikes["step"] < round(duration * 10)
        return set(zip(spikes["step"][kept].tolist(), spikes["unit"][kept].tolist(), strict=True))


@needs_nest
@pytest.mark.parametrize(("duration", "count"), [(300.0, 7130), pytest.param(1000.0, 22802, marks=pytest.mark.slow)])
def test_currents_have_the_spikes_of_nest(duration: float, count: int, tmp_path: Path) -> None:
    wanted = nest(duration, tmp_path)
    assert abs(len(wanted) - count) < 10
    for threads in (1, 2):
        assert ours(duration, threads=threads) == wanted


def test_the_comparison_notices_a_step_of_refractoriness() -> None:
    right = ours(50.0)
    assert len(right) > 500
    assert ours(50.0, t_ref=5.1 * MS) != right
