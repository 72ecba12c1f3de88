"""Neurons of networks of biology: the clock engine against the definition, bit for bit, however a run is cut."""

import numpy as np
import pytest
from numba import njit
from test_engine_clock import DT, assert_same, spike_trains

from snnsim.cli.inspect import describe_network
from snnsim.engines import grid_inputs, simulate
from snnsim.engines.clock import ClockRunner
from snnsim.engines.clock_plan import make_layout
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export.nir import build_nir
from snnsim.kernels.exponential import exponential
from snnsim.kernels.reference_models import exponential as reference_exponential
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import LI, LIF, AdEx, AlphaCurrentLIF, ConductanceLIF, Izhikevich
from snnsim.stimuli import Current, Poisson

KINDS = ["AlphaCurrentLIF", "ConductanceLIF", "AdEx", "Izhikevich"]
UNIT = {"AlphaCurrentLIF": 3.0, "ConductanceLIF": 0.4, "AdEx": 20.0, "Izhikevich": 8.0}
"""A weight that matters to a neuron of each kind."""


def make_model(kind, rng, size, refractory=False, own=True):
    """Return a neuron whose drive alone lets some of a population fire, with numbers of its own or shared ones."""

    def draw(low, high):
        return rng.uniform(low, high, size) if own else (low + high) / 2

    shared = {"t_ref": (rng.integers(0, 4, size) if own else 2) * DT} if refractory else {}
    taus = {"tau_exc": draw(0.002, 0.02), "tau_inh": draw(0.002, 0.02)}
    if kind == "AlphaCurrentLIF":
        return AlphaCurrentLIF(
            tau_mem=draw(0.01, 0.03), v_threshold=draw(0.8, 1.2), drive=draw(0, 80), **taus, **shared
        )
    if kind == "ConductanceLIF":
        taus |= {"e_exc": draw(5, 7), "e_inh": draw(-3, -1)}
        return ConductanceLIF(tau_mem=draw(0.01, 0.03), v_threshold=draw(0.8, 1.2), drive=draw(0, 80), **taus, **shared)
    if kind == "AdEx":
        taus |= {"tau_w": draw(0.05, 0.2), "a": draw(0, 0.3), "b": draw(1, 4), "slope": draw(1.5, 2.5)}
        return AdEx(v_reset=draw(0, 8), drive=draw(1000, 6000), **taus, **shared)
    values = {"a": draw(0.02, 0.1), "b": draw(0.2, 0.26), "c": draw(-65, -50), "d": draw(2, 8)}
    return Izhikevich(drive=draw(2000, 12000), **values, **shared)


