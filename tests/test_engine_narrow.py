"""Narrow storage: shared, float16 and float32 weights, uint16 targets and delays as steps mean what wide ones mean."""

import tracemalloc

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.metrics import footprint
from snnsim.network import Input, Network, Population, Projection, Sparse, Steps
from snnsim.neurons import LIF, CubaLIF

DT = 1e-3
N = 40


def rows(seed=0, n=N):
    rng = np.random.default_rng(seed)
    indptr = np.concatenate(([0], np.cumsum(rng.integers(0, 12, n))))
    return indptr, rng.integers(0, n, indptr[-1]).astype(np.uint16)


INDPTR, TARGET = rows()
NNZ = TARGET.size
RNG = np.random.default_rng(1)
SOME = np.where(RNG.random(NNZ) < 0.3, 0, RNG.normal(0.3, 0.4, NNZ))
WEIGHTS = {
    "shared": 0.25,
    "none": 0.0,
    "float16": SOME.astype(np.float16),
    "float32": SOME.astype(np.float32),
    "float64": SOME,
}
DELAYS = {
    "one": 0.002,
    "uint8": Steps(RNG.integers(1, 9, NNZ), DT),
    "uint16": Steps(RNG.integers(1, 300, NNZ), DT),
    "seconds": RNG.uniform(0.001, 0.009, NNZ),
    "axonal": RNG.uniform(0.001, 0.009, (1, N)),
    "dendritic": RNG.uniform(0.001, 0.009, (N, 1)),
}


def narrow(weight, delay):
    return Projection("a", "a", Sparse(INDPTR, TARGET, WEIGHTS[weight], (N, N)), DELAYS[delay])


def wide(weight, delay):
    """The same synapses in int32 and float64, with delays in seconds."""
    weights = np.broadcast_to(np.asarray(WEIGHTS[weight], np.float64), NNZ)
    given = DELAYS[delay]
    seconds = given.values * DT if isinstance(given, Steps) else given
    return Projection("a", "a", Sparse(INDPTR, TARGET.astype(np.int32), weights, (N, N)), seconds)


def network(projection, neuron=None):
    return Network(
        (Population("a", N, neuron or LIF(tau_mem=0.01)),),
        (Projection("in", "a", 1.2 * np.eye(N)), projection),
        (Input("in", N),),
        None,
        DT,
    )


BOTH = pytest.mark.parametrize(("weight", "delay"), [(w, d) for w in WEIGHTS for d in DELAYS])


@BOTH
def test_synapses_and_counts_equal_those_of_the_wide_twin(weight, delay):
    ours, twin = narrow(weight, delay), wide(weight, delay)
    one, other = ours.synapses(DT), twin.synapses(DT)
    for name in ("indptr", "target", "weight", "delay_steps", "index"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a.dtype, a.tolist()) == (b.dtype, b.tolist()), name
    assert ours.out_degree.tolist() == np.diff(other.indptr).tolist()
    assert ours.n_synapses == twin.n_synapses == other.target.size
    pieces = [np.zeros(0, np.int64), *ours.existing_delays(DT)]
    assert np.concatenate(pieces).tolist() == other.delay_steps.tolist()
    assert network(ours).max_delay_steps() == network(twin).max_delay_steps()
    a, b = footprint(network(ours)), footprint(network(twin))
    assert (a.synapses, a.weights, a.delayed_synapses, a.max_delay_steps) == (
        b.synapses,
        b.weights,
        b.delayed_synapses,
        b.max_delay_steps,
    )
    assert a.bytes <= b.bytes


@BOTH
@pytest.mark.parametrize("neuron", [LIF(tau_mem=0.01), CubaLIF()], ids=["lif", "cuba"])
def test_the_reference_engine_gives_the_spikes_of_the_wide_twin(weight, delay, neuron):
    rng = np.random.default_rng(2)
    times, units = rng.random(300) * 0.05, rng.integers(0, N, 300)
    events = Events.from_lists([times], [units], N, duration=0.06, sort=True)
    results = [
        simulate(network(projection, neuron), events, engine="reference", dtype="float64", record=("a.v",))
        for projection in (narrow(weight, delay), wide(weight, delay))
    ]
    spikes = [result.spikes["a"] for result in results]
    assert spikes[0].times.tolist() == spikes[1].times.tolist()
    assert spikes[0].units.tolist() == spikes[1].units.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(*(result.records["a.v"] for result in results), strict=True))


