"""Quantisation: the integer network does what the float one does, on the grid of its target; the rest is refused."""

import json

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.limits import load_profile
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.quantize import QuantizeOptions, quantize
from snnsim.quantize_calibration import differences
from snnsim.quantize_delays import DelayRange, plan_delays
from snnsim.quantize_weights import round_weights

DT = 0.001


def some_events(n_units, n_samples=6, n_steps=120, rate=0.08, seed=0):
    rng = np.random.default_rng(seed)
    found = [np.nonzero(rng.random((n_steps, n_units)) < rate) for _ in range(n_samples)]
    times, units = [step * DT for step, _ in found], [unit for _, unit in found]
    labels = rng.integers(0, 4, n_samples)
    return Events.from_lists(times, units, n_units=n_units, duration=n_steps * DT, labels=labels)


def lif(beta, **values):
    return LIF.from_step(dt=DT, beta=beta, **values)


def cuba(beta, alpha, **values):
    return CubaLIF.from_step(dt=DT, beta=beta, alpha=alpha, **values)


def mixed(seed=0, **hidden):
    """Delta and current synapses, a loop, delays of every synapse, a readout of integrators."""
    rng = np.random.default_rng(seed)

    def weight(n_target, n_source, mean):
        return rng.normal(mean, 0.25, (n_target, n_source))

    def delay(n_target, n_source, low, high):
        return rng.integers(low, high, (n_target, n_source)) * DT

    return Network(
        populations=(
            Population("a", 30, lif(0.875, **hidden)),
            Population("b", 20, cuba(0.9375, 0.75, drive_step=0.015625)),
            Population("c", 4, LI.from_step(dt=DT, beta=0.96875)),
            Population("d", 3, CubaLI.from_step(dt=DT, beta=0.96875, alpha=0.5)),
        ),
        projections=(
            Projection("in", "a", weight(30, 20, 0.15), delay(30, 20, 0, 12)),
            Projection("a", "a", weight(30, 30, -0.02), delay(30, 30, 1, 6)),
            Projection("a", "b", 4 * weight(20, 30, 0.12), delay(20, 30, 0, 20)),
            Projection("b", "a", weight(30, 20, 0.0), delay(30, 20, 1, 9)),
            Projection("b", "c", weight(4, 20, 0.1), delay(4, 20, 0, 3)),
            Projection("a", "d", weight(3, 30, 0.0), delay(3, 30, 2, 5)),
        ),
        inputs=(Input("in", 20),),
        readout=Readout("c"),
        dt=DT,
    )


def on_the_grid(network):
    """The float network with the weights that its integer network has, and that."""
    integer, _ = quantize(network, "loihi2")
    places = {item.name: integer.scale[item.name] for item in network.populations}
    projections = []
    for item, whole in zip(network.projections, integer.projections, strict=True):
        weight = np.zeros(item.shape)
        target = network.population(item.target)
        gain = np.ones(target.size)
        if target.neuron.current:
            gain = target.neuron.step(target.size, DT).kappa
        weight[whole.unit, whole.sources()] = whole.weight
        weight *= (64 / places[item.target] / gain)[:, None]
        projections.append(Projection(item.source, item.target, weight, item.delay))
    return network.replace(projections=tuple(projections)), integer


def compare(network, integer, events):
    record = [f"{item.name}.v" for item in network.populations if not item.neuron.spiking]
    wanted = simulate(network, events, record=record, engine="clock")
    got = simulate_integer(integer, events, record=record)
    return wanted, got, differences(network, wanted, integer, got)


def first_differences(wanted, got, integer, n_steps=120):
    """The first step of every sample in which spikes of a or b differ, n_steps if there is none."""
    found = []
    for sample in range(len(wanted.spikes["a"])):
        steps = [n_steps]
        for name in ("a", "b"):
            sides = [np.zeros((n_steps, item.spikes[name].n_units), int) for item in (wanted, got)]
            for side, item, later in zip(sides, (wanted, got), (0, integer.latency[name]), strict=True):
                events = item.spikes[name][sample]
                step = np.rint(events.times / DT).astype(int) - later
                inside = step < n_steps
                side[step[inside], events.units[inside]] = 1
            steps += np.flatnonzero((sides[0] != sides[1]).any(axis=1)).tolist()
        found.append(min(steps))
    return sorted(found)


