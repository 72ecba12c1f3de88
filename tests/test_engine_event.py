"""The event engine in continuous time against the plain definition, closed forms and itself."""

import itertools
import math

import numpy as np
import pytest
from event_networks import DT, alone, driven, inputs, random_network, reference, run, same, times

from snnsim.errors import InputError
from snnsim.kernels.reference_event import ReferenceNeuron
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import IF, LI, LIF, CubaLIF, ExpCurrentLIF

# closed forms


def test_first_spike_of_a_constant_drive() -> None:
    tau, drive = 0.01, 1.5
    found = times(run(alone(LIF(tau_mem=tau, drive=drive / tau))))
    np.testing.assert_allclose(found[0], tau * math.log(drive / (drive - 1)) - DT, rtol=1e-14)


@pytest.mark.parametrize("drive", [1.001, 1.5, 7.0])
def test_f_i_curve_with_refractory_time(drive: float) -> None:
    tau, t_ref, v_reset = 0.01, 0.003, 0.2
    found = times(run(alone(LIF(tau_mem=tau, drive=drive / tau, t_ref=t_ref, v_reset=v_reset)), n_steps=400))
    period = t_ref + tau * math.log((drive - v_reset) / (drive - 1))
    assert len(found) > 4
    np.testing.assert_allclose(np.diff(found), period, rtol=1e-12)


@pytest.mark.parametrize("drive", [0.5, 1.0])
def test_no_spike_below_the_rheobase(drive: float) -> None:
    assert len(times(run(alone(LIF(tau_mem=0.01, drive=drive / 0.01)), n_steps=4000))) == 0


def test_if_counts_its_drive() -> None:
    found = times(run(alone(IF(drive=100.0, reset="subtract"))))
    np.testing.assert_allclose(found, np.arange(1, len(found) + 1) * 0.01 - DT, rtol=1e-13)


@pytest.mark.parametrize("tau_syn", [0.005, 0.0199, 0.02 - 1e-12, 0.02, 0.02 + 1e-9, 0.05])
def test_psp_maximum_that_just_reaches_threshold(tau_syn: float) -> None:
    tau = 0.02
    x = (tau - tau_syn) / tau_syn
    peak = tau * math.log1p(x) / x if x else tau
    height = math.exp(-peak / tau_syn)  # where v is largest it equals the current
    for share, spikes in ((1 + 1e-9, 1), (1 - 1e-9, 0)):
        network = driven(CubaLIF(tau_mem=tau, tau_syn=tau_syn, t_ref=1.0), [[share / height]])
        found = times(run(network, inputs([0.25]), n_steps=1000))
        assert len(found) == spikes
        if spikes:
            np.testing.assert_allclose(found[0], 0.25 + peak, atol=5e-5 * peak)


def test_equal_time_constants_are_no_corner() -> None:
    found = [
        times(run(driven(CubaLIF(tau_mem=0.02, tau_syn=tau), [[5.0]]), inputs([0.1]), n_steps=400))[0]
        for tau in (0.02 * (1 - 1e-9), 0.02, 0.02 * (1 + 1e-9))
    ]
    assert np.ptp(found) < 1e-10
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("share", [1 + 1e-9, 1 - 1e-9])
@pytest.mark.parametrize("drive", [0.0, -20.0, 30.0])
def test_excursions_between_two_events_are_seen(share: float, drive: float) -> None:
    # inhibition that is gone soon and slower excitation: v falls, rises and falls again between two arrivals
    tau, tau_exc, tau_inh, ratio = 0.02, 0.01, 0.002, 3.0
    t = np.linspace(0, 0.1, 2_000_001)
    excite, inhibit = (s / (tau - s) * (np.exp(-t / tau) - np.exp(-t / s)) for s in (tau_exc, tau_inh))
    course = excite - ratio * inhibit
    assert course.min() < 0
    weight = (1 - drive * tau) / course.max() * share
    neuron = ExpCurrentLIF(tau_mem=tau, tau_exc=tau_exc, tau_inh=tau_inh, t_ref=0.3, drive=drive)
    network = Network(
        (Population("n", 1, neuron),),
        (
            Projection("in", "n", np.array([[weight]]), 0.0, "exc"),
            Projection("in", "n", np.array([[-ratio * weight]]), 0.0, "inh"),
        ),
        (Input("in", 1),),
        None,
        DT,
    )
    result = run(network, inputs([0.5]), n_steps=1000, initial={"n.v": drive * tau})
    assert len(times(result)) == (1 if share > 1 else 0)
    if share > 1:
        np.testing.assert_allclose(times(result)[0], 0.5 + t[course.argmax()], atol=1e-5)


