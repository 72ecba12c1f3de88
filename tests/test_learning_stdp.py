"""Layers that learn by spike timing: windows in closed form, the plain definition, rewards, teachers, networks."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events, bin_events
from snnsim.kernels.reference_stdp import stdp_reference
from snnsim.kernels.stdp import LayerNumbers, stdp_sample
from snnsim.learning.stdp import STDP, Chance, Homeostasis, Reward, Teacher
from snnsim.learning.stdp_layer import STDPLayer
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import IF, LIF
from snnsim.plasticity import PairSTDP

DT = 0.001
TAUS = {"tau_plus": 0.017, "tau_minus": 0.034, "tau_x": 0.1, "tau_y": 0.08}


def samples(n: int = 6, units: int = 8, events: int = 80, classes: int = 2, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.integers(0, 100, events)) * DT for _ in range(n)]
    who = [rng.integers(0, units, events) for _ in range(n)]
    return Events.from_lists(times, who, units, np.arange(n) % classes, 0.1)


def trains(source: Any, neuron: Any, rule: STDP, weight: float = 0.1) -> float:
    """Return the weight of a source's synapse after given trains in steps; input 1 makes the neuron fire."""
    layer = STDPLayer(2, 1, rule, dt=DT)
    layer.weight = [[weight, 8.0]]
    steps = np.concatenate([source, neuron])
    units = np.repeat([0, 1], [len(source), len(neuron)])
    events = Events.from_lists([steps * DT], [units], 2, duration=0.5, sort=True)
    spikes = layer.spikes(events)
    assert np.rint(spikes.times / DT).tolist() == list(neuron), "the neuron fires when it is told to, and only then"
    layer.fit(events)
    return float(layer.weight[0, 0])


@pytest.mark.parametrize("gap", [-60, -3, -1, 0, 1, 2, 40])
def test_a_pair_changes_the_weight_by_its_window(gap: int) -> None:
    rule = STDP(a_plus=0.01, a_minus=0.02, w_max=10.0, **TAUS)
    window = 0.01 * math.exp(-gap * DT / 0.017) if gap >= 0 else -0.02 * math.exp(gap * DT / 0.034)
    assert trains([100], [100 + gap], rule) - 0.1 == pytest.approx(window, rel=1e-11)
    assert trains([250], [250 + gap], rule) == pytest.approx(0.1 + window, rel=1e-13), "shifted in time"


@pytest.mark.parametrize("bound", ["additive", "multiplicative"])
@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_pairs_on_given_trains_are_those_of_the_event_engine(bound: Any, pairing: Any) -> None:
    sizes = {"a_plus": 0.0002, "a_minus": 0.0003, "w_max": 10.0, "tau_plus": 0.017, "tau_minus": 0.034}
    rng = np.random.default_rng(1)
    source, neuron = (np.sort(rng.choice(400, size, replace=False)) for size in (40, 30))
    assert np.intersect1d(source, neuron).size, "some pairs at distance 0"
    network = Network(
        (Population("n", 1, IF()),),
        (Projection("in", "n", np.array([[0.02]])), Projection("teacher", "n", np.array([[8.0]]))),
        (Input("in", 1), Input("teacher", 1)),
        None,
        DT,
    )
    given = {"in": source * DT, "teacher": neuron * DT}
    events = {name: Events.from_lists([t], [np.zeros(t.size, int)], 1, duration=0.5) for name, t in given.items()}
    rule = PairSTDP("in->n", **sizes, bound=bound, pairing=pairing)
    result = simulate(network, events, engine="event", plasticity=rule)
    assert np.array_equal(result.spikes["n"].times, given["teacher"])
    theirs = float(result.weights["in->n"][0][0, 0])
    assert abs(theirs - 0.02) > 1e-4
    mine = trains(source, neuron, STDP(**sizes, bound=bound, pairing=pairing), 0.02)
    assert mine == pytest.approx(theirs, rel=1e-11)