def test_on_the_grid_the_integer_network_has_the_spikes_of_the_float_network():
    """Delays, latencies, gains and resets are right. What is left is the rounding of v to 1/64 of a weight's unit: it
    may turn a spike near its threshold, and this network amplifies that; some samples never meet such a spike."""
    network, integer = on_the_grid(mixed())
    assert integer.latency == {"a": 1, "b": 1, "c": 2, "d": 0}
    events = some_events(20)
    wanted, got, _ = compare(network, integer, events)
    assert min(item.n_events for item in wanted.spikes.values()) > 4000
    first = first_differences(wanted, got, integer)
    assert first[0] > 10
    assert first[-2:] == [120, 120]
    for name in ("c.v", "d.v"):  # a sample whose spikes are all equal: the membranes of the integrators too
        later = integer.latency[name[0]]
        errors = [
            np.abs(mine - theirs[later : later + 120] / integer.scale[name[0]]).max()
            for mine, theirs in zip(wanted.records[name], got.records[name], strict=True)
        ]
        assert min(errors) < 2e-3


@pytest.mark.parametrize("place", range(6))
def test_a_wrong_delay_shows(place):
    network, integer = on_the_grid(mixed())
    parts = list(integer.projections)
    old = parts[place]
    parts[place] = type(old)(old.source, old.target, old.indptr, old.unit, old.weight, old.delay + 1)
    _, _, found = compare(network, integer.replace(projections=tuple(parts)), some_events(20))
    assert found[old.target] > 0.03


def test_weights_are_even_and_delays_within_the_field():
    integer, report = quantize(mixed(), "loihi2")
    for item in integer.projections:
        assert not np.any(item.weight % 2)
        assert item.weight.max() <= 254
        assert item.delay.min() >= 1
        assert item.delay.max() <= 63
    largest = [np.abs(item.weight).max() for item in integer.projections if item.target in ("a", "b")]
    assert max(largest) >= 252  # the range is used
    assert {item.population for item in report.layers} == set("abcd")
    assert all(0 < item.weight_error < 0.03 for item in report.layers)
    assert all(item.room is not None and item.room <= 1 for item in report.layers)
    assert json.loads(json.dumps(report.to_json()))["layers"][0]["beta_error_max"] == 0
    assert integer.changes == tuple(report.sentences())
    assert integer.source == mixed().digest()


def test_the_bound_of_the_range_holds_under_full_input():
    """All sources fire in every step: nothing leaves 24 bits, because the scale leaves room for it."""
    network = Network(
        populations=(Population("a", 40, lif(0.999, v_threshold=900.0)), Population("r", 2, lif(0.9))),
        projections=(
            Projection("in", "a", np.abs(np.random.default_rng(0).normal(1.0, 0.1, (40, 30)))),
            Projection("a", "r", np.full((2, 40), -1.0)),
        ),
        inputs=(Input("in", 30),),
        readout=None,
        dt=DT,
    )
    integer, report = quantize(network, "loihi2")
    assert 0.9 < report.layers[0].room <= 1
    result = simulate_integer(integer, some_events(30, n_samples=1, n_steps=400, rate=1.1))
    assert result.notes["overflow"] == {"a": 0, "r": 0}


def test_calibration_never_makes_a_layer_worse_and_is_reported():
    network = mixed()
    events = some_events(20, n_samples=4)
    integer, report = quantize(network, "loihi2", calibration=events)
    found = report.calibration
    assert found.samples == 4
    _, _, now = compare(network, integer, events)
    assert now == pytest.approx(found.difference)
    assert found.difference["a"] <= found.plain["a"] + 1e-12
    assert any("calibration samples have the class" in line for line in report.sentences())


def test_one_far_weight_makes_calibration_cut_it():
    rng = np.random.default_rng(3)
    weight = rng.normal(0.2, 0.3, (20, 20))
    weight[0, 0] = 20.0
    network = Network(
        populations=(Population("a", 20, lif(0.8)),),
        projections=(Projection("in", "a", weight),),
        inputs=(Input("in", 20),),
        readout=None,
        dt=DT,
    )
    _, plain = quantize(network, "loihi2")
    _, report = quantize(network, "loihi2", calibration=some_events(20))
    assert report.calibration.stretch["a"] > 1
    assert report.calibration.difference["a"] < report.calibration.plain["a"]
    assert report.layers[0].saturated > 0
    assert plain.layers[0].saturated == 0


