"""Neurons with excitatory and inhibitory currents, one sample on several threads, numbers shared by a population."""

import numpy as np
import pytest
from test_engine_clock import DT, assert_same, spike_trains

from snnsim.engines import grid_inputs, simulate
from snnsim.engines.clock import ClockRunner
from snnsim.engines.clock_plan import make_layout
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Sparse
from snnsim.neurons import IF, LIF, AdaptiveLIF, CubaLIF, ExpCurrentLIF

RECORD = ["a.v", "a.i_exc", "a.i_inh", "b.v", "b.i_inh"]


def own_numbers(rng, size, refractory):
    return ExpCurrentLIF(
        tau_mem=rng.uniform(0.01, 0.03, size),
        tau_exc=rng.uniform(0.002, 0.03, size),
        tau_inh=rng.uniform(0.002, 0.03, size),
        v_threshold=rng.uniform(0.8, 1.2, size),
        drive=rng.uniform(-5, 40, size),
        t_ref=rng.integers(0, 4, size) * DT if refractory else 0.0,
    )


def synapses(rng, source, target, n_target, n_source, receptor, low=1):
    n = 4 * n_target
    sign = -1 if receptor == "inh" else 1
    sparse = Sparse.from_triples(
        rng.integers(0, n_source, n), rng.integers(0, n_target, n), sign * rng.uniform(0, 6, n), (n_target, n_source)
    )
    return Projection(source, target, sparse, rng.integers(low, 6, n) * DT, receptor)


def network_of(rng, first, second, low=1):
    ends = [("in", "a", 40, 6, "exc"), ("in", "b", 30, 6, "inh"), ("a", "b", 30, 40, "exc"), ("b", "a", 40, 30, "inh")]
    ends += [("a", "a", 40, 40, "exc"), ("b", "b", 30, 30, "inh")]
    projections = tuple(synapses(rng, *end, low=low) for end in ends)
    return Network((Population("a", 40, first), Population("b", 30, second)), projections, (Input("in", 6),), None, DT)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("low", [0, 1, 3])
@pytest.mark.parametrize("refractory", [False, True])
def test_equals_the_reference(dtype, low, refractory):
    rng = np.random.default_rng([3, low])
    network = network_of(
        rng, own_numbers(rng, 40, refractory), ExpCurrentLIF(drive=60.0, t_ref=0.002 * refractory), low
    )
    events = spike_trains(rng, 2, 6)
    ours = simulate(network, events, record=RECORD, dtype=dtype)
    assert_same(ours, simulate(network, events, record=RECORD, dtype=dtype, engine="reference"))
    assert all(len(item.times) > 50 for item in ours.spikes.values())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_any_number_of_threads_a_sample_gives_the_same_bits(dtype):
    rng = np.random.default_rng(4)
    network = network_of(rng, own_numbers(rng, 40, True), ExpCurrentLIF(drive=60.0), 2)
    inputs = grid_inputs(network, spike_trains(rng, 1, 6))
    layout = make_layout(network, dtype)
    assert layout.divisible
    assert layout.window == 2
    one = ClockRunner(network, dtype, 1, layout).run(inputs, record=tuple(RECORD))
    for threads in (2, 3, 4, 8):
        for window in (None, 7):
            runner = ClockRunner(network, dtype, threads, layout, window, divide=True)
            half = runner.run(inputs, record=tuple(RECORD))
            assert_same(one, half)
            again = ClockRunner(network, dtype, 1, layout, divide=False).run(inputs, state=half.state)
            assert_same(again, runner.run(inputs, state=one.state))


