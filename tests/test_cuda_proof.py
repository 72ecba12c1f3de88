"""Engine 'cuda' against engine 'clock' at real size: its kernels compiled for the CPU, with the types of a device."""

from dataclasses import replace

import numpy as np
import pytest
from cuda_emulator import compiled

import snnsim.engines as engines
from snnsim.engines import Result, simulate
from snnsim.engines.cuda import CudaEngine
from snnsim.events import Events
from snnsim.export.proof import MIN_NEURON_STEPS, MIN_SPIKES
from snnsim.models import brunel, microcircuit
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLIF, Neuron

pytestmark = pytest.mark.slow

DT, STEPS, SAMPLES = 0.001, 200, 40
SIZES = (70, 96, 96, 20)


def spread(low: float, high: float, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, size)


NEURONS = {
    "LIF": lambda n: LIF(tau_mem=spread(0.01, 0.03, n, 1), t_ref=0.002, drive=1.0),
    "IF": lambda n: IF(reset="subtract", v_threshold=spread(0.9, 1.2, n, 2), drive=0.5),
    "CubaLIF": lambda n: CubaLIF(tau_mem=spread(0.01, 0.03, n, 3), tau_syn=spread(0.005, 0.01, n, 4), drive=1.0),
    "AdaptiveLIF": lambda n: AdaptiveLIF(tau_mem=spread(0.01, 0.03, n, 5), tau_adapt=0.1, adapt_spike=0.05),
}
STRENGTH = {"LIF": 1.0, "IF": 1.0, "CubaLIF": 3.0, "AdaptiveLIF": 1.0}


def network(kind: str, recurrent: bool) -> Network:
    rng = np.random.default_rng(7)
    n_in, first, second, classes = SIZES

    def between(source: str, target: str, n_source: int, n_target: int, strength: float, least: int = 0) -> Projection:
        scale = strength * STRENGTH[kind]
        weight = rng.normal(0.02 * scale, scale / np.sqrt(n_source), (n_target, n_source))
        return Projection(source, target, weight, rng.integers(least, 25, weight.shape) * DT)

    neuron: dict[str, Neuron] = {"a": NEURONS[kind](first), "b": NEURONS[kind](second), "out": LI(tau_mem=0.02)}
    sizes = dict(zip(neuron, SIZES[1:], strict=True))
    projections = [
        between("in", "a", n_in, first, 2.0),
        between("a", "b", first, second, 1.5),
        between("b", "out", second, classes, 1.0),
    ]
    if recurrent:
        projections += [between("b", "a", second, first, 0.3, 1), between("a", "a", first, first, 0.3, 1)]
    return Network(
        [Population(name, sizes[name], neuron[name]) for name in neuron],
        projections,
        inputs=[Input("in", n_in)],
        readout=Readout("out", variable="v", reduce="sum_softmax"),
        dt=DT,
    )


def events() -> Events:
    rng = np.random.default_rng(11)
    times = [np.sort(rng.uniform(0, STEPS * DT, 700)) for _ in range(SAMPLES)]
    units = [rng.integers(0, SIZES[0], 700) for _ in range(SAMPLES)]
    return Events.from_lists(times, units, n_units=SIZES[0], duration=STEPS * DT)


def differing(a: Result, b: Result) -> dict[str, int]:
    """Return how many neuron-steps differ, by population."""
    found = {}
    for name, spikes in a.spikes.items():
        places = []
        for item in (spikes, b.spikes[name]):
            sample = np.repeat(np.arange(len(item)), np.diff(item.offsets))
            step = np.rint(item.times / DT).astype(np.int64)
            places.append(set(zip(sample.tolist(), step.tolist(), item.units.tolist(), strict=True)))
        found[name] = len(places[0] ^ places[1])
    return found


def planted(net: Network, what: str) -> Network:
    """Return the network with one error: a weight, a delay, or the reset of one neuron."""
    changed = list(net.projections)
    if what == "reset":
        first = net.populations[0]
        neuron = first.neuron.replace(v_threshold=np.full(first.size, 1.0) + np.eye(1, first.size)[0] * 0.05)
        return net.replace(populations=[replace(first, neuron=neuron), *net.populations[1:]])
    for number, item in enumerate(changed):
        weight, delay = np.array(item.weight), np.array(item.delay)
        if item.target != "a":
            continue
        if what == "weight":
            weight[0, 0] += 0.2
        else:
            delay[0, :5] += 3 * DT
        changed[number] = replace(item, weight=weight, delay=delay)
        break
    return net.replace(projections=changed)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", sorted(NEURONS))
def test_no_spike_differs(kind: str, recurrent: bool) -> None:
    net, given = network(kind, recurrent), events()
    ours = simulate(net, given, engine="clock", record=("a.v",))
    with compiled():
        theirs = simulate(net, given, engine="cuda", record=("a.v",))
    assert SAMPLES * STEPS * (SIZES[1] + SIZES[2]) >= MIN_NEURON_STEPS
    assert min(item.n_events for item in ours.spikes.values()) >= MIN_SPIKES
    assert differing(ours, theirs) == {"a": 0, "b": 0}
    assert np.array_equal(ours.logits, theirs.logits)
    assert all(np.array_equal(x, y) for x, y in zip(ours.records["a.v"], theirs.records["a.v"], strict=True))


@pytest.mark.parametrize("what", ["weight", "delay", "reset"])
def test_a_planted_error_is_noticed(what: str) -> None:
    net, given = network("CubaLIF", True), events()
    ours = simulate(net, given, engine="clock")
    with compiled():
        theirs = simulate(planted(net, what), given, engine="cuda")
    assert min(differing(ours, theirs).values()) > 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("model", "steps"), [(brunel(scale=0.08), 600), (microcircuit(scale=0.04), 1500)])
def test_scattered_spikes_give_the_bits_of_the_clock_engine(model, steps, dtype, monkeypatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "cuda", lambda: CudaEngine(scatter_from=1))
    given = {"n_steps": steps, "stimuli": model.stimuli, "seed": 3, "initial": model.initial, "dtype": dtype}
    ours = simulate(model.network, None, engine="clock", **given)
    with compiled():
        theirs = simulate(model.network, None, engine="cuda", **given)
    assert all(item.startswith("scatter") for item in theirs.notes["arrivals"].values())
    assert sum(item.n_events for item in ours.spikes.values()) > 300
    for name, spikes in ours.spikes.items():
        assert np.array_equal(spikes.times, theirs.spikes[name].times)
        assert np.array_equal(spikes.units, theirs.spikes[name].units)
