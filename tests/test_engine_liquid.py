"""MetaDynamicNeuron, and ConductanceLIF with its solvers and sub-steps: engines, laws, files, refusals."""

import dataclasses

import numpy as np
import pytest
from test_engine_clock import DT, assert_same, spike_trains

from snnsim.engines import grid_inputs, simulate
from snnsim.engines.clock import ClockRunner
from snnsim.engines.clock_plan import make_layout
from snnsim.errors import InputError
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import LIF, ConductanceLIF, CubaLIF, MetaDynamicNeuron

KINDS = ["meta-dynamic", "fused", "exact"]


def make(kind, rng, size, refractory=False, own=True):
    """Return a neuron of which some fire by their drive alone, with numbers of its own or shared ones."""

    def draw(low, high):
        return rng.uniform(low, high, size) if own else (low + high) / 2

    shared = {"t_ref": (rng.integers(0, 4, size) if own else 2) * DT} if refractory else {}
    if kind == "meta-dynamic":
        thetas = {"theta_v": draw(-0.3, 0.3), "theta_u": draw(0.1, 0.8), "theta_r": draw(-0.1, 0.1)}
        return MetaDynamicNeuron(
            time_unit=draw(4 * DT, 12 * DT), theta_s=draw(0.05, 0.2), drive=draw(0, 80), **thetas, **shared
        )
    taus = {"tau_exc": draw(0.002, 0.02), "tau_inh": draw(0.002, 0.02), "e_exc": draw(5, 7), "e_inh": draw(-3, -1)}
    how = {"solver": kind, "substeps": 3 if kind == "exact" else 4}
    return ConductanceLIF(tau_mem=draw(0.01, 0.03), drive=draw(20, 80), **taus, **how, **shared)


def pair(rng, first, second, low):
    """Return two populations that act on each other, with an input and a readout."""
    neurons, sizes, projections = {"a": (40, first), "b": (30, second)}, {"in": 6, "a": 40, "b": 30}, []
    for source, target in (("in", "a"), ("in", "b"), ("a", "b"), ("b", "a"), ("a", "a")):
        size, neuron = neurons[target]
        for receptor in neuron.receptors or ("",):
            n = 3 * size
            strength = 0.4 * rng.uniform(0, 1, n)
            if not neuron.conductances:
                strength = strength * rng.choice([-3, 1], n)
            ends = (rng.integers(0, sizes[source], n), rng.integers(0, size, n))
            least = low if neuron.current or source == "in" else max(low, 1)
            sparse = Sparse.from_triples(*ends, strength, (size, sizes[source]))
            projections.append(Projection(source, target, sparse, rng.integers(least, 6, n) * DT, receptor))
    populations = tuple(Population(name, *item) for name, item in neurons.items())
    return Network(populations, tuple(projections), (Input("in", 6),), Readout("b"), DT)


def everything(network):
    return [f"{item.name}.{variable}" for item in network.populations for variable in item.neuron.variables]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("low", [0, 2])
def test_equals_the_reference(kind, low, dtype):
    rng = np.random.default_rng([1, len(kind), low])
    for refractory, own in ((False, True), (True, False), (True, True)):
        other = KINDS[(KINDS.index(kind) + 1) % 3]
        network = pair(rng, make(kind, rng, 40, refractory, own), make(other, rng, 30, refractory), low)
        options = {"record": everything(network), "dtype": dtype, "tail_steps": 9}
        events = spike_trains(rng, 2, 6)
        ours = simulate(network, events, **options)
        assert_same(ours, simulate(network, events, engine="reference", **options))
        assert all(len(item.times) > 20 for item in ours.spikes.values())


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_windows_give_the_same_bits(kind):
    rng = np.random.default_rng([2, len(kind)])
    network = pair(rng, make(kind, rng, 40, True), make(kind, rng, 30, False, own=False), 2)
    inputs, names = grid_inputs(network, spike_trains(rng, 1, 6)), tuple(everything(network))
    layout = make_layout(network, "float64")
    one = ClockRunner(network, "float64", 1, layout).run(inputs, record=names)
    for threads, window in ((2, None), (3, 7), (4, 1)):
        assert_same(
            one, ClockRunner(network, "float64", threads, layout, window, divide=True).run(inputs, record=names)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_brings_it_back(kind, tmp_path):
    rng = np.random.default_rng([3, len(kind)])
    network = pair(rng, make(kind, rng, 40, True), make(kind, rng, 30, own=False), 1)
    network.save(tmp_path / "network.npz")
    again = Network.load(tmp_path / "network.npz")
    assert again.populations == network.populations
    assert again.populations[0].neuron.parameters().keys() == network.populations[0].neuron.parameters().keys()


def free_run(neuron, steps, dt, start, receptor_start=None):
    network = Network((Population("n", 1, neuron),), (), (), None, dt)
    initial = {"n.v": [start]} | {f"n.{name}": [value] for name, value in (receptor_start or {}).items()}
    return simulate(network, None, n_steps=steps, initial=initial, record=everything(network))


@pytest.mark.parametrize(("solver", "order"), [("fused", 1), ("exact", 2)])
def test_the_order_of_the_solvers(solver, order):
    start = {"g_exc": 3.0, "g_inh": 2.0}
    base = ConductanceLIF(e_exc=2.0, v_threshold=50.0, drive=10.0)
    right = free_run(base.replace(substeps=1000), 5, 0.004, -0.5, start).records["n.v"][0][-1, 0]
    errors = []
    for parts in (4, 8, 16, 32, 64):
        neuron = base.replace(solver=solver, substeps=parts)
        errors.append(abs(free_run(neuron, 5, 0.004, -0.5, start).records["n.v"][0][-1, 0] - right))
    rates = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(rates - order) < 0.15), rates


