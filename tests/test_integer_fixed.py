"""The law ``fixed``: its definition, the engine beside it, a naive program, bounds, scores and quantisation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fixed_networks import DT, naive, rich_network

from snnsim.engines import simulate
from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.kernels.reference_integer_fixed import (
    CURRENT_LIMIT,
    MEMBRANE_LIMIT,
    fixed,
    fixed_decay,
    fixed_faults,
    fixed_peak,
)
from snnsim.kernels.reference_integer_scores import POWERS, fixed_scores, fixed_softmax, softmax_bits
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.quantize import QuantizeOptions, quantize
from snnsim.quantize_fixed import arrival_bounds, max_count

INT32 = 2**31


def counts_of(samples: int, steps: int, size: int, seed: int = 0, rate: float = 0.06) -> Any:
    return np.random.default_rng(seed).poisson(rate, (samples, steps, size)).clip(0, 3)


def events_of(counts: Any) -> Events:
    times, units = [], []
    for sample in counts:
        step, unit = np.nonzero(sample)
        times.append(np.repeat(step * DT, sample[step, unit]))
        units.append(np.repeat(unit, sample[step, unit]).astype(np.int32))
    return Events.from_lists(times, units, counts.shape[2], duration=counts.shape[1] * DT)


def inputs_of(counts: Any) -> dict[str, Events]:
    return {"in": events_of(counts[:, :, :12]), "other": events_of(counts[:, :, 12:])}


def parameters(size: int, **values: int) -> Mapping[str, Any]:
    given = {"beta": 32768, "drive": 0, "shift": 0, "v_threshold": 100, "v_reset": 0, "reset_amount": 100}
    given |= {"reset_zero": 0, "refractory_steps": 0, "alpha": 0, "drive_syn": 0}
    return {name: np.full(size, value, np.int64) for name, value in (given | values).items()}


def test_decay_is_the_truncated_product_and_symmetric_about_zero() -> None:
    rng = np.random.default_rng(0)
    edges = [0, 1, -1, 2**30, -(2**30), 32767, 32768, 32769]
    x = np.concatenate([rng.integers(-(2**30), 2**30, 5000), edges]).astype(np.int64)
    for factor in (0, 1, 12345, 32767, 32768):
        b = np.full(x.shape, factor)
        expected = [int(value) * factor // 32768 if value >= 0 else -(-int(value) * factor // 32768) for value in x]
        assert fixed_decay(x, b).tolist() == expected
        assert np.array_equal(fixed_decay(-x, b), -fixed_decay(x, b))
    v = np.array([1000, -1000])
    for _ in range(2000):
        v = fixed_decay(v, np.array([32700, 32700]))
    assert v.tolist() == [0, 0]  # nothing gets stuck beside 0


@pytest.mark.parametrize(("bits", "scale"), [("fixed8", "layer"), ("fixed8", "neuron"), ("fixed", "neuron")])
@pytest.mark.parametrize("reduce", ["max", "mean", "last", "count", "sum_softmax"])
def test_engine_definition_and_a_naive_program_agree(bits: str, scale: Any, reduce: str) -> None:
    network, _ = quantize(rich_network(1, reduce=reduce), bits, options=QuantizeOptions(scale=scale))
    counts = counts_of(2, 80, 16)
    events = inputs_of(counts)
    names = [f"{item.name}.{variable}" for item in network.populations for variable in "vi"]
    fast = simulate_integer(network, events, record=names, threads=1)
    slow = simulate_integer(network, events, engine="reference", record=names)
    two = simulate_integer(network, events, record=names, threads=2)
    readout = network.readout
    assert readout is not None
    for b, sample in enumerate(counts):
        spikes, scores, v = naive(network, sample)
        for name, expected in spikes.items():
            for result in (fast, slow, two):
                events_b = result.spikes[name][b]
                found = np.stack([np.rint(events_b.times / DT).astype(int), events_b.units], axis=1)
                assert np.array_equal(found, np.argwhere(expected)), name
        for name in names:
            assert np.array_equal(fast.records[name][b], slow.records[name][b])
        for name, last in v.items():
            assert fast.records[f"{name}.v"][b][-1].tolist() == last
        assert fast.logits is not None
        unit = {"count": 1.0, "sum_softmax": 2.0**15}.get(reduce, float(network.scale[readout.population][0]))
        steps = 75 if reduce == "mean" else 1
        assert np.allclose(fast.logits[b], np.array(scores) / unit / steps, rtol=1e-12)
    assert all(len(spikes) for spikes in fast.spikes.values())
    assert fast.spikes["late 1"].n_events > 40
    assert fast.spikes["cuba"].n_events > 100


def test_sixteen_bits_have_nearly_all_spikes_of_the_float_network() -> None:
    given = rich_network(1)
    network, report = quantize(given, "fixed")
    counts = counts_of(6, 200, 16, 3)
    ours = simulate_integer(network, inputs_of(counts))
    wanted = simulate(given, inputs_of(counts), engine="clock", dtype="float64")
    for name, expected in wanted.spikes.items():
        keys = [
            set(zip(np.repeat(np.arange(6), np.diff(e.offsets)), np.rint(e.times / DT), e.units, strict=True))
            for e in (ours.spikes[name], expected)
        ]
        assert len(keys[0] & keys[1]) > 0.93 * len(keys[1]), name
    assert np.array_equal(ours.n_steps, wanted.n_steps)
    assert all(latency == 0 for latency in network.latency.values())
    assert any("gain from current to membrane" in sentence for sentence in report.changes)
    assert any("beyond 2^30" in sentence for sentence in report.changes if sentence.startswith("late 1"))  # IF


def test_a_lattice_network_is_exact() -> None:
    """Weights and thresholds with few binary digits and beta 1/2 lose nothing: every spike of the float network."""
    rng = np.random.default_rng(5)
    weight = rng.integers(-8, 12, (20, 10)) / 8
    loop = rng.integers(-6, 4, (20, 20)) / 8
    given = Network(
        populations=(Population("p", 20, LIF.from_step(dt=DT, beta=0.5, drive_step=1 / 64, reset="subtract")),),
        projections=(
            Projection("in", "p", weight, rng.integers(0, 7, weight.shape) * DT),
            Projection("p", "p", loop, rng.integers(1, 5, loop.shape) * DT),
        ),
        inputs=(Input("in", 10),),
        readout=None,
        dt=DT,
    )
    network, _ = quantize(given, "fixed8", options=QuantizeOptions(power_of_two=True, scale="layer"))
    counts = counts_of(8, 300, 10, 1, 0.1)
    ours = simulate_integer(network, events_of(counts))
    wanted = simulate(given, events_of(counts), engine="clock", dtype="float64")
    assert ours.spikes["p"].n_events > 3000
    assert ours.spikes["p"].n_events == wanted.spikes["p"].n_events
    assert np.mean(ours.spikes["p"].units == wanted.spikes["p"].units) > 0.999


def test_no_intermediate_leaves_int32_under_the_worst_input() -> None:
    """All synapses of one sign act at once, as often as allowed, for many steps: the bounds are reached and hold."""
    for profile, most in (("fixed8", 1), ("fixed8", 500), ("fixed", 40)):
        network, _ = quantize(rich_network(2), profile, options=QuantizeOptions(max_count=most))
        allowed = max_count(network)
        assert allowed >= most
        for item in network.populations:
            inputs, neurons = arrival_bounds(network, item.name)
            worst = inputs * allowed + neurons
            assert not fixed_faults(item.kind, item.parameters, worst)
            p = {key: value.astype(object) for key, value in item.parameters.items()}  # Python's own integers
            for sign in (1, -1):
                v = i = np.zeros(item.size, object)
                for _ in range(60):
                    arrived = sign * worst.astype(object) * 2 ** p["shift"]
                    terms = [v * p["beta"] / 32768, p["drive"]]
                    if item.current:
                        assert np.abs(i + arrived).max() < INT32
                        i = np.clip(i + arrived, -CURRENT_LIMIT, CURRENT_LIMIT)
                        terms.append(i)
                        assert np.abs(fixed_decay(i.astype(np.int64), item.parameters["alpha"])).max() < INT32
                    else:
                        terms.append(arrived)
                    total = sum(np.abs(term) for term in terms)
                    assert np.max(total) < INT32
                    v = np.clip(sum(terms), -MEMBRANE_LIMIT, MEMBRANE_LIMIT)


def test_one_event_more_than_allowed_is_a_fault() -> None:
    network, _ = quantize(rich_network(2), "fixed")
    allowed = max_count(network)
    faults = []
    for item in network.populations:
        inputs, neurons = arrival_bounds(network, item.name)
        faults += fixed_faults(item.kind, item.parameters, inputs * (allowed + 1) + neurons)
    assert faults


def test_values_are_clamped_at_the_limits_and_counted() -> None:
    p = parameters(2, v_threshold=2**30 - 1, shift=10)
    state = np.zeros((3, 2), np.int64)
    arrivals = np.array([2**19, -(2**19)])
    for step in range(4):
        state, spikes, over = fixed(p, "li", state, arrivals)
        assert over.tolist() == [step >= 2] * 2
    assert state[0].tolist() == [MEMBRANE_LIMIT, -MEMBRANE_LIMIT]
    assert not spikes.any()
    state, _, over = fixed(parameters(1, alpha=32768), "cubali", np.zeros((3, 1), np.int64), np.array([2**29 + 5]))
    assert state[1].tolist() == [CURRENT_LIMIT]
    assert over.tolist() == [True]
    assert fixed_peak("li", parameters(1), np.array([3]))[0].tolist() == [np.inf]
    assert fixed_peak("li", parameters(1, beta=16384), np.array([3]))[0].tolist() == [6.0]


def test_refractory_neurons_hold_and_lose() -> None:
    p = parameters(1, v_threshold=10, reset_zero=1, v_reset=-3, refractory_steps=2)
    state, fired, seen = np.zeros((3, 1), np.int64), [], []
    for _ in range(8):
        state, spikes, _ = fixed(p, "lif", state, np.array([7]))
        fired.append(int(spikes[0]))
        seen.append(int(state[0, 0]))
    assert fired == [0, 1, 0, 0, 0, 1, 0, 0]
    assert seen == [7, -3, -3, -3, 4, -3, -3, -3]


def test_softmax_is_within_a_percent_and_needs_32_bits_only() -> None:
    rng = np.random.default_rng(0)
    assert POWERS.max() < 2**15
    for bits in (0, 4, 9, 10, 17, 26):
        v = rng.normal(0, 3, (400, 12))
        whole = np.rint(v * 2.0**bits).astype(np.int64)
        exact = np.exp(whole / 2.0**bits - (whole / 2.0**bits).max(axis=1, keepdims=True))
        exact /= exact.sum(axis=1, keepdims=True)
        found = fixed_softmax(whole, bits) / 2.0**15
        assert np.abs(found - exact).max() < 0.011
        assert np.all(found.sum(axis=1) <= 1)
        assert np.all(found.sum(axis=1) > 1 - 12 / 2**15)
    far = np.array([[-(2**30), 2**30], [2**30, 2**30]])
    assert fixed_softmax(far, 26).tolist() == [[0, 2**15], [2**14, 2**14]]
    assert 11 * 1024 * 1477 < 2**32
    assert softmax_bits(np.array([1024.0, 1024.0])) == 10
    assert softmax_bits(np.array([1024.0, 512.0])) is None
    assert softmax_bits(np.array([1000.0])) is None
    assert softmax_bits(np.array([2.0**27])) is None
    assert fixed_scores("sum_softmax", np.zeros((0, 3), np.int64), 4).tolist() == [0, 0, 0]


def chain(neuron: Any, readout: Readout | None = None, weight: float = 0.5, size: int = 4) -> Network:
    return Network(
        populations=(Population("p", size, neuron), Population("out", 3, LI(tau_mem=0.02))),
        projections=(
            Projection("in", "p", np.full((size, 5), weight)),
            Projection("p", "out", np.ones((3, size))),
        ),
        inputs=(Input("in", 5),),
        readout=readout,
        dt=DT,
    )


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (chain(AdaptiveLIF(tau_mem=0.02)), "'?p'?.*AdaptiveLIF|AdaptiveLIF.*p"),
        (chain(LIF(tau_mem=0.02, t_ref=70.0)), "refractory for at most 65535 steps"),
        (chain(LIF(tau_mem=0.02, reset="subtract", reset_amount=-1.0)), "subtracts 0 or more"),
        (chain(LIF(), Readout("p", "spikes", "sum_softmax")), "no softmax of spikes; read 'count'"),
        (chain(LIF(drive=1e12)), "cannot hold it: a threshold, reset or drive reaches"),
    ],
)
def test_what_the_law_cannot_hold_is_refused_in_one_sentence(network: Network, match: str) -> None:
    with pytest.raises(InputError, match=match):
        quantize(network, "fixed8")


def test_start_steps_are_refused() -> None:
    network = chain(LIF())
    late = network.replace(populations=(replace(network.populations[0], start_step=3), network.populations[1]))
    with pytest.raises(InputError, match=r"p: .*start"):
        quantize(late, "fixed")


def test_too_many_synapses_for_int32_are_refused() -> None:
    with pytest.raises(InputError, match=r"'p'.*arrivals.*max_count"):
        quantize(chain(LIF(), size=2), "fixed", options=QuantizeOptions(max_count=65535))
    tight = IntegerNetwork(
        law="fixed",
        populations=(IntegerPopulation("p", 1, "li", {"beta": 32768, "drive": 2**30 - 1, "shift": 0}),),
        projections=(IntegerProjection("q", "p", [0, 1], [0], [1], [1]),),
        inputs=(Input("q", 1),),
        readout=None,
        dt=DT,
    )
    assert max_count(tight) == 0
    with pytest.raises(InputError, match="max_count: expected"):
        QuantizeOptions(max_count=0)
    with pytest.raises(InputError, match="power_of_two"):
        QuantizeOptions(power_of_two=2)  # type: ignore[arg-type]


def test_thresholds_stay_above_resets_and_strict_ones_are_one_more() -> None:
    network, _ = quantize(chain(LIF(v_threshold=1.0, strict=True), weight=0.5), "fixed8")
    plain, _ = quantize(chain(LIF(v_threshold=1.0), weight=0.5), "fixed8")
    assert (
        network.population("p").parameters["v_threshold"] - plain.population("p").parameters["v_threshold"]
    ).tolist() == [1] * 4
    close, _ = quantize(chain(LIF(v_threshold=1.0, v_reset=1.0 - 1e-9)), "fixed8")
    p = close.population("p").parameters
    assert np.all(p["v_threshold"] > p["v_reset"])


def test_currents_of_recurrent_neurons_may_have_delay_0() -> None:
    given = Network(
        populations=(Population("c", 6, CubaLIF(tau_mem=0.01, tau_syn=0.005)), Population("o", 2, CubaLI())),
        projections=(
            Projection("in", "c", np.random.default_rng(0).normal(2, 2, (6, 5))),
            Projection("c", "c", np.random.default_rng(1).normal(0, 2, (6, 6))),
            Projection("c", "o", np.ones((2, 6))),
        ),
        inputs=(Input("in", 5),),
        readout=Readout("o"),
        dt=DT,
    )
    network, _ = quantize(given, "fixed")
    counts = counts_of(4, 120, 5, 2, 0.2)
    ours, wanted = simulate_integer(network, events_of(counts)), simulate(given, events_of(counts), dtype="float64")
    assert wanted.spikes["c"].n_events > 200
    assert abs(ours.spikes["c"].n_events - wanted.spikes["c"].n_events) <= 0.02 * wanted.spikes["c"].n_events
    assert np.array_equal(ours.predictions, wanted.predictions)


def test_if_neurons_keep_everything() -> None:
    network, _ = quantize(chain(IF(reset="subtract")), "fixed8")
    assert network.population("p").parameters["beta"].tolist() == [32768] * 4
    assert network.population("p").kind == "lif"
