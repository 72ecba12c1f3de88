"""Arrivals on the device: sums whose order matters are gathered in canonical order, exact ones may be scattered."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_cuda_engine import SIZES, Case, recordable
from test_engine_clock import DT, assert_same

from snnsim.device import cuda_problem
from snnsim.engines import cuda_batch as batches
from snnsim.engines import grid_inputs, simulate
from snnsim.engines.clock_plan import make_layout
from snnsim.engines.cuda import CudaEngine
from snnsim.engines.cuda_exact import bounds, exact, lowest_bit, rounding
from snnsim.engines.cuda_plan import make_plan
from snnsim.engines.cuda_synapses import choose
from snnsim.events import Events
from snnsim.kernels.cuda_scatter import half_scales
from snnsim.network import Input, Network, Population, Projection, Sparse, Steps
from snnsim.neurons import IF, LI, LIF, CubaLIF

pytestmark = pytest.mark.skipif(cuda_problem() is not None, reason="needs a CUDA device or NUMBA_ENABLE_CUDASIM=1")


def on_a_grid(network, kind):
    """Return the network with weights that float16 holds: sums of them are exact."""
    projections = []
    for item in network.projections:
        weight = item.weight
        if isinstance(weight, Sparse):
            weight = replace(weight, weight=weight.weight.astype(np.float16).astype(kind))
        else:
            weight = weight.astype(np.float16).astype(np.float64)
        projections.append(Projection(item.source, item.target, weight, item.delay, item.receptor))
    return network.replace(projections=tuple(projections))


def run(network, events, scatter_from=1, dtype="float64", chunk=None, **options):
    inputs = replace(grid_inputs(network, events, options.pop("n_steps", None)), **options)
    runner = CudaEngine(chunk, scatter_from, dense=math.inf).prepare(network, dtype, 1)
    return runner.run(inputs, record=tuple(recordable(network)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "items"), [("float16", 2**18), ("float32", 2**18), ("float32", 0), ("float64", 0)])
def test_exact_sums_are_scattered_with_the_same_bits(kind, items, size, monkeypatch):
    monkeypatch.setattr(batches, "CIRCLE_ITEMS", items)
    rng = np.random.default_rng([1, len(kind)])
    case = Case(size)
    network, events = on_a_grid(case.two_currents(rng, 0 if kind == "float32" else 1), kind), case.events(rng)
    ours = run(network, events, chunk=5 if kind == "float16" else None)
    assert set(ours.notes["arrivals"].values()) == {"scatter"}
    theirs = simulate(network, events, record=recordable(network))
    assert all(len(item.times) > 5 for item in theirs.spikes.values())
    assert_same(ours, theirs)
    for one, other in zip(ours.state.samples, theirs.state.samples, strict=True):
        assert np.array_equal(one.pending_place, other.pending_place)
        assert np.array_equal(one.pending_value, other.pending_value)


def test_rows_of_every_form_are_scattered():
    """Dense rows, shared weights, a delay a row with and without 0, delays in one and two bytes, events at once."""
    rng = np.random.default_rng(2)
    sizes = {"in": 3, "a": 4, "b": 3}
    dense = np.full((4, 3), 0.5)
    one = Sparse.from_triples([0, 1, 1, 3], [0, 2, 1, 1], np.ones(4), (3, 4))
    shared = replace(one, weight=0.75)
    narrow = Sparse.from_triples(rng.integers(0, 4, 9), rng.integers(0, 4, 9), np.ones(9), (4, 4))
    narrow = replace(narrow, weight=-0.25)
    projections = (
        Projection("in", "a", dense, np.array([[0, 2, 1]]) * DT),
        Projection("in", "a", dense / 4, rng.integers(1, 4, (4, 3)) * DT),
        Projection("a", "b", shared, np.array([[0, 1, 0, 3]]) * DT),
        Projection("a", "b", one, np.array([1, 300, 2, 5]) * DT),
        Projection("a", "a", narrow, Steps(rng.integers(1, 4, 9).astype(np.uint8), DT)),
        Projection("b", "a", rng.integers(-1, 3, (4, 3)) / 8, DT),
    )
    network = Network(
        (Population("b", sizes["b"], CubaLIF()), Population("a", sizes["a"], LIF(drive=150.0))),
        projections,
        (Input("in", 3),),
        None,
        DT,
    )
    events = Events.from_lists([[0.0, 0.0, 0.001, 0.004, 0.006]] * 2, [[1, 1, 0, 2, 1]] * 2, n_units=3, duration=0.01)
    ours = run(network, events)
    assert set(ours.notes["arrivals"].values()) == {"scatter"}
    theirs = simulate(network, events, record=recordable(network))
    assert len(theirs.spikes["a"].times) > 10
    assert_same(ours, theirs)
    assert np.array_equal(ours.state.samples[0].pending_value, theirs.state.samples[0].pending_value)


def planted():
    """A target whose sum depends on the order: (1e16 + 1) - 1e16 is 0, 1e16 - 1e16 + 1 is 1."""
    source = [0, 1, 2]
    sparse = Sparse.from_triples(source, [0, 0, 0], [1e16, 1.0, -1e16], (1, 3))
    turned = Sparse.from_triples(source, [0, 0, 0], [1e16, -1e16, 1.0], (1, 3))
    populations = tuple(Population(name, 1, IF(v_threshold=0.5)) for name in ("n", "m"))
    projections = (Projection("in", "n", sparse, DT), Projection("in", "m", turned, DT))
    return Network(populations, projections, (Input("in", 3),), None, DT)


def test_a_sum_whose_order_matters_is_gathered():
    events = Events.from_lists([[0.0] * 3], [[0, 1, 2]], n_units=3, duration=0.003)
    network = planted()
    ours = run(network, events)
    assert ours.notes["arrivals"] == {"n": "gather", "m": "gather"}
    assert_same(ours, simulate(network, events, record=recordable(network)))
    assert [len(ours.spikes[name].times) for name in ("n", "m")] == [0, 1]


def _cut(events, b, first, last):
    """Return times since ``first`` and units of a sample's events from ``first`` to ``last``."""
    mine = slice(events.offsets[b], events.offsets[b + 1])
    steps, begin = np.floor(events.times[mine] / DT + 1e-6), round(first / DT)
    keep = (steps >= begin) & (steps < round(last / DT))
    return (steps[keep] - begin) * DT, events.units[mine][keep]


