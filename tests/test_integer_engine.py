"""The integer engine gives the reference's bits, for any number of threads; the container refuses what cannot be."""

import numpy as np
import pytest

from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.integer_laws import LAWS
from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.kernels.integer_tables import PARAMETERS
from snnsim.kernels.reference_integer import loihi2
from snnsim.network import Input, Readout


def synapses(rng, source, target, n_source, n_target, *, low=-180, high=255, delay=(1, 9), density=0.6):
    keep = rng.random((n_source, n_target)) < density
    unit = np.nonzero(keep)[1].astype(np.int32)
    indptr = np.concatenate(([0], np.cumsum(keep.sum(axis=1))))
    weight = rng.integers(low, high, unit.size).astype(np.int32)
    return IntegerProjection(source, target, indptr, unit, weight, rng.integers(*delay, unit.size).astype(np.int32))


def loihi_network(seed=0, **options):
    rng = np.random.default_rng(seed)

    def numbers(size, kind, threshold):
        given = {
            "v_decay": rng.integers(0, 4097, size),
            "i_decay": rng.integers(400, 4097, size) if kind.startswith("cuba") else np.full(size, 4096),
            "bias": rng.integers(-300, 300, size),
        }
        return given | ({"v_threshold": rng.integers(20, threshold, size)} if kind.endswith("lif") else {})

    populations = [
        IntegerPopulation(name, size, kind, numbers(size, kind, 400))
        for name, size, kind in (("a", 17, "lif"), ("b", 9, "cubalif"), ("c", 1, "cubali"), ("d", 4, "li"))
    ]
    pairs = [("in", "a"), ("in", "b"), ("two", "b"), ("a", "a"), ("a", "b"), ("b", "a"), ("b", "c"), ("a", "d")]
    sizes = {"in": 6, "two": 3, "a": 17, "b": 9, "c": 1, "d": 4}
    projections = [synapses(rng, s, t, sizes[s], sizes[t], **options) for s, t in pairs]
    return IntegerNetwork(
        law="loihi2",
        populations=populations,
        projections=projections,
        inputs=(Input("in", 6), Input("two", 3)),
        readout=Readout("d"),
        dt=0.001,
        scale={"d": 64.0 * 30},
        latency={"a": 1, "b": 1, "c": 2, "d": 2},
        changes=("a test",),
    )


def some_events(n_units, n_samples=3, n_steps=60, seed=1, rate=0.3):
    rng = np.random.default_rng(seed)
    times, units = [], []
    for _ in range(n_samples):
        step, unit = np.nonzero(rng.random((n_steps, n_units)) < rate)
        twice = np.repeat(np.arange(step.size), 1 + (rng.random(step.size) < 0.2))
        times.append(step[twice] * 0.001)
        units.append(unit[twice])
    return Events.from_lists(times, units, n_units=n_units, duration=n_steps * 0.001)


