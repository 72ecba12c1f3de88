"""Neurons that draw random numbers: the clock engine against the definition, and what needs no draws against LIF."""

from dataclasses import replace

import numpy as np
import pytest

from snnsim.cli.inspect import describe_network
from snnsim.engines import grid_inputs, simulate
from snnsim.engines.clock import ClockRunner
from snnsim.engines.clock_plan import make_layout
from snnsim.engines.stochastic import synapse_words
from snnsim.errors import InputError
from snnsim.events import Events, replace_fields
from snnsim.kernels.philox import Stream, philox4x32, uniform
from snnsim.kernels.reference_stochastic import (
    firing_probability,
    release_numbers,
)
from snnsim.kernels.reference_stochastic import (
    synapse_words as reference_words,
)
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import LI, LIF, LevyBaxter, MetaNeuron
from snnsim.neurons_stochastic import binary_entropy, mutual_information, optimal_failure
from snnsim.plasticity import PairSTDP
from snnsim.stimuli import Current, Poisson

DT = 2.0**-10
SIZES = {"in": 6, "a": 20, "b": 18}


def make_meta(rng, size, own=True, **changes):
    def draw(low, high):
        return rng.uniform(low, high, size) if own else (low + high) / 2

    values = {
        "tau_mem": draw(0.005, 0.02),
        "v_threshold": draw(0.8, 1.2),
        "v_reset": draw(-0.2, 0.2),
        "drive": draw(0, 40),
        "t_ref": (rng.integers(0, 3, size) if own else 1) * DT,
        "release": draw(0.3, 1.0),
        "amplitude": draw(0.0, 1.0),
        "temperature": draw(0.05, 0.3) * (rng.random(size) < 0.7 if own else 1),
    }
    return MetaNeuron(**(values | changes))


def make_network(rng, first, second, low=1):
    """Two populations with dense and sparse projections in both directions, parallel synapses and own delays."""
    projections = [Projection("in", "a", rng.normal(0.3, 0.4, (20, 6)), delay=0.0)]
    projections.append(Projection("a", "b", rng.normal(0.2, 0.4, (18, 20)), delay=rng.integers(low, 4, (1, 20)) * DT))
    projections.append(Projection("in", "a", rng.normal(0.1, 0.3, (20, 6)), rng.integers(low, 3, (20, 6)) * DT))
    source, target = rng.integers(0, 18, 90), rng.integers(0, 20, 90)
    source[:6], target[:6] = 3, 5
    sparse = Sparse.from_triples(source, target, rng.normal(0.1, 0.5, 90), (20, 18))
    projections.append(Projection("b", "a", sparse, rng.integers(1, 5, 90) * DT))
    return Network(
        (Population("a", 20, first), Population("b", 18, second), Population("out", 3, LI(0.01))),
        (*projections, Projection("b", "out", rng.normal(0, 1, (3, 18)))),
        (Input("in", 6),),
        Readout("out", "v", "mean"),
        DT,
    )


def trains(rng, n=3, steps=40, ids=(7, 2, 11)):
    times, units = [], []
    for _ in range(n):
        count = 160
        times.append(np.sort(rng.integers(0, steps, count)) * DT)
        units.append(rng.integers(0, 6, count))
    events = Events.from_lists(times, units, 6, duration=steps * DT, sort=True)
    return replace_fields(events, sample_ids=np.array(ids[:n], np.int64))


def same(one, two):
    for name in one.spikes:
        assert np.array_equal(one.spikes[name].times, two.spikes[name].times), name
        assert np.array_equal(one.spikes[name].units, two.spikes[name].units), name
    for name, traces in one.records.items():
        for a, b in zip(traces, two.records[name], strict=True):
            assert np.array_equal(a, b), name