def test_triplets_change_the_weight_by_their_closed_form() -> None:
    a2p, a2m, a3p, a3m = 0.01, 0.02, 0.03, 0.04
    rule = STDP(a_plus=a2p, a_minus=a2m, a3_plus=a3p, a3_minus=a3m, w_max=10.0, **TAUS)

    def e(steps: int, tau: str) -> float:
        return math.exp(-steps * DT / TAUS[tau])

    # neuron, source, neuron
    expected = -a2m * e(5, "tau_minus") + e(7, "tau_plus") * (a2p + a3p * e(12, "tau_y"))
    assert trains([105], [100, 112], rule, 1e-9 + 0.1) - 0.1 == pytest.approx(expected, rel=1e-6)
    # source, neuron, source
    expected = a2p * e(5, "tau_plus") - e(7, "tau_minus") * (a2m + a3m * e(12, "tau_x"))
    assert trains([100, 112], [105], rule) - 0.1 == pytest.approx(expected, rel=1e-11)
    pair = STDP(a_plus=a2p, a_minus=a2m, w_max=10.0, **TAUS)
    assert trains([100], [105], rule) == trains([100], [105], pair), "a pair alone is no triplet"


LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "random": {"chance": Chance(release=0.6, low=0.0, high=1.0, temperature=0.1)},
    "amplitude": {"chance": Chance(low=0.5, high=1.5)},
    "lateral": {"inhibition": 0.2, "winners": 1},
    "neuron": {"neuron": LIF(reset="subtract", t_ref=0.002, tau_mem=0.01, drive=3.0)},
    "reset": {"neuron": LIF(v_reset=-0.3, v_threshold=np.linspace(0.7, 1.5, 4), strict=True)},
}
RULES: dict[str, dict[str, Any]] = {
    "pair": {},
    "triplet": {"a3_plus": 0.01, "a3_minus": 0.02},
    "multiplicative": {"bound": "multiplicative", "a3_plus": 0.01, "a3_minus": 0.02},
    "nearest": {"pairing": "nearest", "a3_plus": 0.01, "a3_minus": 0.02},
}