def given(seed=1):
    return {"in": some_events(6, seed=seed), "two": some_events(3, seed=seed + 1)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_engine_has_the_bits_of_the_reference(seed):
    network = loihi_network(seed)
    record = ("a.v", "b.v", "b.i", "c.v", "d.v")
    wanted = simulate_integer(network, given(seed), engine="reference", record=record)
    assert min(item.n_events for item in wanted.spikes.values()) > 100
    for threads in (1, 2, 5):
        got = simulate_integer(network, given(seed), threads=threads, record=record)
        for name in ("a", "b"):
            assert got.spikes[name] == wanted.spikes[name]
        for name in record:
            for mine, theirs in zip(got.records[name], wanted.records[name], strict=True):
                np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(got.logits, wanted.logits)
        assert got.notes == wanted.notes
        assert got.operations == wanted.operations


def test_windows_do_not_change_a_bit(monkeypatch):
    network = loihi_network(3)
    whole = simulate_integer(network, given())
    monkeypatch.setattr("snnsim.engines.integer.WINDOW", 31 * 7)
    parts = simulate_integer(network, given())
    assert whole.spikes == parts.spikes
    np.testing.assert_array_equal(whole.logits, parts.logits)


def test_ranges_are_left_as_the_law_says():
    """Wrapped currents and saturated membranes: both engines, and the numbers themselves."""
    rng = np.random.default_rng(0)
    kind = {"v_decay": [0, 0], "i_decay": [0, 4096], "bias": [0, 4095]}
    network = IntegerNetwork(
        law="loihi2",
        populations=(IntegerPopulation("p", 2, "cubali", kind),),
        projections=(synapses(rng, "in", "p", 40, 2, low=250, high=254, density=1.1),),
        inputs=(Input("in", 40),),
        readout=None,
        dt=0.001,
    )
    events = some_events(40, n_samples=2, n_steps=80, rate=0.9)
    wanted = simulate_integer(network, events, engine="reference", record=("p.v", "p.i"))
    got = simulate_integer(network, events, record=("p.v", "p.i"))
    assert got.notes["overflow"] == wanted.notes["overflow"]
    assert got.notes["overflow"]["p"] > 20
    for name in ("p.v", "p.i"):
        np.testing.assert_array_equal(got.records[name], wanted.records[name])
    assert np.abs(got.records["p.v"]).max() == 2**23 - 1
    assert got.records["p.i"][0].min() < 0  # wrapped: every weight is positive


def test_the_law_of_loihi_by_hand():
    parameters = {name: np.array([value]) for name, value in (("v_decay", 2048), ("i_decay", 1024), ("bias", 1))}
    parameters["v_threshold"] = np.array([10])
    state = np.array([[-3], [7], [0]])
    moved, spikes, over = loihi2(parameters, "cubalif", state, np.array([2]))
    # u = 7 * 3072 / 4096 = 5.25 -> 5, + 2 * 64; v = -1.5 -> -1, + 133 + 64
    assert (moved[:, 0].tolist(), spikes.tolist(), over.tolist()) == ([196, 133, 0], [0], [False])
    moved, spikes, _ = loihi2(parameters, "cubalif", np.array([[0], [0], [0]]), np.array([9]))
    assert (moved[0, 0], spikes[0]) == (640, 0)  # 64 * 10 exactly: the threshold itself does not fire
    moved, spikes, _ = loihi2(parameters, "cubalif", np.array([[2], [0], [0]]), np.array([9]))
    assert (moved[0, 0], spikes[0]) == (0, 1)


def test_a_delay_moves_a_spike_and_latency_moves_the_readout():
    def network(delay, latency):
        return IntegerNetwork(
            law="loihi2",
            populations=(IntegerPopulation("p", 1, "li", {"v_decay": 4096, "i_decay": 4096, "bias": 0}),),
            projections=(IntegerProjection("in", "p", [0, 1], [0], [10], [delay]),),
            inputs=(Input("in", 1),),
            readout=Readout("p", reduce="last"),
            dt=0.001,
            scale={"p": 640.0},
            latency={"p": latency},
        )

    events = Events.from_lists([[0.0, 0.004, 0.009]], [[0, 0, 0]], n_units=1, duration=0.005)
    result = simulate_integer(network(3, 2), events, record="p.v")
    assert result.records["p.v"][0][:, 0].tolist() == [0, 0, 0, 640, 0, 0, 0]
    assert result.dropped.tolist() == [1]
    assert result.logits.tolist() == [[0.0]]
    assert simulate_integer(network(2, 2), events).logits.tolist() == [[1.0]]


def test_equal_networks_have_equal_files(tmp_path):
    network = loihi_network()
    path = network.save(tmp_path / "a.int.h5")
    loaded = IntegerNetwork.load(path)
    assert loaded == network
    assert (loaded.changes, loaded.latency, loaded.law) == (("a test",), dict(network.latency), "loihi2")
    assert loaded.save(tmp_path / "b.int.h5").read_bytes() == path.read_bytes()
    changed = network.replace(latency={"a": 2})
    assert changed != network
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    (tmp_path / "c.int.h5").write_bytes(data)
    with pytest.raises(SnnsimFileError, match="sha256"):
        IntegerNetwork.load(tmp_path / "c.int.h5")


def test_the_tables_of_laws_agree():
    for name, law in LAWS.items():
        for kind, limits in law.parameters.items():
            assert set(limits) <= set(PARAMETERS[name]), (name, kind)


LI = {"v_decay": 1, "i_decay": 4096, "bias": 0}


def small(**changes):
    values = {
        "law": "loihi2",
        "populations": (IntegerPopulation("p", 2, "li", LI),),
        "projections": (IntegerProjection("in", "p", [0, 1], [0], [10], [1]),),
        "inputs": (Input("in", 1),),
        "readout": None,
        "dt": 0.001,
    }
    return IntegerNetwork(**(values | changes))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: small(law="loihi3"), "law: expected one of"),
        (lambda: IntegerPopulation("p", 2, "alif", {}), "kind: expected one of"),
        (lambda: IntegerPopulation("p", 2, "li", {"v_decay": [1, 2, 3]}), r"v_decay has shape \(3,\)"),
        (lambda: IntegerPopulation("p", 2, "li", {"v_decay": 1.5}), "expected int64 numbers"),
        (lambda: small(populations=(IntegerPopulation("p", 2, "li", {"v_decay": 1}),)), "has the parameters"),
        (
            lambda: small(populations=(IntegerPopulation("p", 2, "li", LI | {"v_decay": [1, 5000]}),)),
            "5000 at neuron 1",
        ),
        (lambda: small(projections=(IntegerProjection("in", "p", [0, 1], [2], [10], [1]),)), r"0\.\.1"),
        (lambda: small(projections=(IntegerProjection("in", "p", [0, 1], [0], [256], [1]),)), "weight: law"),
        (lambda: small(projections=(IntegerProjection("in", "p", [0, 1], [0], [1], [0]),)), "needs at least 1"),
        (lambda: IntegerProjection("in", "p", [0, 1], [0], [1], [-1]), "expected 0 steps"),
        (lambda: small(projections=(IntegerProjection("p", "p", [0, 0, 0], [], [], []),)), "never spikes"),
        (lambda: small(projections=(IntegerProjection("in", "p", [0, 1, 1], [0], [1], [1]),)), "has 2 sources"),
        (lambda: small(scale={"p": 0.0}), "positive"),
        (lambda: small(latency={"p": 0.5}), "latency of 'p'"),
        (lambda: small(latency={"q": 1}), "expected a mapping"),
        (lambda: small(readout=Readout("q")), "not in the network"),
        (lambda: small(inputs=(Input("p", 1),)), "used twice"),
    ],
)
def test_what_cannot_be_is_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_a_circle_without_delay_is_refused():
    lif = dict.fromkeys(LAWS["fixed"].parameters["lif"], 0)
    populations = tuple(IntegerPopulation(name, 1, "lif", lif) for name in "ab")
    there, back = (IntegerProjection(s, t, [0, 1], [0], [1], [0]) for s, t in ("ab", "ba"))
    net = small(law="fixed", populations=populations, projections=(back,))
    assert [net.populations[place].name for place in net.order()] == ["b", "a"]
    with pytest.raises(InputError, match="circle"):
        small(law="fixed", populations=populations, projections=(there, back))


def test_the_engine_refuses_what_it_cannot_run():
    events = Events.from_lists([[0.0]], [[0]], n_units=1, duration=0.01)
    with pytest.raises(InputError, match="expected an IntegerNetwork"):
        simulate_integer("network", events)
    with pytest.raises(InputError, match="engine: expected"):
        simulate_integer(small(), events, engine="clock")
    with pytest.raises(InputError, match="extra_steps"):
        simulate_integer(small(), events, extra_steps=-1)
    with pytest.raises(InputError, match="record: expected"):
        simulate_integer(small(), events, record="p.w")