def test_thresholds_that_differ_are_scaled_away():
    """Loihi has one threshold a population: the integer network with unequal ones has the same spikes as float."""
    threshold = np.linspace(0.5, 2.0, 30)
    network = mixed(v_threshold=threshold)
    integer, report = quantize(network, "loihi2")
    assert np.ptp(integer.population("a").parameters["v_threshold"]) == 0
    np.testing.assert_allclose(integer.scale["a"] * threshold, integer.scale["a"][0] * threshold[0])
    assert any("thresholds differ" in line for line in report.changes)
    network, integer = on_the_grid(network)
    wanted, got, _ = compare(network, integer, some_events(20))
    assert first_differences(wanted, got, integer)[2] > 10


def test_decays_that_differ_are_refused_or_averaged():
    network = mixed().replace(
        populations=(Population("a", 30, lif(np.linspace(0.8, 0.9, 30))), *mixed().populations[1:])
    )
    with pytest.raises(InputError, match=r"beta differs from neuron to neuron.*decays = 'mean'"):
        quantize(network, "loihi2")
    integer, report = quantize(network, "loihi2", options=QuantizeOptions(decays="mean"))
    assert integer.population("a").parameters["v_decay"].tolist() == [round(4096 * 0.15)] * 30
    assert any("one beta of 0.85 for all neurons; it moved by up to 0.05" in line for line in report.changes)


def test_delays_too_long_are_refused_or_clamped():
    network = mixed().replace(projections=(Projection("in", "a", np.full((30, 20), 0.1), 0.063),))
    integer, _ = quantize(network, "loihi2")  # 63 steps: arrive there, with a latency of 0
    assert integer.projections[0].delay.max() == 63
    network = network.replace(projections=(Projection("in", "a", np.full((30, 20), 0.1), 0.064),))
    with pytest.raises(InputError, match=r"600 delays of up to 64 steps.*at most 63 steps"):
        quantize(network, "loihi2")
    integer, report = quantize(network, "loihi2", options=QuantizeOptions(delays="clamp"))
    assert integer.projections[0].delay.max() == 63
    assert report.layers[0].clamped == 600
    assert "600 delays were clamped to what the target holds." in report.changes


@pytest.mark.parametrize(
    ("neuron", "match"),
    [
        (lif(0.9, reset="subtract"), 'resets by subtract.*train with reset = "zero"'),
        (lif(0.9, v_reset=-0.5), "reset values up to 0.5"),
        (lif(0.9, t_ref=0.002), "refractory for up to 2 steps"),
        (AdaptiveLIF(), "AdaptiveLIF is not a neuron of the target"),
        (lif(0.9, v_threshold=1e-9), "its threshold becomes 0"),
    ],
)
def test_what_the_law_cannot_hold_is_refused(neuron, match):
    network = mixed().replace(populations=(Population("a", 30, neuron), *mixed().populations[1:]))
    with pytest.raises(InputError, match=match):
        quantize(network, "loihi2")


def test_other_refusals():
    with pytest.raises(InputError, match="has no integer law here"):
        quantize(mixed(), "speck")
    with pytest.raises(InputError, match="needs calibration events"):
        quantize(mixed(), "loihi2", options=QuantizeOptions(headroom="observed"))
    with pytest.raises(InputError, match="expected a Network"):
        quantize("net", "loihi2")
    with pytest.raises(InputError, match="delays: expected one of"):
        QuantizeOptions(delays="drop")
    with pytest.raises(InputError, match="calibration_samples"):
        QuantizeOptions(calibration_samples=0)
    with pytest.raises(InputError, match="at least one sample"):
        quantize(mixed(), "loihi2", calibration=some_events(20, n_samples=0))


def test_an_integrator_without_leak_needs_observed_headroom_or_says_that_there_is_no_bound():
    network = Network(
        populations=(Population("a", 5, IF()),),
        projections=(Projection("in", "a", np.tile([0.3, 0.3, -0.2], (5, 1))),),
        inputs=(Input("in", 3),),
        readout=None,
        dt=DT,
    )
    integer, report = quantize(network, "loihi2")
    assert integer.population("a").parameters["v_decay"].tolist() == [0] * 5
    assert report.layers[0].room is None
    assert "its values have no bound" in report.layers[0].sentence()
    options = QuantizeOptions(headroom="observed")
    _, observed = quantize(network, "loihi2", options=options, calibration=some_events(3))
    assert observed.layers[0].room is None
    assert 0 < observed.layers[0].seen < 0.1


