"""Neurons that sleep between arrivals: the same bits as neurons that are moved on in every step."""

from dataclasses import replace

import numpy as np
import pytest
from test_engine_clock import DT, assert_same, layered, spike_trains, tangled

from snnsim.engines import grid_inputs
from snnsim.engines.clock import ClockEngine
from snnsim.engines.clock_plan import make_layout
from snnsim.events import Events
from snnsim.kernels import clock_tables
from snnsim.network import Input, Network, Population, Projection, Sparse
from snnsim.neurons import IF, LIF, CubaLIF, ExpCurrentLIF
from snnsim.stimuli import Poisson


def both(network, inputs, dtype="float64", threads=1, **options):
    """Run awake and asleep; compare spikes, scores and every number of the state."""
    awake = ClockEngine().prepare(network, dtype, threads).run(inputs, **options)
    asleep = ClockEngine(sleepy=True).prepare(network, dtype, threads).run(inputs, **options)
    assert_same(awake, asleep)
    for one, other in zip(awake.state.samples, asleep.state.samples, strict=True):
        assert one.values.tobytes() == other.values.tobytes()
        assert one.left.tolist() == other.left.tolist()
        assert one.pending_place.tolist() == other.pending_place.tolist()
        assert one.pending_value.tobytes() == other.pending_value.tobytes()
    return asleep


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF", "AdaptiveLIF"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_same_bits_for_every_law(kind, reset, dtype):
    rng = np.random.default_rng([2, len(kind), len(reset)])
    for refractory in (False, True):
        network = layered(rng, kind, reset, refractory=refractory)
        both(network, grid_inputs(network, spike_trains(rng, 2, 6, rate=20.0), tail_steps=30), dtype)
        both(network, grid_inputs(network, spike_trains(rng, 2, 6)), dtype, record=("a.v",))
    network = tangled(rng)
    events = {item.name: spike_trains(rng, 2, item.size, rate=10.0) for item in network.inputs}
    both(network, grid_inputs(network, events), dtype)


def quiet(rng, neuron, own):
    """Two hundred neurons that mostly wait, with recurrent synapses of 1 to 40 steps."""
    n = 200
    if own:
        size = {name: np.full(n, getattr(neuron, name)) for name in ("v_threshold",)}
        neuron = neuron.replace(**size)
    gain = 1.0 if not neuron.current else 8.0
    kinds = neuron.receptors or ("",)
    projections = []
    for receptor in kinds:
        sign = -1.0 if receptor == "inh" else 1.0
        for source, n_source in (("in", 30), ("n", n)):
            count = 6 * n
            weight = Sparse.from_triples(
                rng.integers(0, n_source, count),
                rng.integers(0, n, count),
                sign * gain * rng.normal(0.12, 0.1, count),
                (n, n_source),
            )
            projections.append(Projection(source, "n", weight, rng.integers(1, 41, count) * DT, receptor))
    return Network((Population("n", n, neuron),), tuple(projections), (Input("in", 30),), None, DT)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "neuron",
    [
        IF(v_threshold=0.5),
        LIF(tau_mem=0.02, v_threshold=0.3, t_ref=0.002),
        LIF(tau_mem=0.02, v_threshold=0.3, drive=10.0),
        LIF(tau_mem=0.02, v_threshold=0.3, drive=15.0 - 1e-9),
        LIF(tau_mem=0.02, v_threshold=0.3, drive=15.2),
        LIF(tau_mem=0.02, v_threshold=0.3, drive=-8.0, reset="subtract"),
        CubaLIF(tau_syn=0.004, v_threshold=0.3, drive_syn=5.0),
        CubaLIF(tau_syn=0.03, v_threshold=0.3, drive=8.0, t_ref=0.001),
        ExpCurrentLIF(tau_exc=0.005, tau_inh=0.01, v_threshold=0.3, drive=8.0, t_ref=0.003),
    ],
)
def test_quiet_networks(neuron, own, dtype):
    rng = np.random.default_rng(11)
    network = quiet(rng, neuron, own)
    events = spike_trains(rng, 2, 30, duration=0.4, rate=4.0)
    for threads in (1, 3):
        inputs = grid_inputs(network, events if threads == 1 else events.subset([0]))
        result = both(network, inputs, dtype, threads)
        assert len(result.spikes["n"].times) > 20


def test_a_sleeping_population_is_woken_by_noise_and_by_what_is_on_its_way():
    rng = np.random.default_rng(12)
    network = quiet(rng, LIF(tau_mem=0.02, v_threshold=0.3), False)
    inputs = replace(grid_inputs(network, spike_trains(rng, 1, 30, duration=0.2)), stimuli=(Poisson("n", 300.0, 0.1),))
    first = both(network, inputs)
    silent = grid_inputs(network, Events.from_lists([[]], [[]], 30, duration=0.1))
    runners = [ClockEngine(sleepy=sleepy).prepare(network, "float64", 1) for sleepy in (False, True)]
    awake, asleep = (runner.run(silent, state=first.state) for runner in runners)
    assert_same(awake, asleep)
    assert awake.state.samples[0].values.tobytes() == asleep.state.samples[0].values.tobytes()


def test_who_may_sleep_is_bounded():
    """What a unit current adds at most is at least every value of the response, and no more than a little above."""
    for tau_syn in (0.002, 0.02, 0.2):
        neuron = CubaLIF(tau_mem=0.02, tau_syn=tau_syn)
        network = Network((Population("n", 1, neuron),), (), (), None, DT)
        numbers = make_layout(network, "float64", frozenset()).common["one"][0]
        peak = numbers[clock_tables.NUMBERS.index("peak")]
        step = neuron.step(1, DT)
        v, i, highest = 0.0, 1.0, 0.0
        for _ in range(5000):
            v, i = step.beta[0] * v + step.kappa[0] * i, step.alpha[0] * i
            highest = max(highest, v)
        assert highest <= peak <= highest * 1.001


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kappa", [-0.05, 0.05])
def test_a_current_that_pushes_the_other_way_keeps_its_neurons_awake(kappa, dtype):
    """With a negative gain a negative current raises the membrane; the bound of sleepers does not cover it."""
    neuron = CubaLIF.from_step(dt=DT, beta=0.95, alpha=0.9, kappa=kappa, v_threshold=0.3)
    rng = np.random.default_rng(13)
    weight = rng.normal(0.0, 2.0, (100, 6)) * (rng.random((100, 6)) < 0.5)
    network = Network(
        (Population("n", 100, neuron),), (Projection("in", "n", weight, DT),), (Input("in", 6),), None, DT
    )
    events = spike_trains(rng, 2, 6, duration=0.4, rate=8.0)
    result = both(network, grid_inputs(network, events), dtype)
    assert len(result.spikes["n"].times) > 50
