"""Freeze, thaw, SpikingJelly and the command: equal spikes, and comparisons that fail when they must."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snnsim import neurons as records
from snnsim.cli.main import run as run_command
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.export import export_network, prove_export
from snnsim.export.proof import MIN_NEURON_STEPS, MIN_SPIKES, Proof, generate_inputs, prove
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.freeze import ModelJudge, freeze
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.thaw import thaw

DT = 0.01


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained_norm(size: int, generator: torch.Generator) -> BatchNormTime:
    """Batch norm with statistics and parameters as after training."""
    norm = BatchNormTime(size)
    with torch.no_grad():
        norm.weight.uniform_(0.7, 1.6, generator=generator)
        norm.bias.uniform_(-0.1, 0.4, generator=generator)
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    return norm


def delay_model(n_in: int, hidden: int, *, uniform: bool = False) -> SpikingModel:
    """The delay paper's structure: DCLS, batch norm, LIF, dropout; time constants by neuron."""
    g = torch.Generator().manual_seed(0)
    second: dict[str, Any] = {"tau_mem": 0.015} if uniform else {"tau_mem": 0.02, "heterogeneous": "gamma", "seed": 1}
    blocks = [
        Block(
            DelayedLinear(n_in, hidden, max_delay_steps=24, generator=g),
            LIF(hidden, dt=DT, beta=0.2),
            norm=trained_norm(hidden, g),
            dropout=SequenceDropout(0.4),
        ),
        Block(
            DelayedLinear(hidden, hidden, max_delay_steps=24, generator=g),
            LIF(hidden, dt=DT, **second),
            norm=trained_norm(hidden, g),
            dropout=SequenceDropout(0.4, 1),
        ),
    ]
    readout = ReadoutBlock(DelayedLinear(hidden, 10, max_delay_steps=24, generator=g), LI(10, dt=DT, beta=0.3))
    return SpikingModel(blocks, readout, dt=DT, tail_steps=12)


def mixed_model() -> SpikingModel:
    """Everything else: taps, axonal and dendritic delays, recurrence, residual, biases, all neuron laws."""
    g = torch.Generator().manual_seed(3)
    recurrent_delays = np.random.default_rng(0).integers(1, 6, (32, 32))
    adaptive = AdaptiveLIF(40, dt=DT, tau_mem=0.03, adapt_v=0.05, adapt_spike=0.1)
    blocks = [
        Block(
            DelayedLinear(30, 40, max_delay_steps=9, taps=2, per="axon", generator=g),
            Recurrent(adaptive, delay_steps=2, generator=g),
            norm=trained_norm(40, g),
        ),
        Block(
            DelayedLinear(40, 40, max_delay_steps=9, per="dendrite", generator=g),
            CubaLIF(40, dt=DT, tau_mem=0.02, tau_syn=0.01, reset="subtract", t_ref=0.02),
            norm=trained_norm(40, g),
            residual=True,
        ),
        Block(Linear(40, 40, bias=True, generator=g), LIF(40, dt=DT, tau_mem=0.02, learn=("tau_mem",)), residual=True),
        Block(
            DelayedLinear(40, 32, max_delay_steps=9, taps=2, generator=g),
            Recurrent(LIF(32, dt=DT, tau_mem=0.02), delay_steps=recurrent_delays, learn_delay=True, generator=g),
            norm=trained_norm(32, g),
        ),
    ]
    cells = CubaLI(10, dt=DT, tau_mem=0.02, tau_syn=0.01)
    readout = ReadoutBlock(Linear(32, 10, bias=True, generator=g), cells, reduce="mean", skip_steps=3)
    model = SpikingModel(blocks, readout, dt=DT)
    with torch.no_grad():
        blocks[2].connection.bias.uniform_(0, 0.1, generator=g)  # type: ignore[union-attr]
        readout.connection.bias.uniform_(0, 0.1, generator=g)  # type: ignore[union-attr]
        blocks[2].neuron.tau_mem_log.fill_(0.3)
    return model


MODELS = {"delay": lambda: delay_model(20, 32), "mixed": mixed_model}


@pytest.mark.parametrize("kind", MODELS)
def test_frozen_and_thawed_models_have_the_same_spikes(kind: str) -> None:
    model = MODELS[kind]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = freeze(model)
    for judge in (ModelJudge(model), ModelJudge(thaw(network))):
        proof = prove(network, judge, n_samples=8, n_steps=60, mutate=judge.model.training)
        assert proof.equal, proof.sentences()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    thawed = thaw(network)
    assert {str(p.dtype) for p in thawed.parameters()} == {"torch.float64"}
    assert thawed.tail_steps == model.tail_steps
    x = torch.from_numpy(np.random.default_rng(0).poisson(0.1, (50, 3, model.n_inputs)).astype(float))
    expected = model.double().eval()(x).logits
    torch.testing.assert_close(thawed(x).logits, expected, rtol=0, atol=1e-9)


def test_freezing_a_thawed_network_gives_it_back() -> None:
    network = freeze(delay_model(20, 32))
    assert freeze(thaw(network)) == network


