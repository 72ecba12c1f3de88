"""Tempotron learning on a time grid: the kernels' definition, gradients, learning, determinism, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.reference_tempotron_layer import passed_reference, potential_reference
from snnsim.kernels.tempotron_layer import peak_gradient, peaks
from snnsim.learning.stdp import Chance
from snnsim.learning.tempotron_layer import TempotronLayer
from snnsim.neurons import LIF

CHANCES = {
    "sure": Chance(),
    "release": Chance(release=0.6, low=0.5, high=1.5),
    "little": Chance(release=0.97, low=0.9, high=1.1),
    "levy-baxter": Chance(release=0.8, low=0.0),
}
INPUTS, UNITS, STEPS = 6, 4, 30


def samples(seed: int = 0, n: int = 40) -> Events:
    """Two classes: the same two channels in the opposite order, 4 ms apart, among others that say nothing."""
    rng = np.random.default_rng(seed)
    times, units, labels = [], [], []
    for i in range(n):
        at, label = rng.uniform(0.004, 0.020), i % 2
        pair = np.array([at, at + 0.004])
        noise = rng.uniform(0, 0.029, 3)
        times.append(np.floor(np.concatenate([pair, noise]) / 0.001) * 0.001)
        units.append(np.concatenate([[label, 1 - label], rng.integers(2, INPUTS, 3)]))
        labels.append(label)
    order = [np.argsort(part, kind="stable") for part in times]
    times = [part[o] for part, o in zip(times, order, strict=True)]
    units = [part[o] for part, o in zip(units, order, strict=True)]
    return Events.from_lists(times, units, INPUTS, labels, 0.030)


def make(kind: str = "sure", **options: Any) -> TempotronLayer:
    neuron = LIF(tau_mem=np.array([0.003, 0.006, 0.010, 0.030]), v_threshold=1.0)
    return TempotronLayer(INPUTS, UNITS, 2, neuron=neuron, chance=CHANCES[kind], start=(0.1, 0.9), **options)


def dense(events: Events, i: int) -> np.ndarray:
    counts = np.zeros((STEPS, INPUTS))
    a, b = int(events.offsets[i]), int(events.offsets[i + 1])
    np.add.at(counts, (np.rint(events.times[a:b] / 0.001).astype(int), events.units[a:b]), 1.0)
    return counts


@pytest.mark.parametrize("kind", sorted(CHANCES))
def test_peaks_and_gradients_are_those_of_the_definition(kind: str) -> None:
    layer, events = make(kind, seed=3), samples()
    grid, numbers = layer._grid(events), layer._layer()
    weight, h = layer._weight, 1e-6
    for i in range(4):
        part = slice(int(grid.entry[i]), int(grid.entry[i + 1]))
        sample = (grid.begin[i * (STEPS + 1) : (i + 1) * (STEPS + 1)], grid.source[part], grid.counts[part])
        v_max, k_max = np.zeros(UNITS), np.zeros(UNITS, dtype=np.int64)
        peaks(*sample, weight, numbers, 7, i, v_max, k_max)
        passed = passed_reference(dense(events, i), numbers, 7, i)
        v = potential_reference(passed, weight, numbers.beta, numbers.drive)
        first = int(np.flatnonzero(dense(events, i).any(axis=1))[0])
        np.testing.assert_allclose(v_max, v[first:].max(axis=0), rtol=1e-12)
        assert np.array_equal(k_max, first + v[first:].argmax(axis=0))
        sign = np.array([1.0, -1.0, 0.0, 1.0])
        by_weight, by_beta, by_release = np.ones_like(weight), np.ones(UNITS), np.ones(UNITS)
        peak_gradient(*sample, weight, numbers, 7, i, k_max, sign, by_weight, by_beta, by_release)

        def at(w: np.ndarray, beta: np.ndarray, passed: np.ndarray = passed, k: np.ndarray = k_max) -> np.ndarray:
            return potential_reference(passed, w, beta, numbers.drive)[k, np.arange(UNITS)]

        for s in range(INPUTS):
            moved = weight.copy()
            moved[s] += h
            wanted = sign * (at(moved, numbers.beta) - at(weight, numbers.beta)) / h
            np.testing.assert_allclose(by_weight[s], wanted, atol=1e-7)
        wanted = sign * (at(weight, numbers.beta + h) - at(weight, numbers.beta - h)) / (2 * h)
        np.testing.assert_allclose(by_beta, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(by_release, sign * v_max / numbers.release, rtol=1e-12)


@pytest.mark.parametrize("kind", ["sure", "little"])
def test_the_order_of_two_spikes_is_learned(kind: str) -> None:
    layer = make(kind, rate=0.02, seed=1)
    wrong = layer.fit(samples(), 150)
    assert wrong[-10:].mean() < 0.6 * wrong[0]
    if kind == "sure":
        assert layer.score(samples(seed=5, n=80)) > 0.85


def test_a_neuron_that_is_only_inhibited_learns() -> None:
    layer = TempotronLayer(INPUTS, 2, 2, neuron=LIF(v_threshold=0.5), start=(-0.5, -0.1), rate=0.05, w_min=-1.0)
    layer.fit(samples(), 60)
    assert layer.rates(samples()).max() > 0


def test_right_neurons_learn_nothing() -> None:
    layer = TempotronLayer(INPUTS, 2, 2, neuron=LIF(v_threshold=1e-3), start=(0.5, 0.9), rate=0.1)
    alone = samples(n=2).subset(np.array([0]))
    before = layer.weight
    layer.fit(alone, 1)  # class 0 fires, as it should; class 1 fires too and is lowered where its inputs were active
    assert np.array_equal(layer.weight[0], before[0])
    assert np.all(layer.weight[1] <= before[1])
    assert np.any(layer.weight[1] < before[1])


def test_the_neurons_own_numbers_learn_by_the_same_rule() -> None:
    chosen = ("v_threshold", "tau_mem", "release")
    fixed, learned = make("release", seed=2), make("release", seed=2, intrinsic=chosen, intrinsic_rate=0.05)
    start = {name: getattr(learned, name).copy() for name in chosen}
    for layer in (fixed, learned):
        layer.fit(samples(), 30)
    for name, value in start.items():
        assert np.array_equal(getattr(fixed, name), value)
        assert np.all(getattr(learned, name) != value)
    assert np.allclose(learned.beta, np.exp(-0.001 / learned.tau_mem))
    assert np.all((learned.release > 0) & (learned.release < 1))


def test_same_bits_again_and_on_any_number_of_threads() -> None:
    one, two = (make("release", seed=4, momentum=0.5) for _ in range(2))
    for layer in (one, two):
        layer.fit(samples(), 5)
    assert np.array_equal(one.weight, two.weight)
    a, b = one.spikes(samples(), threads=1), two.spikes(samples(), threads=3)
    assert np.array_equal(a.times, b.times)
    assert np.array_equal(a.units, b.units)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"intrinsic": ("release",)}, "release learns only below 1"),
        ({"intrinsic": ("v_rest",)}, "expected some of"),
        ({"momentum": 1.0}, "momentum: expected a number from 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make(**options)
    with pytest.raises(InputError, match="5 classes need as many neurons"):
        TempotronLayer(3, 4, 5)
    with pytest.raises(InputError, match="tau_mem learns in neurons given by tau_mem and without drive"):
        TempotronLayer(3, 4, 2, neuron=LIF(drive=1.0), intrinsic=("tau_mem",))