@BOTH
def test_the_file_keeps_every_type(weight, delay, tmp_path):
    net = network(narrow(weight, delay))
    back = Network.load(net.save(tmp_path / "net.snn.h5"))
    assert back == net
    ours, theirs = net.projections[1], back.projections[1]
    assert theirs.weight.target.dtype == np.uint16
    assert np.asarray(theirs.weight.weight).dtype == np.asarray(ours.weight.weight).dtype
    assert np.ndim(theirs.weight.weight) == np.ndim(ours.weight.weight)
    if isinstance(ours.delay, Steps):
        assert (theirs.delay.values.dtype, theirs.delay.dt) == (ours.delay.values.dtype, ours.delay.dt)
    assert back.save(tmp_path / "again.snn.h5").read_bytes() == (tmp_path / "net.snn.h5").read_bytes()


def test_digests_tell_widths_apart_and_old_ones_stay():
    digests = {network(narrow(weight, delay)).digest() for weight in WEIGHTS for delay in DELAYS}
    assert len(digests) == len(WEIGHTS) * len(DELAYS)
    small = Network(
        (Population("a", 2, LIF(tau_mem=0.01)),),
        (Projection("a", "a", Sparse([0, 1, 2], [1, 0], [0.5, -0.25], (2, 2)), 0.002),),
        (),
        None,
        DT,
    )
    assert small.digest() == OLD


OLD = "1223e8c3f1b2182268b92fa2a9ea708ebcd1c1b5cb89ee9574fe3f88c6251c5a"


def test_a_damaged_delay_in_a_file_is_one_sentence(tmp_path):
    from snnsim.network_file import describe, rebuild

    manifest, arrays = describe(network(narrow("shared", "uint8")))
    manifest["projections"][1]["delay"]["dt"] = -1.0
    with pytest.raises(SnnsimFileError, match="positive number of seconds"):
        rebuild("net.snn.h5", manifest, arrays)
    manifest["projections"][1]["delay"] = {"steps": {"array": 99}, "dt": DT}
    with pytest.raises(SnnsimFileError, match="array"):
        rebuild("net.snn.h5", manifest, arrays)


def test_what_is_given_narrow_and_read_only_is_not_copied():
    target, weight = TARGET.copy(), SOME.astype(np.float32)
    steps = np.ones(NNZ, np.uint8)
    for array in (target, weight, steps):
        array.setflags(write=False)
    sparse = Sparse(INDPTR, target, weight, (N, N))
    delay = Steps(steps, DT)
    assert sparse.target is target
    assert sparse.weight is weight
    assert delay.values is steps
    assert Projection("a", "a", sparse, delay).delay_steps(DT) is steps


def test_types_that_are_taken():
    wider = Sparse([0, 1], np.array([1], np.uint16), [1], (70_000, 1))
    assert (wider.target.dtype, wider.weight.dtype) == (np.int32, np.float64)
    assert Sparse([0, 1], [0], np.float32(0.1), (1, 1)).weight == np.float32(0.1)
    assert Sparse([0, 1], [0], np.array(2), (1, 1)).weight == 2.0
    assert Sparse([0, 0], np.zeros(0, int), 1.0, (1, 1)).sorted
    assert Steps(np.array([256]), DT).values.dtype == np.uint16
    assert Steps(np.zeros(0, np.int64), DT).values.dtype == np.uint8


