"""SONATA folders: NEST gives the same spikes from the files alone, libsonata opens them, reading back, refusals."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_bridge_nir import counts, current_network, delta_network, events, run

from snnsim.cli.main import run as run_command
from snnsim.engines import simulate
from snnsim.errors import InputError, SnnsimFileError
from snnsim.export import export_network, prove_export
from snnsim.export.proof import MIN_NEURON_STEPS, MIN_SPIKES
from snnsim.export.sonata import write_sonata
from snnsim.export.sonata_read import read_sonata
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF, Neuron

DT = 1e-3
A = "first layer"

needs_nest = pytest.mark.skipif(importlib.util.find_spec("nest") is None, reason="needs the extra 'nest'")


def longer_loop(network: Network) -> Network:
    """The network with a step of delay in the loop of its first layer."""
    projections = [
        Projection(A, A, item.weight, DT) if item.name == f"{A}->{A}" else item for item in network.projections
    ]
    return network.replace(projections=tuple(projections))


def currents() -> Network:
    """Drives on currents and membranes, refractoriness, a kappa of its own, delay 0 between current populations."""
    network = longer_loop(current_network())
    second = network.population("second")
    neuron: Any = second.neuron
    changed = Population("second", second.size, neuron.replace(t_ref=0.003, kappa=0.11, v_reset=-0.25))
    return network.replace(
        populations=tuple(changed if item.name == "second" else item for item in network.populations)
    )


def deltas() -> Network:
    """Every form of delay, refractoriness, a threshold that must be exceeded, memory of nothing and of everything."""
    network = delta_network()
    rng = np.random.default_rng(4)
    first = LIF.from_step(dt=DT, beta=0.8, drive_step=rng.normal(0.02, 0.05, 24), t_ref=0.002, strict=True)
    beta = rng.uniform(0.5, 0.9, 20)
    beta[0] = 0.0
    second = LIF.from_step(dt=DT, beta=beta, drive_step=0.01, v_reset=-0.1)
    populations = (Population(A, 24, first), Population("second", 20, second), network.population("readout"))
    return network.replace(populations=populations)


def perfect() -> Network:
    """Neurons without leak into an integrator without leak, long delays."""
    rng = np.random.default_rng(5)
    long = rng.integers(0, 300, (16, 12)) * DT
    return Network(
        populations=(Population("a", 16, IF(v_threshold=4.0)), Population("readout", 5, LI.from_step(dt=DT, beta=1.0))),
        projections=(
            Projection("sound", "a", rng.normal(0.4, 1, (16, 12)), long),
            Projection("a", "readout", rng.normal(0, 1, (5, 16)), 0.2),
        ),
        inputs=(Input("sound", 12),),
        readout=Readout("readout", "v", "last"),
        dt=DT,
    )


NETWORKS: dict[str, tuple[Callable[[], Network], int, int]] = {
    "deltas": (deltas, 120, 12),
    "currents": (currents, 120, 12),
    "perfect": (perfect, 650, 6),
}


@needs_nest
@pytest.mark.parametrize("kind", NETWORKS)
def test_nest_has_the_same_spikes_from_the_files_alone(kind: str, tmp_path: Path) -> None:
    from snnsim.export.sonata_judge import SonataJudge

    make, n_steps, samples = NETWORKS[kind]
    network, dense = make(), counts(n_steps, samples)
    report = write_sonata(network, tmp_path / "n.sonata")
    judge = SonataJudge(tmp_path / "n.sonata")
    theirs, ours = judge.run(dense.astype(float)), run(network, dense)
    for name, value in ours.items():
        if name == "readout":
            scale = max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(theirs[name], value, rtol=0, atol=1e-9 * scale)
        else:
            assert value.sum() > 500
            assert np.array_equal(theirs[name], value)
    stored = json.loads((tmp_path / "n.sonata" / "snnsim.json").read_text())["latency_steps"]
    assert stored == {name.replace(" ", "_"): -value for name, value in report.latency.items()}
    assert all(value >= 0 for value in stored.values())


@pytest.mark.parametrize("kind", NETWORKS)
def test_reading_back_gives_the_same_spikes(kind: str, tmp_path: Path) -> None:
    network, dense = NETWORKS[kind][0](), counts(60 if kind != "perfect" else 650)
    write_sonata(network, tmp_path / "n.sonata")
    back = read_sonata(tmp_path / "n.sonata")
    assert [item.name for item in back.populations] == [item.name for item in network.populations]
    assert (back.dt, back.readout, back.inputs) == (network.dt, network.readout, network.inputs)
    ours, again = run(network, dense), run(back, dense)
    for name, value in ours.items():
        np.testing.assert_allclose(again[name], value, rtol=0, atol=1e-9)
    write_sonata(back, tmp_path / "again.sonata")
    assert read_sonata(tmp_path / "again.sonata") == back  # bit for bit


def test_latency_is_the_least_that_leaves_a_step_of_delay(tmp_path: Path) -> None:
    report = write_sonata(perfect(), tmp_path / "n.sonata")
    assert report.latency == {"a": -1, "readout": 0}
    assert any("'a' lives 1 steps later" in text for text in report.changes)
    with h5py.File(tmp_path / "n.sonata/network/edges.h5") as file:
        delay = file["edges/sound__a/0/delay"][:]
        assert (delay.min(), delay.max()) == (1.0, 300.0)
        assert file["edges/a__readout/0/delay"][0] == 199.0


def test_files_have_the_layout_of_the_format(tmp_path: Path) -> None:
    network, folder = currents(), tmp_path / "n.sonata"
    write_sonata(network, folder)
    assert {str(item.relative_to(folder)) for item in folder.rglob("*") if item.is_file()} == {
        *("circuit_config.json", "simulation_config.json", "snnsim.json", "run_nest.py"),
        *("network/nodes.h5", "network/node_types.csv", "network/edges.h5", "network/edge_types.csv"),
        *("inputs/spikes.h5", "components/readout.json", "components/third.json"),
        *("components/first_layer.json", "components/second.json"),
    }
    head, *rows = (folder / "network/node_types.csv").read_text().splitlines()
    assert head.split()[0] == "node_type_id"
    assert rows[1] == '1 "first layer" first_layer point_neuron nest:iaf_psc_exp first_layer.json 2 1'
    for name in ("network/nodes.h5", "network/edges.h5", "inputs/spikes.h5"):
        with h5py.File(folder / name) as file:
            assert file.attrs["magic"] == 0x0A7A
            assert file.attrs["version"].tolist() == [0, 1]
    with h5py.File(folder / "network/edges.h5") as file:
        group = file["edges/second__third"]
        assert group["source_node_id"].dtype == np.uint64
        assert group["source_node_id"].attrs["node_population"] == "second"
        assert np.all(group["0/delay"][:] == 1.0)
        assert sorted(group["0/syn_weight"][:]) == sorted(network.projections[3].weight.ravel())  # type: ignore[union-attr]
    with h5py.File(folder / "network/nodes.h5") as file:
        assert "dynamics_params" in file["nodes/first_layer/0"]  # uneven drives
        alpha, tau = (file[f"nodes/second/0/{key}"][:] for key in ("alpha", "dynamics_params/tau_syn_ex"))
        np.testing.assert_allclose(np.exp(-1.0 / tau), alpha, rtol=1e-15)


def test_libsonata_opens_every_file(tmp_path: Path) -> None:
    libsonata = pytest.importorskip("libsonata")
    network, folder = currents(), tmp_path / "n.sonata"
    write_sonata(network, folder)
    config = libsonata.CircuitConfig.from_file(folder / "circuit_config.json")
    assert config.node_populations == {"sound", "first_layer", "second", "third", "readout"}
    population = config.node_population("second")
    assert population.size == 20
    stored = {item.name: item for item in network.populations}["second"].neuron.step(20, DT)
    everyone = libsonata.Selection([(0, 20)])
    assert np.array_equal(population.get_attribute("alpha", everyone), stored.alpha)
    assert "tau_syn_ex" in population.dynamics_attribute_names
    edges = config.edge_population("first_layer__second")
    assert (edges.source, edges.target, edges.size) == ("first_layer", "second", 480)
    some = libsonata.Selection([(0, 480)])
    synapses = network.projections[2].synapses(DT)
    assert np.array_equal(edges.target_nodes(some), synapses.target)
    assert np.array_equal(edges.get_attribute("delay", some), synapses.delay_steps + 1.0)
    assert edges.get_attribute("syn_weight", some).shape == (480,)
    spikes = libsonata.SpikeReader(str(folder / "inputs/spikes.h5"))["sound"]
    assert spikes.sorting == "by_time"
    assert len(spikes.get()) > 50
    simulation = libsonata.SimulationConfig.from_file(folder / "simulation_config.json")
    assert simulation.run.dt == 1.0


@needs_nest
def test_the_script_runs_by_itself_and_libsonata_reads_its_results(tmp_path: Path) -> None:
    network, folder = deltas(), tmp_path / "n.sonata"
    given = events(counts(50, 1))
    write_sonata(network, folder, events=given)
    subprocess.run([sys.executable, "-W", "ignore", "run_nest.py"], cwd=folder, check=True, capture_output=True)
    result = simulate(network, given)
    with h5py.File(folder / "output/spikes.h5") as file:
        for name, label in (("first_layer", A), ("second", "second")):
            group = file["spikes"][name]
            steps = np.rint(result.spikes[label].times / DT)
            wanted = sorted(zip(steps, result.spikes[label].units, strict=True))
            assert sorted(zip(group["timestamps"][:], group["node_ids"][:], strict=True)) == wanted
            assert len(wanted) > 50
    libsonata = pytest.importorskip("libsonata")
    assert len(libsonata.SpikeReader(str(folder / "output/spikes.h5"))["second"].get()) > 50
    report = libsonata.SomaReportReader(str(folder / "output/membrane.h5"))["readout"]
    assert np.asarray(report.get().data).shape == (50, 5)


def refused(record: Neuron, delay: float = DT, **changes: Any) -> Network:
    populations = (Population("a", 4, record, **changes), Population("out", 2, LI(tau_mem=0.01)))
    loop = Projection("a", "a", np.ones((4, 4)), delay)
    return Network(populations, (Projection("in", "a", np.ones((4, 3))), loop), (Input("in", 3),), None, DT)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (refused(LIF(reset="subtract")), "population 'a': NEST's iaf_psc_delta has no reset by subtraction"),
        (refused(CubaLIF(reset="subtract")), "population 'a': NEST's iaf_psc_exp has no reset by subtraction"),
        (refused(AdaptiveLIF()), "population 'a': the SONATA export knows no AdaptiveLIF"),
        (refused(IF(drive=1.0)), "population 'a': NEST has no drive on a membrane without leak"),
        (refused(CubaLIF(), delay=0.0), "projection 'a->a': lies on a loop with fewer steps of delay"),
        (refused(LIF(), start_step=3), "population 'a': NEST cannot say its start_step = 3"),
        (refused(LIF(), stop_step=3), "population 'a': NEST cannot say its stop_step = 3"),
        (refused(CubaLIF.from_step(dt=DT, beta=0.5, alpha=0.0, kappa=1.0)), "population 'a': alpha = 0 is no time"),
    ],
)
def test_what_nest_cannot_do_is_refused_by_name(network: Network, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_network(network, "sonata", tmp_path / "n.sonata")
    assert list(tmp_path.iterdir()) == []


def test_only_folders_of_its_own_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "n.sonata"
    write_sonata(perfect(), folder)
    (folder / "extra.txt").write_text("x")
    write_sonata(perfect(), folder)
    assert not (folder / "extra.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for name in ("mine", "mine/letter.txt"):
        with pytest.raises(SnnsimFileError, match="something else lies there"):
            write_sonata(perfect(), tmp_path / name)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["mine", "n.sonata"]


def test_a_step_off_nests_grid_is_replaced_and_said(tmp_path: Path) -> None:
    network = refused(LIF()).replace(dt=0.001 / 3)
    report = write_sonata(network, tmp_path / "n.sonata")
    assert any("1 ms stands for it" in text for text in report.changes)
    back = read_sonata(tmp_path / "n.sonata")
    assert back.dt == network.dt


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("components/a.json", lambda v: v.pop("t_ref"), "'a': does not give t_ref, and NEST's default is not assumed"),
        ("components/a.json", lambda v: v.update(tau_m=7.0), "'a': beta does not agree with NEST's parameters"),
        ("components/a.json", lambda v: v.update(t_ref=0.4), "'a': t_ref is not a whole number of steps"),
        ("circuit_config.json", lambda v: v["manifest"].update({"$NETWORK_DIR": "../x"}), "lies outside the folder"),
        ("simulation_config.json", lambda v: v["run"].update(dt="fast"), "run/dt: expected milliseconds"),
        ("snnsim.json", lambda v: v.update(readout={"population": "z"}), "names no population of the folder"),
    ],
)
def test_a_folder_that_says_too_little_is_one_sentence(
    file: str, change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    write_sonata(refused(LIF()), tmp_path / "n.sonata")
    edit(tmp_path / "n.sonata" / file, change)
    with pytest.raises((InputError, SnnsimFileError), match=message) as caught:
        read_sonata(tmp_path / "n.sonata")
    assert "\n" not in str(caught.value)


def test_a_circuit_of_another_program_is_read(tmp_path: Path) -> None:
    """Rest not at zero, a capacity of its own, weights and delays by type; compared with the equations by hand."""
    write_sonata(refused(CubaLIF(tau_mem=0.01, tau_syn=0.004)), tmp_path / "n.sonata")
    folder = tmp_path / "n.sonata"
    (folder / "snnsim.json").unlink()
    neuron = {"tau_m": 10.0, "C_m": 250.0, "E_L": -70.0, "V_th": -50.0, "V_reset": -70.0, "t_ref": 2.0, "I_e": 25.0}
    (folder / "components/a.json").write_text(json.dumps(neuron | {"tau_syn_ex": 4.0, "tau_syn_in": 4.0}))
    with h5py.File(folder / "network/nodes.h5", "r+") as file:
        for key in list(file["nodes/a/0"]):
            del file[f"nodes/a/0/{key}"]
    with h5py.File(folder / "network/edges.h5", "r+") as file:
        for key in ("syn_weight", "delay"):
            del file[f"edges/a__a/0/{key}"]
    table = folder / "network/edge_types.csv"
    table.write_text("edge_type_id syn_weight delay\n0 1 1\n1 50.0 3.0\n")
    types = folder / "network/node_types.csv"
    types.write_text(types.read_text().replace(".json 1 1", ".json 0 1"))
    network = read_sonata(folder)
    p = network.population("a").neuron.step(4, DT)
    assert p.v_threshold[0] == 20.0
    assert p.refractory_steps[0] == 2
    np.testing.assert_allclose(p.drive_step, 25.0 / 250.0 * 10.0 * (1 - np.exp(-0.1)))
    synapses = network.projections[1].synapses(DT)
    np.testing.assert_allclose(synapses.weight, 50.0 * 10.0 / 250.0)
    assert np.all(synapses.delay_steps == 3)


# -- the proof ---------------------------------------------------------------------------------------------------


def proof_network(current: bool, size: int = 64, longest: int = 24) -> Network:
    """Two hidden layers and a recurrent one; delays, drives and time constants of every synapse and neuron."""
    rng = np.random.default_rng(7)
    layers = ["a", "b", "c"]
    populations: list[Population] = []
    projections: list[Projection] = []
    before, n_before = "in", 40
    for name in layers:
        beta, drive = rng.uniform(0.6, 0.95, size), rng.normal(0.03, 0.03, size)
        neuron: Neuron = LIF.from_step(dt=DT, beta=beta, drive_step=drive, v_reset=-0.1)
        if current:
            alpha = rng.uniform(0.4, 0.8, size)
            neuron = CubaLIF.from_step(dt=DT, beta=beta, alpha=alpha, drive_syn_step=8 * drive, t_ref=DT)
        populations.append(Population(name, size, neuron))
        scale = 3.0 / np.sqrt(n_before) * (4 if current else 1)
        delay = rng.integers(0, longest + 1, (size, n_before)) * DT
        projections.append(Projection(before, name, rng.normal(0.03, scale, (size, n_before)), delay))
        before, n_before = name, size
    loop = rng.integers(1, longest + 1, (size, size)) * DT
    projections.append(Projection("b", "b", rng.normal(0, 1.0 / np.sqrt(size), (size, size)), loop))
    out: Neuron = CubaLI.from_step(dt=DT, beta=0.9, alpha=0.5) if current else LI.from_step(dt=DT, beta=0.9)
    populations.append(Population("out", 10, out))
    delay = rng.integers(0, longest + 1, (10, size)) * DT
    projections.append(Projection("c", "out", rng.normal(0, 1, (10, size)), delay))
    return Network(tuple(populations), tuple(projections), (Input("in", 40),), Readout("out", "v", "mean"), DT)


@needs_nest
@pytest.mark.slow
@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("longest", [24, 400])
def test_proof_holds_and_planted_errors_are_caught(current: bool, longest: int, tmp_path: Path) -> None:
    network = proof_network(current, longest=longest)
    export_network(network, "sonata", tmp_path / "n.sonata")
    proof = prove_export(network, "sonata", tmp_path / "n.sonata", n_samples=100)
    print(*proof.sentences(), sep="\n")
    assert proof.holds, proof.sentences()
    assert proof.compared >= MIN_NEURON_STEPS
    assert min(proof.spikes.values()) >= MIN_SPIKES
    assert [item.kind for item in proof.mutations] == ["delay", "weight", "reset"]
    assert set(proof.executed_by.values()) == {"NEST iaf_psc_exp" if current else "NEST iaf_psc_delta"}


@needs_nest
@pytest.mark.slow
def test_command_writes_the_folder_and_the_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof_network(False).save(tmp_path / "n.snn.h5")
    words = ["export", str(tmp_path / "n.snn.h5"), "--target", "sonata", "--out", str(tmp_path / "n.sonata"), "--json"]
    assert run_command([*words, "--check", "--samples", "100"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["mismatches"] == 0
    assert printed["proof_holds"] is True
    assert printed["files"] == [str(tmp_path / "n.sonata"), str(tmp_path / "n.sonata" / "proof.json")]


def test_command_leaves_nothing_behind_when_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(LIF(reset="subtract")).save(tmp_path / "n.snn.h5")
    words = ["export", str(tmp_path / "n.snn.h5"), "--target", "sonata", "--out", str(tmp_path / "n.sonata")]
    assert run_command(words) == 2
    assert "no reset by subtraction" in capsys.readouterr().err
    assert run_command([*words, "--delays", "error"]) == 2
    assert "--delays: this is an option of --target nir, not of sonata" in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["n.snn.h5"]


def test_the_script_runs_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """Paths go into JSON text: a quotation mark or a backslash in one must stay a character."""
    pytest.importorskip("nest")
    from snnsim.export.sonata_run_nest import read_json

    folder = tmp_path / 'a "b" \\ c'
    folder.mkdir()
    (folder / "c.json").write_text('{"manifest": {"$BASE_DIR": "."}, "file": "$BASE_DIR/x.h5"}')
    assert read_json(folder / "c.json")["file"] == f"{folder}/x.h5"