def test_substeps_of_the_exact_step_are_steps():
    base, start = ConductanceLIF(e_exc=2.0, v_threshold=50.0), {"g_exc": 3.0, "g_inh": 2.0}
    cut = free_run(base.replace(substeps=4), 5, 0.004, -0.5, start).records["n.v"][0][-1, 0]
    fine = free_run(base, 20, 0.001, -0.5, start).records["n.v"][0][-1, 0]
    assert abs(cut - fine) < 1e-14


@pytest.mark.parametrize("solver", ["fused", "exact"])
def test_the_membrane_stays_between_the_reversal_potentials(solver):
    rng = np.random.default_rng(4)
    neuron = ConductanceLIF(e_exc=1.5, e_inh=-1.0, v_threshold=50.0, solver=solver)
    size, parts = 20, []
    for receptor in neuron.receptors:
        parts.append(Projection("in", "n", rng.uniform(0, 40, (size, 6)), DT, receptor))
    network = Network((Population("n", size, neuron),), tuple(parts), (Input("in", 6),), Readout("n"), DT)
    v = simulate(network, spike_trains(rng, 4, 6), record=["n.v"]).records["n.v"]
    joined = np.concatenate([np.ravel(part) for part in v])
    assert joined.min() >= -1.0
    assert joined.max() <= 1.5
    assert joined.std() > 0.2


def test_far_reversal_potentials_make_a_current_based_neuron():
    rng = np.random.default_rng(5)
    weight, events = rng.uniform(0, 0.3, (10, 6)), spike_trains(rng, 1, 6)
    found = []

    def run(neuron, weight, receptor=""):
        projection = Projection("in", "n", weight, DT, receptor)
        network = Network((Population("n", 10, neuron),), (projection,), (Input("in", 6),), Readout("n"), DT)
        return simulate(network, events, record=["n.v"]).records["n.v"][0]

    right = run(CubaLIF(tau_mem=0.02, tau_syn=0.005, v_threshold=50.0), weight)
    for far in (1e2, 1e3, 1e4):
        neuron = ConductanceLIF(tau_mem=0.02, tau_exc=0.005, e_exc=far, v_threshold=50.0, substeps=200)
        found.append(np.abs(run(neuron, weight / far, "exc") - right).max())
    assert found[0] > 1e-3
    assert np.all(np.abs(np.array(found[:-1]) / np.array(found[1:]) - 10) < 2), found


