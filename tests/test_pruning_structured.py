"""Dead neurons are found and removed without changing what is read."""

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import LI, LIF, AdaptiveLIF, CubaLIF
from snnsim.pruning.structured import fires_alone, live_neurons, remove_dead

DT = 0.001


def network(first: np.ndarray, second: np.ndarray, out: np.ndarray, drive: object = 0.0, **changes: object) -> Network:
    beta = np.exp(-DT / 0.02)
    hidden = LIF.from_step(dt=DT, beta=beta, drive_step=np.broadcast_to(drive, (first.shape[0],)).astype(float))
    fields = {
        "populations": (
            Population("a", first.shape[0], hidden),
            Population("b", second.shape[0], CubaLIF(tau_mem=np.linspace(0.01, 0.02, second.shape[0]))),
            Population("out", out.shape[0], LI()),
        ),
        "projections": (
            Projection("in", "a", first, delay=np.arange(first.size).reshape(first.shape) * DT),
            Projection("a", "b", second, delay=np.arange(second.shape[1])[None] * DT),
            Projection("b", "out", out),
        ),
        "inputs": (Input("in", first.shape[1]),),
        "readout": Readout("out"),
        "dt": DT,
    }
    return Network(**{**fields, **changes})  # type: ignore[arg-type]


def events(n: int) -> Events:
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 0.2, 400)) for _ in range(3)]
    return Events.from_lists(times, [rng.integers(0, n, 400) for _ in range(3)], n, duration=0.22)


def holed(seed: int, sparse: bool) -> Network:
    rng = np.random.default_rng(seed)
    matrices = [rng.normal(0.4, 0.6, shape) * (rng.random(shape) < 0.3) for shape in ((12, 6), (9, 12), (3, 9))]
    matrices[0][[2, 5]] = 0  # nothing in
    matrices[1][:, [3, 5, 7]] = 0  # nothing out
    matrices[1][4] = 0
    matrices[2][:, 6] = 0
    made = network(*matrices)
    if not sparse:
        return made
    projections = []
    for item in made.projections:
        s = item.synapses(DT)
        weight = Sparse(s.indptr, s.target, s.weight, item.shape)
        projections.append(Projection(item.source, item.target, weight, s.delay_steps * DT))
    return made.replace(projections=tuple(projections))


@pytest.mark.parametrize("sparse", [False, True])
def test_the_readout_keeps_its_bits_and_living_neurons_their_spikes(sparse: bool) -> None:
    for seed in range(4):
        whole = holed(seed, sparse)
        small = remove_dead(whole)
        live = live_neurons(whole)
        removed = small.notes["removed"]
        assert {2, 3, 5, 7} <= set(removed["a"]["neurons"])
        assert {4, 6} <= set(removed["b"]["neurons"])
        assert removed["a"] == {
            "before": 12,
            "after": small.population("a").size,
            "neurons": np.flatnonzero(~live["a"]).tolist(),
        }
        a, b = simulate(whole, events(6)), simulate(small, events(6))
        assert a.logits is not None
        assert b.logits is not None
        assert np.array_equal(a.logits, b.logits)
        assert np.ptp(a.logits) > 0
        for name in ("a", "b"):
            new = np.cumsum(live[name]) - 1
            keep = live[name][a.spikes[name].units]
            assert np.array_equal(new[a.spikes[name].units[keep]], b.spikes[name].units)
            assert np.array_equal(a.spikes[name].times[keep], b.spikes[name].times)
        assert remove_dead(small) is small


def test_a_neuron_that_its_drive_makes_fire_is_alive() -> None:
    first, second, out = np.zeros((3, 2)), np.ones((2, 3)), np.ones((1, 2))
    first[0, 0] = 1.0
    beta = np.exp(-DT / 0.02)
    edge = (1 - beta) * np.array([0.0, 1.01, 0.99])  # in the long run 0, 1.01 and 0.99 of the threshold
    live = live_neurons(network(first, second, out, edge))
    assert live["a"].tolist() == [True, True, False]
    assert live_neurons(network(first, second, out, edge), stimulated=["a"])["a"].all()


def test_what_fires_without_input_by_its_law() -> None:
    def alone(neuron: object) -> bool:
        return bool(fires_alone(Population("p", 1, neuron), DT)[0])  # type: ignore[arg-type]

    assert not alone(CubaLIF(drive=40.0, tau_mem=0.02))
    assert alone(CubaLIF(drive=60.0, tau_mem=0.02))
    assert not alone(CubaLIF(drive_syn=40.0, tau_syn=0.005))
    assert alone(CubaLIF(drive_syn=300.0, tau_syn=0.005))
    assert not alone(AdaptiveLIF(adapt_spike=0.1))
    assert alone(AdaptiveLIF(adapt_spike=0.1, drive=0.1))
    assert not alone(LIF(drive=-100.0))


def test_a_population_without_life_disappears_and_a_dead_network_is_refused() -> None:
    rng = np.random.default_rng(1)
    whole = network(rng.random((4, 2)), np.zeros((3, 4)), np.ones((2, 3)))
    with pytest.raises(InputError, match="no path leads from an input to the readout 'out'"):
        remove_dead(whole)
    side = whole.replace(projections=(*whole.projections, Projection("a", "out", np.ones((2, 4)))))
    small = remove_dead(side)
    assert [item.name for item in small.populations] == ["a", "out"]
    assert small.notes["removed"]["b"]["after"] == 0
    with pytest.raises(InputError, match="expected a network with a readout"):
        remove_dead(whole.replace(readout=None))
