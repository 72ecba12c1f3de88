"""SpikeProp: spike times against sums of alpha functions, gradients against differences, XOR, its network."""

from typing import Any

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.reference_spikeprop import first_crossing_reference
from snnsim.kernels.spikeprop import first_crossing
from snnsim.learning.local import WeightBounds
from snnsim.learning.spikeprop import SpikeProp

XOR = Events.from_lists(
    [[0.0, a * 0.006, b * 0.006] for a in (0, 1) for b in (0, 1)],
    [[2, 0, 1]] * 4,
    3,
    labels=[0, 1, 1, 0],
    duration=0.05,
    sort=True,
)
WANTED = np.where(XOR.labels == 1, 0.010, 0.016)[:, None]


def test_crossings_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        n = int(rng.integers(1, 15))
        arrive, weight = np.round(rng.uniform(0, 0.03, n), 3), rng.normal(0.2, 0.5, n)
        order = np.argsort(arrive, kind="stable")
        mine = first_crossing(arrive, order, weight, 0.007, 1.0, 0.05)
        assert mine == pytest.approx(first_crossing_reference(arrive, weight, 0.007, 1.0, 0.05), abs=1e-11)
        found += mine < 0.05
    assert 30 < found < 170


def test_the_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(4)
    data = Events.from_lists(
        [np.sort(rng.uniform(0, 0.01, 4)) for _ in range(5)], [[0, 1, 2, 3]] * 5, 4, duration=0.05, sort=True
    )
    wanted = rng.uniform(0.01, 0.03, (5, 2))
    rule = SpikeProp(4, 3, 2, delays=[0.001, 0.004, 0.009], least_slope=1e-6, seed=3)
    hidden, out = rule.times(data)
    assert np.isfinite(hidden).mean() > 0.9
    assert np.isfinite(out).mean() > 0.9
    _, *found = rule.gradient(data, wanted)
    for array, gradient in zip((rule.hidden, rule.output), found, strict=True):
        numeric = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            value = array[place]
            array[place] = value + 1e-6
            above = rule.gradient(data, wanted)[0]
            array[place] = value - 1e-6
            below = rule.gradient(data, wanted)[0]
            array[place] = value
            numeric[place] = (above - below) / 2e-6
        assert np.abs(numeric).max() > 1e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5 * np.abs(numeric).max())


@pytest.mark.parametrize("seed", range(6))
def test_xor_converges(seed: int) -> None:
    rule = SpikeProp(3, 5, 1, rate=0.005, momentum=0.8, seed=seed)
    errors = rule.fit(XOR, WANTED, 1000, stop_at=0.0005)
    assert errors[0] > 0.001
    assert errors[-1] <= 0.0005
    out = rule.times(XOR)[1][:, 0]
    assert np.array_equal(out < 0.013, XOR.labels == 1)


def test_xor_needs_its_hidden_layer_to_learn() -> None:
    rule = SpikeProp(3, 5, 1, rate=0.0, revive=0.0)
    before = rule.hidden.copy()
    errors = rule.fit(XOR, WANTED, 20)
    assert len(set(errors)) == 1
    assert np.array_equal(rule.hidden, before)


def test_silent_neurons_are_brought_back() -> None:
    rule = SpikeProp(3, 5, 1, rate=0.005, momentum=0.8, start=(0.0, 0.001), revive=0.005)
    hidden, out = rule.times(XOR)
    assert np.isinf(hidden).all()
    assert np.isinf(out).all()
    assert rule.fit(XOR, WANTED, 2000, stop_at=0.001)[-1] <= 0.001
    asleep = SpikeProp(3, 5, 1, rate=0.005, start=(0.0, 0.001), revive=0.0)
    assert len(set(asleep.fit(XOR, WANTED, 50))) == 1


def test_two_classes_are_told_apart_by_who_fires_first() -> None:
    rule = SpikeProp(3, 5, 2, rate=0.005, momentum=0.8, seed=1)
    rule.fit(XOR, rule.code(XOR, 0.010, 0.016), 1000, stop_at=0.0008)
    assert rule.score(XOR) == 1.0
    spikes = rule.spikes(XOR)
    assert spikes.counts.tolist() == [2, 2, 2, 2]
    assert [int(sample.units[0]) for sample in spikes] == XOR.labels.tolist()
    np.testing.assert_allclose(rule.rates(XOR), 20.0)


def test_only_the_first_event_of_an_input_counts_and_threads_change_nothing() -> None:
    rule = SpikeProp(3, 5, 1)
    more = Events.from_lists([[*s.times, 0.02, 0.03] for s in XOR], [[*s.units, 0, 2] for s in XOR], 3, duration=0.05)
    assert np.array_equal(rule.times(XOR)[1], rule.times(more)[1])
    other = SpikeProp(3, 5, 1)
    assert np.array_equal(rule.fit(XOR, WANTED, 30, threads=1), other.fit(XOR, WANTED, 30, threads=3))
    assert np.array_equal(rule.hidden, other.hidden)


def test_bounds_hold() -> None:
    rule = SpikeProp(3, 5, 1, bounds=WeightBounds(w_min=0.0, w_max=0.12), momentum=0.8)
    rule.fit(XOR, WANTED, 200)
    for layer in (rule.hidden, rule.output):
        assert layer.min() >= 0
        assert layer.max() <= 0.12


def test_the_network_has_the_same_spike_times() -> None:
    rule = SpikeProp(3, 5, 1, rate=0.005, momentum=0.8, seed=1)
    rule.fit(XOR, WANTED, 200)
    hidden, out = rule.times(XOR)
    result = simulate(rule.network(), XOR, engine="event")
    np.testing.assert_allclose(result.spikes["output"].times, out[:, 0], rtol=0, atol=1e-9)
    for i, sample in enumerate(result.spikes["hidden"]):
        np.testing.assert_allclose(sample.times, np.sort(hidden[i][np.isfinite(hidden[i])]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"delays": [-0.001]}, "delays: expected seconds of 0 or more"),
        ({"delays": []}, "delays: expected seconds of 0 or more"),
        ({"tau": 0.0}, "tau: expected a number from"),
        ({"least_slope": 0.0}, "least_slope: expected a number from"),
    ],
)
def test_what_does_not_fit_is_refused(options: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SpikeProp(3, 5, 1, **options)


def test_data_that_do_not_fit_are_refused() -> None:
    rule = SpikeProp(3, 5, 1)
    with pytest.raises(InputError, match=r"wanted: expected finite seconds of shape \(4, 1\)"):
        rule.fit(XOR, np.zeros((4, 2)))
    with pytest.raises(InputError, match="expected 0 < early < late"):
        rule.code(XOR, 0.02, 0.01)
    with pytest.raises(InputError, match="expected a label from 0 to 0"):
        rule.code(XOR, 0.01, 0.02)