def test_sorted_looks_within_rows_only():
    assert Sparse([0, 2, 4], [0, 1, 0, 0], 1.0, (2, 2)).sorted
    assert not Sparse([0, 2, 4], [1, 0, 0, 1], 1.0, (2, 2)).sorted
    assert Sparse([0, 0, 1, 1, 2], [1, 0], 1.0, (2, 4)).sorted
    long = np.arange(300_000) % 1000
    assert Sparse(np.arange(0, 300_001, 1000), long, 1.0, (1000, 300)).sorted
    assert not Sparse(np.arange(0, 300_001, 500), long[::-1], 1.0, (1000, 600)).sorted
    for place in (2**17, 2**18):  # a fall from one piece to the next
        flat = np.zeros(2**18 + 5, np.int32)
        flat[:place] = 1
        assert not Sparse([0, flat.size], flat, 1.0, (2, 1)).sorted
        assert Sparse([0, place, flat.size], flat, 1.0, (2, 2)).sorted


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Sparse([0, 1], [0], np.nan, (1, 1)), "sparse weight: expected a finite number, got nan"),
        (lambda: Sparse([0, 1], [0], True, (1, 1)), "expected float64 numbers, got bool"),
        (lambda: Sparse([0, 1], [0], np.array([np.inf], np.float16), (1, 1)), "finite numbers, got inf at \\[0\\]"),
        (lambda: Sparse([0, 2], [0, 0], np.ones(1, np.float32), (1, 1)), "target \\(2,\\) and weight \\(1,\\)"),
        (lambda: Sparse([0, 1], np.array([9], np.uint16), 1.0, (5, 1)), "targets must lie in 0..4, got 9..9"),
        (lambda: Steps([1.5], DT), "expected whole numbers, shape \\(nnz,\\), got float64"),
        (lambda: Steps([[1]], DT), "got int64 \\(1, 1\\)"),
        (lambda: Steps([-1], DT), "expected 0 to 65535, got -1 to -1"),
        (lambda: Steps([65536], DT), "use seconds or a larger dt"),
        (lambda: Steps([1], 0.0), "positive number of seconds"),
        (lambda: Projection("a", "a", np.ones((1, 1)), Steps([1], DT)), "Steps are for a sparse weight"),
        (lambda: Projection("a", "a", Sparse([0, 1], [0], 1.0, (1, 1)), Steps([1, 2], DT)), "2 steps, expected 1, one"),
        (lambda: narrow("shared", "uint8").delay_steps(2 * DT), "'a->a': delay: its steps are counted in 0.001 s"),
        (lambda: network(narrow("shared", "uint8")).replace(dt=1e-4), "cannot be used at dt = 0.0001 s; give"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_a_delay_of_0_is_found_in_steps_of_existing_synapses_only():
    ring = [Population("a", 1, LIF()), Population("b", 1, LIF())]

    def joined(weight):
        back = Sparse([0, 2], [0, 0], np.array([1, weight], np.float32), (1, 1))
        there = Sparse([0, 1], [0], 1.0, (1, 1))
        projections = (Projection("a", "b", there), Projection("b", "a", back, Steps([1, 0], DT)))
        return Network(tuple(ring), projections, (), None, DT)

    joined(0.0)
    with pytest.raises(InputError, match="wait for one another"):
        joined(0.5)


def test_checking_makes_nothing_as_long_as_the_synapses():
    n, each = 2000, 1000
    rng = np.random.default_rng(0)
    indptr = np.arange(0, n * each + 1, each)
    arrays = [
        rng.integers(0, n, n * each).astype(np.uint16),
        rng.random(n * each, np.float32),
        rng.integers(1, 9, n * each).astype(np.uint8),
    ]
    arrays[1][::7] = 0
    for array in (indptr, *arrays):
        array.setflags(write=False)
    total = sum(array.nbytes for array in arrays)
    tracemalloc.start()
    try:
        sparse = Sparse(indptr, arrays[0], arrays[1], (n, n))
        projection = Projection("a", "a", sparse, Steps(arrays[2], DT))
        net = Network((Population("a", n, LIF()),), (projection,), (), None, DT)
        found = (sparse.sorted, net.max_delay_steps(), net.projections[0].n_synapses, footprint(net).bytes > total)
        net.digest()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found[1:] == (8, n * each - len(range(0, n * each, 7)), True)
    assert peak < 0.25 * total, peak / total  # 14 MB of arrays; the pieces themselves have a fixed size of some MB
