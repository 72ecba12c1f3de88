"""Exact spike times equal to those of NEST's precise neurons: the same synapses, the same start, no noise.

NEST runs in a process of its own. Its time 0 is our zero state, one step before our time 0.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from event_networks import run, times

from snnsim.network import Network, Population, Projection, Sparse
from snnsim.neurons import LIF, ExpCurrentLIF

MS = 0.001
DT = 0.1 * MS
TOLERANCE = 1e-9  # ms

pytestmark = pytest.mark.skipif(importlib.util.find_spec("nest") is None, reason="needs the extra 'nest'")

SCRIPT = """
import sys
import nest
import numpy as np

given = np.load(sys.argv[1])
nest.ResetKernel()
nest.resolution = float(given["resolution"])
names = [name for name in given.files if name.startswith("p_")]
neurons = nest.Create(str(given["model"]), len(given["v"]), {name[2:]: float(given[name]) for name in names})
neurons.V_m = given["v"]
recorder = nest.Create("spike_recorder")
nest.Connect(neurons, recorder)
first = neurons[0].global_id
synapses = {"weight": given["weight"], "delay": given["delay"], "synapse_model": "static_synapse"}
nest.Connect(given["source"] + first, given["target"] + first, "one_to_one", synapses)
nest.Simulate(float(given["duration"]))
events = recorder.events
np.savez(sys.argv[2], time=events["times"], unit=events["senders"] - first)
"""

Trains = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def in_order(time: npt.NDArray[np.float64], unit: npt.NDArray[Any]) -> Trains:
    order = np.lexsort((time, unit))
    return time[order], unit[order].astype(np.int64)


def nest(folder: Path, model: str, duration: float, parameters: dict[str, float], **arrays: Any) -> Trains:
    given, made = folder / "given.npz", folder / "made.npz"
    np.savez(
        given, model=model, duration=duration, **{f"p_{name}": value for name, value in parameters.items()}, **arrays
    )
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(given), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(made) as spikes:
        return in_order(spikes["time"], spikes["unit"])


def ours(network: Network, duration: float, v: npt.NDArray[np.float64], unit_of_time: float = MS) -> Trains:
    """Our spikes in NEST's milliseconds."""
    result = run(network, None, round(duration * unit_of_time / network.dt) - 1, initial={"n.v": v})
    events = result.spikes["n"]
    time, unit = events.times.copy(), events.units.astype(np.int64)
    for _, _, early, exact in result.notes["early"]:
        time[np.flatnonzero((unit == early) & (time == 0.0))[0]] = exact
    assert (np.sort(time) == times(result)).all()
    return in_order((time + network.dt) / unit_of_time, unit)


def equal(a: Trains, b: Trains) -> bool:
    return np.array_equal(a[1], b[1]) and bool(np.abs(a[0] - b[0]).max() <= TOLERANCE)


