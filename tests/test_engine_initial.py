"""Values to begin with: every engine starts from them, and what does not fit is refused."""

from typing import Any

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF, AdaptiveLIF, CubaLIF

DT = 0.001


def network() -> Network:
    rng = np.random.default_rng(0)
    populations = (
        Population("a", 5, LIF(tau_mem=0.01, t_ref=0.002)),
        Population("b", 4, CubaLIF(tau_mem=0.02, tau_syn=0.004, drive=60.0)),
        Population("c", 3, AdaptiveLIF(tau_mem=0.02, adapt_spike=0.2, adapt_v=0.05)),
    )
    pairs = (("in", "a", 6), ("a", "b", 5), ("b", "c", 4), ("c", "a", 3))
    size = {item.name: item.size for item in populations}
    projections = tuple(
        Projection(source, target, rng.normal(0.5, 0.5, (size[target], n)), DT * rng.integers(1, 4, (size[target], n)))
        for source, target, n in pairs
    )
    return Network(populations, projections, (Input("in", 6),), None, DT)


def events(n_samples: int) -> Events:
    rng = np.random.default_rng(1)
    times = [np.sort(rng.uniform(0, 0.06, 60)) for _ in range(n_samples)]
    return Events.from_lists(times, [rng.integers(0, 6, 60) for _ in times], n_units=6, duration=0.06)


INITIAL: dict[str, Any] = {
    "a.v": np.linspace(0, 0.9, 5),
    "b.v": 0.5,
    "b.i": np.arange(12.0).reshape(3, 4),
    "c.w": np.array([0.1, 0.3, -0.2]),
}


def test_a_membrane_decays_from_its_value() -> None:
    alone = Network((Population("n", 2, LIF.from_step(dt=DT, beta=0.5)),), (), (), None, DT)
    result = simulate(alone, None, n_steps=4, initial={"n.v": [0.8, 0.0]}, record="n.v")
    assert result.records["n.v"][0].tolist() == [[0.8 * 0.5**k, 0.0] for k in range(1, 5)]
    fires = simulate(alone, None, n_steps=2, initial={"n.v": [2.0, 1.9]})
    assert fires.spikes["n"].units.tolist() == [0]  # 2.0 decays to the threshold in step 0, 1.9 below it


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_engines_begin_alike(dtype: Any) -> None:
    net, given = network(), events(3)
    names = ("a.v", "b.v", "b.i", "c.v", "c.w")
    clock, reference = (
        simulate(net, given, engine=engine, dtype=dtype, initial=INITIAL, record=names)
        for engine in ("clock", "reference")
    )
    zero = simulate(net, given, dtype=dtype)
    for name in ("a", "b", "c"):
        assert len(clock.spikes[name].times) > 0
        assert np.array_equal(clock.spikes[name].times, reference.spikes[name].times)
        assert np.array_equal(clock.spikes[name].units, reference.spikes[name].units)
    assert not np.array_equal(clock.spikes["b"].times, zero.spikes["b"].times)
    for name in names:
        for one, other in zip(clock.records[name], reference.records[name], strict=True):
            assert np.array_equal(one, other)


def test_a_run_with_given_values_goes_on() -> None:
    net = Network(network().populations, network().projections[1:], (), None, DT)
    initial = {name: values for name, values in INITIAL.items() if name != "b.i"}
    whole = simulate(net, None, n_steps=40, initial=initial)
    first = simulate(net, None, n_steps=15, initial=initial)
    second = simulate(net, None, n_steps=25, state=first.state)
    assert len(whole.spikes["b"].times) > 3
    steps = np.concatenate([first.spikes["b"].times, second.spikes["b"].times + 15 * DT])
    assert np.allclose(steps, whole.spikes["b"].times)
    with pytest.raises(InputError, match="give one of the two"):
        simulate(net, None, n_steps=3, state=first.state, initial=initial)


@pytest.mark.parametrize(
    ("initial", "sentence"),
    [
        ({"z.v": 0.0}, "no population 'z'"),
        ({"a.i": 0.0}, "initial: 'a.i': LIF has the variables v, not 'i'"),
        ({"a.u": 0.0}, "initial: 'a.u': LIF has the variables v, not 'u'"),
        ({"a.v": [0.0, 1.0]}, r"initial: 'a.v': expected a number, \(5,\) for one a neuron or \(3, 5\)"),
        ({"a.v": np.nan}, "initial: 'a.v': expected finite numbers"),
        ({"a.v": "high"}, "initial: 'a.v': expected numbers, got 'high'"),
    ],
)
def test_what_does_not_fit_is_refused(initial: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        simulate(network(), events(3), initial=initial)