# order at one instant, refractory time


def test_arrivals_of_one_instant_are_summed_before_the_test() -> None:
    network = driven(LIF(t_ref=0.0), [[1.5, -1.0]])
    assert len(times(run(network, inputs([0.1, 0.1], [0, 1], 2)))) == 0
    assert len(times(run(network, inputs([0.1, np.nextafter(0.1, 1)], [0, 1], 2)))) == 1


def test_one_spike_an_instant_and_a_second_test_at_the_next_arrival() -> None:
    network = driven(IF(reset="subtract"), [[3.5, 0.0001]])
    result = run(network, inputs([0.1, 0.15, 0.19], [0, 1, 1], 2), record=("n.v",))
    assert times(result).tolist() == [0.1, 0.15, 0.19]
    np.testing.assert_allclose(result.records["n.v"][0][-1], 0.5002)


def test_refractory_time_includes_its_right_end() -> None:
    t_ref = 2.0**-5
    for late, spikes in ((0.0, 1), (2.0**-40, 2)):
        network = driven(LIF(t_ref=t_ref, tau_mem=10.0), [[2.0]])
        assert len(times(run(network, inputs([0.25, 0.25 + t_ref + late]), n_steps=400))) == spikes


def test_currents_go_on_and_collect_during_the_refractory_time() -> None:
    neuron = CubaLIF(tau_mem=0.01, tau_syn=0.02, t_ref=0.05, v_reset=0.5)
    result = run(driven(neuron, [[20.0]]), inputs([0.1, 0.12]), n_steps=400, record=("n.v", "n.i"))
    first, second = times(result)[:2]
    i_end = (20 * math.exp(-(0.12 - 0.1) / 0.02) + 20) * math.exp(-(first + 0.05 - 0.12) / 0.02)
    reference = ReferenceNeuron(1.0, 0.01, (0.02,), i=[i_end], v=0.5, time=first + 0.05)
    np.testing.assert_allclose(second, reference.next_crossing(), rtol=0, atol=1e-15)
    held = (np.arange(400) * DT > first) & (np.arange(400) * DT < first + 0.05)
    assert (result.records["n.v"][0][held] == 0.5).all()
    k = int(np.flatnonzero(held)[0])
    np.testing.assert_allclose(result.records["n.i"][0][k], 20 * math.exp(-(k * DT - 0.1) / 0.02), rtol=1e-13)


def test_strict_thresholds() -> None:
    for strict, spikes in ((False, 1), (True, 0)):
        assert len(times(run(driven(LIF(strict=strict, t_ref=1.0), [[1.0]]), inputs([0.1])))) == spikes


def test_too_strong_a_drive_is_refused() -> None:
    with pytest.raises(InputError, match="population 'n', neuron 0, fires again at the same instant"):
        run(alone(IF(drive=1e20)))


# the plain definition


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_have_the_spikes_of_the_plain_definition(seed: int) -> None:
    network, events, initial = random_network(seed)
    steps = round(0.3 / network.dt)
    found = run(network, events, steps, initial=initial)
    assert found.notes["counts"]["windows"] > 0
    wanted = reference(network, events, initial, steps * network.dt)
    assert len(wanted) > 100
    same(found, wanted)


@pytest.mark.parametrize("seed", range(6))
def test_loops_without_delay_have_the_spikes_of_the_plain_definition(seed: int) -> None:
    network, events, initial = random_network(seed, zero_delays=True)
    steps = round(0.2 / network.dt)
    found = run(network, events, steps, initial=initial)
    assert found.notes["counts"]["windows"] == 0
    wanted = reference(network, events, initial, steps * network.dt)
    assert len(wanted) > 100
    same(found, wanted)


@pytest.mark.parametrize("values", sorted(itertools.permutations([1e16, 1.0, -1e16, 3.0])))
def test_the_order_of_a_sum_is_emission_then_projection_then_source(values: tuple[float, ...]) -> None:
    rows = np.zeros((3, 6))
    rows[2, 0], rows[0, 5], rows[1, 2], rows[1, 3] = values  # in the order in which they are to be summed
    network = Network(
        (Population("n", 1, LI(tau_mem=1e9)),),
        tuple(Projection("in", "n", row[None], 0.125 * (q == 2)) for q, row in enumerate(rows)),
        (Input("in", 6),),
        None,
        DT,
    )
    result = run(network, inputs([0.125, 0.25, 0.25, 0.25], [0, 2, 3, 5], 6), n_steps=257, record=("n.v",))
    total = 0.0
    for value in values:
        total += value
    assert result.records["n.v"][0][256, 0] == total
