"""Projections built by rule: exact degrees, the laws that are drawn, the same bits on any number of threads."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from snnsim import connect
from snnsim.connect import (
    Disc,
    Exponential,
    Falling,
    Gaussian,
    LogNormal,
    Normal,
    Uniform,
    all_to_all,
    distance_dependent,
    fixed_indegree,
    fixed_outdegree,
    fixed_probability,
    fixed_total,
    from_edges,
    one_to_one,
    projection_key,
    total_for_probability,
)
from snnsim.connect_plan import Plan
from snnsim.errors import InputError
from snnsim.kernels.connect import sort_row
from snnsim.kernels.philox import Stream, philox4x32, uniform
from snnsim.network import Input, Network, Population, Steps
from snnsim.neurons import LIF

A = Population("a", 300, LIF())
B = Population("b", 170, LIF())
WIDE = Population("wide", 70_000, LIF())
SPACE = np.random.default_rng(0).random((300, 2))

RULES = {
    "probability": lambda **k: fixed_probability(A, B, 0.1, **k),
    "probability-own": lambda **k: fixed_probability(A, A, 0.4, autapses=False, **k),
    "indegree": lambda **k: fixed_indegree(A, B, 60, **k),
    "indegree-distinct": lambda **k: fixed_indegree(A, A, 120, multapses=False, autapses=False, **k),
    "outdegree": lambda **k: fixed_outdegree(A, B, 40, **k),
    "outdegree-distinct": lambda **k: fixed_outdegree(A, A, 299, multapses=False, autapses=False, **k),
    "total": lambda **k: fixed_total(A, B, 10_001, **k),
    "one-to-one": lambda **k: one_to_one(A, Population("c", 300, LIF()), **k),
    "all-to-all": lambda **k: all_to_all(A, A, autapses=False, **k),
    "distance": lambda **k: distance_dependent(A, A, SPACE, SPACE, Gaussian(0.1, 0.9, 0.25), periodic=1.0, **k),
    "edges": lambda **k: from_edges(A, B, np.arange(500) % 300, np.arange(500) % 170, **k),
    "wide": lambda **k: fixed_indegree(A, WIDE, 8, **k),
}
DRAWN = {"weight": Normal(1.0, 0.1, low=0.0), "delay": Normal(1.5e-3, 0.75e-3, low=5e-5), "dt": 1e-4}


def pairs(projection):
    """Sources and targets of all synapses."""
    return projection.weight.source, projection.weight.target.astype(np.int64)


def degrees(projection):
    sources, targets = pairs(projection)
    n_target, n_source = projection.shape
    return np.bincount(sources, minlength=n_source), np.bincount(targets, minlength=n_target)


@pytest.mark.parametrize("rule", RULES)
def test_any_number_of_threads_gives_the_same_bits(rule):
    first, *others = (RULES[rule](seed=3, threads=n, **DRAWN) for n in (1, 2, 4, 8))
    for other in others:
        assert other.weight.indptr.tobytes() == first.weight.indptr.tobytes()
        assert other.weight.target.tobytes() == first.weight.target.tobytes()
        assert other.weight.weight.tobytes() == first.weight.weight.tobytes()
        assert other.delay.values.tobytes() == first.delay.values.tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_storage_is_sorted_and_narrow(rule):
    made = RULES[rule](seed=3, **DRAWN)
    shared = RULES[rule](seed=3, weight=0.5, delay=1e-3)
    assert made.weight.sorted
    assert made.weight.target.dtype == (np.int32 if rule == "wide" else np.uint16)
    assert (made.weight.weight.dtype, made.delay.values.dtype) == (np.float32, np.uint8)
    assert shared.weight.weight == 0.5
    assert shared.delay == 1e-3
    assert shared.weight.target.tobytes() == made.weight.target.tobytes(), "weights do not move synapses"
    each = made.weight.target.itemsize + 4 + 1
    assert made.weight.nbytes + made.delay.values.nbytes == each * made.n_synapses + made.weight.indptr.nbytes
    assert each <= 9


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"one-to-one", "all-to-all", "edges"}))
def test_seed_key_and_names_choose_other_synapses(rule):
    first = RULES[rule](seed=3, weight=1.0)
    for other in (RULES[rule](seed=4, weight=1.0), RULES[rule](seed=3, key=5, weight=1.0)):
        if rule == "outdegree-distinct":  # everybody is reached: only the values differ
            continue
        assert not np.array_equal(first.weight.target, other.weight.target)
    key = projection_key(first.source, first.target)
    assert np.array_equal(first.weight.target, RULES[rule](seed=3, key=key, weight=1.0).weight.target)


def test_values_differ_between_projections_of_one_seed():
    made = [from_edges(x, y, [0, 1], [0, 1], weight=Normal(0, 1), seed=1) for x, y in ((A, B), (B, A), (A, A))]
    assert len({tuple(item.weight.weight.tolist()) for item in made}) == 3
    other = from_edges(A, B, [0, 1], [0, 1], weight=Normal(0, 1), seed=1, receptor="slow")
    assert not np.array_equal(other.weight.weight, made[0].weight.weight)


def test_indegrees_are_exact():
    with_all = fixed_indegree(A, A, 40, weight=1.0, seed=1)
    distinct = fixed_indegree(A, A, 250, multapses=False, autapses=False, weight=1.0, seed=1)
    assert (degrees(with_all)[1] == 40).all()
    sources, targets = pairs(with_all)
    assert len(np.unique(sources * 300 + targets)) < sources.size, "multapses occur"
    assert (sources == targets).any(), "autapses occur"
    assert (degrees(distinct)[1] == 250).all()
    sources, targets = pairs(distinct)
    assert len(np.unique(sources * 300 + targets)) == sources.size
    assert not (sources == targets).any()
    assert degrees(distinct)[0].std() == pytest.approx(np.sqrt(300 * (250 / 299) * (49 / 299)), rel=0.15)
    no_self = fixed_indegree(A, A, 299, multapses=False, autapses=False, weight=1.0)
    assert np.array_equal(no_self.weight.target, all_to_all(A, A, autapses=False, weight=1.0).weight.target)


def test_outdegrees_are_exact():
    made = fixed_outdegree(A, B, 50, weight=1.0, seed=2)
    assert (degrees(made)[0] == 50).all()
    distinct = fixed_outdegree(A, A, 200, multapses=False, autapses=False, weight=1.0, seed=2)
    sources, targets = pairs(distinct)
    assert (degrees(distinct)[0] == 200).all()
    assert len(np.unique(sources * 300 + targets)) == sources.size
    assert not (sources == targets).any()


def test_total_is_exact_and_degrees_are_multinomial():
    made = fixed_total(A, B, 60_000, weight=1.0, seed=5)
    out, into = degrees(made)
    assert made.n_synapses == 60_000
    for counts, n in ((out, 300), (into, 170)):
        expected = 60_000 / n
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert abs(statistic - (n - 1)) < 4 * np.sqrt(2 * (n - 1)), "chi squared"
    sources, targets = pairs(made)
    assert abs(np.corrcoef(sources, targets)[0, 1]) < 4 / np.sqrt(60_000)


@pytest.mark.parametrize("p", [0.003, 0.1, 0.7])
@pytest.mark.parametrize("autapses", [True, False])
def test_probability_connects_pairs_independently(p, autapses):
    made = fixed_probability(A, A, p, weight=1.0, seed=4, autapses=autapses)
    sources, targets = pairs(made)
    n = 300 * (300 if autapses else 299)
    assert abs(made.n_synapses - n * p) < 4 * np.sqrt(n * p * (1 - p))
    assert len(np.unique(sources * 300 + targets)) == sources.size
    assert (sources == targets).any() or not autapses or p < 0.01
    assert autapses or not (sources == targets).any()
    out, into = degrees(made)
    for counts in (out, into):
        assert counts.var() == pytest.approx(n / 300 * p * (1 - p), rel=0.35)
    thirds = np.histogram(targets, bins=[0, 100, 200, 300])[0]
    assert np.abs(thirds - n * p / 3).max() < 5 * np.sqrt(n * p / 3)


def test_the_ends_of_probability():
    assert fixed_probability(A, B, 0, weight=1.0).n_synapses == 0
    assert fixed_probability(A, B, 1, weight=1.0).n_synapses == 300 * 170
    assert fixed_probability(A, B, 1e-300, weight=1.0).n_synapses == 0
    assert fixed_total(A, B, 0, weight=Normal(1, 1), delay=Uniform(0, 0.01), dt=1e-3).n_synapses == 0
    one = Population("one", 1, LIF())
    assert fixed_probability(one, one, 0.5, autapses=False, weight=1.0).n_synapses == 0
    assert all_to_all(one, one, autapses=False, weight=1.0).n_synapses == 0


def test_numbers_of_the_microcircuit():
    names = ("L23E", "L23I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
    sizes = (20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948)
    layers = [Population(name, size, LIF()) for name, size in zip(names, sizes, strict=True)]
    row = (0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0, 0.0076, 0)
    totals = [total_for_probability(layer, layers[0], p) for layer, p in zip(layers, row, strict=True)]
    assert totals == [45_499_806, 22_323_577, 20_253_647, 9_670_918, 3_293_578, 0, 2_271_404, 0]
    small = total_for_probability(layers[5], layers[4], 0.3726)
    made = fixed_total(layers[5], layers[4], small, weight=-351.2, delay=1e-3)
    assert made.n_synapses == small
    with pytest.raises(InputError, match="expected 0 to below 1, got 1"):
        total_for_probability(layers[0], layers[0], 1)


def bounded(word, limit, unit, draw, key, seed, stream):
    attempt = 1
    while (word * limit) % 2**32 < (2**32 - limit) % limit:
        word = philox4x32((unit, draw, attempt, key), (seed, stream))[0]
        attempt += 1
    return word * limit >> 32


def draws(n, limit, unit, key, seed, stream):
    """The definition of a row of whole numbers: four from a block of random words."""
    words = [philox4x32((unit, k // 4, 0, key), (seed, stream))[k % 4] for k in range(n)]
    return [bounded(word, limit, unit, k, key, seed, stream) for k, word in enumerate(words)]


def test_rows_equal_their_definition():
    made = fixed_outdegree(A, B, 21, weight=1.0, seed=9, key=77)
    for row in (0, 7, 299):
        expected = sorted(draws(21, 170, row, 77, 9, Stream.CONNECT_ROW))
        assert made.weight.target[made.weight.indptr[row] : made.weight.indptr[row + 1]].tolist() == expected
    made = fixed_indegree(A, B, 13, weight=1.0, seed=9, key=77)
    sources, targets = pairs(made)
    for unit in (0, 100, 169):
        expected = sorted(draws(13, 300, unit, 77, 9, Stream.CONNECT_COLUMN))
        assert sources[targets == unit].tolist() == expected
    made = fixed_total(A, B, 4003, weight=1.0, seed=9, key=77)
    words = [philox4x32((k // 4, 0, 0, 77), (9, Stream.CONNECT_TOTAL))[k % 4] * 300 >> 32 for k in range(4003)]
    assert degrees(made)[0].tolist() == np.bincount(words, minlength=300).tolist()
    for row in (0, 150):
        expected = sorted(draws(int(degrees(made)[0][row]), 170, row, 77, 9, Stream.CONNECT_ROW))
        assert made.weight.target[made.weight.indptr[row] : made.weight.indptr[row + 1]].tolist() == expected


def test_distances_equal_their_definition():
    apart = np.abs(SPACE[:, None] - SPACE[None])
    apart = np.sqrt((np.minimum(apart, 1 - apart) ** 2).sum(axis=2))
    i, j = np.arange(300)[:, None], np.arange(300)[None]
    u = uniform(2, Stream.CONNECT_PAIR, i, j, 0, 5)
    laws = {
        Gaussian(0.1, 0.8, 0.3): 0.8 * np.exp(-(apart**2) / 0.02) * (apart <= 0.3),
        Gaussian(0.1): np.exp(-(apart**2) / 0.02),
        Falling(0.05, 0.7): 0.7 * np.exp(-apart / 0.05),
        Disc(0.2, 0.5): 0.5 * (apart <= 0.2),
        Disc(0.02): 1.0 * (apart <= 0.02),
    }
    for profile, p in laws.items():
        made = distance_dependent(A, A, SPACE, SPACE, profile, periodic=1.0, weight=1.0, seed=2, key=5)
        assert np.array_equal(np.stack(pairs(made)), np.nonzero(u < p)), profile
    made = distance_dependent(
        A, A, SPACE, SPACE, lambda d: np.exp(-(d**2) / 0.02), periodic=1, autapses=False, weight=1.0, seed=2, key=5
    )
    p = np.exp(-(apart**2) / 0.02)
    np.fill_diagonal(p, 0)
    assert np.array_equal(np.stack(pairs(made)), np.nonzero(u < p))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("cutoff", [0.05, 0.4, 3.0])
def test_the_grid_finds_the_same_pairs_as_looking_at_all(axes, cutoff):
    rng = np.random.default_rng(axes)
    here, there = rng.random((300, axes)) * 2 - 0.5, rng.random((170, axes))
    apart = np.sqrt(((here[:, None] - there[None]) ** 2).sum(axis=2))
    made = distance_dependent(A, B, here, there, Disc(cutoff), weight=1.0)
    assert np.array_equal(np.stack(pairs(made)), np.nonzero(apart <= cutoff))


def test_edges_keep_the_order_of_parallel_synapses():
    source, target = [2, 0, 2, 0, 2, 1], [1, 3, 0, 3, 1, 2]
    made = from_edges(A, B, source, target, weight=np.arange(6.0), delay=np.arange(6) * 1e-3, dt=1e-3)
    assert made.weight.indptr[:5].tolist() == [0, 2, 3, 6, 6]
    assert made.weight.target.tolist() == [3, 3, 2, 0, 1, 1]
    assert made.weight.weight.tolist() == [1, 3, 5, 2, 0, 4]
    assert made.delay.values.tolist() == [1, 3, 5, 2, 0, 4]
    seconds = from_edges(A, B, source, target, weight=1.0, delay=np.arange(6) * 1e-3)
    assert seconds.delay.dtype == np.float64
    assert from_edges(A, B, [], [], weight=[]).n_synapses == 0


def test_edges_of_the_vogels_abbott_fixture():
    rng = np.random.default_rng(1)
    rows = []
    for i in range(4000):
        row = rng.random(4000) < 0.02
        row[i] = False
        rows.append(np.flatnonzero(row))
    net = Population("net", 4000, LIF())
    sources = np.repeat(np.arange(4000), [row.size for row in rows])
    made = from_edges(net, net, sources, np.concatenate(rows), weight=1.62, delay=1e-4)
    assert made.n_synapses == 320_933
    assert made.weight.indptr[3200] == 256_799
    assert made.weight.target.sum(dtype=np.int64) == 641_135_054
    ours = fixed_probability(net, net, 0.02, autapses=False, weight=1.62, delay=1e-4, seed=1)
    assert abs(ours.n_synapses - 4000 * 3999 * 0.02) < 4 * np.sqrt(4000 * 3999 * 0.02 * 0.98)


@pytest.mark.slow
def test_edges_of_the_brunel_fixture():
    rng = np.random.default_rng(1)
    source = np.empty((12_500, 1250), np.int32)
    source[:, :1000] = rng.integers(0, 10_000, (12_500, 1000), np.int32)
    source[:, 1000:] = rng.integers(10_000, 12_500, (12_500, 250), np.int32)
    net = Population("net", 12_500, LIF())
    made = from_edges(net, net, source.reshape(-1), np.repeat(np.arange(12_500, dtype=np.int32), 1250), weight=0.1)
    assert made.n_synapses == 15_625_000
    assert (made.out_degree.min(), made.out_degree.max()) == (1102, 1397)
    assert made.weight.sorted


def test_a_built_network_runs_on_the_reference_engine():
    from snnsim.engines import simulate
    from snnsim.events import Events

    source = Input("in", 30)
    a = Population("p", 50, LIF(tau_mem=0.02))
    net = Network(
        (a,),
        (
            fixed_probability(source, a, 0.3, weight=Normal(0.6, 0.1, low=0), delay=Uniform(1e-3, 5e-3), dt=1e-3),
            fixed_indegree(a, a, 5, weight=-0.2, delay=2e-3),
        ),
        (source,),
        None,
        1e-3,
    )
    rng = np.random.default_rng(0)
    events = Events.from_lists([rng.random(400) * 0.05], [rng.integers(0, 30, 400)], 30, duration=0.06, sort=True)
    result = simulate(net, events, engine="reference", dtype="float64")
    assert result.spikes["p"].n_events > 20


EDGES = {"weight": 1.0}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: fixed_probability(A, B, -0.1, **EDGES), "'a->b': p: expected a probability from 0 to 1, got -0.1"),
        (lambda: fixed_probability(A, B, math.nan, **EDGES), "p: expected a probability"),
        (lambda: fixed_indegree(A, A, 301, multapses=False, **EDGES), "301 different sources of 300; make fewer"),
        (lambda: fixed_indegree(A, A, 300, multapses=False, autapses=False, **EDGES), "300 different sources of 299"),
        (lambda: fixed_outdegree(A, B, 171, multapses=False, **EDGES), "171 different targets of 170"),
        (lambda: fixed_outdegree(A, B, -1, **EDGES), "n: expected 0 to"),
        (lambda: fixed_total(A, B, 1.5, **EDGES), "n: expected an integer, got 1.5"),
        (lambda: one_to_one(A, B, **EDGES), "equal sizes, got 300 and 170"),
        (lambda: one_to_one(A, A, weight=np.ones(3)), "weight: expected 300 numbers, got 3"),
        (lambda: one_to_one(A, A, weight=np.full(300, np.nan)), "finite numbers"),
        (lambda: fixed_total(A, B, 5, weight=np.ones(5)), "a number or a distribution, got float64 \\(5,\\)"),
        (lambda: fixed_total(A, B, 5, weight=math.nan), "weight: expected a finite number, got nan"),
        (lambda: fixed_total(A, B, 5, weight="1"), "weight: expected a number or a distribution, got '1'"),
        (lambda: fixed_total(A, B, 5), "weight: expected a number or a distribution such as"),
        (lambda: fixed_total(A, B, 5, wieght=1.0), "no option 'wieght'; it takes"),
        (lambda: fixed_total(A, B, 5, delay=-0.001, **EDGES), "delay: expected non-negative seconds, got -0.001"),
        (lambda: fixed_total(A, B, 5, delay=Normal(1, 0.1, low=0.5), **EDGES), "give dt, the network's time step"),
        (lambda: fixed_total(A, B, 5, delay=Normal(1e-3, 1e-3), dt=1e-4, **EDGES), "Normal may be negative; set low"),
        (lambda: fixed_total(A, B, 5, seed=-1, **EDGES), "seed: expected 0 to 4294967295"),
        (lambda: fixed_total(A, B, 5, key=2**32, **EDGES), "key: expected 0 to 4294967295"),
        (lambda: fixed_total(A, B, 5, dtype="int8", **EDGES), "dtype: expected float16, float32 or float64"),
        (lambda: fixed_total(A, "b", 5, **EDGES), "target: expected a Population or an Input, got str"),
        (lambda: fixed_total(A, B, 5, weight=Normal(1e6, 1), dtype="float16"), "finite numbers, got inf"),
        (lambda: from_edges(A, B, [0, 300], [0, 0], **EDGES), "source_ids: expected 0 to 299, got 0 to 300"),
        (lambda: from_edges(A, B, [0, 1], [0, -1], **EDGES), "target_ids: expected 0 to 169, got -1 to 0"),
        (lambda: from_edges(A, B, [0, 1], [0], **EDGES), "equally long lists, got 2 sources and 1 targets"),
        (lambda: from_edges(A, B, [0.0], [0], **EDGES), "expected whole numbers"),
        (lambda: from_edges(A, B, [0], [0], weight=[1.0, 2.0]), "weight: expected 1 numbers, got 2"),
        (lambda: from_edges(A, B, [0], [0], delay=[-1.0], **EDGES), "non-negative seconds"),
        (lambda: from_edges(A, B, [0], [0], delay=[10.0], dt=1e-4, **EDGES), "expected 0 to 65535"),
        (lambda: Normal(0, -1), "sd: expected at least 0"),
        (lambda: Normal(math.nan, 1), "mean: expected a finite number, got nan"),
        (lambda: Normal(-10, 1, low=0), "fewer than one draw in 1000 lies in 0.0 .. inf"),
        (lambda: Normal(0, 1, low=2, high=1), "fewer than one draw"),
        (lambda: LogNormal(0, 1, high=-1), "fewer than one draw"),
        (lambda: Uniform(2, 1), "finite low <= high"),
        (lambda: Exponential(0.0), "mean: expected a number that is not 0"),
        (lambda: Gaussian(0.0), "sigma: expected more than 0, got 0.0"),
        (lambda: Disc(1.0, 1.5), "p_max: expected 0 to 1, got 1.5"),
        (lambda: distance_dependent(A, A, SPACE[:5], SPACE, Disc(1), **EDGES), "source_positions: expected \\(300, 1"),
        (lambda: distance_dependent(A, A, SPACE, SPACE[:, 0], Disc(1), **EDGES), "2 and 1 coordinates"),
        (lambda: distance_dependent(A, A, SPACE, SPACE, Disc(1), periodic=0.5, **EDGES), "must lie from 0 to below"),
        (lambda: distance_dependent(A, A, SPACE, SPACE, 0.5, **EDGES), "expected a profile such as Gaussian"),
        (lambda: distance_dependent(A, A, SPACE, SPACE, lambda d: d + 2, **EDGES), "numbers from 0 to 1 from the func"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_what_would_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("snnsim.connect_plan.available_memory", lambda: 2**30)
    big = Population("big", 10**6, LIF())
    match = "'big->big': 1000000000 synapses of 9 bytes need 8.4 GiB and 1.0 GiB of memory are available; share one"
    with pytest.raises(InputError, match=match):
        fixed_total(big, big, 10**9, **DRAWN)
    with pytest.raises(InputError, match="synapses of 4 bytes need"):
        fixed_probability(big, big, 0.01, weight=1.0)
    with pytest.raises(InputError, match="need"):
        all_to_all(big, big, weight=1.0)
    monkeypatch.setattr("snnsim.connect_plan.available_memory", lambda: None)
    assert Plan(big, big, {"weight": 1.0}).reserve(10**12) is None


def test_available_memory_is_the_least_of_all_limits(monkeypatch, tmp_path):
    from snnsim import machine

    (tmp_path / "info").write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    (tmp_path / "groups").write_text("0::/job/step\n")
    step = tmp_path / "cgroup" / "job" / "step"
    step.mkdir(parents=True)
    for name, place in (("_MEMORY_INFO", "info"), ("_GROUPS", "groups"), ("_GROUP_ROOT", "cgroup")):
        monkeypatch.setattr(machine, name, tmp_path / place)
    (step / "memory.max").write_text("max\n")
    (step / "memory.current").write_text("5\n")
    assert machine.available_memory() == 4096 * 1024
    (step.parent / "memory.max").write_text("3000000\n")
    (step.parent / "memory.current").write_text("2000000\n")
    (step.parent / "memory.stat").write_text("anon 7\ninactive_file 500000\n")
    assert machine.available_memory() == 1_500_000
    assert machine.usable_cores() >= 1


@pytest.mark.parametrize("n", [0, 1, 24, 25, 1000])
@pytest.mark.parametrize("bits", [8, 17, 31])
def test_rows_are_sorted_by_bytes(n, bits):
    values = np.random.default_rng(n).integers(0, 2**bits, n + 3).astype(np.uint32)
    expected = np.sort(values[:n])
    assert np.array_equal(sort_row(values.copy(), np.empty_like(values), n, bits)[:n], expected)


PEAK = """
from snnsim.connect import Normal, Uniform, fixed_indegree, fixed_probability, fixed_total
from snnsim.network import Network, Population
from snnsim.neurons import LIF
from snnsim.metrics import footprint
drawn = dict(weight=Normal(1, 0.1, low=0), delay=Normal(1.5e-3, 0.7e-3, low=5e-5), dt=1e-4, threads=2)
def build(n):
    a = Population("a", n, LIF())
    made = {rule}
    net = Network((a,), (made,), (), None, 1e-4)
    size = footprint(net)
    assert made.weight.sorted and net.max_delay_steps() > 1 and net.digest()
    return net, size
build(100)
def status(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
open("/proc/self/clear_refs", "w").write("5")  # forget the peak of compiling
before = status("VmRSS")
net, size = build(20000)
print((status("VmHWM") - before) / size.bytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        "fixed_total(a, a, 1000 * n, **drawn)",
        "fixed_indegree(a, a, 1000 if n > 1000 else 10, **drawn)",
        "fixed_probability(a, a, 0.05, **drawn)",
        "fixed_total(a, a, 1000 * n, weight=1.0, delay=1e-3)",
    ],
)
def test_the_peak_is_little_more_than_the_arrays(rule):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak is read from Linux's /proc")
    if "delay=1e-3" in rule:
        rule = rule.replace("delay=1e-3", "delay=2e-4")
    done = subprocess.run(
        [sys.executable, "-c", PEAK.replace("{rule}", rule)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.10, done.stdout


def test_the_room_says_what_it_offers():
    assert set(connect.__all__) <= set(vars(connect))
    assert isinstance(RULES["total"](**DRAWN).delay, Steps)
