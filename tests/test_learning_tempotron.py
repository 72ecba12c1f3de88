"""The Tempotron: peaks against sums over spikes, gradients against differences, learning, and its network."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.reference_tempotron import potential_reference, tempotron_peak_reference
from snnsim.kernels.tempotron import peak_gain, tempotron_peak
from snnsim.learning.local import WeightBounds
from snnsim.learning.tempotron import Tempotron

TAU, TAU_S = 0.015, 0.00375


def samples(
    n: int, units: int, seed: int, classes: int = 2, events: int | None = None, duration: float = 0.1
) -> Events:
    """Samples of random times, one event a unit unless a number of events is given; some events coincide."""
    rng = np.random.default_rng(seed)
    m = units if events is None else events
    times = [np.round(rng.uniform(0, duration, m), 3) for _ in range(n)]
    who = [np.arange(units) if events is None else rng.integers(0, units, m) for _ in range(n)]
    return Events.from_lists(times, who, units, np.arange(n) % classes, duration, sort=True)


def test_the_kernel_has_its_peak_of_one_where_the_paper_has_it() -> None:
    assert peak_gain(TAU, TAU_S)[0] == pytest.approx(2.116535, abs=5e-7)
    one = Events.from_lists([[0.01]], [[0]], 1, [1], 0.1)
    rule = Tempotron(1, w_start=0.5, v_threshold=5.0)
    rule.weight[:] = 1.0
    height, when, spike = rule.peaks(one)
    assert height[0, 0] == pytest.approx(1.0, abs=1e-15)
    assert when[0, 0] - 0.01 == pytest.approx(0.006931472, abs=5e-10)
    assert spike[0, 0] == math.inf


@pytest.mark.parametrize("shunt", [False, True])
@pytest.mark.parametrize("theta", [0.3, 1.5, 1e9])
def test_peaks_and_crossings_are_those_of_the_definition(shunt: bool, theta: float) -> None:
    rng = np.random.default_rng(3)
    fired = 0
    for trial in range(60):
        n = int(rng.integers(0, 25))
        times = np.sort(np.round(rng.uniform(0, 0.12, n), 3))
        weight = rng.normal(0.1, 0.5, max(n, 1))
        end = 0.1 if trial % 2 else 0.13
        reference = tempotron_peak_reference(times, weight[:n], end, TAU, TAU_S, theta, shunt)
        units = np.arange(n, dtype=np.int32)
        height, when, _, spike = tempotron_peak(times, units, 0, n, end, weight, TAU, TAU_S, theta, shunt)
        assert height == pytest.approx(reference[0], abs=1e-12)
        assert when == pytest.approx(reference[1], abs=1e-8)  # V is flat at its peak
        assert spike == pytest.approx(reference[2], abs=1e-11)
        fired += spike < math.inf
    assert (fired > 0) == (theta < 1e9)


def test_nothing_lies_above_the_peak() -> None:
    rng = np.random.default_rng(0)
    times, weight = np.sort(rng.uniform(0, 0.1, 20)), rng.normal(0, 1, 20)
    height = tempotron_peak(times, np.arange(20, dtype=np.int32), 0, 20, 0.1, weight, TAU, TAU_S, 1e9, False)[0]
    dense = potential_reference(np.linspace(0, 0.1, 200_001), times, weight, TAU, TAU_S)
    assert height - 1e-6 < dense.max() <= height + 1e-12


@pytest.mark.parametrize("shunt", [False, True])
def test_the_gradient_is_that_of_finite_differences(shunt: bool) -> None:
    data = samples(8, 6, seed=1, classes=3, events=15)
    rule = Tempotron(6, 3, shunt=shunt, w_start=0.3, seed=2, intrinsic=("tau_mem", "tau_syn", "v_threshold"))
    rule.tau_mem[:] = 0.02, 0.017, 0.013
    rule.tau_syn[:] = 0.004, 0.005, 0.003
    rule.v_threshold[:] = 0.8, 1.3, 1.0
    found = rule.gradient(data)
    assert found.loss > 0.1
    for name in ("weight", "tau_mem", "tau_syn", "v_threshold"):
        array: npt.NDArray[np.float64] = getattr(rule, name)
        numeric = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            value, step = array[place], 1e-6 * array[place]
            array[place] = value + step
            above = rule.gradient(data).loss
            array[place] = value - step
            below = rule.gradient(data).loss
            array[place] = value
            numeric[place] = (above - below) / (2 * step)
        assert np.abs(numeric).max() > 0.1
        np.testing.assert_allclose(getattr(found, name), numeric, rtol=1e-6, atol=1e-6 * np.abs(numeric).max())


def test_separable_patterns_are_learned_without_an_error() -> None:
    data = samples(60, 60, seed=5, duration=0.5)
    rule = Tempotron(60)
    errors = rule.fit(data, 300)
    assert errors[0] > 10
    assert errors[-1] == 0
    assert rule.score(data) == 1.0
    before = rule.weight.copy()
    rule.fit(data, 3)
    assert np.array_equal(rule.weight, before), "no error, no change"


@pytest.mark.parametrize("label", [0, 1])
def test_a_missed_sample_raises_weights_and_a_false_alarm_lowers_them(label: int) -> None:
    data = samples(1, 5, seed=0).subset([0])
    data = Events.from_lists([data.times], [data.units], 5, [label], 0.1)
    rule = Tempotron(5, rate=0.01, w_start=0.0, seed=1)
    rule.weight[:] = 3.0 if label == 0 else 0.1
    before, threshold = rule.weight.copy(), rule.v_threshold.copy()
    gradient = rule.gradient(data).weight
    assert rule.fit(data, 1).tolist() == [1]
    change = rule.weight - before
    assert np.all(change >= 0 if label else change <= 0)
    assert np.abs(change).max() > 1e-4
    np.testing.assert_allclose(change, -0.01 * gradient, rtol=1e-9, atol=1e-15)
    assert np.array_equal(rule.v_threshold, threshold)


@pytest.mark.parametrize("start", [0.0, -0.5])
def test_a_neuron_that_is_only_pushed_down_learns_too(start: float) -> None:
    data = samples(1, 5, seed=0, events=20, duration=0.05).subset([0])
    data = Events.from_lists([data.times], [data.units], 5, [1], 0.05)
    rule = Tempotron(5, rate=0.05)
    rule.weight[:] = start
    errors = rule.fit(data, 500)
    assert errors[0] == 1
    assert errors[-1] == 0


def test_bounds_win_over_normalisation_and_empty_samples_change_nothing() -> None:
    empty = Events.from_lists([[]], [[]], 4, [1], 0.1)
    rule = Tempotron(4, w_start=0.1, bounds=WeightBounds(w_min=0.0, w_max=0.5, normalise="sum", total=10.0))
    before = rule.weight.copy()
    rule.fit(empty, 2)
    np.testing.assert_array_equal(rule.weight, np.where(before > 0, 0.5, before))
    assert [float(value[0, 0]) for value in rule.peaks(empty)] == [0.0, 0.0, math.inf]


def test_momentum_adds_a_share_of_the_last_change() -> None:
    data = Events.from_lists([[0.01]], [[0]], 1, [1], 0.1)
    rule = Tempotron(1, rate=0.01, momentum=0.5, w_start=0.0)
    rule.weight[:] = 0.1
    rule.fit(data, 3)
    assert rule.weight[0, 0] == pytest.approx(0.1 + 0.01 * (1 + 1.5 + 1.75), rel=1e-12)


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "v_threshold"])
def test_neurons_learn_their_own_numbers_downhill(name: Any) -> None:
    data = samples(30, 20, seed=4, classes=3, events=60)
    rule = Tempotron(20, 3, rate=0.0, intrinsic=(name,), intrinsic_rate=1e-4, w_start=0.2, shunt=False)
    before = rule.gradient(data).loss
    rule.fit(data, 5)
    assert rule.gradient(data).loss < before - 1e-3
    for other in {"tau_mem", "tau_syn", "v_threshold"} - {name}:
        assert len(set(getattr(rule, other))) == 1, "not asked to learn"
    assert np.all(rule.tau_mem > rule.tau_syn)


def test_same_bits_on_any_number_of_threads_and_another_order_for_another_seed() -> None:
    data = samples(30, 12, seed=6, classes=5, events=40)
    rules = [Tempotron(12, 5, momentum=0.5, intrinsic=("tau_mem",), seed=s) for s in (0, 0, 0, 1)]
    for rule, threads in zip(rules, (1, 2, 5, 1), strict=True):
        rule.weight[:] = 0.1
        rule.fit(data, 4, threads=threads)
    assert np.array_equal(rules[0].weight, rules[1].weight)
    assert np.array_equal(rules[0].weight, rules[2].weight)
    assert np.array_equal(rules[0].tau_mem, rules[2].tau_mem)
    assert not np.array_equal(rules[0].weight, rules[3].weight)
    height = rules[0].peaks(data, threads=1)[0]
    assert np.array_equal(height, rules[0].peaks(data, threads=3)[0])
    parts = [rules[0].peaks(part)[0] for part in (data.subset([0, 1]), data.subset(np.arange(2, 30)))]
    assert np.array_equal(height, np.concatenate(parts))


@pytest.mark.parametrize(("normalise", "size"), [("sum", np.sum), ("norm", np.linalg.norm)])
def test_weights_keep_their_bounds_and_size(normalise: Any, size: Any) -> None:
    bounds = WeightBounds(w_min=0.0, w_max=2.0, normalise=normalise, total=2.5)
    rule = Tempotron(30, 3, rate=0.05, bounds=bounds, w_start=0.1)
    assert rule.fit(samples(30, 30, seed=7, classes=3), 5)[0] > 5
    assert rule.weight.min() >= 0
    assert rule.weight.max() <= 2.0
    for row in rule.weight:
        assert size(row) == pytest.approx(2.5, rel=1e-12)


def test_the_network_fires_exactly_when_the_potential_crosses() -> None:
    data = samples(40, 10, seed=8, classes=4, events=40)
    rule = Tempotron(10, 4, w_start=0.15, seed=3)
    rule.tau_mem[:] = 0.02, 0.015, 0.01, 0.03
    rule.tau_syn[:] = 0.004, 0.00375, 0.002, 0.01
    rule.v_threshold[:] = 1.0, 0.8, 0.9, 1.1
    rule.fit(data, 3)
    mine = rule.spikes(data)
    assert 40 < mine.n_events < 160
    theirs = simulate(rule.network(t_ref=1.0), data, engine="event").spikes["tempotron"]
    assert theirs.counts.tolist() == mine.counts.tolist()
    assert np.array_equal(theirs.units, mine.units)
    np.testing.assert_allclose(theirs.times, mine.times, rtol=0, atol=1e-9)
    again = simulate(rule.network(), data, engine="event").spikes["tempotron"]
    first = np.full((40, 4), math.inf)
    np.minimum.at(first, (np.repeat(np.arange(40), again.counts), again.units), again.times)
    np.testing.assert_allclose(first, rule.peaks(data)[2], rtol=0, atol=1e-9)


def test_outputs_are_events_and_rates_for_others_to_use() -> None:
    data = samples(12, 10, seed=9, classes=3, events=40)
    rule = Tempotron(10, 3, w_start=0.15, decision="first")
    spikes, rates = rule.spikes(data), rule.rates(data)
    assert spikes.n_units == 3
    assert np.array_equal(spikes.labels, data.labels)
    assert rates.sum() * 0.1 == pytest.approx(spikes.n_events)
    fired = spikes.counts > 0
    assert fired.any()
    firsts = [int(spikes[i].units[0]) for i in np.flatnonzero(fired)]
    assert rule.predict(data)[fired].tolist() == firsts


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tau_mem": 0.0039}, "tau_mem of at least 1.05 tau_syn"),
        ({"v_threshold": 0.0}, "v_threshold: expected a number from"),
        ({"momentum": 1.0}, "momentum: expected a number from 0.0 to 0.9999"),
        ({"decision": "last"}, "decision: expected one of"),
        ({"intrinsic": ("beta",)}, "intrinsic: expected names of"),
        ({"n_classes": 1}, "n_classes: expected a number from 2"),
    ],
)
def test_what_does_not_fit_is_refused(options: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Tempotron(3, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"w_min": 1.0, "w_max": 1.0}, "expected w_min < w_max"),
        ({"normalise": "sum", "w_min": 0.0}, "total: expected a finite number, got None"),
        ({"total": 1.0}, "give both or none"),
        ({"normalise": "sum", "total": 1.0}, "weights that are not negative"),
        ({"normalise": "max", "total": 1.0}, "expected 'sum', 'norm' or None"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(options: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        WeightBounds(**options)


def test_data_that_do_not_fit_are_refused() -> None:
    data = samples(4, 5, seed=0)
    with pytest.raises(InputError, match="expected events of 6 units, got 5"):
        Tempotron(6).fit(data)
    with pytest.raises(InputError, match="expected a label from 0 to 1"):
        Tempotron(5).fit(samples(4, 5, seed=0, classes=3))
    with pytest.raises(InputError, match="threads: expected at least 1"):
        Tempotron(5).peaks(data, threads=0)