def test_freeze_proof_counts_and_catches_planted_errors() -> None:
    model = delay_model(40, 64)
    proof = prove(freeze(model), ModelJudge(model), n_samples=60, n_steps=80)
    assert proof.holds, proof.sentences()
    assert proof.compared >= MIN_NEURON_STEPS
    assert min(proof.spikes.values()) >= MIN_SPIKES
    assert [item.kind for item in proof.mutations] == ["delay", "weight", "reset"]
    assert proof.remarks == ()


@pytest.mark.slow
def test_freeze_proof_at_full_size() -> None:
    model = delay_model(140, 256)
    proof = prove(freeze(model), ModelJudge(model), n_samples=200)
    assert proof.holds, proof.sentences()
    assert proof.remarks == ()


def test_notes_say_what_freezing_did() -> None:
    model = delay_model(20, 32)
    with torch.no_grad():
        model.blocks[0].connection.position[:] = 3.0  # type: ignore[union-attr,index]
        model.blocks[0].connection.position[0, 0, 0] = 3.25  # type: ignore[union-attr,index]
    network = freeze(model)
    assert network.notes["tail_steps"] == 12
    assert network.notes["layers"][0]["max_delay_steps"] == 24
    text = "\n".join(network.notes["frozen"])
    assert "Batch norm of 2 layers" in text
    assert "Dropout of 2 layers" in text
    assert "widened to float64" in text
    assert f"of {20 * 32 + 32 * 32 + 32 * 10} delays were rounded" in text
    assert np.all(network.projections[0].delay_steps(DT) == 9)


def test_taps_become_projections_and_compact_delays_stay_compact() -> None:
    network = freeze(mixed_model())
    first = [item for item in network.projections if item.name == "input->hidden1"]
    assert [np.shape(item.delay) for item in first] == [(1, 30), (1, 30)]
    second = [item for item in network.projections if item.name == "hidden1->hidden2"]
    assert [np.shape(item.delay) for item in second] == [(40, 1)]
    third = [item.source for item in network.projections if item.target == "hidden3"]
    assert third == ["hidden1", "hidden2"]
    fourth = [item.source for item in network.projections if item.target == "hidden4"]
    assert fourth == ["hidden1", "hidden1", "hidden2", "hidden2", "hidden3", "hidden3", "hidden4"]


def test_foreign_modules_are_refused_by_freeze() -> None:
    model = delay_model(20, 32)
    model.blocks[1].neuron = nn.ReLU()
    with pytest.raises(InputError, match="hidden2: ReLU is not a neuron layer"):
        freeze(model)


def chain(**changes: Any) -> Network:
    values: dict[str, Any] = {
        "populations": (
            Population("a", 4, records.LIF.from_step(dt=DT, beta=0.5, drive_step=0.1)),
            Population("out", 2, records.LI.from_step(dt=DT, beta=0.5)),
        ),
        "projections": (Projection("in", "a", np.ones((4, 3))), Projection("a", "out", np.ones((2, 4)))),
        "inputs": (Input("in", 3),),
        "readout": Readout("out", "v", "mean"),
        "dt": DT,
    }
    return Network(**(values | changes))


def test_sparse_networks_with_parallel_synapses_are_thawed() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 3, 30), rng.integers(0, 4, 30)
    sparse = Sparse.from_triples(source, target, rng.normal(0.5, 1, 30), (4, 3))
    delayed = Projection("in", "a", sparse, rng.integers(0, 6, 30) * DT)
    network = chain(projections=(delayed, Projection("a", "out", np.ones((2, 4)))))
    proof = prove(network, ModelJudgeNamed(thaw(network)), n_samples=4, n_steps=50, mutate=False)
    assert proof.equal
    assert sum(proof.spikes.values()) > 20


class ModelJudgeNamed(ModelJudge):
    """The judge of a thawed network whose populations are called ``a`` and ``out``."""

    def run(self, inputs: Any) -> dict[str, Any]:
        result = super().run(inputs)
        return {"a": result["hidden1"], "out": result["readout"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readout": None}, "whose readout reduces membranes"),
        ({"readout": Readout("a", "spikes", "count")}, "whose readout reduces membranes"),
        ({"projections": (Projection("in", "out", np.ones((2, 3))),)}, "sources"),
    ],
)
def test_networks_of_another_shape_are_refused_by_thaw(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        thaw(chain(**changes))


class Wrong:
    """A judge that reports one spike too many."""

    name = "a wrong program"
    latency: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, model: SpikingModel) -> None:
        self.judge = ModelJudge(model)

    def run(self, inputs: Any) -> dict[str, Any]:
        result = self.judge.run(inputs)
        result["hidden2"][7, 1, 5] = 1 - result["hidden2"][7, 1, 5]
        return result