@pytest.mark.parametrize(
    ("dtype", "own", "reset"),
    [
        ("float64", True, "zero"),
        ("float64", False, "subtract"),
        ("float32", True, "subtract"),
        ("float32", False, "zero"),
    ],
)
def test_clock_engine_is_the_definition(dtype, own, reset):
    rng = np.random.default_rng(3)
    second = LevyBaxter(v_threshold=0.4, release=0.7, drive=20.0)
    network = make_network(rng, make_meta(rng, 20, own, reset=reset), second)
    events = trains(rng)
    stimuli = (Poisson("a", 200.0, 0.2), Current("a", 10.0, 0.005))
    options = {"record": ("a.v", "b.v"), "dtype": dtype, "seed": 5, "stimuli": stimuli}
    ours = simulate(network, events, engine="clock", threads=1, **options)
    defined = simulate(network, events, engine="reference", **options)
    assert ours.spikes["a"].n_events > 100
    assert ours.spikes["b"].n_events > 100
    same(ours, defined)
    assert np.array_equal(ours.logits, defined.logits)


def make_pair(seed=3, **changes):
    rng = np.random.default_rng(seed)
    network = make_network(rng, make_meta(rng, 20, **changes), LevyBaxter(v_threshold=0.4, release=0.7, drive=20.0))
    return network, trains(rng)


def test_numbers_are_the_words_of_one_block_and_firings_have_a_stream_of_their_own():
    first, second = release_numbers(9, 4, 7, 30, 2, 11)
    key = (9, int(Stream.RELEASE) | 4 << 8)
    words = philox4x32((7, 30, 2, 11), key)
    assert first == uniform(*key, 7, 30, 2, 11)
    assert second == ((words[2] >> 5) * 2**26 + (words[3] >> 6)) / 2**53
    assert len({int(stream) for stream in Stream}) == len(list(Stream))
    assert max(Stream) < 256


def test_bits_do_not_depend_on_threads_batches_or_windows_and_a_run_may_go_on():
    network, events = make_pair()
    options = {"record": ("a.v",), "seed": 5}
    whole = simulate(network, events, threads=1, **options)
    for threads, batch in ((2, 1), (4, 3)):
        same(whole, simulate(network, events, threads=threads, batch=batch, **options))
    layout = make_layout(network, "float64")
    inputs = replace(grid_inputs(network, events), seed=5)
    same(whole, ClockRunner(network, "float64", 4, layout, window=7, divide=True).run(inputs, record=("a.v",)))
    alone = simulate(network, events.subset(np.array([1])), **options)
    spikes = whole.spikes["a"][1]
    assert np.array_equal(alone.spikes["a"].times, spikes.times)
    assert np.array_equal(alone.spikes["a"].units, spikes.units)
    half = simulate(network, events, n_steps=17, **options)
    times = events.times - 17 * DT
    keep = times >= 0
    offsets = np.concatenate(([0], np.cumsum(keep)))[events.offsets]
    duration = np.full(3, 23 * DT)
    later = replace_fields(events, times=times[keep], units=events.units[keep], offsets=offsets, duration=duration)
    rest = simulate(network, later, n_steps=23, state=half.state, **options)
    for b in range(3):
        assert np.array_equal(np.concatenate((half.records["a.v"][b], rest.records["a.v"][b])), whole.records["a.v"][b])


def test_seed_and_sample_change_the_draws():
    network, events = make_pair()
    whole = simulate(network, events, seed=5)
    other = simulate(network, events, seed=6)
    moved = simulate(network, replace_fields(events, sample_ids=np.array([8, 2, 11])), seed=5)
    assert whole.spikes["a"].n_events != other.spikes["a"].n_events
    assert not np.array_equal(whole.spikes["a"][0].times, moved.spikes["a"][0].times)
    assert np.array_equal(whole.spikes["a"][1].times, moved.spikes["a"][1].times)


def test_parallel_synapses_draw_apart():
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    ours = synapse_words(source.astype(np.int64), target, 5, "projection")
    assert np.array_equal(ours, reference_words(source, target, 5))
    assert len(set(zip(target.tolist(), ours.tolist(), strict=True))) == 60
    with pytest.raises(InputError, match="need more than 32 bits"):
        synapse_words(np.full(3, 2**31 - 1), np.zeros(3, np.int64), 2**31, "projection 'a->b'")
    # one source with two synapses to one neuron: with s = 1/2 half of all arrivals are one weight, a quarter both
    sparse = Sparse.from_triples([0, 0], [0, 0], [1.0, 1.0], (1, 1))
    neuron = MetaNeuron(tau_mem=1e-4, v_threshold=10.0, release=0.5)
    network = Network((Population("n", 1, neuron),), (Projection("in", "n", sparse),), (Input("in", 1),), None, DT)
    events = Events.from_lists([np.arange(4000) * DT], [np.zeros(4000, int)], 1, duration=4000 * DT)
    arrived = np.rint(simulate(network, events, record="n.v").records["n.v"][0][:, 0])
    shares = [float(np.mean(arrived == k)) for k in range(3)]
    assert np.allclose(shares, [0.25, 0.5, 0.25], atol=0.025)


