"""Populations that start late or stop early in continuous time: on the grid's own instants they are the grid's."""

from typing import Any

import numpy as np
import pytest
from event_networks import DT, driven, inputs, pairs, random_network, run, times

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import IF, LI, LIF, CubaLI, CubaLIF, ExpCurrentLIF
from snnsim.plasticity import PairSTDP

START, STOP = 20, 60


def spanned(network: Network, **spans: tuple[int, int | None]) -> Network:
    return network.replace(
        populations=tuple(
            Population(item.name, item.size, item.neuron, *spans.get(item.name, (0, None)))
            for item in network.populations
        )
    )


@pytest.mark.parametrize(
    ("neuron", "names", "receptor"),
    [
        (LI(drive=3.0), ("n.v",), ""),
        (CubaLI(tau_syn=0.02, drive_syn=2.0), ("n.v", "n.i"), ""),
        (LIF(v_threshold=50.0, drive=20.0), ("n.v",), ""),
        (CubaLIF(v_threshold=50.0, tau_syn=0.003, drive=9.0), ("n.v", "n.i"), ""),
        (ExpCurrentLIF(v_threshold=50.0, drive=9.0), ("n.v", "n.i_exc", "n.i_inh"), "inh"),
        (IF(v_threshold=50.0, drive=9.0), ("n.v",), ""),
    ],
)
@pytest.mark.parametrize("span", [(START, None), (1, 2), (0, STOP), (START, STOP), (300, None)])
def test_values_are_those_of_the_grid(neuron: Any, names: Any, receptor: str, span: tuple[int, int | None]) -> None:
    rng = np.random.default_rng(4)
    network = Network(
        (Population("n", 4, neuron),),
        (Projection("in", "n", rng.normal(0, 1, (4, 7)), 3 * DT, receptor),),
        (Input("in", 7),),
        Readout("n"),
        DT,
    )
    network = spanned(network, n=span)
    events = inputs(rng.integers(0, 80, 90) * DT, rng.integers(0, 7, 90), 7, 100 * DT)
    ours, grid = (simulate(network, events, engine=engine, record=names) for engine in ("event", "reference"))
    for name in names:
        found, wanted = ours.records[name][0], grid.records[name][0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
        assert not found[: span[0]].any()
        if span[1] is not None:
            assert (found[span[1] :] == found[span[1] - 1]).all()
    np.testing.assert_allclose(ours.logits, grid.logits, rtol=1e-11)  # type: ignore[arg-type]


def test_spikes_are_those_of_the_grid() -> None:
    rng = np.random.default_rng(2)
    network = Network(
        (Population("a", 9, LIF(t_ref=0.003)), Population("b", 9, IF(v_reset=-0.1))),
        (
            Projection("in", "a", rng.uniform(0, 0.9, (9, 5)), rng.integers(0, 9, (9, 5)) * DT),
            Projection("a", "b", rng.uniform(0, 0.7, (9, 9)), rng.integers(1, 9, (9, 9)) * DT),
            Projection("b", "a", rng.uniform(0, 0.1, (9, 9)), rng.integers(1, 9, (9, 9)) * DT),
        ),
        (Input("in", 5),),
        None,
        DT,
    )
    network = network.replace(
        populations=tuple(
            Population(
                item.name, 9, item.neuron.replace(**({"t_ref": 3 * DT} if item.name == "a" else {})), start, stop
            )
            for item, start, stop in zip(network.populations, (30, 50), (150, None), strict=True)
        )
    )
    events = inputs(rng.integers(0, 200, 600) * DT, rng.integers(0, 5, 600), 5, 256 * DT)
    ours, grid = (simulate(network, events, engine=engine) for engine in ("event", "reference"))
    assert ours.spikes == grid.spikes
    for name, (low, high) in {"a": (30, 150), "b": (50, 256)}.items():
        steps = np.rint(ours.spikes[name].times / DT)
        assert len(steps) > 200
        assert low <= steps.min() < low + 10
        assert high - 10 < steps.max() < high or name == "b"


def test_a_driven_neuron_begins_at_rest() -> None:
    neuron = LIF(tau_mem=0.02, drive=100.0)
    whole = times(run(spanned(driven(neuron, [[0.0]])), inputs([]), 400))
    late = times(run(spanned(driven(neuron, [[0.0]]), n=(64, 256)), inputs([]), 400))
    np.testing.assert_allclose(late, whole[whole + 64 * DT <= 255 * DT] + 64 * DT, rtol=0, atol=1e-15)
    assert len(late) > 5


@pytest.mark.parametrize("zero_delays", [False, True])
@pytest.mark.parametrize("cut", [100, 299, 300, 301, 616, 800])
def test_a_run_in_parts_has_the_bits_of_one_run(cut: int, zero_delays: bool) -> None:
    network, events, initial = random_network(0, zero_delays)
    network = spanned(network, cuba=(301, None), exp=(101, 801), out=(0, 800))
    if cut < 600:  # so that times less those of the cut are exact
        events = inputs(np.rint(events.times / DT) * DT, events.units, 6, 0.3)
    names = ("cuba.v", "exp.i_exc", "lif.v", "out.v")
    whole = run(network, events, 1200, initial=initial, record=names)
    first = run(network, events, cut, initial=initial, record=names)
    at = cut * network.dt
    late = events.times >= at
    rest = inputs(events.times[late] - at, events.units[late], 6, 0.3)
    second = run(network, rest, 1200 - cut, state=first.state, record=names)
    joined = pairs(first) + [(name, at + time, unit) for name, time, unit in pairs(second)]
    assert sorted(item[::2] for item in joined) == sorted(item[::2] for item in pairs(whole))
    np.testing.assert_allclose(sorted(item[1] for item in joined), sorted(item[1] for item in pairs(whole)), atol=1e-15)
    for name in names:
        parts = np.concatenate((first.records[name][0], second.records[name][0]))
        np.testing.assert_array_equal(parts, whole.records[name][0])
    np.testing.assert_array_equal(second.logits, whole.logits)  # type: ignore[arg-type]
    assert whole.spikes["cuba"].n_events > 20
    assert whole.spikes["exp"].n_events > 3


def test_spans_outside_the_run_change_no_bit() -> None:
    network, events, initial = random_network(2)
    plain = run(network, events, 1200, initial=initial, record=["exp.v"])
    spans = run(spanned(network, cuba=(0, 5000), exp=(0, 1201)), events, 1200, initial=initial, record=["exp.v"])
    assert pairs(spans) == pairs(plain)
    np.testing.assert_array_equal(spans.records["exp.v"][0], plain.records["exp.v"][0])
    assert run(spanned(network, cuba=(3, None)), events, 0, initial=initial).spikes["cuba"].n_events == 0


def test_others_learn_while_some_start_and_stop() -> None:
    network, events, initial = random_network(1)
    network = spanned(network, cuba=(301, None), out=(0, 700))
    rule = PairSTDP("lif->lif", a_plus=0.02, a_minus=0.02, w_min=-9, w_max=9)
    whole = run(network, events, 1200, initial=initial, plasticity=rule)
    other = run(spanned(network, out=(0, 800), cuba=(301, None)), events, 1200, initial=initial, plasticity=rule)
    np.testing.assert_array_equal(whole.weights["lif->lif"][0], other.weights["lif->lif"][0])
    counts = whole.notes["counts"]
    assert counts["plastic_arrivals"] == other.notes["counts"]["plastic_arrivals"] > 100
    with pytest.raises(InputError, match="target 'cuba' has a start_step or stop_step"):
        run(network, events, 10, plasticity=PairSTDP("lif->cuba", a_plus=0.1, a_minus=0.1, w_min=-9, w_max=9))


@pytest.mark.parametrize("neuron", [IF(), CubaLIF(tau_mem=0.02, tau_syn=0.005)])
def test_the_instants_between_which_arrivals_count(neuron: Any) -> None:
    """Those up to (s - 1) dt are lost, those up to (e - 1) dt count."""
    first, last = (START - 1) * DT, (STOP - 1) * DT
    network = spanned(driven(neuron, [[0.1]]), n=(START, STOP))

    def moved(time: float) -> bool:
        variable = neuron.variables[-1]
        return bool(run(network, inputs([time]), 100, record=[f"n.{variable}"]).records[f"n.{variable}"][0].any())

    assert not moved(first)
    assert moved(float(np.nextafter(first, 1)))
    assert moved(last)
    assert not moved(float(np.nextafter(last, 1)))