def test_float32_weights_are_rounded_to_a_grid():
    """Then sums are those of the rounded weights, in any order; one of the planted spikes is another one's."""
    events = Events.from_lists([[0.0] * 3], [[0, 1, 2]], n_units=3, duration=0.003)
    network = planted()
    ours = run(network, events, dtype="float32")
    assert set(ours.notes["arrivals"].values()) == {"scatter, weights rounded to a grid"}
    assert ours.records["n.v"][0].dtype == np.float32
    rng = np.random.default_rng(3)
    case = Case()
    network, events = case.two_currents(rng), case.events(rng)
    narrow = run(network, events, dtype="float32").records["b.v"]
    wide = simulate(network, events, record="b.v").records["b.v"]
    assert np.allclose(narrow[0], wide[0], rtol=0, atol=1e-3)
    runner = CudaEngine(3, 1, math.inf).prepare(network, "float32", 1)
    early = Events.from_lists(*zip(*(_cut(events, b, 0.0, 0.005) for b in range(2)), strict=True), 3, duration=0.005)
    late = Events.from_lists(*zip(*(_cut(events, b, 0.005, 1.0) for b in range(2)), strict=True), 3, duration=0.007)
    first = runner.run(grid_inputs(network, early, 5), record=("b.v",))
    second = runner.run(grid_inputs(network, late, 7), record=("b.v",), state=first.state)
    for whole, *parts in zip(narrow, first.records["b.v"], second.records["b.v"], strict=True):
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_more_coincident_events_than_the_proof_covers_are_gathered():
    network = on_a_grid(Case().two_currents(np.random.default_rng(4)), "float32")
    events = Events.from_lists([[0.0] * 256], [[0] * 256], n_units=3, duration=0.004)
    ours = run(network, events)
    assert ours.notes["arrivals"] == {"a.exc": "gather", "a.inh": "scatter", "b.exc": "scatter", "b.inh": "gather"}
    assert_same(ours, simulate(network, events, record=recordable(network)))