def joined(rng, first, second, low=1):
    """Return two populations that act on each other and on themselves, with an input and a readout."""
    projections = []
    neurons = {"a": (40, first), "b": (30, second)}
    sizes = {"in": 6, "a": 40, "b": 30}
    for source, target in (("in", "a"), ("in", "b"), ("a", "b"), ("b", "a"), ("a", "a"), ("b", "b")):
        size, neuron = neurons[target]
        for receptor in neuron.receptors or ("",):
            n = 3 * size
            strength = UNIT[neuron.kind] * rng.uniform(0, 1, n)
            if receptor != "exc" and not neuron.conductances:
                strength = -strength if receptor else strength * rng.choice([-1, 1], n)
            ends = (rng.integers(0, sizes[source], n), rng.integers(0, size, n))
            lowest = low if neuron.current or source == "in" else max(low, 1)
            sparse = Sparse.from_triples(*ends, strength, (size, sizes[source]))
            projections.append(Projection(source, target, sparse, rng.integers(lowest, 6, n) * DT, receptor))
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
        other = KINDS[(KINDS.index(kind) + 1) % 4]
        first, second = make_model(kind, rng, 40, refractory, own), make_model(other, rng, 30, refractory)
        network = joined(rng, first, second, low)
        events = spike_trains(rng, 2, 6)
        stimuli = (Poisson("a", 500.0, UNIT[kind], "exc" if first.receptors else ""), Current("a", 20.0, 0.01, 0.03))
        options = {"record": everything(network), "dtype": dtype, "tail_steps": 9, "stimuli": stimuli}
        initial = {"a.v": first.rest()["v"] + rng.uniform(0, 0.5, 40)}
        ours = simulate(network, events, initial=initial, **options)
        assert_same(ours, simulate(network, events, initial=initial, engine="reference", **options))
        assert all(len(item.times) > 20 for item in ours.spikes.values())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_windows_and_splits_give_the_same_bits(kind, dtype):
    rng = np.random.default_rng([2, len(kind)])
    for own in (False, True):
        network = joined(rng, make_model(kind, rng, 40, True, own), make_model(kind, rng, 30, False, own), 2)
        inputs = grid_inputs(network, spike_trains(rng, 1, 6))
        names = tuple(everything(network))
        layout = make_layout(network, dtype)
        one = ClockRunner(network, dtype, 1, layout).run(inputs, record=names)
        for threads, window in ((2, None), (3, 7), (4, 1)):
            runner = ClockRunner(network, dtype, threads, layout, window, divide=True)
            half = runner.run(inputs, record=names)
            assert_same(one, half)
            again = ClockRunner(network, dtype, 1, layout, divide=False).run(inputs, state=half.state)
            assert_same(again, runner.run(inputs, state=one.state))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_cut_in_two_is_one_run(kind):
    rng = np.random.default_rng([3, len(kind)])
    network = joined(rng, make_model(kind, rng, 40, True), make_model(kind, rng, 30, False, own=False))
    inner = tuple(item for item in network.projections if item.source != "in")
    network = Network(network.populations, inner, (), None, DT)
    names = everything(network)
    whole = simulate(network, None, n_steps=60, record=names)
    assert len(whole.spikes["a"].times) > 20
    begin = simulate(network, None, n_steps=23, record=names)
    end = simulate(network, None, n_steps=37, record=names, state=begin.state)
    for name in names:
        parts = np.concatenate((begin.records[name][0], end.records[name][0]))
        assert parts.tobytes() == whole.records[name][0].tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_population_is_at_rest_before_it_starts_and_held_after_it_stops(kind):
    rng = np.random.default_rng([4, len(kind)])
    first, second = make_model(kind, rng, 40), make_model(kind, rng, 30, own=False)
    network = joined(rng, first, second)
    changed = (Population("a", 40, first, 7, 31), Population("b", 30, second, 9))
    network = network.replace(populations=changed)
    options = {"record": everything(network), "dtype": "float32"}
    events = spike_trains(rng, 2, 6)
    ours = simulate(network, events, **options)
    assert_same(ours, simulate(network, events, engine="reference", **options))
    for name, value in first.rest().items():
        trace = ours.records[f"a.{name}"][0]
        assert np.array_equal(trace[:7], np.broadcast_to(np.float32(value), (7, 40)))
        assert np.array_equal(trace[31:], np.broadcast_to(trace[30], trace[31:].shape))
    assert np.rint(ours.spikes["a"].times / DT).min() >= 7
    assert np.rint(ours.spikes["a"].times / DT).max() < 31


@pytest.mark.parametrize("kind", KINDS)
def test_a_refractory_neuron_is_held(kind):
    neuron = make_model(kind, np.random.default_rng(5), 1, own=False).replace(t_ref=3 * DT)
    strong = {"AlphaCurrentLIF": 300.0, "ConductanceLIF": 300.0, "AdEx": 9000.0, "Izhikevich": 60000.0}[kind]
    network = Network((Population("n", 1, neuron.replace(drive=strong)),), (), (), None, DT)
    result = simulate(network, None, n_steps=40, record=everything(network))
    v = result.records["n.v"][0][:, 0]
    steps = np.rint(result.spikes["n"].times / DT).astype(int)
    assert np.diff(steps).min() > 3
    low = neuron.c if kind == "Izhikevich" else neuron.v_reset
    for step in steps[:-1]:
        assert np.all(v[step : step + 4] == low)
        assert v[step + 4] != low