@pytest.mark.parametrize("rewarded", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_kernel_is_the_plain_definition(kind: str, rule: str, rewarded: bool) -> None:
    data = samples(2, 6, 60)
    layer = STDPLayer(6, 4, STDP(a_plus=0.05, a_minus=0.04, **RULES[rule]), seed=5, start=(0.2, 0.8), **LAYERS[kind])
    grid, counts, fade = layer._grid(data), bin_events(data, DT), math.exp(-DT / 0.03)
    numbers, teacher = layer.rule.numbers(DT), np.array([0.1, -0.1, 0.0, 0.05])
    assert counts.max() > 1, "some events coincide"
    for i in range(2):
        a, b, part = grid.first[i], grid.first[i + 1], slice(grid.entry[i], grid.entry[i + 1])
        weight = layer._weight.copy()
        kept = np.ones(weight.shape)
        fading = fade ** np.arange(b - a - 1, -1, -1.0) if rewarded else np.zeros(0)
        spikes = np.zeros((b - a, 4), np.uint8)
        stdp_sample(
            *(grid.begin[a + i : b + i + 1], grid.source[part], grid.counts[part], weight, kept, fading),
            *(teacher, layer._layer(), numbers, True, 7, i, spikes),
        )
        plain = stdp_reference(
            *(counts[: b - a, i].astype(float), layer._weight, fade if rewarded else None, teacher),
            *(layer._layer(), numbers, 7, i),
        )
        assert np.array_equal(spikes, plain[0])
        assert 10 < spikes.sum() < spikes.size
        np.testing.assert_allclose(weight, plain[1], rtol=1e-12, atol=1e-14)
        if rewarded:
            assert np.array_equal(weight, layer._weight)
            np.testing.assert_allclose(kept, plain[2], rtol=1e-12, atol=1e-14)
        else:
            assert np.abs(weight - layer._weight).max() > 0.01


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_network_has_the_same_spikes_on_the_clock_engine(reset: Any) -> None:
    data = samples()
    neuron = LIF(tau_mem=0.015, reset=reset, t_ref=0.002, drive=5.0, v_threshold=1.2)
    home = Homeostasis(target=50.0, rate=0.01, intrinsic=("v_threshold",))
    layer = STDPLayer(8, 5, STDP(a_plus=0.05, a_minus=0.04), neuron=neuron, inhibition=0.3, homeostasis=home, seed=2)
    layer.fit(data, 2)
    assert len(set(layer.v_threshold)) > 1
    mine, theirs = layer.spikes(data), simulate(layer.network(), data).spikes["stdp"]
    assert mine.n_events > 100
    assert np.array_equal(mine.times, theirs.times)
    assert np.array_equal(mine.units, theirs.units)
    assert np.array_equal(mine.offsets, theirs.offsets)


@pytest.mark.parametrize("kind", ["meta", "meta-sure-threshold", "levy-baxter"])
def test_random_layers_are_networks_of_random_neurons(kind: str) -> None:
    data = samples()
    temperature = 0.2 if kind == "meta" else 0.0
    chance = Chance(release=0.6, low=0.5, high=1.5, temperature=temperature)
    neuron = LIF(tau_mem=0.015, t_ref=0.002, drive=5.0, v_threshold=1.2)
    if kind == "levy-baxter":
        chance, neuron = Chance(release=0.7, low=0.0), LIF(tau_mem=1e-7, v_threshold=0.6)
    home = Homeostasis(target=50.0, rate=0.01, intrinsic=("v_threshold", "release"))
    layer = STDPLayer(8, 5, STDP(a_plus=0.05, a_minus=0.04), neuron=neuron, chance=chance, homeostasis=home, seed=2)
    layer.fit(data, 2)
    network = layer.network()
    assert network.populations[0].neuron.kind == ("LevyBaxter" if kind == "levy-baxter" else "MetaNeuron")
    mine, theirs = layer.spikes(data), simulate(network, data, seed=2).spikes["stdp"]
    assert mine.n_events > 100
    assert np.array_equal(mine.times, theirs.times)
    assert np.array_equal(mine.units, theirs.units)
    other = simulate(network, data, seed=3).spikes["stdp"]
    assert not np.array_equal(mine.times, other.times)


def test_without_chance_nothing_is_drawn_and_release_thins_what_arrives() -> None:
    data = samples(20, 8, 80)
    plain, thin, noisy = (
        STDPLayer(8, 40, STDP(a_plus=0.0, a_minus=0.0), chance=chance, start=(0.1, 0.1), neuron=LIF(v_threshold=1e-9))
        for chance in (None, Chance(release=0.3), Chance(temperature=0.5))
    )
    other = STDPLayer(8, 40, STDP(a_plus=0.0, a_minus=0.0), start=(0.1, 0.1), neuron=LIF(v_threshold=1e-9), seed=9)
    assert np.array_equal(plain.spikes(data).times, other.spikes(data).times)
    # every arrival fires: steps with c active sources fire with probability 1 - 0.7 ** c
    counts = bin_events(data, DT)
    active = (counts > 0).sum(axis=2)
    expected, variance = (1 - 0.7**active).sum() * 40, ((1 - 0.7**active) * 0.7**active).sum() * 40
    assert plain.spikes(data).n_events == (active > 0).sum() * 40
    assert abs(thin.spikes(data).n_events - expected) < 4 * math.sqrt(variance)
    assert 0.4 < noisy.spikes(data).n_events / (20 * 100 * 40) < 0.7
    assert (
        thin.spikes(data).times.size
        != STDPLayer(8, 40, thin.rule, chance=thin.chance, start=(0.1, 0.1), neuron=thin.neuron, seed=1)
        .spikes(data)
        .times.size
    )


def test_a_levy_baxter_neuron_fires_as_often_as_its_closed_form_says() -> None:
    # one input, weight 1, amplitude uniform in 0 .. 1: P = p s (1 - g) with p = 1 here
    steps = np.arange(20_000)
    data = Events.from_lists([steps * DT], [np.zeros(steps.size, int)], 1, duration=20.0)
    layer = STDPLayer(
        *(1, 20, STDP(a_plus=0.0, a_minus=0.0, w_max=2.0)),
        start=(1.0, 1.0),
        chance=Chance(release=0.6, low=0.0),
        neuron=LIF.from_step(dt=DT, beta=0.0, v_threshold=0.7),
    )
    share = layer.spikes(data).n_events / (20_000 * 20)
    assert abs(share - 0.6 * 0.3) < 4 * math.sqrt(0.18 * 0.82 / 400_000)


def test_same_bits_on_any_number_of_threads_and_split() -> None:
    data = samples(7)
    chance = Chance(release=0.7, low=0.5, high=1.5, temperature=0.1)
    layers = [STDPLayer(8, 5, STDP(a_plus=0.05, a_minus=0.04), chance=chance, seed=s) for s in (3, 3, 4)]
    for layer in layers:
        layer.fit(data, 2)
    assert np.array_equal(layers[0].weight, layers[1].weight)
    assert not np.array_equal(layers[0].weight, layers[2].weight)
    layer = layers[0]
    whole = layer.spikes(data, threads=1)
    assert np.array_equal(whole.times, layer.spikes(data, threads=4).times)
    assert np.array_equal(layer.rates(data, threads=1), layer.rates(data, threads=3))
    parts = [layer.spikes(data.subset(part)) for part in ([5, 6, 0], [1, 2, 3, 4])]
    assert np.array_equal(parts[0][2].times, whole[0].times)
    assert np.array_equal(parts[1][3].units, whole[4].units)


def test_splitting_epochs_in_two_calls_is_one_call() -> None:
    data, once, twice = samples(), *(STDPLayer(8, 5, STDP(a_plus=0.05, a_minus=0.04), seed=1) for _ in range(2))
    rates = once.fit(data, 4)
    assert np.array_equal(rates, np.concatenate([twice.fit(data, 1), twice.fit(data, 3)]))
    assert np.array_equal(once.weight, twice.weight)


@pytest.mark.parametrize(("normalise", "size"), [("sum", np.sum), ("norm", np.linalg.norm)])
def test_incoming_weights_keep_their_size(normalise: Any, size: Any) -> None:
    layer = STDPLayer(8, 5, STDP(a_plus=0.05, a_minus=0.04, w_max=3.0), normalise=normalise, total=2.0)
    before = layer.weight
    layer.fit(samples(), 2)
    assert np.abs(layer.weight - before).max() > 0.05
    for row in layer.weight:
        assert size(row) == pytest.approx(2.0, rel=1e-12)


def test_reward_decides_the_sign_of_learning_and_no_reward_learns_nothing() -> None:
    data, changes = samples(3), []
    for value in (0.0, 1.0, -1.0):
        layer = STDPLayer(8, 4, STDP(a_plus=1e-4, a_minus=2e-5), reward=Reward(rate=1.0), start=(0.3, 0.5))
        before = layer.weight
        layer.fit(data.subset([0]), 1, reward=[value])
        changes.append(layer.weight - before)
    assert np.all(changes[0] == 0)
    assert np.abs(changes[1]).max() > 1e-4
    np.testing.assert_allclose(changes[1], -changes[2], atol=1e-12)


def test_a_reward_for_the_right_answer_makes_it_more_frequent() -> None:
    # two inputs, two classes; who shows the class's own input fires; reward = spikes of the right neuron - the other's
    rng = np.random.default_rng(0)
    lists = [np.flatnonzero(rng.random(200) < 0.2) * DT for _ in range(40)]
    data = Events.from_lists(lists, [np.full(t.size, i % 2) for i, t in enumerate(lists)], 2, np.arange(40) % 2, 0.2)

    def reward(label: int, counts: npt.NDArray[np.int64]) -> float:
        return float(np.sign(counts[label] - counts[1 - label]))

    layer = STDPLayer(
        *(2, 2, STDP(a_plus=0.01, a_minus=0.004, w_max=2.0)),
        reward=Reward(tau=0.2, rate=0.3),
        chance=Chance(temperature=0.15),
        start=(0.4, 0.6),
        winners=1,
        seed=1,
    )
    layer.unit_class = np.array([0, 1])

    def lead() -> float:
        rates = layer.rates(data)
        right = rates[np.arange(40), data.labels]
        return float(np.mean(right - rates[np.arange(40), 1 - data.labels]))

    before = lead()
    layer.fit(data, 10, reward=reward)
    assert abs(before) < 10
    assert lead() > before + 20
    assert layer.score(data) > 0.9


def test_the_running_mean_of_rewards_is_subtracted() -> None:
    data = samples(2).subset([0, 0, 0])
    rule, start = STDP(a_plus=1e-5, a_minus=0.0), (0.3, 0.5)
    plain = STDPLayer(8, 4, rule, reward=Reward(), start=start)
    less = STDPLayer(8, 4, rule, reward=Reward(baseline=1.0), start=start)
    before = plain.weight
    plain.fit(data, 1, reward=[1.0, 1.0, 1.0])
    less.fit(data, 1, reward=[1.0, 1.0, 1.0])
    # with baseline 1 the mean is the last reward, so only the first of three equal rewards counts
    np.testing.assert_allclose((less.weight - before) * 3, plain.weight - before, rtol=0.05)


def test_a_teacher_makes_neurons_of_a_class_learn_its_inputs() -> None:
    rng = np.random.default_rng(2)
    times, units = [], []
    for i in range(30):
        k, unit = np.nonzero(rng.random((100, 9)) < np.where(np.arange(9) // 3 == i % 3, 0.2, 0.03))
        times.append(k * DT)
        units.append(unit)
    data = Events.from_lists(times, units, 9, np.arange(30) % 3, 0.1)
    layer = STDPLayer(
        *(9, 6, STDP(a_plus=0.02, a_minus=0.01, bound="multiplicative")),
        teacher=Teacher(n_classes=3, current=0.2, suppress=1.0),
        start=(0.0, 0.3),
        normalise="sum",
        total=2.0,
    )
    layer.fit(data, 5)
    assert layer.score(data) > 0.9
    for j, row in enumerate(layer.weight):
        own = np.arange(9) // 3 == j % 3
        assert row[own].min() > row[~own].max()


@pytest.mark.parametrize("name", ["v_threshold", "tau_mem", "release"])
def test_homeostasis_brings_rates_to_their_target(name: Any) -> None:
    data = samples(10, 20, 300)
    layer = STDPLayer(
        *(20, 6, STDP(a_plus=0.0, a_minus=0.0)),
        start=(0.05, 0.15),
        chance=Chance(release=0.7),
        homeostasis=Homeostasis(target=60.0, rate=0.02, intrinsic=(name,)),
    )
    before = layer.rates(data).mean(axis=0)
    layer.fit(data, 40)
    after = layer.rates(data).mean(axis=0)
    assert np.abs(before - 60).max() > 15
    assert np.abs(after - 60).max() < 10
    for other in {"v_threshold", "tau_mem", "release"} - {name}:
        assert len(set(getattr(layer, other))) == 1


def test_a_winner_takes_all_and_inhibition_holds_back() -> None:
    data, rule = samples(), STDP(a_plus=0.0, a_minus=0.0)
    free, one, held = (STDPLayer(8, 6, rule, start=(0.5, 0.9), **k) for k in ({}, {"winners": 1}, {"inhibition": 0.5}))

    def most(layer: STDPLayer) -> int:
        return max(int(np.unique(np.rint(s.times / DT), return_counts=True)[1].max()) for s in layer.spikes(data))

    assert most(free) > 1
    assert most(one) == 1
    assert held.spikes(data).n_events < 0.8 * free.spikes(data).n_events


def test_assigned_classes_and_outputs_for_others() -> None:
    data = samples(8)
    layer = STDPLayer(8, 6, STDP(a_plus=0.01, a_minus=0.01))
    with pytest.raises(InputError, match="neurons have no classes yet"):
        layer.predict(data)
    rates = layer.rates(data)
    expected = np.argmax([rates[data.labels == c].mean(axis=0) for c in (0, 1)], axis=0)
    assert layer.assign(data).tolist() == expected.tolist()
    assert set(layer.predict(data)) <= {0, 1}
    spikes = layer.spikes(data)
    assert spikes.n_units == 6
    assert np.array_equal(spikes.labels, data.labels)
    assert np.array_equal(spikes.sample_ids, data.sample_ids)
    counts = np.array([np.bincount(sample.units, minlength=6) for sample in spikes])
    np.testing.assert_allclose(rates * 0.1, counts)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: STDP(a_plus=0.1, a_minus=0.1, w_min=2.0), "expected w_min < w_max"),
        (lambda: STDP(a_plus=0.1, a_minus=-0.1, bound="multiplicative"), "sizes of 0 or more"),
        (lambda: STDP(a_plus=0.1, a_minus=0.1, pairing="some"), "pairing: expected one of"),  # type: ignore[arg-type]
        (lambda: STDP(a_plus=0.1, a_minus=0.1, tau_x=0.0), "tau_x: expected a number from"),
        (lambda: Chance(release=0.0), "release: expected above 0"),
        (lambda: Chance(low=2.0), "high: expected a number from 2.0"),
        (lambda: Reward(baseline=2.0), "baseline: expected a number from 0.0 to 1.0"),
        (lambda: Teacher(n_classes=1, current=1.0), "n_classes: expected a number from 2"),
        (lambda: Homeostasis(target=5.0, intrinsic=("beta",)), "intrinsic: expected some of"),  # type: ignore[arg-type]
    ],
)
def test_rules_that_do_not_fit_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"neuron": IF()}, "neuron: expected LIF, got IF"),
        ({"winners": 6}, "winners: expected a number from 1 to 5"),
        ({"teacher": Teacher(n_classes=6, current=1.0)}, "6 classes need as many neurons, got 5"),
        ({"homeostasis": Homeostasis(target=1.0, intrinsic=("release",))}, "needs synapses with chance"),
        (
            {
                "homeostasis": Homeostasis(target=1.0, intrinsic=("tau_mem",)),
                "neuron": LIF.from_step(dt=DT, beta=0.9),
            },
            "needs a neuron given by tau_mem",
        ),
        (
            {"homeostasis": Homeostasis(target=1.0, intrinsic=("tau_mem",)), "neuron": LIF(drive=1.0)},
            "needs a neuron without drive",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(options: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        STDPLayer(8, 5, STDP(a_plus=0.1, a_minus=0.1), **options)


def test_calls_that_do_not_fit_are_refused() -> None:
    data, rule = samples(), STDP(a_plus=0.1, a_minus=0.1)
    with pytest.raises(InputError, match="or neither"):
        STDPLayer(8, 5, rule).fit(data, reward=np.zeros(6))
    rewarded = STDPLayer(8, 5, rule, reward=Reward())
    with pytest.raises(InputError, match="or neither"):
        rewarded.fit(data)
    with pytest.raises(InputError, match="expected 6 finite numbers"):
        rewarded.fit(data, reward=[1.0])
    with pytest.raises(InputError, match="winners= has no form in a network"):
        STDPLayer(8, 5, rule, winners=1).network()
    with pytest.raises(InputError, match="expected amplitudes around 1"):
        STDPLayer(8, 5, rule, chance=Chance(low=0.5)).network()
    with pytest.raises(InputError, match=r"expected 0\.0 to 1\.0, the bounds of the rule"):
        STDPLayer(8, 5, rule).weight = np.full((5, 8), 2.0)
    with pytest.raises(InputError, match="at or after its last step"):
        STDPLayer(1, 5, rule).fit(Events.from_lists([[0.2]], [[0]], 1, duration=0.1))
    assert isinstance(STDPLayer(8, 5, rule)._layer(), LayerNumbers)