def test_the_choice_depends_on_the_network_alone():
    rng = np.random.default_rng(5)
    network = on_a_grid(Case().two_currents(rng), "float32")
    layout = make_layout(network, "float64")
    sizes = [sum(path.weight.size for path in layout.paths if path.port == s) for s in range(4)]
    flags, grids = choose(network, layout, "float64", max(sizes), math.inf, False)
    assert flags.tolist() == [n == max(sizes) for n in sizes]
    assert not grids.any()
    dense = Network((Population("n", 4, LI()),), (Projection("in", "n", np.ones((4, 5))),), (Input("in", 5),), None, DT)
    assert not choose(dense, make_layout(dense, "float64"), "float64", 10, 0.5, False)[0].any()


def test_exactness_is_decided_by_the_lowest_bit_and_the_largest_sum():
    assert lowest_bit(np.array([0.0, 0.75, -6.0])) == 0.25
    assert lowest_bit(np.array([1.0 + 2**-52])) == 2**-52
    assert lowest_bit(np.zeros(2)) == math.inf
    assert lowest_bit(np.array([5e-324])) == 5e-324
    assert exact(1.0, 2.0**53 - 1)
    assert not exact(1.0, 2.0**53)
    weight = np.array([[0.5, 0.25], [4.0, 0.0]])
    network = Network(
        (Population("n", 2, LIF()), Population("m", 2, LIF())),
        (Projection("n", "m", weight, DT), Projection("in", "m", weight, DT)),
        (Input("in", 2),),
        None,
        DT,
    )
    layout = make_layout(network, "float64")
    port = layout.common["populations"][1, 6]
    unit, most = bounds([path for path in layout.paths if path.port == port], 2, 1)
    assert unit == 0.25
    assert math.isclose(most, 4.0 * 256, rel_tol=1e-5)


@pytest.mark.parametrize("most", [1.0, 0.99, 1e-30, 12345.678])
def test_rounded_weights_have_exact_sums(most):
    rng = np.random.default_rng(6)
    weights = rng.normal(size=50)
    weights *= most / np.abs(weights).sum() * 0.999
    number = rounding(most)
    rounded = (weights + number) - number
    assert np.abs(rounded - weights).max() <= 2.0**-51 * most
    assert exact(lowest_bit(rounded), most)
    sums = {float(np.add.accumulate(rng.permutation(rounded))[-1]) for _ in range(20)}
    assert sums == {math.fsum(rounded)}


def test_every_float16_is_read_exactly():
    bits = np.arange(2**16, dtype=np.uint16)
    values = bits.view(np.float16)
    finite = np.isfinite(values)
    whole = (bits & 1023).astype(np.int64) + np.where((bits >> 10) & 31, 1024, 0)
    assert np.array_equal((whole * half_scales()[bits >> 10])[finite], values[finite].astype(np.float64))


def test_components_stages_and_windows():
    """A chain in front of two circles: by their shortest delay, and step by step where currents come at once."""
    one = np.ones((1, 1))
    ends = [("x", "a", 0), ("a", "b", 2), ("b", "c", 0), ("c", "b", 3), ("c", "d", 1), ("d", "d", 0), ("b", "d", 0)]
    neurons = {"d": CubaLIF(), "c": LIF(), "b": LIF(), "a": LIF()}
    network = Network(
        tuple(Population(name, 1, neuron) for name, neuron in neurons.items()),
        tuple(Projection(source, target, one, delay * DT) for source, target, delay in ends),
        (Input("x", 1),),
        None,
        DT,
    )
    plan = make_plan(network, make_layout(network, "float64"))
    assert [(item.window, item.late, len(item.stages)) for item in plan.components] == [
        (None, False, 1),
        (3, False, 2),
        (1, True, 1),
    ]
    assert plan.neuron.tolist() == [3, 2, 1, 0]