def test_the_exponential_function_is_the_same_everywhere_and_right():
    @njit
    def of(x, y):
        for j in range(x.shape[0]):
            y[j] = exponential(x[j])

    rng = np.random.default_rng(6)
    for dtype, most in ((np.float64, 700), (np.float32, 86)):
        x = np.concatenate((rng.uniform(-most, most, 20000), rng.uniform(-1, 1, 20000), [0.0, 1e4, -1e4])).astype(dtype)
        y = np.empty_like(x)
        of(x, y)
        assert y.tobytes() == reference_exponential(x).tobytes()
        assert np.isfinite(y).all()
        right = np.exp(x[:-2].astype(np.longdouble))
        assert np.abs(y[:-2] / right - 1).max() < np.finfo(dtype).eps


def arrivals_alone(neuron, weights, dt, steps):
    """Return the variables of one neuron after arrivals of some weights, by receptor, 4 ms into a run."""
    projections = tuple(Projection("in", "n", [[weight]], 0.0, name) for name, weight in weights.items())
    network = Network((Population("n", 1, neuron),), projections, (Input("in", 1),), None, dt)
    events = Events.from_lists([[0.004]], [[0]], 1, duration=steps * dt)
    records = simulate(network, events, record=everything(network)).records
    return {name.removeprefix("n."): values[0][:, 0] for name, values in records.items()}


def test_an_alpha_current_peaks_at_its_weight():
    for tau_mem in (0.005, 0.005 * (1 + 1e-9), 0.02):
        neuron = AlphaCurrentLIF(tau_mem=tau_mem, tau_exc=0.005, tau_inh=0.01, v_threshold=1e9)
        found = arrivals_alone(neuron, {"exc": 2.0, "inh": -0.7}, DT, 60)
        t = np.maximum(np.arange(60) * DT - 0.004, 0)
        assert np.allclose(found["i_exc"], 2.0 * (t / 0.005) * np.exp(1 - t / 0.005), rtol=1e-12, atol=1e-14)
        assert found["i_exc"].max() == pytest.approx(2.0)
        h = 1e-7
        fine = np.arange(round(0.06 / h)) * h
        current = 2.0 * (fine / 0.005) * np.exp(1 - fine / 0.005) - 0.7 * (fine / 0.01) * np.exp(1 - fine / 0.01)
        grown = current * np.exp(fine / tau_mem)
        v = np.concatenate(([0.0], np.cumsum(grown[1:] + grown[:-1]))) * h / 2 / tau_mem * np.exp(-fine / tau_mem)
        assert np.allclose(found["v"], v[np.rint(t / h).astype(int)], atol=2e-9)


def fine_conductance(neuron, t, weights):
    """Return v so long after an arrival by the Runge-Kutta method with very small steps."""

    def slope(v, at):
        g_exc, g_inh = weights["exc"] * np.exp(-at / neuron.tau_exc), weights["inh"] * np.exp(-at / neuron.tau_inh)
        return (-v + g_exc * (neuron.e_exc - v) + g_inh * (neuron.e_inh - v)) / neuron.tau_mem

    v, n = 0.0, 4000
    h = t / n
    for k in range(n):
        at = k * h
        k1 = slope(v, at)
        k2 = slope(v + h / 2 * k1, at + h / 2)
        k3 = slope(v + h / 2 * k2, at + h / 2)
        k4 = slope(v + h * k3, at + h)
        v += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return v


