"""Whole rows that arrive at once: networks of currents with one delay a row against the plain definition, in parts."""

from typing import Any

import numpy as np
import pytest
from event_networks import DT, inputs, pairs, reference, run, same

from snnsim.engines.event_plan import make_layout
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import CubaLI, CubaLIF, ExpCurrentLIF

SIZE = 6


def row_network(seed: int) -> tuple[Network, Events, dict[str, Any]]:
    rng = np.random.default_rng(seed)

    def some(low: float, high: float) -> Any:
        return rng.uniform(low, high, SIZE)

    def dense(scale: float) -> Any:
        return rng.normal(0.2, scale, (SIZE, SIZE)) * (rng.random((SIZE, SIZE)) < 0.7)

    reset: dict[str, Any] = {"reset": "subtract" if seed % 2 else "zero", "t_ref": some(0.0, 0.01) * (seed % 3 > 0)}
    tau = (0.02, 0.005) if seed % 4 else (0.006, 0.02)
    members = (
        Population("a", SIZE, CubaLIF(*tau, drive=some(0, 60), v_threshold=some(0.8, 1.2), **reset)),
        Population("b", SIZE, ExpCurrentLIF(0.02, 0.005, 0.01, drive=some(-5, 60), **reset)),
        Population("out", SIZE, CubaLI(tau_mem=0.02, tau_syn=0.01)),
    )
    own = rng.choice([0.001, 0.002, 0.0035], (1, SIZE))
    projections = (
        Projection("in", "a", dense(2.0), 0.0),
        Projection("in", "b", dense(2.0), rng.choice([0.0, 0.001, 0.003], (1, SIZE)), "inh"),
        Projection("a", "b", dense(2.0), 0.0, "exc"),
        Projection("b", "b", -abs(dense(2.0)), own, "inh"),
        Projection("b", "a", -abs(dense(1.0)), 0.002),
        Projection("a", "out", dense(0.3), 0.001),
    )
    network = Network(members, projections, (Input("in", SIZE),), Readout("out"), DT / 4)
    time = rng.uniform(0, 0.3, 200)
    time[::3] = np.rint(time[::3] / DT) * DT
    initial = {"a.v": some(-0.5, 0.9), "a.i": some(-1, 1), "b.v": some(-0.5, 1.1), "b.i_inh": some(-1, 0)}
    return network, inputs(time, rng.integers(0, SIZE, 200), SIZE, 0.3), initial


@pytest.mark.parametrize("seed", range(12))
def test_rows_have_the_spikes_of_the_plain_definition(seed: int) -> None:
    network, events, initial = row_network(seed)
    assert make_layout(network).rows is not None
    steps = 1200
    found = run(network, events, steps, initial=initial)
    assert len(pairs(found)) > 50
    same(found, reference(network, events, initial, steps * network.dt))


@pytest.mark.parametrize("cut", [616, 802, 1003])  # times after it are less than twice it: differences are exact
@pytest.mark.parametrize("seed", range(4))
def test_rows_in_parts_have_the_bits_of_one_run(seed: int, cut: int) -> None:
    network, events, initial = row_network(seed)
    steps, names = 1200, ("a.v", "b.i_exc", "b.v")
    whole = run(network, events, steps, initial=initial, record=names)
    first = run(network, events, cut, initial=initial, record=names)
    at = cut * network.dt
    late = events.times >= at
    rest = inputs(events.times[late] - at, events.units[late], SIZE, 0.3)
    second = run(network, rest, steps - cut, state=first.state, record=names)
    joined = pairs(first) + [(name, at + time, unit) for name, time, unit in pairs(second)]
    assert sorted(joined) == sorted(pairs(whole))
    for name in names:
        np.testing.assert_array_equal(
            np.concatenate((first.records[name][0], second.records[name][0])), whole.records[name][0]
        )
    np.testing.assert_array_equal(second.logits, whole.logits)


def test_a_record_changes_no_spike() -> None:
    network, events, initial = row_network(3)
    plain = run(network, events, 1200, initial=initial)
    assert run(network, events, 1200, initial=initial, record=("a.v", "b.v")).spikes == plain.spikes
