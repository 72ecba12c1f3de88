"""Chip targets: Lava .net, Xylo and SANA-FE files, their readers, refusals, damaged files and proofs."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from chip_networks import lava_network, projection, xylo_network

from snnsim.errors import InputError, SnnsimFileError
from snnsim.export import export_network, prove_export
from snnsim.export.chip_proof import run_reference
from snnsim.export.lava_read import read_lava
from snnsim.export.oracle import ORACLES
from snnsim.export.xylo import KEYS, read_xylo
from snnsim.kernels.reference_integer_xylo import xylo
from snnsim.network import Input as FloatInput
from snnsim.network import Network, Population, Projection, Readout
from snnsim.neurons import LIF, CubaLIF

LAVA = os.environ.get("SNNSIM_PYTHON_LAVA")
needs_xylosim = pytest.mark.skipif(
    importlib.util.find_spec("xylosim") is None and "SNNSIM_PYTHON_XYLO" not in os.environ, reason="xylosim missing"
)
needs_sanafe = pytest.mark.skipif(
    importlib.util.find_spec("sanafe") is None and "SNNSIM_PYTHON_SANA_FE" not in os.environ, reason="sanafe missing"
)


def test_lava_round_trip_and_layout(tmp_path: Path) -> None:
    network = lava_network()
    export_network(network, "lava", tmp_path / "a.net")
    assert read_lava(tmp_path / "a.net") == network
    with h5py.File(tmp_path / "a.net") as file:
        assert file["layer/1/weight"].shape == file["layer/1/delay"].shape == (12, 6)
        item = network.projections[0]
        assert file["layer/1/delay"][item.unit[0], item.sources()[0]] == item.delay[0] - 1
        assert file["layer/1/type"][0] == b"dense"
        assert file["layer/2/neuron/iDecay"][()] == 1024


def test_lava_reads_a_file_without_our_names(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    export_network(lava_network(), "lava", path)
    with h5py.File(path, "a") as file:
        del file["snnsim"], file["layer/1/delay"], file["layer/1/bias"]
        file["layer/1/delay"] = 5
    found = read_lava(path)
    assert [item.name for item in found.populations] == ["layer1", "layer2", "layer3"]
    assert set(found.projections[0].delay.tolist()) == {6}
    assert not found.populations[0].parameters["bias"].any()


def _float(neuron: Any, delay: int = 1, fan_in: int = 4) -> Network:
    rng = np.random.default_rng(0)
    weight = rng.normal(0.2, 0.4, (8, fan_in))
    return Network(
        populations=(Population("h", 8, neuron), Population("o", 3, neuron)),
        projections=(
            Projection("in", "h", weight, delay=delay * 1e-3),
            Projection("h", "o", rng.normal(0.2, 0.4, (3, 8)), delay=delay * 1e-3),
        ),
        inputs=(FloatInput("in", fan_in),),
        readout=Readout("o", variable="spikes", reduce="count"),
        dt=1e-3,
    )


@pytest.mark.parametrize(
    ("neuron", "delay", "word"),
    [
        (LIF(tau_mem=0.02, reset="subtract"), 1, "reset"),
        (LIF(tau_mem=0.02, v_reset=-0.5), 1, "reset"),
        (LIF(tau_mem=0.02), 64, "delay"),
    ],
)
def test_lava_refuses(tmp_path: Path, neuron: Any, delay: int, word: str) -> None:
    with pytest.raises(InputError, match=word):
        export_network(_float(neuron, delay), "lava", tmp_path / "a.net")


def test_lava_refuses_delay_field_63_and_clamps_on_request(tmp_path: Path) -> None:
    network = lava_network()
    item = network.projections[0]
    delays = item.delay.copy()
    delays[0] = 64
    longer = network.replace(projections=(replace(item, delay=delays), *network.projections[1:]))
    with pytest.raises(InputError, match="delays of up to 64"):
        export_network(longer, "lava", tmp_path / "a.net")
    report = export_network(longer, "lava", tmp_path / "a.net", delays="clamp")
    assert any("1 delays of more than 63 steps were clamped" in sentence for sentence in report.changes)
    assert read_lava(tmp_path / "a.net").projections[0].delay.max() == 63


def test_lava_refuses_odd_weights_and_loops(tmp_path: Path) -> None:
    network = lava_network()
    item = network.projections[0]
    odd = network.replace(projections=(replace(item, weight=item.weight + 1), *network.projections[1:]))
    with pytest.raises(InputError, match="odd"):
        export_network(odd, "lava", tmp_path / "a.net")
    loop = projection("h1", "h1", np.full((12, 12), 2), 3)
    with pytest.raises(InputError, match="recurrence"):
        export_network(network.replace(projections=(*network.projections, loop)), "lava", tmp_path / "a.net")


@pytest.mark.skipif(LAVA is None, reason="SNNSIM_PYTHON_LAVA names no interpreter with lava-nc; see make prove-lava")
@pytest.mark.slow
def test_lava_simulator_gives_the_same_spikes(tmp_path: Path) -> None:
    network = lava_network(3, (20, 48, 40, 24))
    export_network(network, "lava", tmp_path / "a.net")
    proof = prove_export(network, "lava", tmp_path / "a.net", n_samples=100)
    proof.save(tmp_path / "proof.json")
    assert proof.mismatches == 0
    assert proof.holds, proof.sentences()


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = lava_network()
    export_network(network, "lava", tmp_path / "a.net")
    proof = prove_export(network, "lava", tmp_path / "a.net", pythons={"lava": str(tmp_path / "none")})
    assert not proof.holds
    assert proof.sentences()[0].startswith("Not proven: Lava's fixed-point simulator")


def test_xylo_round_trip_and_kernel(tmp_path: Path) -> None:
    network = xylo_network(1, 127, 40)
    export_network(network, "xylo", tmp_path / "a.npz")
    assert read_xylo(tmp_path / "a.npz") == network
    with np.load(tmp_path / "a.npz") as file:
        assert tuple(file.files) == KEYS
        assert file["weights_rec"].dtype == np.int8


def test_xylo_engines_agree_where_it_saturates() -> None:
    from snnsim.engines.integer import simulate_integer
    from snnsim.events import Events

    network = xylo_network(2, 127, 60)
    rng = np.random.default_rng(0)
    times, units = rng.integers(0, 200, 4000) * network.dt, rng.integers(0, 16, 4000)
    order = np.argsort(times, kind="stable")
    events = Events.from_lists([times[order]], [units[order].astype(np.int32)], 16, duration=0.2)
    ours = simulate_integer(network, events, record=("a.v", "a.i", "o.v"))
    reference = simulate_integer(network, events, record=("a.v", "a.i", "o.v"), engine="reference")
    assert sum(ours.notes["overflow"].values()) > 0
    assert ours.notes["overflow"] == reference.notes["overflow"]
    for name in ours.records:
        assert np.array_equal(ours.records[name][0], reference.records[name][0])


def test_xylo_law_by_hand() -> None:
    parameters = {"dash_mem": 2, "dash_syn": 1, "v_threshold": 10, "bias": 1, "max_spikes": 31}
    arrays = {name: np.array([value]) for name, value in parameters.items()}
    state, spikes, over = xylo(arrays, "cubalif", np.array([[5], [3], [0]]), np.array([40]))
    # i = 43 - 21 = 22; v = 5 - 1 + 22 + 1 = 27, two spikes, 7 left
    assert (state[0, 0], state[1, 0], spikes[0], bool(over[0])) == (7, 22, 2, False)


@pytest.mark.parametrize(
    ("network", "word"),
    [
        (_float(LIF(tau_mem=0.02, reset="subtract"), 0), "LIF is not"),
        (_float(CubaLIF(tau_mem=0.02, tau_syn=0.01), 0), "reset"),
        (_float(CubaLIF(tau_mem=0.02, tau_syn=0.01, reset="subtract"), 0, 17), "16"),
    ],
)
def test_xylo_refuses(tmp_path: Path, network: Network, word: str) -> None:
    with pytest.raises(InputError, match=word):
        export_network(network, "xylo", tmp_path / "a.npz")


def test_xylo_refuses_delays(tmp_path: Path) -> None:
    network = _float(CubaLIF(tau_mem=0.02, tau_syn=0.01, reset="subtract"), 0)
    delayed = network.replace(
        projections=(
            Projection("in", "h", network.projections[0].weight, delay=np.arange(32).reshape(8, 4) * 1e-3),
            network.projections[1],
        )
    )
    with pytest.raises(InputError, match="delay"):
        export_network(delayed, "xylo", tmp_path / "a.npz")


@needs_xylosim
@pytest.mark.parametrize("quantised", [False, True])
def test_xylosim_gives_the_same_spikes(tmp_path: Path, quantised: bool) -> None:
    network: Any = xylo_network(5)
    if quantised:
        network = _float(CubaLIF(tau_mem=0.02, tau_syn=0.01, reset="subtract"), 0)
    export_network(network, "xylo", tmp_path / "a.npz")
    proof = prove_export(network, "xylo", tmp_path / "a.npz", n_samples=4, n_steps=200)
    assert proof.mismatches == 0
    assert proof.first_difference is None
    assert {item.kind for item in proof.mutations} == {"weight", "threshold"}
    assert all(item.caught for item in proof.mutations)


@needs_xylosim
def test_a_file_of_another_network_is_no_proof(tmp_path: Path) -> None:
    """The reference is the network that was given, not what its file says."""
    network, path = xylo_network(5), tmp_path / "a.npz"
    item = network.projections[0]
    other = network.replace(projections=(replace(item, weight=item.weight // 2), *network.projections[1:]))
    export_network(other, "xylo", path)
    proof = prove_export(network, "xylo", path, n_samples=2, n_steps=100, mutate=False)
    assert proof.mismatches > 0
    assert prove_export(other, "xylo", path, n_samples=2, n_steps=100, mutate=False).mismatches == 0
    renamed = replace(network.populations[2], name="p")
    first, second, third, last = network.projections
    with pytest.raises(InputError, match=r"has the populations \['a', 'b', 'o'\], expected \['a', 'b', 'p'\]"):
        prove_export(
            network.replace(
                populations=(*network.populations[:2], renamed),
                projections=(first, second, third, replace(last, target="p")),
                readout=None,
                scale={},
                latency={},
            ),
            "xylo",
            path,
            n_samples=1,
            n_steps=20,
        )


@needs_xylosim
@pytest.mark.slow
def test_xylosim_on_fifty_networks(tmp_path: Path) -> None:
    oracle = ORACLES["xylo"]
    command = oracle.interpreter(None)
    for seed in range(50):
        network = xylo_network(seed)
        export_network(network, "xylo", tmp_path / "a.npz")
        counts = (np.random.default_rng(seed).random((2, 300, 16)) < 0.25).astype(np.int64)
        found = oracle.run(tmp_path / "a.npz", {"counts": counts}, command)
        spikes, _ = run_reference(network, counts)
        assert np.array_equal(np.concatenate([spikes["a"], spikes["b"]], axis=2), found["hidden"]), seed
        assert np.array_equal(spikes["o"], found["output"]), seed


@needs_sanafe
@pytest.mark.slow
@pytest.mark.parametrize("delay", [1, 4])
def test_sana_fe_gives_the_same_spikes(tmp_path: Path, delay: int) -> None:
    network = _float(LIF(tau_mem=0.02, drive=5.0), delay)
    report = export_network(network, "sana-fe", tmp_path / "a.yaml")
    assert any("relay neurons" in sentence for sentence in report.changes) == (delay > 1)
    proof = prove_export(network, "sana-fe", tmp_path / "a.yaml", n_samples=2, n_steps=150)
    assert proof.mismatches == 0
    assert proof.spikes["o"] > 0
    assert all(item.caught for item in proof.mutations)
    assert any(sentence.startswith("Estimated a sample") for sentence in proof.remarks)


def test_sana_fe_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="synaptic current"):
        export_network(_float(CubaLIF(tau_mem=0.02, tau_syn=0.01)), "sana-fe", tmp_path / "a.yaml")
    with pytest.raises(InputError, match="delays of up to"):
        export_network(_float(LIF(tau_mem=0.02), 4), "sana-fe", tmp_path / "a.yaml", delays="refuse")


def _mutants(tmp_path: Path, target: str, count: int) -> None:
    network = lava_network() if target == "lava" else xylo_network()
    read = read_lava if target == "lava" else read_xylo
    path = tmp_path / "good"
    export_network(network, target, path)
    good = path.read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(count):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 8))):
            place = int(rng.integers(0, len(data)))
            kind = int(rng.integers(0, 3))
            if kind == 0:
                data[place] ^= 1 << int(rng.integers(0, 8))
            elif kind == 1:
                data[place : place + 8] = rng.bytes(min(8, len(data) - place))
            else:
                del data[place : place + int(rng.integers(1, 64))]
        bad = tmp_path / "bad"
        bad.write_bytes(bytes(data))
        try:
            read(bad)
        except SnnsimFileError:
            refused += 1
    assert refused > count // 4


@pytest.mark.parametrize("target", ["lava", "xylo"])
def test_damaged_files_give_one_kind_of_error(tmp_path: Path, target: str) -> None:
    _mutants(tmp_path, target, 200)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["lava", "xylo"])
def test_many_damaged_files(tmp_path: Path, target: str) -> None:
    _mutants(tmp_path, target, 5000)