@pytest.mark.parametrize("engine", ["clock", "reference", "event", "event-grid"])
def test_without_chance_every_engine_runs_lif(engine):
    rng = np.random.default_rng(8)
    own = {"tau_mem": rng.uniform(0.005, 0.02, 20), "drive": rng.uniform(0, 60, 20), "t_ref": 0.002}
    events, spikes = trains(rng), []
    for kind in (MetaNeuron, LIF):
        network = make_network(np.random.default_rng(2), kind(**own), LIF(tau_mem=0.01, drive=50.0))
        spikes.append(simulate(network, events, engine=engine, record=("a.v",)))
    assert spikes[0].spikes["a"].n_events > 100
    same(*spikes)


@pytest.mark.parametrize("engine", ["clock", "reference", "event", "event-grid"])
def test_mean_mode_is_lif_with_the_mean_of_a_release(engine):
    rng = np.random.default_rng(8)
    meta = make_meta(rng, 20, mode="mean")
    events = trains(rng)
    network = make_network(np.random.default_rng(2), meta, LIF(tau_mem=0.01, drive=50.0))
    names = ("tau_mem", "v_threshold", "v_reset", "drive", "t_ref")
    lif = LIF(**{name: getattr(meta, name) for name in names})
    gain = meta.release[:, None]
    projections = []
    for item in network.projections:
        weight = item.weight
        if item.target == "a":
            values = weight.weight * meta.release[weight.target] if isinstance(weight, Sparse) else weight * gain
            weight = (
                Sparse(weight.indptr, weight.target, values, weight.shape) if isinstance(weight, Sparse) else values
            )
        projections.append(Projection(item.source, item.target, weight, item.delay))
    populations = (Population("a", 20, lif), *network.populations[1:])
    plain = network.replace(populations=populations, projections=tuple(projections))
    one, two = (simulate(item, events, engine=engine, record=("a.v",)) for item in (network, plain))
    assert one.spikes["a"].n_events > 100
    same(one, two)


def test_levy_baxter_in_mean_mode_halves_the_drive():
    weight = np.array([[1.0]])
    events = Events.from_lists([np.arange(3) * DT], [np.zeros(3, int)], 1, duration=4 * DT)
    fired = []
    for threshold in (0.3, 0.31):
        neuron = LevyBaxter(v_threshold=threshold, release=0.6, mode="mean")
        network = Network((Population("n", 1, neuron),), (Projection("in", "n", weight),), (Input("in", 1),), None, DT)
        fired.append(simulate(network, events).spikes["n"].n_events)
    assert fired == [3, 0]


def test_levy_baxter_fires_as_often_as_the_closed_form_says():
    p, s, g, n = 0.3, 0.6, 0.7, 300_000
    rng = np.random.default_rng(4)
    times, units = np.nonzero(rng.random((n, 2)) < p)
    events = Events.from_lists([times * DT], [units], 2, duration=n * DT)
    weight = np.array([[1.0, 0.0], [1.0, 1.0]])
    neuron = LevyBaxter(v_threshold=g, release=s)
    network = Network((Population("n", 2, neuron),), (Projection("in", "n", weight),), (Input("in", 2),), None, DT)
    units = simulate(network, events).spikes["n"].units
    a = p * s
    expected = [a * (1 - g), 2 * a * (1 - a) * (1 - g) + a**2 * (1 - g**2 / 2)]
    for unit, rate in enumerate(expected):
        assert abs(np.mean(units == unit) * units.size / n - rate) < 3 * (rate * (1 - rate) / n) ** 0.5


