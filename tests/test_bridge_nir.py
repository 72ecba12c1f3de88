"""NIR files: layout, round trips, refusals, and an independent loader that gives the same spikes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events, bin_events
from snnsim.export import TARGETS, export_network
from snnsim.export.nir import build_nir, write_nir
from snnsim.export.nir_graph import Graph, identifier, read_graph, write_graph
from snnsim.export.nir_read import read_nir
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF, Neuron

DT = 1e-3
SIZES = {"sound": 12, "first layer": 24, "second": 20, "third": 16, "readout": 5}


def matrix(rng: np.random.Generator, target: str, source: str, scale: float = 1.0) -> Any:
    return rng.normal(0.1, scale, (SIZES[target], SIZES[source]))


def build(rng: np.random.Generator, records: dict[str, Neuron], projections: list[Projection]) -> Network:
    return Network(
        populations=tuple(Population(name, SIZES[name], record) for name, record in records.items()),
        projections=tuple(projections),
        inputs=(Input("sound", SIZES["sound"]),),
        readout=Readout("readout", "v", "sum_softmax"),
        dt=DT,
    )


def delta_network(seed: int = 0) -> Network:
    """Every form of delay, parallel synapses, a skip connection, recurrence, drives, uneven parameters."""
    rng = np.random.default_rng(seed)
    a, b = "first layer", "second"
    records: dict[str, Neuron] = {
        a: LIF.from_step(dt=DT, beta=0.8, drive_step=rng.normal(0.02, 0.05, SIZES[a])),
        b: LIF.from_step(
            dt=DT,
            beta=rng.uniform(0.5, 0.9, SIZES[b]),
            drive_step=rng.normal(0.02, 0.05, SIZES[b]),
            v_threshold=rng.uniform(0.8, 1.2, SIZES[b]),
        ),
        "readout": LI.from_step(dt=DT, beta=0.9, drive_step=0.1),
    }
    per_synapse = rng.integers(0, 9, (SIZES[a], SIZES["sound"])) * DT
    projections = [
        Projection("sound", a, matrix(rng, a, "sound"), per_synapse),
        Projection("sound", a, matrix(rng, a, "sound"), per_synapse[::-1].copy()),
        Projection(a, b, matrix(rng, b, a), rng.integers(0, 9, (1, SIZES[a])) * DT),
        Projection("sound", b, matrix(rng, b, "sound", 0.2), 0.003),
        Projection(b, b, matrix(rng, b, b, 0.3), rng.integers(1, 7, (SIZES[b], SIZES[b])) * DT),
        Projection(b, "readout", matrix(rng, "readout", b), rng.integers(0, 9, (SIZES["readout"], 1)) * DT),
    ]
    return build(rng, records, projections)


def reset_network() -> Network:
    """Subtract reset, IF with a reset value, a loop through two populations."""
    rng = np.random.default_rng(1)
    a, b = "first layer", "second"
    records: dict[str, Neuron] = {
        a: LIF.from_step(dt=DT, beta=0.8, drive_step=0.05, reset="subtract", reset_amount=0.9),
        b: IF(v_threshold=3.0, v_reset=-0.2, drive=5.0),
        "readout": LI.from_step(dt=DT, beta=0.9),
    }
    projections = [
        Projection("sound", a, matrix(rng, a, "sound")),
        Projection(a, b, matrix(rng, b, a)),
        Projection(b, a, matrix(rng, a, b, 0.3), rng.integers(1, 5, (SIZES[a], SIZES[b])) * DT),
        Projection(b, "readout", matrix(rng, "readout", b)),
    ]
    return build(rng, records, projections)


def current_network() -> Network:
    """Current neurons: latency, drives on the current and on the membrane, delay-0 recurrence, a delta layer."""
    rng = np.random.default_rng(2)
    a, b, c = "first layer", "second", "third"
    records: dict[str, Neuron] = {
        a: CubaLIF.from_step(dt=DT, beta=0.9, alpha=0.7, drive_syn_step=rng.normal(0.02, 0.5, SIZES[a])),
        b: CubaLIF.from_step(dt=DT, beta=0.8, alpha=rng.uniform(0.5, 0.8, SIZES[b]), drive_step=0.02),
        c: LIF.from_step(dt=DT, beta=0.8, drive_step=0.02),
        "readout": CubaLI.from_step(dt=DT, beta=0.9, alpha=0.5),
    }
    projections = [
        Projection("sound", a, matrix(rng, a, "sound", 8.0)),
        Projection(a, a, matrix(rng, a, a, 3.0)),
        Projection(a, b, matrix(rng, b, a, 5.0), rng.integers(0, 6, (SIZES[b], SIZES[a])) * DT),
        Projection(b, c, matrix(rng, c, b)),
        Projection(c, "readout", matrix(rng, "readout", c), rng.integers(0, 6, (SIZES["readout"], 1)) * DT),
    ]
    return build(rng, records, projections)


NETWORKS = {"delta": delta_network, "reset": reset_network, "current": current_network}


def counts(n_steps: int = 120, samples: int = 6, seed: int = 5) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.random((n_steps, samples, SIZES["sound"])) < 0.12) * rng.integers(1, 3, (n_steps, samples, 1))


def events(dense: Any) -> Events:
    times, units = [], []
    for sample in range(dense.shape[1]):
        step, unit = np.nonzero(dense[:, sample])
        repeat = dense[step, sample, unit]
        times.append(np.repeat(step * DT, repeat))
        units.append(np.repeat(unit, repeat))
    return Events.from_lists(times, units, dense.shape[2], duration=dense.shape[0] * DT)


def run(network: Network, dense: Any) -> dict[str, Any]:
    result = simulate(network, events(dense), n_steps=dense.shape[0], record=("readout.v",), threads=1)
    spikes = {name: np.asarray(bin_events(value, DT, dense.shape[0])) for name, value in result.spikes.items()}
    return spikes | {"readout": np.stack(result.records["readout.v"], axis=1)}


@pytest.mark.parametrize("form", ["line", "branch"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_independent_loader_gives_the_same_spikes(kind: str, form: Any, tmp_path: Path) -> None:
    pytest.importorskip("nirtorch")
    pytest.importorskip("spikingjelly")
    from snnsim.export.nir_judge import NirJudge

    network, dense = NETWORKS[kind](), counts()
    report = write_nir(network, tmp_path / "n.nir", form=form)
    judge = NirJudge(tmp_path / "n.nir")
    assert judge.latency == report.latency
    ours, theirs = run(network, dense), judge.run(dense.astype(float))
    for name, value in ours.items():
        late = report.latency[name]
        assert not value[:late].any()
        if name == "readout":
            np.testing.assert_allclose(theirs[name][: len(value) - late], value[late:], rtol=0, atol=1e-9)
        else:
            assert value.sum() > 500
            assert np.array_equal(theirs[name][: len(value) - late], value[late:])
    if kind != "reset":  # SpikingJelly has no such resets
        assert any("SpikingJelly" in text for text in judge.executed_by.values())


@pytest.mark.parametrize("kind", NETWORKS)
def test_reading_back_gives_the_same_spikes(kind: str, tmp_path: Path) -> None:
    network, dense = NETWORKS[kind](), counts()
    write_nir(network, tmp_path / "n.nir")
    back = read_nir(tmp_path / "n.nir")
    assert [item.name for item in back.populations] == [item.name for item in network.order()]
    assert back.dt == network.dt
    assert back.readout == network.readout
    ours, again = run(network, dense), run(back, dense)
    for name, value in ours.items():
        if name == "readout":
            np.testing.assert_allclose(again[name], value, rtol=0, atol=1e-9)
        else:
            assert np.array_equal(again[name], value)


def test_reading_back_keeps_the_bits_of_delta_networks(tmp_path: Path) -> None:
    network = delta_network()
    write_nir(network, tmp_path / "n.nir")
    back = read_nir(tmp_path / "n.nir")
    for old in network.populations:
        p, q = (net.population(old.name).neuron.step(old.size, DT) for net in (network, back))
        for name in ("beta", "drive_step", "v_threshold", "v_reset", "reset_amount"):
            assert np.array_equal(getattr(p, name), getattr(q, name)), name

    def synapses(net: Network) -> dict[Any, float]:
        total: dict[Any, float] = {}  # parallel synapses of equal delay are one in the file
        for projection in net.projections:
            s = projection.synapses(DT)
            source = np.repeat(np.arange(projection.shape[1]), np.diff(s.indptr))
            ends = (projection.source, projection.target)
            for *key, weight in zip(source, s.target, s.delay_steps, s.weight, strict=True):
                total[(*ends, *map(int, key))] = total.get((*ends, *map(int, key)), 0.0) + float(weight)
        return total

    assert synapses(network) == synapses(back)


def test_file_has_the_layout_of_the_format(tmp_path: Path) -> None:
    network = delta_network()
    write_nir(network, tmp_path / "n.nir")
    with h5py.File(tmp_path / "n.nir") as file:
        assert file["version"][()] == b"1.0.8"
        assert file["node/type"][()] == b"NIRGraph"
        assert file["node/edges"].shape[1] == 2
        nodes = file["node/nodes"]
        lif = nodes["first_layer"]
        assert lif["type"][()] == b"LIF"
        assert "v_reset" not in lif
        for key in ("tau", "r", "v_leak", "v_threshold"):
            assert lif[key].shape == (24,)
            assert lif[key].dtype == np.float64
        np.testing.assert_allclose(lif["tau"][()], DT / 0.2)
        np.testing.assert_allclose(lif["r"][()], lif["tau"][()] / DT)
        line = nodes["sound_to_first_layer_lines"]["weight"][()]
        assert np.array_equal(line.sum(axis=1), np.ones(len(line)))
        assert set(np.unique(line)) == {0.0, 1.0}
        assert nodes["sound_to_first_layer_delay/delay"].shape == (len(line),)
        pairs = set()
        for projection in network.projections[:2]:
            s = projection.synapses(DT)
            pairs |= set(zip(np.repeat(np.arange(12), np.diff(s.indptr)), s.delay_steps, strict=True))
        assert len(line) == len(pairs)
        assert float(file["node/metadata/dt"][()]) == DT
        assert nodes["readout"]["type"][()] == b"LI"


def test_v_reset_is_stored_only_when_it_is_not_zero(tmp_path: Path) -> None:
    write_nir(reset_network(), tmp_path / "n.nir")
    graph = read_graph(tmp_path / "n.nir")
    assert "v_reset" in graph.nodes["second"].values
    assert "v_reset" not in graph.nodes["first_layer"].values


def test_nir_package_reads_the_file(tmp_path: Path) -> None:
    nir = pytest.importorskip("nir")
    write_nir(delta_network(), tmp_path / "n.nir")
    graph = nir.read(tmp_path / "n.nir")
    assert type(graph.nodes["second"]).__name__ == "LIF"
    assert type(graph.nodes["output"]).__name__ == "Output"


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_judge_gets_the_graph_that_the_nir_package_reads(kind: str, tmp_path: Path) -> None:
    nir = pytest.importorskip("nir")
    from snnsim.export import nir_judge

    def equal(one: Any, other: Any) -> bool:
        if isinstance(one, dict):
            return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
        return type(one) is type(other) and bool(np.all(np.asarray(one) == np.asarray(other)))

    write_nir(NETWORKS[kind](), tmp_path / "n.nir")
    assert equal(nir_judge.read_by_nir(tmp_path / "n.nir").to_dict(), nir.read(tmp_path / "n.nir").to_dict())


def test_changes_name_what_nir_cannot_say() -> None:
    _, changes, _ = build_nir(reset_network())
    text = "\n".join(changes)
    assert "'first layer': resets by subtraction" in text
    assert "'second': v_reset is not 0" in text
    assert "Recurrent connections" in text
    assert "dt = 0.001" in text
    _, changes, timing = build_nir(current_network())
    assert "first layer 1" in "\n".join(changes)
    assert timing.latency["third"] == 0


def test_delays_can_be_refused_or_dropped_with_a_report(tmp_path: Path) -> None:
    network = delta_network()
    with pytest.raises(InputError, match=r"sound->first layer.*delays='error'"):
        write_nir(network, tmp_path / "n.nir", delays="error")
    assert not (tmp_path / "n.nir").exists()
    report = write_nir(network, tmp_path / "n.nir", delays="drop-with-report")
    total = sum(int(np.count_nonzero(item.synapses(DT).delay_steps)) for item in network.projections)
    dropped = int(next(line for line in report.changes if "were dropped" in line).split()[3])
    assert 0.8 * total < dropped < total  # a loop takes one step of its delay
    assert not any(node.kind == "Delay" for node in read_graph(tmp_path / "n.nir").nodes.values())


def single(neuron: Neuron, **population: Any) -> Network:
    return Network(
        populations=(Population("cells", 3, neuron, **population),),
        projections=(Projection("in", "cells", np.ones((3, 2))),),
        inputs=(Input("in", 2),),
        readout=None,
        dt=DT,
    )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (single(AdaptiveLIF()), "no AdaptiveLIF neuron"),
        (single(LIF(t_ref=0.002)), "no refractory time"),
        (single(LIF(), stop_step=7), "stops at step 7"),
        (single(LIF(), start_step=4), "starts at step 4"),
        (single(CubaLI.from_step(dt=DT, beta=1.0, alpha=0.5)), "infinite time constant"),
        (single(CubaLIF(drive=1.0, drive_syn=1.0)), "one on the current together"),
    ],
)
def test_what_nir_cannot_hold_is_refused(network: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_nir(network)


def test_stop_steps_can_be_dropped_with_a_report() -> None:
    _, changes, _ = build_nir(single(LIF(), stop_step=7), stop_steps="drop-with-report")
    assert any("stops at step 7" in line for line in changes)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="delays: expected one of"):
        build_nir(single(LIF()), delays="maybe")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got 'abacus'"):
        export_network(single(LIF()), "abacus", "x")
    assert TARGETS["nir"].suffix == ".nir"


def simple_graph(**neuron: Any) -> Graph:
    graph = Graph()
    graph.add("in", "Input", shape=np.array([2]))
    graph.add("w", "Affine", weight=np.ones((3, 2)), bias=np.array([0.1, 0.0, 0.0]))
    graph.add("cells", "LIF", **{key: np.asarray(value) for key, value in neuron.items()})
    graph.add("out", "Output", shape=np.array([3]))
    graph.connect("in", "w", "cells", "out")
    return graph


LIF_VALUES: dict[str, Any] = {
    "tau": np.full(3, 0.01),
    "r": np.full(3, 2.0),
    "v_leak": np.full(3, 0.5),
    "v_threshold": np.ones(3),
    "v_reset": np.zeros(3),
}


def test_foreign_file_is_read_with_eulers_rule(tmp_path: Path) -> None:
    write_graph(tmp_path / "f.nir", simple_graph(**LIF_VALUES))
    network = read_nir(tmp_path / "f.nir", dt=1e-3)
    p = network.population("cells").neuron.step(3, 1e-3)
    np.testing.assert_allclose(p.beta, 0.9)
    np.testing.assert_allclose(p.drive_step, [0.1 * 0.2 + 0.05, 0.05, 0.05])
    np.testing.assert_allclose(network.projections[0].weight, 0.2)
    exact = read_nir(tmp_path / "f.nir", dt=1e-3, discretisation="exponential")
    np.testing.assert_allclose(exact.population("cells").neuron.step(3, 1e-3).beta, np.exp(-0.1))
    np.testing.assert_allclose(exact.projections[0].weight, 2 * (1 - np.exp(-0.1)))


def test_foreign_current_neurons_get_a_latency(tmp_path: Path) -> None:
    ones = np.ones(2)
    graph = Graph()
    graph.add("in", "Input", shape=np.array([2]))
    for name in ("a", "b"):
        graph.add(f"w{name}", "Linear", weight=1.01 * np.eye(2))
        values = {"tau_mem": ones * 0.01, "tau_syn": ones * 0.005, "r": ones * 10, "w_in": ones * 5}
        graph.add(name, "CubaLIF", **values, v_leak=ones * 0, v_threshold=ones)
    graph.add("out", "Output", shape=np.array([2]))
    graph.connect("in", "wa", "a", "wb", "b", "out")
    write_graph(tmp_path / "f.nir", graph)
    network = read_nir(tmp_path / "f.nir", dt=1e-3)
    assert network.notes["latency_steps"] == {"a": 1, "b": 2}
    spike = Events.from_lists([[0.0]], [[0]], 2, duration=0.02)
    result = simulate(network, spike, threads=1)
    # the file's reader: current 1.01 at step 0, membrane 1.01 at once, spikes of both layers at step 0
    assert round(result.spikes["a"].times[0] / 1e-3) == 1
    assert round(result.spikes["b"].times[0] / 1e-3) == 2


def test_nested_graphs_scale_and_delays_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.nir", "w") as file:
        text = h5py.string_dtype()

        def put(group: Any, **values: Any) -> None:
            for key, value in values.items():
                if isinstance(value, str):
                    group.create_dataset(key, data=value, dtype=text)
                elif key == "edges":
                    group.create_dataset(key, data=np.array(value, dtype=object), dtype=text)
                else:
                    group.create_dataset(key, data=value)

        put(file, version="1.0.8")
        top = file.create_group("node")
        put(top, type="NIRGraph", edges=[["in", "body"], ["body", "out"]])
        nodes = top.create_group("nodes")
        put(nodes.create_group("in"), type="Input", shape=np.array([2]))
        put(nodes.create_group("out"), type="Output", shape=np.array([2]))
        body = nodes.create_group("body")
        path = ["input", "scale", "late", "w", "cells", "output"]
        put(body, type="NIRGraph", edges=[list(pair) for pair in pairwise(path)])
        inner = body.create_group("nodes")
        put(inner.create_group("input"), type="Input", shape=np.array([2]))
        put(inner.create_group("scale"), type="Scale", scale=np.array([2.0, 3.0]))
        put(inner.create_group("late"), type="Delay", delay=np.array([0.001, 0.0030000001]))
        put(inner.create_group("w"), type="Linear", weight=np.array([[1.0, 10.0], [0.0, 100.0]]))
        put(inner.create_group("cells"), type="IF", r=np.full(2, 1000.0), v_threshold=np.ones(2))
        put(inner.create_group("output"), type="Output", shape=np.array([2]))
    network = read_nir(tmp_path / "f.nir", dt=1e-3)
    s = network.projections[0].synapses(1e-3)
    assert s.weight.tolist() == [2.0, 30.0, 300.0]
    assert s.delay_steps.tolist() == [1, 3, 3]
    assert network.populations[0].name == "body.cells"


def test_identifiers_avoid_what_torch_modules_use() -> None:
    assert identifier("2nd->x.y") == "n2nd__x_y"
    assert identifier("values") == "values_"
    assert identifier("lambda") == "lambda_"
