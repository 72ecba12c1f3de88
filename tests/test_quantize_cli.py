"""Quantisation on the command line: check a network, write its integers, measure its accuracy in them."""

import json
from importlib import resources

import numpy as np
import pytest

from snnsim.cli.main import run
from snnsim.datasets import open_dataset
from snnsim.integer_network import IntegerNetwork
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import LI, LIF
from snnsim.quantize import quantize as quantize_network
from snnsim.recipes import load_recipe
from snnsim.training import evaluate, load_run, train
from snnsim.training.integer_evaluation import evaluate_as

SMALL = ["model.hidden=[16]", "model.connection.max_delay=0.12", "train.batch_size=16", "train.epochs=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    train(load_recipe("shd-dcls", [*SMALL, "train.weights.schedule.unit=batch"]), open_dataset("toy"), out, seed=1)
    return out


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    network = Network(
        populations=(Population("hidden", 12, LIF(tau_mem=0.02)), Population("out", 4, LI(tau_mem=0.02))),
        projections=(
            Projection("in", "hidden", rng.normal(0.2, 0.2, (12, 6)), rng.integers(0, 9, (12, 6)) * 0.001),
            Projection("hidden", "out", rng.normal(0.0, 0.2, (4, 12))),
        ),
        inputs=(Input("in", 6),),
        readout=Readout("out"),
        dt=0.001,
    )
    return network.save(tmp_path / "net.snn.h5")


def answer(capsys):
    out = capsys.readouterr().out
    return json.loads(out.strip().splitlines()[-1])


def test_a_dry_run_writes_nothing_and_says_what_would_change(file, capsys):
    before = sorted(file.parent.iterdir())
    assert run(["export", str(file), "--target", "loihi2", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("fits loihi2\n")
    assert "changes: hidden: spikes come 1 step later." in shown
    assert sorted(file.parent.iterdir()) == before


def test_a_dry_run_says_what_the_writer_refuses(file, capsys):
    """A network may be within the limits of a chip and still have no place in the target's format."""
    network = Network.load(file)
    loop = Projection("hidden", "hidden", np.full((12, 12), 0.01), 0.005)
    path = network.replace(projections=(*network.projections, loop)).save(file.parent / "loop.snn.h5")
    before = sorted(file.parent.iterdir())
    assert run(["export", str(path), "--target", "lava", "--dry-run"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("does not fit lava\ncannot: lava: 'hidden' feeds")
    assert run(["export", str(path), "--target", "loihi2", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("fits loihi2\n")
    assert run(["export", str(path), "--target", "lava", "--dry-run", "--json"]) == 1
    assert "without branches or recurrence" in answer(capsys)["refused"]
    assert sorted(file.parent.iterdir()) == before


def test_a_proof_of_an_earlier_export_does_not_stay(file):
    old = file.parent / "net.net.proof.json"
    old.write_text("{}")
    assert run(["export", str(file), "--target", "lava"]) == 0
    assert not old.exists()


def test_a_dry_run_of_a_target_without_a_writer_has_status_1_if_it_does_not_fit(file, capsys):
    assert run(["export", str(file), "--target", "xylo-audio2", "--dry-run", "--json"]) == 1
    found = answer(capsys)
    assert found["check"]["fits"] is False
    assert any("train with CubaLIF" in item["sentence"] for item in found["check"]["violations"])
    assert any("weights become whole numbers of 8 bits" in item for item in found["changes"])


def test_a_profile_of_ones_own_on_the_command_line(file, tmp_path, capsys):
    value = json.loads((resources.files("snnsim.limits") / "loihi2.json").read_text())
    value["name"], value["figures"]["max_inputs"] = "mine", {"value": 5, "basis": "source", "source": "lava"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(value))
    assert run(["export", str(file), "--target", str(path), "--dry-run"]) == 1
    assert "cannot: 6 input channels, the target has 5: pool channels together." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--target", "loihi"], "got 'loihi'; it can only be checked: add --dry-run"),
        (["--target", "nir", "--dry-run"], "has no limits of size or arithmetic"),
        (["--target", "mars", "--dry-run"], "profile: expected one of"),
    ],
)
def test_targets_that_are_none(file, words, match, capsys):
    assert run(["export", str(file), *words]) == 2
    assert match in capsys.readouterr().err


def test_quantize_writes_an_integer_network(file, capsys):
    assert run(["quantize", str(file), "--profile", "loihi2"]) == 0
    assert "weights off by" in capsys.readouterr().out
    network = IntegerNetwork.load(file.parent / "net.loihi2.int.h5")
    assert network.law == "loihi2"
    assert network.source == Network.load(file).digest()
    out = file.parent / "other.int.h5"
    assert run(["quantize", str(file), "--out", str(out), "--scale", "neuron", "--json"]) == 0
    found = answer(capsys)
    assert found["files"] == [str(out)]
    assert found["report"]["layers"][0]["population"] == "hidden"
    assert np.ptp(IntegerNetwork.load(out).scale["out"]) > 0
    assert run(["quantize", str(file), "--profile", "truenorth"]) == 2
    assert "no integer law" in capsys.readouterr().err
    assert run(["quantize", str(file), "--headroom", "observed"]) == 2
    assert "needs calibration events" in capsys.readouterr().err


def test_eval_as_a_chip_beside_the_float_network(folder, capsys):
    assert run(["eval", str(folder), "--data", "toy", "--as", "loihi2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "test split, float:" in shown[0]
    assert "test split, loihi2:" in shown[1]
    assert "get the class of the float network" in shown[2]
    before = load_run(folder).manifest["test_run_count"]
    assert run(["eval", str(folder), "--data", "toy", "--as", "loihi2", "--no-calibrate", "--json"]) == 0
    found = answer(capsys)
    assert load_run(folder).manifest["test_run_count"] == before + 1
    exact = evaluate(folder, open_dataset("toy"), engine="clock")
    assert found["float_accuracy"] == exact.accuracy
    assert abs(found["accuracy"] - exact.accuracy) < 0.15
    assert found["same_class"] > 0.85
    assert found["report"]["calibration"] is None
    assert found["changes"]
    assert run(["eval", str(folder), "--as", "loihi2", "--engine", "clock"]) == 2
    assert "--as runs the integer engine" in capsys.readouterr().err


def test_threads_do_not_change_the_evaluation(folder):
    one, two = (
        evaluate_as(folder, open_dataset("toy"), "loihi2", split="train", calibrate=False, threads=threads)
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(one.integer_result.logits, two.integer_result.logits)


def test_calibration_on_the_command_line(folder, capsys):
    out = folder / "cal.int.h5"
    words = ["eval", str(folder), "--data", "toy", "--as", "loihi2", "--delays", "clamp", "--decays", "mean", "--json"]
    assert run(words) == 0
    assert answer(capsys)["report"]["calibration"]["samples"] == 64
    words = ["quantize", str(folder), "--calibrate", "toy", "--samples", "8", "--out", str(out), "--json"]
    assert run(words) == 0
    found = answer(capsys)["report"]["calibration"]
    assert found["samples"] == 8
    assert found["same_class"] > 0.5
    assert IntegerNetwork.load(out).max_latency >= 1


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["export", "FILE", "--target", "lava", "--dry-run", "--clamp-delays"], "--clamp-delays: a dry run looks at"),
        (
            ["export", "FILE", "--target", "c99", "--dry-run", "--weight-bits", "16"],
            "--weight-bits: a dry run looks at",
        ),
        (["export", "FILE", "--target", "c99", "--samples", "3"], "--samples: only a check and --calibrate take"),
        (["export", "INTEGERS", "--target", "lava", "--scale", "layer"], "--scale: INTEGERS is in integers already"),
        (["export", "INTEGERS", "--target", "lava", "--calibrate", "toy"], "--calibrate: INTEGERS is in integers"),
        (["export", "INTEGERS", "--target", "lava", "--dry-run"], "looks at float networks, INTEGERS is in integers"),
        (["quantize", "FILE", "--samples", "3"], "--samples: only --calibrate takes samples"),
        (["eval", "FILE", "--no-calibrate"], "is about the integers of a chip; add --as PROFILE"),
        (["eval", "FILE", "--decays", "refuse"], "--decays: is about the integers of a chip"),
    ],
)
def test_options_that_would_do_nothing_are_refused(file, words, match, monkeypatch, capsys):
    integers = file.with_name("net.int.h5")
    quantize_network(Network.load(file), "loihi2")[0].save(integers)
    monkeypatch.chdir(file.parent)
    names = {"FILE": file.name, "INTEGERS": integers.name}
    before = sorted(file.parent.iterdir())
    assert run([names.get(word, word) for word in words]) == 2
    assert match.replace("INTEGERS", integers.name) in capsys.readouterr().err
    assert sorted(file.parent.iterdir()) == before


def test_a_network_file_may_have_any_name(file):
    plain = file.rename(file.with_name("net"))
    assert run(["quantize", str(plain)]) == 0
    assert IntegerNetwork.load(plain.with_name("net.loihi2.int.h5")).law == "loihi2"


def test_the_folder_of_a_run_on_a_grid_is_named_after_a_profile_file(folder, tmp_path, monkeypatch):
    mine = tmp_path / "profiles" / "mine.json"
    mine.parent.mkdir()
    mine.write_text((resources.files("snnsim.limits") / "loihi2.json").read_text())
    monkeypatch.chdir(tmp_path)
    words = ["train", "--from", str(folder), "--data", "toy", "--quantize", str(mine), "--epochs", "1", "--quiet"]
    assert run(words) == 0
    assert load_run(tmp_path / "runs" / "shd-dcls-mine-0").manifest


@pytest.mark.parametrize("note", ["x", -5, 1.5, [1], 10**12])
def test_notes_that_say_no_number_of_steps(file, note, capsys):
    path = Network.load(file).replace(notes={"tail_steps": note}).save(file.parent / "noted.snn.h5")
    before = sorted(file.parent.iterdir())
    for words in (
        ["quantize"],
        ["export", "--target", "lava"],
        ["export", "--target", "c99"],
        ["simulate", "--events", "toy"],
    ):
        assert run([words[0], str(path), *words[1:]]) == 2
        assert "network: notes['tail_steps']: expected" in capsys.readouterr().err
    assert sorted(file.parent.iterdir()) == before


def test_a_note_of_no_steps_is_none(file):
    path = Network.load(file).replace(notes={"tail_steps": None}).save(file.parent / "noted.snn.h5")
    assert run(["quantize", str(path)]) == 0