def test_a_sample_stays_whole_where_a_population_acts_on_another_at_once():
    rng = np.random.default_rng(5)
    network = network_of(rng, own_numbers(rng, 40, True), ExpCurrentLIF(drive=60.0), 0)
    layout = make_layout(network, "float64")
    assert not layout.divisible
    inputs = grid_inputs(network, spike_trains(rng, 1, 6))
    one = ClockRunner(network, "float64", 1, layout).run(inputs)
    assert_same(one, ClockRunner(network, "float64", 4, layout, divide=True).run(inputs))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "neuron",
    [
        IF(drive=20.0, reset="subtract"),
        LIF(tau_mem=0.01, drive=130.0, t_ref=0.003),
        LIF(tau_mem=0.01, drive=120.0, reset="subtract", t_ref=0.002, strict=True),
        CubaLIF(drive=60.0, drive_syn=90.0, t_ref=0.001),
        AdaptiveLIF(tau_mem=0.01, drive=150.0, adapt_v=0.01, adapt_spike=0.1),
    ],
)
def test_numbers_shared_by_a_population(neuron, dtype):
    rng = np.random.default_rng(6)
    weight = rng.normal(0.2, 0.5, (30, 30)) * (rng.random((30, 30)) < 0.3)
    projections = (Projection("n", "n", weight, rng.integers(1, 9, (30, 30)) * DT), Projection("n", "n", weight, DT))
    network = Network((Population("n", 30, neuron),), projections, (), None, DT)
    start = {"n.v": rng.uniform(0, 1, 30)}
    ours = simulate(network, None, n_steps=80, record="n.v", dtype=dtype, initial=start)
    reference = simulate(network, None, n_steps=80, record="n.v", dtype=dtype, initial=start, engine="reference")
    assert_same(ours, reference)
    assert len(ours.spikes["n"].times) > 50
    inputs = grid_inputs(network, None, 80)
    layout = make_layout(network, dtype)
    rest = ClockRunner(network, dtype, 1, layout).run(inputs)
    assert_same(rest, ClockRunner(network, dtype, 3, layout, divide=True).run(inputs))


def test_receptors_have_the_time_course_of_their_own():
    neuron = ExpCurrentLIF(tau_mem=0.02, tau_exc=0.005, tau_inh=0.01, v_threshold=10.0)
    projections = (Projection("in", "n", [[1.0]], 0.0, "exc"), Projection("in", "n", [[-1.0]], 0.0, "inh"))
    network = Network((Population("n", 1, neuron),), projections, (Input("in", 1),), None, DT)
    events = Events.from_lists([[0.0]], [[0]], 1, duration=0.05)
    result = simulate(network, events, record=["n.i_exc", "n.i_inh", "n.v"])
    k = np.arange(50) * DT
    assert np.allclose(result.records["n.i_exc"][0][:, 0], np.exp(-k / 0.005), rtol=1e-12)
    assert np.allclose(result.records["n.i_inh"][0][:, 0], -np.exp(-k / 0.01), rtol=1e-12)

    def response(tau):
        return tau / (0.02 - tau) * (np.exp(-k / 0.02) - np.exp(-k / tau))

    assert np.allclose(result.records["n.v"][0][:, 0], response(0.005) - response(0.01), atol=1e-14)


@pytest.mark.parametrize(("receptor", "kind"), [("", "exc"), ("nmda", "exc")])
def test_a_receptor_that_is_not_there_is_refused(receptor, kind):
    with pytest.raises(InputError, match="receptor: ExpCurrentLIF has 'exc' or 'inh'; name one, got"):
        Network((Population("n", 1, ExpCurrentLIF()),), (Projection("n", "n", [[1.0]], DT, receptor),), (), None, DT)
    with pytest.raises(InputError, match="receptor: LIF has one kind of synapse, got 'exc'"):
        Network((Population("n", 1, LIF()),), (Projection("n", "n", [[1.0]], DT, kind),), (), None, DT)


def test_a_receptor_is_kept_in_the_file(tmp_path):
    rng = np.random.default_rng(7)
    network = network_of(
        rng, own_numbers(rng, 40, True), ExpCurrentLIF.from_step(dt=DT, beta=0.9, alpha_exc=0.8, alpha_inh=0.7)
    )
    network.save(tmp_path / "two.snn.h5")
    again = Network.load(tmp_path / "two.snn.h5")
    assert again == network
    assert [item.receptor for item in again.projections] == ["exc", "inh", "exc", "inh", "exc", "inh"]
    changed = list(network.projections)
    changed[0] = Projection("in", "a", changed[0].weight, changed[0].delay, "inh")
    assert network.replace(projections=tuple(changed)).digest() != network.digest()