def test_what_a_levy_baxter_neuron_tells_of_its_input():
    assert np.allclose(optimal_failure([1.0, 0.5, 0.25]), [0.25, 0.5, 0.70711], atol=1e-5)
    assert np.allclose(binary_entropy([0, 1, 0.5, 0.2]), [0, 0, 1, 0.721928])
    assert mutual_information([[2, 2], [3, 3]]) == pytest.approx(0)
    # a synapse that fails with f is a Z channel: I = H(p s) - p H(s)
    p, s = 0.4, 0.7
    joint = [[1 - p, 0], [p * (1 - s), p * s]]
    assert mutual_information(joint) == pytest.approx(float(binary_entropy(p * s) - p * binary_entropy(s)))
    with pytest.raises(InputError, match="counts of shape"):
        mutual_information([[-1, 2], [0, 1]])
    with pytest.raises(InputError, match="probabilities within"):
        binary_entropy(1.5)


def test_a_soft_threshold_fires_with_the_logistic_probability():
    theta, temperature = 0.7, 0.2
    neuron = MetaNeuron(tau_mem=1e-5, v_threshold=theta, temperature=temperature, drive=0.6 / 1e-5, reset="zero")
    network = Network((Population("n", 1, neuron),), (), (), None, DT)
    n = 50_000
    rate = simulate(network, None, n_steps=n).spikes["n"].n_events / n
    expected = 1 / (1 + np.exp((theta - 0.6) / temperature))
    assert abs(rate - expected) < 3 * (expected * (1 - expected) / n) ** 0.5
    one = np.ones(1)
    assert firing_probability(0.6 * one, theta * one, temperature * one)[0] == pytest.approx(expected, abs=1e-15)


def test_event_engine_in_continuous_time_refuses_draws_and_its_grid_has_them():
    network, events = make_pair()
    with pytest.raises(InputError, match=r"'a': MetaNeuron draws random numbers.*engine='clock'"):
        simulate(network, events, engine="event")
    same(simulate(network, events, seed=5), simulate(network, events, engine="event", resolution=DT, seed=5))
    mean = MetaNeuron(release=0.5, mode="mean")
    projection = Projection("in", "n", np.ones((1, 1)), 0.01)
    target = Network((Population("n", 1, mean),), (projection,), (Input("in", 1),), None, DT)
    one = Events.from_lists([[0.0]], [[0]], 1, duration=0.1)
    rule = PairSTDP(("in->n",), a_plus=0.01, a_minus=0.01, w_max=2.0)
    with pytest.raises(InputError, match="stand for random ones"):
        simulate(target, one, engine="event", plasticity=rule)


def test_records_are_kept_in_files_and_hashes(tmp_path):
    network, _ = make_pair()
    back = Network.load(network.save(tmp_path / "net.snn.h5"))
    assert back == network
    assert back.digest() == network.digest()
    changed = network.populations[1].neuron.replace(mode="mean")
    populations = (network.populations[0], Population("b", 18, changed), network.populations[2])
    assert network.replace(populations=populations).digest() != network.digest()
    step = MetaNeuron.from_step(dt=DT, beta=0.9, drive_step=0.1, release=0.5)
    assert step.step(2, DT).beta.tolist() == [0.9, 0.9]
    assert LevyBaxter().step(2, DT).beta.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MetaNeuron(release=0.0), "MetaNeuron.release: expected \\(0, 1\\]"),
        (lambda: MetaNeuron(amplitude=1.5), "MetaNeuron.amplitude: expected \\[0, 1\\]"),
        (lambda: MetaNeuron(temperature=-1.0), "temperature: expected 0 or more"),
        (lambda: MetaNeuron(mode="median"), "mode: expected one of stochastic, mean"),
        (lambda: LevyBaxter(v_threshold=0.0), "LevyBaxter.v_threshold: expected a positive"),
        (lambda: LevyBaxter(release=1.1), "LevyBaxter.release"),
    ],
)
def test_records_refuse_what_is_out_of_range(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_inspect_names_the_numbers_of_a_release():
    network, _ = make_pair()
    text = "\n".join(describe_network(network)[1])
    assert "release 0.7, mode stochastic" in text
    assert "temperature" in text
