"""Runs of the event engine: splits, threads, records, readouts, how much is done, and what is refused."""

from typing import Any

import numpy as np
import pytest
from event_networks import DT, alone, driven, inputs, pairs, random_network, run, times

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF, ExpCurrentLIF

MS = 0.001


@pytest.mark.parametrize("zero_delays", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_run_in_parts_has_the_bits_of_one_run(seed: int, zero_delays: bool) -> None:
    network, events, initial = random_network(seed, zero_delays)
    steps, names = 1200, ("cuba.v", "exp.i_exc", "lif.v")
    whole = run(network, events, steps, initial=initial, record=names)
    cut = 616  # times after it are less than twice it, so the differences below are exact
    first = run(network, events, cut, initial=initial, record=names)
    at = cut * network.dt
    late = events.times >= at
    rest = inputs(events.times[late] - at, events.units[late], 6, 0.3)
    second = run(network, rest, steps - cut, state=first.state, record=names)
    joined = pairs(first) + [(name, at + time, unit) for name, time, unit in pairs(second)]
    assert sorted(joined) == sorted(pairs(whole))
    for name in names:
        np.testing.assert_array_equal(
            np.concatenate((first.records[name][0], second.records[name][0])), whole.records[name][0]
        )
    np.testing.assert_array_equal(second.logits, whole.logits)  # type: ignore[arg-type]


def test_any_number_of_threads_has_the_same_bits() -> None:
    network, events, initial = random_network(1)
    many = Events.from_lists(
        [events.times[k::5] for k in range(5)], [events.units[k::5] for k in range(5)], 6, duration=0.3
    )
    results = [
        run(network, many, 1200, initial=initial, threads=threads, batch=batch)
        for threads, batch in ((1, 1), (3, 1), (2, 4))
    ]
    for other in results[1:]:
        assert other.spikes == results[0].spikes
        np.testing.assert_array_equal(other.logits, results[0].logits)  # type: ignore[arg-type]
    single = run(network, many.subset(np.array([2])), 1200, initial=initial)
    assert pairs(single) == pairs_of(results[0], 2)


def pairs_of(result: Any, sample: int) -> list[tuple[str, float, int]]:
    found = []
    for name, events in sorted(result.spikes.items()):
        a, e = int(events.offsets[sample]), int(events.offsets[sample + 1])
        found += [(name, t, u) for t, u in zip(events.times[a:e].tolist(), events.units[a:e].tolist(), strict=True)]
    return found


def test_the_order_of_neurons_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    size, steps = 40, 400
    weight = rng.integers(-8, 16, (size, size)) / 16.0  # sums are exact in any order
    delay = rng.uniform(0.002, 0.02, (size, size))
    tau, drive = rng.uniform(0.01, 0.03, size), rng.uniform(40, 120, size)
    shuffled = rng.permutation(size)

    def spikes(order: Any) -> list[tuple[int, float]]:
        neuron = CubaLIF(tau_mem=tau[order], tau_syn=0.005, drive=drive[order], t_ref=0.002)
        across = np.ix_(order, order)
        network = Network(
            (Population("n", size, neuron),), (Projection("n", "n", weight[across], delay[across]),), (), None, DT
        )
        found = run(network, None, steps).spikes["n"]
        return sorted(zip(order[found.units].tolist(), found.times.tolist(), strict=True))

    wanted = spikes(np.arange(size))
    assert len(wanted) > 500
    assert spikes(shuffled) == wanted


def test_the_future_does_not_reach_the_past() -> None:
    network, events, initial = random_network(2)
    whole = pairs(run(network, events, 1200, initial=initial))
    early = events.times < 0.15
    part = pairs(run(network, inputs(events.times[early], events.units[early], 6, 0.3), 1200, initial=initial))
    assert [item for item in whole if item[1] < 0.15] == [item for item in part if item[1] < 0.15]
    assert whole != part


def test_silence_costs_nothing() -> None:
    size = 5000
    source, target = np.array([0, 1, 2]), np.array([1, 2, 0])
    weight = Sparse.from_triples(source, target, np.full(3, 0.3), (size, size))
    for neuron in (CubaLIF(), LIF(drive=40.0), CubaLIF(drive=40.0), ExpCurrentLIF(drive=-10.0), IF(drive=-1.0)):
        receptor = neuron.receptors[0] if neuron.receptors else ""
        network = Network(
            (Population("n", size, neuron),),
            (
                Projection("n", "n", weight, 0.001, receptor),
                Projection("in", "n", np.eye(size, 1) * 0.1, 0.0, receptor),
            ),
            (Input("in", 1),),
            None,
            DT,
        )
        result = run(network, inputs([0.1, 0.2], duration=10.0), n_steps=10000)
        counts = result.notes["counts"]
        assert counts["due"] == counts["exact_searches"] == 0
        assert counts["sums"] == counts["arrivals"] == 2
        assert counts["windows"] < 10
        assert result.operations.neuron_updates == 2


def test_a_neuron_that_will_fire_is_looked_at_a_few_times_a_spike() -> None:
    result = run(alone(CubaLIF(drive=60.0, t_ref=0.002), size=100), n_steps=2000)
    assert result.notes["counts"]["exact_searches"] <= result.spikes["n"].n_events + 100
    assert result.notes["counts"]["due"] <= 4 * result.spikes["n"].n_events


def test_a_grid_of_fine_steps_comes_near() -> None:
    rng = np.random.default_rng(3)
    neuron = ExpCurrentLIF(tau_mem=0.02, tau_exc=0.005, tau_inh=0.01, t_ref=0.002, drive=45.0)
    network = Network(
        (Population("n", 5, neuron),),
        tuple(
            Projection("in", "n", scale * rng.uniform(0, 1, (5, 10)), 0.001, name)
            for scale, name in ((2.0, "exc"), (-0.5, "inh"))
        ),
        (Input("in", 10),),
        None,
        MS,
    )
    time = np.rint(rng.uniform(0, 0.3, 60) / MS) * MS
    events = inputs(time, rng.integers(0, 10, 60), 10, 0.3)
    exact = run(network, events, 300)
    fine = 64
    coarse = simulate(network, events, engine="reference", dt=MS / fine)
    assert exact.spikes["n"].n_events > 30
    assert exact.spikes["n"].n_events == coarse.spikes["n"].n_events
    for unit in range(5):
        a, b = (item.spikes["n"].times[item.spikes["n"].units == unit] for item in (exact, coarse))
        assert np.abs(a + MS - b).max() < 3 * MS  # their zero states lie one step before 0, here and there
        assert len(a) == len(b)


def test_readouts_and_records_are_those_of_the_grid_where_all_lies_on_it() -> None:
    rng = np.random.default_rng(4)
    for neuron, names in ((LI(drive=3.0), ("n.v",)), (CubaLI(tau_syn=0.02, drive_syn=2.0), ("n.v", "n.i"))):
        for reduce in ("sum_softmax", "mean", "max", "last"):
            network = Network(
                (Population("n", 4, neuron),),
                (Projection("in", "n", rng.normal(0, 1, (4, 7)), 3 * DT),),
                (Input("in", 7),),
                Readout("n", reduce=reduce, skip_steps=5),  # type: ignore[arg-type]
                DT,
            )
            events = inputs(rng.integers(0, 80, 50) * DT, rng.integers(0, 7, 50), 7, 100 * DT)
            ours, grid = (simulate(network, events, engine=engine, record=names) for engine in ("event", "reference"))
            np.testing.assert_allclose(ours.logits, grid.logits, rtol=1e-11)  # type: ignore[arg-type]
            for name in names:
                np.testing.assert_allclose(ours.records[name][0], grid.records[name][0], rtol=0, atol=1e-12)


def test_spike_counts_are_read_out() -> None:
    network = driven(IF(), [[1.0, 0.0], [0.0, 1.0]])
    network = network.replace(readout=Readout("n", variable="spikes", reduce="count"))
    result = run(network, inputs([0.01, 0.0101, 0.0102, 0.05], [0, 0, 1, 0], 2))
    assert result.logits is not None
    assert result.logits.tolist() == [[3.0, 1.0]]


def test_numbers_per_step_give_their_time_constants() -> None:
    beta, alpha = np.exp(-DT / 0.02), np.exp(-DT / 0.005)
    stored = CubaLIF.from_step(dt=DT, beta=beta, alpha=alpha, drive_step=70.0 * 0.02 * (1 - beta))
    for one, other in (
        (stored, CubaLIF(tau_mem=0.02, tau_syn=0.005, drive=70.0)),
        (LIF.from_step(dt=DT, beta=1.0, drive_step=0.125), IF(drive=0.125 / DT)),
        (IF.from_step(dt=DT, drive_step=0.125), IF(drive=0.125 / DT)),
    ):
        a, b = (times(run(alone(item))) for item in (one, other))
        assert len(a) > 5
        np.testing.assert_allclose(a, b, rtol=1e-11)


def test_input_events_at_the_end_are_dropped_and_counted() -> None:
    network = driven(LIF(), [[2.0]])
    result = run(network, inputs([0.1, np.nextafter(0.125, 0), 0.125, 0.2]), n_steps=128)
    assert times(result).tolist() == [0.1, np.nextafter(0.125, 0)]
    assert result.dropped.tolist() == [2]


def test_a_spike_before_time_zero_keeps_its_exact_time() -> None:
    result = run(alone(LIF(tau_mem=0.02, drive=100.0)), n_steps=5, initial={"n.v": 0.99})
    exact = 0.02 * np.log((2 - 0.99) / (2 - 1)) - DT
    assert result.spikes["n"].times.tolist() == [0.0]
    ((sample, name, unit, time),) = result.notes["early"]
    assert (sample, name, unit) == (0, "n", 0)
    np.testing.assert_allclose(time, exact, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"resolution": 0.001}, "or the network's dt = .* got 0.001"),
        ({"dtype": "float32"}, "dtype: engine 'event' computes exact times in 'float64', got 'float32'"),
    ],
)
def test_options_that_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(alone(LIF()), **change)


@pytest.mark.parametrize(
    ("population", "match"),
    [
        (Population("n", 1, AdaptiveLIF()), "population 'n': AdaptiveLIF has no exact continuous-time form here"),
        (Population("n", 1, LIF.from_step(dt=DT, beta=0.0)), "population 'n': tau_mem: its decay per step is 0"),
        (
            Population("n", 1, CubaLIF.from_step(dt=DT, beta=0.5, alpha=0.0)),
            "population 'n': tau_syn: its decay per step is 0 or 1",
        ),
    ],
)
def test_populations_that_are_refused(population: Population, match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(Network((population,), (), (), None, DT))


def test_a_range_of_delays_that_is_too_wide_is_refused() -> None:
    network = Network(
        (Population("n", 2, LIF()),), (Projection("n", "n", np.ones((2, 2)), np.array([[1e-9, 1.0]])),), (), None, 1e-9
    )
    with pytest.raises(InputError, match="lengthen the shortest delay or set it to 0"):
        run(network)
