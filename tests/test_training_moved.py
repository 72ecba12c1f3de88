"""What training moved, and what a recipe lets learn: weights, delays, neurons one by one, the readout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsim.cli.main import run as run_command
from snnsim.datasets.dataset import Dataset
from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError, SnnsimFileError
from snnsim.nn.model import build_model
from snnsim.recipes import load_recipe
from snnsim.training import load_run, train
from snnsim.training.moved import HEAD, format_moved, what_moved

SMALL = ["model.hidden=[16, 12]", "model.connection.max_delay=0.12", "train.batch_size=16", "train.epochs=2"]
NEURON = ["model.neuron.learn=['tau_mem', 'v_threshold', 'v_reset']", "model.neuron.learn_per=neuron"]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy(n_train=64, n_test=16)


def test_every_learned_quantity_is_listed_and_measured(toy: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe("shd-dcls", [*SMALL, *NEURON, "model.readout.learn=['tau_mem']"])
    train(recipe, toy, tmp_path / "run", seed=3)
    run = load_run(tmp_path / "run")
    moved = run.moved("last")
    names = {(item.layer, item.quantity): item for item in moved}
    hidden = ("weight", "delay", "norm gain", "norm shift", "tau_mem", "v_threshold", "v_reset")
    wanted = {(layer, name) for layer in ("layer1", "layer2") for name in hidden}
    assert set(names) == wanted | {("readout", "weight"), ("readout", "delay"), ("readout", "tau_mem")}
    before, after = run.model("initial"), run.model("last")
    start, end = before.blocks[0].neuron.neuron(), after.blocks[0].neuron.neuron()
    tau = names["layer1", "tau_mem"]
    assert tau.count == 16
    assert tau.mean_after == pytest.approx(float(np.mean(end.tau_mem)), rel=1e-12)
    assert tau.mean_change == pytest.approx(float(np.abs(end.tau_mem - start.tau_mem).mean()), rel=1e-6)
    assert tau.std_before == pytest.approx(0, abs=1e-12)
    assert tau.std_after > 0
    delay = names["layer2", "delay"]
    shift = (after.blocks[1].connection.position - before.blocks[1].connection.position).detach().double().abs()
    assert delay.largest_change == pytest.approx(float(shift.max()) * recipe.data.dt, rel=1e-6)
    assert 0 <= delay.mean_before <= 0.12
    rows = format_moved(moved)
    assert all(len(row) == len(HEAD) for row in rows)
    assert any(row[:2] == ["layer1", "tau_mem"] and row[3].endswith("(0) ms") for row in rows)


def test_train_prints_the_table_and_the_page_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "toy", "-q", *(part for change in SMALL for part in ("--set", change))]
    out = str(tmp_path / "run")
    assert run_command(["train", "shd-dcls", "--out", out, *options]) == 0
    assert "layer1   norm gain" in capsys.readouterr().out
    assert run_command(["train", "shd-dcls", "--out", out, "--resume", "--json", *options]) == 0
    found = {item["quantity"] for item in json.loads(capsys.readouterr().out)["moved"]}
    assert found == {"weight", "delay", "norm gain", "norm shift"}
    assert run_command(["report", out, "--data", "toy"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What training moved" in page
    assert "layer1: norm gain" in page
    (tmp_path / "run" / "initial.safetensors").unlink()
    with pytest.raises(SnnsimFileError, match="is not there; was it removed"):
        load_run(out).moved()


@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_weights_that_do_not_learn_stay(toy: Dataset, tmp_path: Path, rule: str) -> None:
    changes = [*SMALL, *NEURON[:1], "model.connection.learn_weight=false", "model.recurrent=true"]
    kind = [f"train.learning={rule}", "model.connection.kind=linear", "train.padding=masked"]
    if rule == "sltt":
        kind += ["model.recurrent=false", "model.batch_norm=false", "train.rule.two_pass=true"]
    train(load_recipe("shd-dcls", [*changes, *kind]), toy, tmp_path / "run", seed=0)
    run = load_run(tmp_path / "run")
    before, after = run.model("initial"), run.model("last")
    for old, new in zip(before.blocks, after.blocks, strict=True):
        assert torch.equal(old.connection.weight, new.connection.weight)
        if rule == "bptt":
            assert torch.equal(old.neuron.recurrent_weight, new.neuron.recurrent_weight)
    assert not torch.equal(before.readout.connection.weight, after.readout.connection.weight)
    quantities = {(item.layer, item.quantity): item.mean_change for item in run.moved("last")}
    assert ("layer1", "weight") not in quantities
    assert quantities["layer1", "tau_mem"] > 0
    assert quantities["readout", "weight"] > 0


def test_learned_parameters_one_a_neuron_or_one_a_layer() -> None:
    for per, shape in (("layer", ()), ("neuron", (16,))):
        for kind, names in (
            ("lif", ["tau_mem", "v_threshold", "v_reset"]),
            ("cubalif", ["tau_mem", "tau_syn"]),
            ("adlif", ["tau_mem", "tau_adapt", "adapt_v", "adapt_spike"]),
            ("alif", ["adapt_threshold"]),
        ):
            changes = [f"model.neuron.kind={kind}", f"model.neuron.learn={names}", f"model.neuron.learn_per={per}"]
            changes += ["model.neuron.tau_law=exact", *(["model.neuron.adapt_threshold=0.5"] if kind == "alif" else [])]
            spec = load_recipe("shd-dcls", [*SMALL, *changes]).model
            values = build_model(spec, 8, 3, 0.01).blocks[0].neuron.learned_values()
            assert set(values) == set(names)
            assert all(value.shape == shape for value in values.values())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["model.neuron.learn=['tau_mem', 'tau_mem']"], "learn names a parameter twice"),
        (["model.neuron.learn=['v_reset']", "model.neuron.reset=subtract"], "v_reset does nothing with reset"),
        (["model.neuron.learn_per=neuron"], "learn_per: expected parameters in learn"),
        (["model.readout.learn=['tau_syn']"], "readout neuron 'li' has no 'tau_syn' to learn"),
        (["model.neuron.learn=['adapt_threshold']"], "neuron kind 'lif' has no 'adapt_threshold'"),
    ],
)
def test_what_cannot_learn_is_refused(changes: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe("shd-dcls", changes)


def test_models_of_two_recipes_are_not_compared() -> None:
    one, other = (
        build_model(load_recipe("shd-dcls", [f"model.hidden={sizes}"]).model, 8, 3, 0.01) for sizes in ([4], [5])
    )
    with pytest.raises(InputError, match="layer1 weight: expected models of one recipe"):
        what_moved(one, other)
    deeper = build_model(load_recipe("shd-dcls", ["model.hidden=[4, 4]"]).model, 8, 3, 0.01)
    with pytest.raises(InputError, match="the other has no Block there"):
        what_moved(deeper, one)
