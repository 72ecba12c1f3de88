"""Poisson noise and currents: against the reference, their moments, their independence of threads and splits."""

import numpy as np
import pytest
from test_engine_clock import DT, assert_same, spike_trains
from test_engine_two_currents import network_of, own_numbers

from snnsim.engines import grid_inputs, simulate
from snnsim.errors import InputError
from snnsim.kernels.poisson import poisson_counts, thresholds
from snnsim.network import Network, Population
from snnsim.neurons import IF, LI, LIF, ExpCurrentLIF
from snnsim.stimuli import Current, Poisson


def some_stimuli(rng):
    return (
        Poisson("a", 1500.0, 2.0, "exc"),
        Current("a", rng.uniform(0, 60, 40), 0.004, 0.031),
        Poisson("b", rng.integers(0, 4, 30) * 800.0, -rng.uniform(0, 3, 30), "inh"),
        Current("b", 35.0, 0.010),
        Current("b", -20.0, 0.015, 0.020),
        Poisson("b", 9000.0, 0.4, "exc"),
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("low", [0, 2])
def test_equals_the_reference_and_does_not_depend_on_threads(dtype, low):
    rng = np.random.default_rng([1, low])
    network = network_of(rng, ExpCurrentLIF(drive=20.0), own_numbers(rng, 30, True), low)
    events = spike_trains(rng, 3, 6)
    options = {"record": ["a.v", "b.v", "b.i_exc"], "dtype": dtype, "stimuli": some_stimuli(rng), "seed": 5}
    ours = simulate(network, events, threads=1, **options)
    assert_same(ours, simulate(network, events, engine="reference", **options))
    assert_same(ours, simulate(network, events, threads=3, batch=1, **options))
    other = simulate(network, events, threads=1, **{**options, "seed": 6})
    assert other.spikes["a"] != ours.spikes["a"]
    one, part = events.subset([2]), ours.spikes["b"].subset([2])
    assert simulate(network, one, threads=4, **options).spikes["b"].times.tolist() == part.times.tolist()


def test_a_run_that_goes_on_draws_the_same_noise():
    network = Network((Population("n", 50, LIF(tau_mem=0.01)),), (), (), None, DT)
    noise = Poisson("n", 2000.0, 0.1)
    whole = simulate(network, None, n_steps=103, stimuli=noise, record="n.v").records["n.v"][0]
    first = simulate(network, None, n_steps=42, stimuli=noise, record="n.v")
    second = simulate(network, None, n_steps=61, stimuli=noise, record="n.v", state=first.state)
    assert np.concatenate((first.records["n.v"][0], second.records["n.v"][0])).tobytes() == whole.tobytes()


@pytest.mark.parametrize("mean", [0.01, 0.8, 2.0, 20.0])
def test_counts_follow_the_distribution(mean):
    network = Network((Population("n", 2000, LI.from_step(dt=DT, beta=0.0)),), (), (), None, DT)
    counts = simulate(network, None, n_steps=100, stimuli=Poisson("n", mean / DT, 1.0), record="n.v", seed=3).records[
        "n.v"
    ][0]
    n = counts.size
    assert abs(counts.mean() - mean) < 4 * np.sqrt(mean / n)
    assert abs(counts.var() - mean) < 5 * np.sqrt((mean + 2 * mean**2) / n)
    steps = np.corrcoef(counts[:-1].reshape(-1), counts[1:].reshape(-1))[0, 1]
    units = np.corrcoef(counts[:, :-1].reshape(-1), counts[:, 1:].reshape(-1))[0, 1]
    assert max(abs(steps), abs(units)) < 4 / np.sqrt(n)
    assert counts[:8].tolist() == poisson_counts(3, 43, 0, 8, 0, 2000, mean).tolist()


def test_thresholds_are_the_distribution():
    table = thresholds([0.0, 1.5])
    assert table[0].tolist() == [2**32 - 1] * table.shape[1]
    share = np.exp(-1.5) * np.cumsum([1, 1.5, 1.5**2 / 2])
    assert np.allclose(table[1, :3] / 2**32, share, atol=1e-9)


def test_a_current_is_a_drive_for_a_while():
    for neuron in (IF(), LIF(tau_mem=0.02), LIF.from_step(dt=DT, beta=0.9, drive_step=0.01), ExpCurrentLIF()):
        network = Network((Population("n", 2, neuron),), (), (), None, DT)
        result = simulate(network, None, n_steps=60, stimuli=Current("n", [40.0, 41.0], 0.02, 0.04), record="n.v")
        stronger = neuron.replace(drive=neuron.drive + 40.0) if neuron.dt is None else neuron
        if neuron.dt is None:
            always = simulate(
                Network((Population("n", 2, stronger),), (), (), None, DT), None, n_steps=20, record="n.v"
            ).records["n.v"][0]
            assert np.array_equal(result.records["n.v"][0][20:40, 0], always[:, 0])
            assert not result.records["n.v"][0][:20].any()
        v = result.records["n.v"][0]
        assert np.all(v[25:40, 1] != v[25:40, 0])
        rest = simulate(
            network,
            None,
            n_steps=20,
            state=simulate(network, None, n_steps=40, stimuli=Current("n", [40.0, 41.0], 0.02, 0.04)).state,
            record="n.v",
        )
        assert np.array_equal(rest.records["n.v"][0], v[40:])


@pytest.mark.parametrize(
    ("stimulus", "sentence"),
    [
        (lambda: Poisson("n", -1.0, 1.0), "rate: expected 0 or more events a second, got -1"),
        (lambda: Poisson("n", np.nan, 1.0), "rate: expected finite numbers"),
        (lambda: Poisson("n", [[1.0]], 1.0), "expected a number or an array of shape"),
        (lambda: Poisson("n", 1e6, 1.0), "is 1e[+]03 events a step of 0.001 s, at most 50 are drawn"),
        (lambda: Poisson("m", 1.0, 1.0), "no population 'm'"),
        (lambda: Poisson("n", 1.0, 1.0, "exc"), "receptor: LIF has one kind of synapse, got 'exc'"),
        (lambda: Poisson("n", [1.0, 2.0, 3.0], 1.0), "rate has shape \\(3,\\), expected a number or \\(2,\\)"),
        (lambda: Current("n", 1.0, 0.5, 0.5), "expected 0 <= start < stop"),
        (lambda: Current("n", 1.0, "now"), "start: expected seconds, got 'now'"),
        (lambda: 3, "stimuli: expected Poisson or Current, got int"),
    ],
)
def test_what_does_not_fit_is_refused(stimulus, sentence):
    network = Network((Population("n", 2, LIF()),), (), (), None, DT)
    with pytest.raises(InputError, match=sentence):
        simulate(network, None, n_steps=5, stimuli=(stimulus(),))
    with pytest.raises(InputError, match="seed: expected 0 to"):
        simulate(network, None, n_steps=5, seed=-1)


def test_grid_inputs_have_no_stimuli():
    network = Network((Population("n", 2, LIF()),), (), (), None, DT)
    assert grid_inputs(network, None, 3).stimuli == ()


def test_progress_is_told_every_step_of_every_sample():
    rng = np.random.default_rng(1)
    network = network_of(rng, ExpCurrentLIF(drive=20.0), own_numbers(rng, 30, True), 2)
    events = spike_trains(rng, 5, 6)
    told = []
    result = simulate(network, events, threads=2, progress=told.append)
    assert sum(told) == result.n_steps.sum()