def test_conductances_are_of_second_order():
    neuron = ConductanceLIF(e_exc=60.0, e_inh=-20.0, v_threshold=1e9)
    weights = {"exc": 5.0, "inh": 12.0}
    right = fine_conductance(neuron, 0.008, weights)
    errors = []
    for dt in (1e-3, 5e-4, 2.5e-4, 1.25e-4):
        n = round(0.012 / dt) + 1
        errors.append(abs(arrivals_alone(neuron, weights, dt, n)["v"][-1] - right))
    assert errors[-1] < 1e-3 * abs(right)
    assert np.all(np.abs(np.log2(np.array(errors[:-1]) / errors[1:]) - 2) < 0.15)


def test_adex_is_of_second_order():
    """From an arrival that brings the membrane near to where it would run up."""
    neuron = AdEx(a=2.0, tau_w=0.02)
    weights = {"exc": 86.0, "inh": -4.0}
    fine = arrivals_alone(neuron, weights, 1e-3 / 256, 12 * 256 + 1)
    assert 17 < fine["v"].max() < 25
    errors = []
    for dt in (5e-4, 2.5e-4, 1.25e-4, 6.25e-5):
        found = arrivals_alone(neuron, weights, dt, round(0.012 / dt) + 1)
        errors.append([abs(found[name][-1] - fine[name][-1]) for name in ("v", "w")])
    assert np.all(np.array(errors[-1]) < 1e-3)
    assert np.all(np.abs(np.log2(np.array(errors[:-1]) / errors[1:]) - 2) < 0.3)


def test_izhikevich_neurons_begin_at_their_rest():
    neuron = Izhikevich(b=np.array([0.2, 0.25]))
    assert neuron.rest()["v"] == -65.0
    assert neuron.rest()["u"].tolist() == [-13.0, -16.25]
    network = Network((Population("n", 2, neuron), Population("l", 3, LIF())), (), (), None, 0.0001)
    result = simulate(network, None, n_steps=1, record=["n.v", "n.u", "l.v"])
    assert result.records["n.v"][0][0, 0] == -65 + 0.1 * (0.04 * 65 * 65 - 5 * 65 + 140 + 13)
    assert not result.records["l.v"][0].any()
    moved = simulate(network, None, n_steps=1, record=["n.v", "n.u"], initial={"n.v": [-70.0, -60.0]})
    assert moved.records["n.u"][0][0, 0] == -13 + 0.1 * 0.02 * (0.2 * -70 + 13)


@pytest.mark.parametrize("kind", KINDS)
def test_models_are_kept_in_the_file(kind, tmp_path):
    rng = np.random.default_rng(7)
    network = joined(rng, make_model(kind, rng, 40, True), make_model(kind, rng, 30, own=False))
    network.save(tmp_path / "models.snn.h5")
    again = Network.load(tmp_path / "models.snn.h5")
    assert again == network
    assert again.digest() == network.digest()
    changed = network.populations[1].neuron.replace(drive=1.0)
    other = network.replace(populations=(network.populations[0], Population("b", 30, changed)))
    assert other.digest() != network.digest()
    _, lines = describe_network(network)
    assert any(f"40 {kind}: " in line for line in lines)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: AlphaCurrentLIF(tau_exc=0.0), "AlphaCurrentLIF.tau_exc: expected positive seconds"),
        (lambda: AlphaCurrentLIF(dt=0.001), "AlphaCurrentLIF.dt: its law is in continuous time"),
        (lambda: AlphaCurrentLIF(v_reset=1.0), "AlphaCurrentLIF.v_reset: must lie below v_threshold"),
        (lambda: ConductanceLIF(tau_inh=[0.01, -0.01]), "ConductanceLIF.tau_inh: expected positive seconds"),
        (lambda: ConductanceLIF(v_reset=2.0), "ConductanceLIF.v_reset: must lie below v_threshold"),
        (lambda: ConductanceLIF(e_exc=np.nan), "ConductanceLIF.e_exc: expected finite numbers"),
        (lambda: ConductanceLIF(t_ref=-1.0), "ConductanceLIF.t_ref: expected non-negative seconds"),
        (lambda: AdEx(tau_w=0.0), "AdEx.tau_w: expected positive seconds"),
        (lambda: AdEx(slope=0.0), "AdEx.slope: expected a positive potential"),
        (lambda: AdEx(v_peak=20.0), "AdEx.v_peak: must lie above v_t"),
        (lambda: AdEx(v_reset=95.0), "AdEx.v_reset: must lie below v_peak"),
        (lambda: AdEx(slope=0.2), "AdEx.v_peak: expected at most 80 slopes above v_t, got 352"),
        (lambda: Izhikevich(c=40.0), "Izhikevich.c: must lie below v_threshold"),
        (lambda: Izhikevich(a="fast"), "Izhikevich.a: expected a number"),
        (lambda: Izhikevich(dt=0.001), "Izhikevich.dt: its law is in continuous time"),
    ],
)
def test_wrong_parameters_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_reversal_potentials_lie_anywhere():
    assert ConductanceLIF(e_exc=0.5, e_inh=2.0).e_exc == 0.5