def test_room_for_any_input_does_not_make_weights_coarse_unless_it_is_asked_for():
    """A slow CubaLIF: the bound of its membrane is thousands of thresholds, which no input ever needs."""
    rng = np.random.default_rng(0)
    network = Network(
        populations=(
            Population("a", 30, cuba(0.99, 0.95, v_threshold=0.3)),
            Population("r", 4, CubaLI.from_step(dt=DT, beta=0.99, alpha=0.95)),
        ),
        projections=(
            Projection("in", "a", rng.normal(0.3, 1.0, (30, 100))),
            Projection("a", "r", rng.normal(0.0, 1.0, (4, 30))),
        ),
        inputs=(Input("in", 100),),
        readout=Readout("r", reduce="mean"),
        dt=DT,
    )
    events = some_events(100, rate=0.02)
    strict, strict_report = quantize(network, "loihi2", options=QuantizeOptions(headroom="bound"), calibration=events)
    free, free_report = quantize(network, "loihi2", calibration=events)
    assert strict_report.layers[0].room <= 1 < free_report.layers[0].room
    assert free_report.layers[0].seen < 0.5
    assert "extreme input could need" in free_report.layers[0].sentence()
    assert free_report.layers[0].weight_error < 0.1 * strict_report.layers[0].weight_error
    assert free_report.calibration.difference["a"] < 0.5 * strict_report.calibration.difference["a"]
    assert simulate_integer(free, events).notes["overflow"] == {"a": 0, "r": 0}
    assert strict.latency == free.latency


def test_inputs_that_count_only_once_are_run_so():
    events = Events.from_lists([[0.0] * 5 + [0.001]], [[0] * 6], n_units=1, duration=0.003)
    network = Network(
        populations=(Population("r", 1, LI.from_step(dt=DT, beta=0.5)),),
        projections=(Projection("in", "r", np.ones((1, 1)), DT),),
        inputs=(Input("in", 1),),
        readout=Readout("r", reduce="max"),
        dt=DT,
    )
    integer, _ = quantize(network, "loihi", calibration=events)
    many = simulate_integer(integer, events).logits[0, 0]
    once = simulate_integer(integer, events, binary_inputs=True).logits[0, 0]
    assert many == pytest.approx(5, rel=0.01)
    assert once == pytest.approx(1.5, rel=0.01)


def test_weights_round_to_even_numbers_and_are_cut():
    weight, cut = round_weights(np.array([1.0, 3.0, 2.9, -300.0, 255.1, -0.9]), -256, 254, True)
    assert (weight.tolist(), cut) == ([0, 4, 2, -256, 254, 0], 2)


def test_latencies_are_the_least_that_fit():
    network = mixed()
    plan = plan_delays(network, DelayRange(1, 1, 63))
    assert plan.fits
    assert plan.latency == {"a": 1, "b": 1, "c": 2, "d": 0}
    assert plan.shift == [1, 0, 1, 0, 1, 0]
    free = plan_delays(network, DelayRange(0, 0, None))
    assert set(free.latency.values()) == {0}
    # a target without delays whose currents act at once is one step early
    chain = Network(
        populations=(Population("a", 2, cuba(0.5, 0.5)), Population("b", 2, cuba(0.5, 0.5))),
        projections=(Projection("in", "a", np.ones((2, 2))), Projection("a", "b", np.ones((2, 2)))),
        inputs=(Input("in", 2),),
        readout=None,
        dt=DT,
    )
    early = plan_delays(chain, DelayRange(0, 1, 1, each=False))
    assert early.fits
    assert early.latency == {"a": -1, "b": -1}


def test_a_loop_that_is_too_fast_is_refused():
    """Round a -> b -> a the float network needs one step, the chip two."""
    fast = Projection("b", "a", np.full((30, 20), 0.1), 0.0)
    network = mixed().replace(projections=(*mixed().projections, fast))
    with pytest.raises(InputError, match=r"b->a: 600 delays are shorter than the 1 step.*needs round a loop") as error:
        quantize(network, "loihi2")
    assert "in->a" not in str(error.value)


def test_the_profile_of_the_first_loihi_gives_the_same_integers():
    assert quantize(mixed(), "loihi")[0] == quantize(mixed(), load_profile("loihi2"))[0]


def test_a_profile_with_fewer_bits_of_decay_gets_coarser_decays():
    from test_limits import limited

    integer, report = quantize(mixed(), limited(decay_bits=3))
    assert np.unique(integer.population("a").parameters["v_decay"]).tolist() == [512]  # 1 - 0.875 on eighths
    assert np.unique(integer.population("b").parameters["v_decay"]).tolist() == [0]  # 1/16 is a tie: to even
    assert report.layers[1].beta_error.tolist() == [0.0625] * 20