def test_meta_dynamic_steps_are_those_of_the_equation():
    neuron = MetaDynamicNeuron(time_unit=0.01, v_threshold=50.0, theta_r=0.0, drive=20.0)

    def slopes(v, u):
        return v * v - v - u + 0.2, -0.172 * v - 0.529 * u

    v, u = 0.3, 0.0
    for _ in range(2000):  # classical Runge-Kutta over two units of time
        h, k = 1e-3, []
        for share in (0.0, 0.5, 0.5, 1.0):
            last = k[-1] if k else (0.0, 0.0)
            k.append(slopes(v + share * h * last[0], u + share * h * last[1]))
        v, u = (x + h / 6 * (k[0][i] + 2 * k[1][i] + 2 * k[2][i] + k[3][i]) for i, x in enumerate((v, u)))
    errors = []
    for steps in (50, 100, 200):
        run = free_run(neuron, steps, 0.02 / steps, 0.3)
        errors.append([abs(run.records["n.v"][0][-1, 0] - v), abs(run.records["n.u"][0][-1, 0] - u)])
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert np.all(np.abs(ratios - 2) < 0.1), ratios


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_meta_dynamic_spikes_jump_and_stay_finite_under_any_input(dtype):
    neuron = MetaDynamicNeuron(theta_s=0.25, theta_r=0.125, theta_u=0.0, theta_v=0.0)
    weight = np.array([[1e30], [-1e30], [0.6]])
    network = Network(
        (Population("n", 3, neuron),), (Projection("in", "n", weight, DT),), (Input("in", 1),), Readout("n"), DT
    )
    run = simulate(network, spike_trains(np.random.default_rng(6), 1, 1), record=["n.v", "n.u"], dtype=dtype)
    v, u = run.records["n.v"][0], run.records["n.u"][0]
    assert np.isfinite(v).all()
    assert np.isfinite(u).all()
    assert v.min() == -1.0
    assert v.max() < 0.5
    fired = [np.count_nonzero(run.spikes["n"].units == unit) for unit in range(3)]
    assert fired[0] > 0
    assert fired[2] > 0
    assert fired[1] == 0
    assert np.array_equal(u[-1], 0.25 * np.array(fired))
    first = round(float(run.spikes["n"].times[run.spikes["n"].units == 0][0]) / DT)
    assert v[first, 0] == 0.125
    assert u[first, 0] == 0.25


def test_from_step_keeps_the_given_numbers_and_no_other_grid():
    neuron = MetaDynamicNeuron.from_step(dt=0.001, rate=0.1, drive_step=0.007)
    step = neuron.step(2, 0.001)
    assert np.all(step.extra["rate"] == 0.1)
    assert np.all(step.drive_step == 0.007)
    assert abs(neuron.time_unit - 0.01) < 1e-15
    assert abs(neuron.drive - 7) < 1e-12
    assert dataclasses.replace(neuron, theta_s=0.2).step(2, 0.001).extra["jump"][0] == 0.2
    with pytest.raises(InputError, match="its numbers per step hold for dt"):
        neuron.step(2, 0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_the_event_engine_refuses_continuous_time_by_name(kind):
    neuron = make(kind, np.random.default_rng(7), 2, own=False)
    network = Network((Population("n", 2, neuron), Population("l", 2, LIF())), (), (), None, DT)
    with pytest.raises(InputError, match=rf"population 'n': {neuron.kind} has no exact .* run it on engine 'clock'"):
        simulate(network, None, n_steps=20, engine="event")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MetaDynamicNeuron(time_unit=0.0), "MetaDynamicNeuron.time_unit: expected positive seconds"),
        (lambda: MetaDynamicNeuron(theta_u=-0.1), "MetaDynamicNeuron.theta_u: expected 0 or more"),
        (lambda: MetaDynamicNeuron(theta_r=0.5), "MetaDynamicNeuron.theta_r: must lie below v_threshold"),
        (lambda: MetaDynamicNeuron(theta_r=-2.0), "MetaDynamicNeuron.v_floor: must lie at or below theta_r"),
        (lambda: MetaDynamicNeuron(v_floor=0.01), "MetaDynamicNeuron.v_floor: must lie at or below theta_r"),
        (lambda: MetaDynamicNeuron.from_step(dt=0.001, rate=0.0), "MetaDynamicNeuron.rate: expected a positive number"),
        (lambda: MetaDynamicNeuron().step(1, 0.004), "a step of 0.004 s is 0.4 time units, at most 0.3333 are safe"),
        (lambda: MetaDynamicNeuron(theta_u=20.0).step(1, 0.001), "at most 0.05 are safe"),
        (lambda: ConductanceLIF(solver="euler"), "ConductanceLIF.solver: expected 'exact' or 'fused', got 'euler'"),
        (lambda: ConductanceLIF(substeps=0), "ConductanceLIF.substeps: expected 1 to 1000, got 0"),
        (lambda: ConductanceLIF(substeps=1.5), "ConductanceLIF.substeps: expected a whole number, got 1.5"),
    ],
)
def test_wrong_parameters_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