def test_negative_conductances_are_refused():
    population = Population("n", 1, ConductanceLIF())
    with pytest.raises(InputError, match=r"weight: ConductanceLIF has conductances, which are not negative, got -1\.0"):
        Network((population,), (Projection("n", "n", [[-1.0]], DT, "inh"),), (), None, DT)
    network = Network((population,), (), (), None, DT)
    with pytest.raises(InputError, match=r"weight: ConductanceLIF has conductances, which are not negative, got -2\.0"):
        simulate(network, None, n_steps=1, stimuli=Poisson("n", 10.0, -2.0, "inh"))


@pytest.mark.parametrize("kind", KINDS)
def test_rooms_without_the_models_say_so(kind):
    neuron = make_model(kind, np.random.default_rng(8), 2, own=False)
    receptor = neuron.receptors[0] if neuron.receptors else ""
    populations = (Population("n", 2, neuron), Population("out", 2, LI()))
    projections = (Projection("in", "n", np.ones((2, 3)), DT, receptor), Projection("n", "out", np.eye(2), DT))
    network = Network(populations, projections, (Input("in", 3),), Readout("out"), DT)
    with pytest.raises(InputError, match=f"population 'n': NIR has no {kind} neuron"):
        build_nir(network)
    if kind == "ConductanceLIF":
        return  # has a module: test_nn_special_neurons.py
    pytest.importorskip("torch")
    from snnsim.nn.thaw import thaw

    with pytest.raises(InputError, match=f"population 'n': {kind} has no trainable module"):
        thaw(network)


@pytest.mark.parametrize("kind", KINDS)
def test_the_event_engine_runs_them_on_the_grid_or_refuses(kind):
    rng = np.random.default_rng(9)
    populations = (Population("m", 20, make_model(kind, rng, 20)), Population("l", 20, LIF(tau_mem=0.01)))
    receptor = "exc" if populations[0].neuron.receptors else ""
    weight = np.full((20, 20), UNIT[kind] / 20)
    projections = (Projection("m", "l", weight * 0 + 0.7, 2 * DT), Projection("l", "m", weight, 3 * DT, receptor))
    network = Network(populations, projections, (), None, DT)
    on_grid = simulate(network, None, n_steps=200, engine="event", resolution=DT)
    assert all(len(item.times) > 20 for item in on_grid.spikes.values())
    clock = simulate(network, None, n_steps=200)
    for name, spikes in clock.spikes.items():
        assert np.array_equal(np.rint(spikes.times / DT), np.rint(on_grid.spikes[name].times / DT))
        assert np.array_equal(spikes.units, on_grid.spikes[name].units)
    with pytest.raises(InputError, match=f"engine 'event': population 'm': {kind} has no exact continuous-time form"):
        simulate(network, None, n_steps=200, engine="event")