def cuba() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The Vogels-Abbott network "cuba-1": sources, targets and first potentials (Brette et al. 2007, benchmark 2)."""
    rng, size = np.random.default_rng(1), 4000
    sources, targets = [], []
    for i in range(size):
        row = rng.random(size) < 0.02
        row[i] = False
        targets.append(np.flatnonzero(row))
        sources.append(np.full(len(targets[-1]), i))
    source, target = np.concatenate(sources), np.concatenate(targets)
    assert (len(target), int(target.sum())) == (320933, 641135054)
    return source, target, rng.uniform(-60, -50, size)


@pytest.mark.parametrize(
    ("duration", "delay", "count"),
    [
        (100.0, 0.1, None),
        pytest.param(400.0, 0.1, 9226, marks=pytest.mark.slow),
        pytest.param(400.0, 1.5, 9185, marks=pytest.mark.slow),
    ],
)
def test_cuba_has_the_spikes_of_iaf_psc_exp_ps(
    duration: float, delay: float, count: int | None, tmp_path: Path
) -> None:
    source, target, v = cuba()
    weight = np.where(source < 3200, 1.62, -9.0)
    neuron = ExpCurrentLIF(
        *(20 * MS, 5 * MS, 10 * MS), v_threshold=-50.0, v_reset=-60.0, t_ref=5 * MS, drive=-49.0 / (20 * MS)
    )

    def network(delay: float) -> Network:
        projections = []
        for name, chosen in (("exc", source < 3200), ("inh", source >= 3200)):
            sparse = Sparse.from_triples(source[chosen], target[chosen], weight[chosen], (4000, 4000))
            projections.append(Projection("n", "n", sparse, delay * MS, name))
        return Network((Population("n", 4000, neuron),), tuple(projections), (), None, DT)

    parameters = {"E_L": -49.0, "V_th": -50.0, "V_reset": -60.0, "tau_m": 20.0, "t_ref": 5.0, "C_m": 20.0}
    parameters |= {"tau_syn_ex": 5.0, "tau_syn_in": 10.0}
    arrays = {
        "source": source,
        "target": target,
        "weight": weight,
        "delay": np.full(len(source), delay),
        "v": v,
        "resolution": 0.1,
    }
    wanted = nest(tmp_path, "iaf_psc_exp_ps", duration, parameters, **arrays)
    assert len(wanted[0]) == count if count else len(wanted[0]) > 1000
    assert equal(ours(network(delay), duration, v), wanted)
    assert not equal(ours(network(delay * (1 + 1e-6)), duration, v), wanted)


@pytest.mark.parametrize("own_delays", [False, True])
def test_delta_network_has_the_spikes_of_iaf_psc_delta_ps(own_delays: bool, tmp_path: Path) -> None:
    # Delays are multiples of 1/8 ms and time is counted in ms: then arrivals that coincide in NEST, which adds whole
    # steps, have equal float times here. With delays of 0.1 ms a sum would depend on the order of its rounding.
    rng, size, fan_in, step = np.random.default_rng(1), 1000, 100, 0.125
    source, target = np.sort(rng.integers(0, size, size * fan_in)), rng.permutation(np.repeat(np.arange(size), fan_in))
    weight = np.where(source < 0.8 * size, 0.1, -0.5) * 1000 / (fan_in * 0.8)
    delay = rng.integers(1, 16, len(source)) * 2 * step if own_delays else np.full(len(source), 1.5)
    v, end = rng.uniform(0, 20, size), 24.0

    def network(delay: npt.NDArray[np.float64]) -> Network:
        neuron = LIF(tau_mem=20.0, v_threshold=20.0, v_reset=10.0, t_ref=2.125, drive=end / 20.0)
        sparse = Sparse.from_triples(source, target, weight, (size, size))
        return Network((Population("n", size, neuron),), (Projection("n", "n", sparse, delay),), (), None, step)

    parameters = {
        "E_L": 0.0,
        "V_th": 20.0,
        "V_reset": 10.0,
        "tau_m": 20.0,
        "t_ref": 2.125,
        "C_m": 1.0,
        "I_e": end / 20.0,
    }
    arrays = {"source": source, "target": target, "weight": weight, "delay": delay, "v": v, "resolution": step}
    wanted = nest(tmp_path, "iaf_psc_delta_ps", 60.0, parameters, **arrays)
    assert len(wanted[0]) > 1000
    assert equal(ours(network(delay), 60.0, v, 1.0), wanted)
    assert not equal(ours(network(delay + 1e-6), 60.0, v, 1.0), wanted)


def test_own_delays_of_currents_have_the_spikes_of_iaf_psc_exp_ps(tmp_path: Path) -> None:
    rng, size, fan_in = np.random.default_rng(1), 1000, 100
    source, target = np.sort(rng.integers(0, size, size * fan_in)), rng.permutation(np.repeat(np.arange(size), fan_in))
    excites = source < 0.8 * size
    weight = np.where(excites, 4.0, -18.0)
    delay = rng.integers(1, 32, len(source)) * 0.1
    v, end = rng.uniform(0, 20, size), 24.0

    def network(delay: npt.NDArray[np.float64]) -> Network:
        neuron = ExpCurrentLIF(
            *(20 * MS, 5 * MS, 10 * MS), v_threshold=20.0, v_reset=10.0, t_ref=2 * MS, drive=end / (20 * MS)
        )
        projections = []
        for name, chosen in (("exc", excites), ("inh", ~excites)):
            sparse = Sparse.from_triples(source[chosen], target[chosen], weight[chosen], (size, size))
            projections.append(Projection("n", "n", sparse, delay[chosen] * MS, name))
        return Network((Population("n", size, neuron),), tuple(projections), (), None, DT)

    parameters = {"E_L": 0.0, "V_th": 20.0, "V_reset": 10.0, "tau_m": 20.0, "t_ref": 2.0, "C_m": 20.0, "I_e": end}
    parameters |= {"tau_syn_ex": 5.0, "tau_syn_in": 10.0}
    arrays = {"source": source, "target": target, "weight": weight, "delay": delay, "v": v, "resolution": 0.1}
    wanted = nest(tmp_path, "iaf_psc_exp_ps", 100.0, parameters, **arrays)
    assert len(wanted[0]) > 700
    assert equal(ours(network(delay), 100.0, v), wanted)
    assert not equal(ours(network(delay + 1e-6), 100.0, v), wanted)