def test_a_single_wrong_spike_is_found_and_named() -> None:
    model = delay_model(20, 32)
    proof = prove(freeze(model), Wrong(model), n_samples=6, n_steps=40, mutate=False, batch=4)
    layer = next(item for item in proof.layers if item.population == "hidden2")
    assert layer.mismatches == 2 * (proof.n_samples // 4) or layer.mismatches > 0
    assert layer.first == (1, 7, 5)
    assert not proof.equal
    assert not proof.holds
    assert "first: sample 1, step 7, neuron 5" in "\n".join(proof.sentences())


def test_a_silent_layer_and_missing_features_are_remarked() -> None:
    network = chain(
        populations=(
            Population("a", 4, records.LIF.from_step(dt=DT, beta=0.5, v_threshold=1e9)),
            Population("out", 2, records.LI.from_step(dt=DT, beta=0.5)),
        )
    )
    proof = prove(network, ModelJudgeNamed(thaw(network)), n_samples=3, n_steps=20, mutate=False)
    text = "\n".join(proof.remarks)
    assert "a has only 0 spikes" in text
    assert "no drive" in text
    assert "All delays" in text
    assert not proof.enough


def test_given_events_are_run_with_the_tail(tmp_path: Path) -> None:
    model = delay_model(20, 32)
    rng = np.random.default_rng(0)
    times = [np.sort(rng.integers(0, 40, 100)) * DT for _ in range(5)]
    events = Events.from_lists(times, [rng.integers(0, 20, 100) for _ in range(5)], 20, duration=0.4)
    proof = prove(freeze(model), ModelJudge(model), events=events, mutate=False)
    assert proof.equal
    assert (proof.n_samples, proof.n_steps) == (5, 52)
    path = proof.save(tmp_path / "proof.json")
    stored = json.loads(path.read_text())
    assert stored["compared"] == proof.compared
    assert stored["layers"][0]["population"] == "hidden1"
    wrong = Events.from_lists([[0.0]], [[0]], 7, duration=0.1)
    with pytest.raises(InputError, match="7 channels, the network 20"):
        prove(freeze(model), ModelJudge(model), events=wrong)


def test_generated_input_depends_on_the_seed_alone() -> None:
    network = freeze(delay_model(20, 32))
    first, text = generate_inputs(network, n_samples=3, n_steps=30, seed=4)
    again, _ = generate_inputs(network, n_samples=3, n_steps=30, seed=4)
    other, _ = generate_inputs(network, n_samples=3, n_steps=30, seed=5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:, :3], other[:, :3])
    assert not first[30:].any()
    assert "seed 4" in text


# -- NIR, end to end -----------------------------------------------------------------------------------------


def nir_proof(model: SpikingModel, folder: Path, **settings: Any) -> Proof:
    pytest.importorskip("nirtorch")
    pytest.importorskip("spikingjelly")
    network = freeze(model)
    export_network(network, "nir", folder / "n.nir")
    return prove_export(network, "nir", folder / "n.nir", **settings)


def test_nir_proof_holds_and_planted_errors_in_the_file_are_caught(tmp_path: Path) -> None:
    proof = nir_proof(delay_model(24, 96, uniform=True), tmp_path, n_samples=50, n_steps=90)
    assert proof.holds, proof.sentences()
    assert proof.executed_by["hidden1"] == proof.executed_by["hidden2"] == "SpikingJelly LIFNode"


@pytest.mark.slow
@pytest.mark.parametrize("uniform", [True, False])
def test_nir_proof_at_full_size(uniform: bool, tmp_path: Path) -> None:
    proof = nir_proof(delay_model(140, 256, uniform=uniform), tmp_path, n_samples=200)
    assert proof.holds, proof.sentences()


# -- the command ---------------------------------------------------------------------------------------------


def test_command_writes_the_file_and_the_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nirtorch")
    network = freeze(delay_model(20, 32, uniform=True))
    network.save(tmp_path / "net.snn.h5")
    words = ["export", str(tmp_path / "net.snn.h5"), "--target", "nir", "--out", str(tmp_path / "net.nir"), "--json"]
    assert run_command(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["mismatches"] is None
    assert any("Delay nodes" in change for change in printed["changes"])
    assert run_command([*words, "--check", "--samples", "30"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["mismatches"] == 0
    assert printed["compared"] >= MIN_NEURON_STEPS
    assert printed["files"] == [str(tmp_path / "net.nir"), str(tmp_path / "net.nir.proof.json")]
    assert json.loads((tmp_path / "net.nir.proof.json").read_text())["holds"] is True


def test_command_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.snn.h5"
    freeze(delay_model(20, 32)).save(path)
    for words, message in (
        ([str(tmp_path / "nothing.snn.h5")], "nothing.snn.h5"),
        ([str(path), "--target", "abacus"], "--target: expected one of nir, sonata, got 'abacus'"),
        ([str(path), "--delays", "error"], "delays='error'"),
        ([str(path), "--events", "toy"], "add --check"),
    ):
        assert run_command(["export", *words]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error
    assert not (tmp_path / "net.nir").exists()


def test_unreadable_network_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.snn.h5").write_bytes(b"nonsense")
    with pytest.raises(SnnsimFileError):
        Network.load(tmp_path / "x.snn.h5")
