"""The study of hardware targets on toy data: accuracies, targets, going on, refusals, the page."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from snnsim.cli.main import run as run_command
from snnsim.datasets import open_dataset
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export import TARGETS
from snnsim.limits import load_profile
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF
from snnsim.quantize import check
from snnsim.studies import hardware_run
from snnsim.studies.hardware import Sizes, energy_table, export_part
from snnsim.studies.hardware_page import accuracy_rows, hardware_page, hardware_text, target_rows
from snnsim.studies.hardware_run import reproduce_hardware
from snnsim.studies.hardware_xylo import XYLO, few_classes, spiking_readout
from snnsim.training import load_run

SMALL = Sizes(hidden=(8, 8), epochs=1, fine=1, samples=4, generated=False)
KEPT = ("c99", "lava", "nir", "xylo")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """One study with four targets, where Lava's interpreter has no Lava; what it returned and what it told."""
    folder = tmp_path_factory.mktemp("hardware")
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware_run, "TARGETS", {name: TARGETS[name] for name in KEPT})
        patch.setenv("SNNSIM_PYTHON_LAVA", "/nowhere/python")
        patch.setenv("SNNSIM_PYTHON_XYLO", "/nowhere/python")
        study = reproduce_hardware(open_dataset("toy"), folder, sizes=SMALL, told=told.append)
    return folder, study, told


def test_every_law_has_three_accuracies(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, study, _ = done
    assert [item["profile"] for item in study["accuracy"]] == ["loihi2", "fixed8"]
    for item in study["accuracy"]:
        assert item["n_samples"] == study["facts"]["test"] == 200
        assert all(0 <= item[key] <= 1 for key in ("float", "before", "after", "fine_float"))
        note = load_run(folder / f"{item['profile']}-0").network().notes["quantize"]
        assert note["profile"] == item["profile"]
        purposes = [entry["purpose"] for entry in load_run(folder / f"{item['profile']}-0").manifest["test_runs"]]
        assert len(purposes) == 2  # the end of the training, and the integers
    assert study["accuracy"][0]["float"] == study["accuracy"][1]["float"]


def test_targets_are_written_proven_and_counted(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, study, _ = done
    found = {item["target"]: item for item in study["targets"]}
    assert tuple(found) == KEPT
    for name in ("c99", "nir"):
        assert found[name]["mismatches"] == 0
        assert found[name]["compared"] > 1000
        assert found[name]["caught"] == found[name]["planted"] == 3
        assert not found[name]["proven"]  # four samples are too few
        assert (folder / "targets" / name / found[name]["files"][0]).is_file()
    assert found["c99"]["network"] == "trained on the grid of fixed8"
    assert found["c99"]["table_bytes"] > 0
    assert found["lava"]["network"] == "trained on the grid of loihi2"
    assert "/nowhere/python" in found["lava"]["missing"]
    assert found["lava"]["energy_table"] == "loihi"
    assert found["lava"]["latency"] == 3
    assert found["nir"]["energy"] > 0
    assert found["xylo"]["n_test"] == 200
    assert 0 <= found["xylo"]["integer_accuracy"] <= 1


def test_a_second_call_does_only_what_is_missing(
    done: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study, told = done
    folder = Path(copytree(done[0], tmp_path / "copy"))
    assert told[:3] == ["training float-0", "training loihi2-0", "training fixed8-0"]
    monkeypatch.setattr(hardware_run, "TARGETS", {name: TARGETS[name] for name in ("c99", "lava", "nir")})
    monkeypatch.setenv("SNNSIM_PYTHON_LAVA", "/nowhere/python")
    again: list[str] = []
    second = reproduce_hardware(open_dataset("toy"), folder, sizes=SMALL, told=again.append)
    assert again == ["target lava"]  # its program was missing, it may be there now
    assert second["accuracy"] == study["accuracy"]
    with pytest.raises(InputError, match="holds a study of other data, sizes or another run"):
        reproduce_hardware(open_dataset("toy"), folder, sizes=Sizes())


def test_rows_sentences_and_page(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, study, _ = done
    page = (folder / "report.html").read_text(encoding="utf-8")
    for word in (
        "loihi2, seed 0",
        "equal, but too little compared to count",
        "weights-fixed8",
        "What changed on the way",
    ):
        assert word in page
    assert "<script" not in page
    assert json.loads((folder / "study.json").read_text(encoding="utf-8")) == json.loads(json.dumps(study))
    assert [row[0] for row in accuracy_rows(study)] == ["loihi2, seed 0", "fixed8, seed 0"]
    rows = {row[0]: row for row in target_rows(study)}
    assert rows["lava"][1].startswith("not proven: Lava")
    assert rows["lava"][2] == "3 steps"
    other = json.loads(json.dumps(study))
    other["accuracy"][0] |= {"float": 0.9, "after": 0.895}
    other["accuracy"][1] |= {"float": 0.9, "after": 0.88}
    other["accuracy"] += [dict(other["accuracy"][0], seed=1, after=0.905)]
    lines = hardware_text(other)
    assert lines[0].startswith("loihi2: after fine-tuning the integers are within one point of float (+0.00 points")
    assert lines[1].startswith(
        "fixed8: after fine-tuning the integers are not in every seed within one point of float (-2.00"
    )
    assert accuracy_rows(other)[2][0] == "loihi2, mean"
    refused = {"target": "lava", "refused": "no room", "seconds": 1.0, "title": "x", "network": "float"}
    other["targets"] = [refused]
    other["accuracy"] = [{"profile": "loihi2", "seed": 0, "refused": "no room"}]
    assert hardware_text(other)[-1] == "cannot hold the network: lava"
    assert "cannot hold it: no room" in hardware_page(other, {"float": load_run(folder / "float-0").network()})


def test_a_target_that_cannot_hold_a_network_says_why(tmp_path: Path) -> None:
    network = Network(
        populations=(Population("a", 2, LIF(tau_mem=0.02, reset="subtract")),),
        projections=(Projection("in", "a", [[1.0, 0.5], [0.2, 0.9]], delay=0.01),),
        inputs=(Input("in", 2),),
        readout=None,
        dt=0.005,
    )
    events = Events.from_lists([[0.0, 0.01]], [[0, 1]], n_units=2, duration=0.1)
    found = export_part("lava", network, events, tmp_path)
    assert found.keys() == {"target", "title", "profile", "refused"}
    assert "reset" in found["refused"]


def test_the_network_for_xylo_fits_it(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    network = spiking_readout(load_run(done[0] / "xylo-0").network(), 0.3)
    assert check(network, XYLO).fits
    assert network.readout is not None
    assert (network.readout.variable, network.readout.reduce) == ("spikes", "count")
    assert network.population("readout").size <= load_profile(XYLO).max_outputs
    with pytest.raises(InputError, match="expected CubaLI, got LI"):
        spiking_readout(load_run(done[0] / "float-0").network(), 0.3)


def test_few_classes_keeps_the_first() -> None:
    data = open_dataset("toy")
    small = few_classes(data, 3)
    assert small.n_classes == 3
    assert small.test is not None
    assert data.test is not None
    assert len(small.test) == int((data.test.labels < 3).sum())
    assert small.digest != data.digest
    assert few_classes(data, 8) is data


def test_energy_tables() -> None:
    assert [energy_table(law) for law in (None, "loihi2", "fixed")] == ["cmos45-float32", "loihi", "cmos45-int32"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["hardware", "--data", "toy", "--data", "toy"], "expected one data set, got 2"),
        (["hardware", "--epochs", "2"], "is a study, which has no --epochs"),
        (["lnp", "--python", "lava=x"], "--python is of the study hardware"),
        (["spoken-digits", "--run", "runs/x"], "--run is of the study hardware"),
        (["hardware", "--python", "nest=x"], "expected NAME=PATH with one of"),
    ],
)
def test_refusals_of_the_command(words: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["reproduce", *words]) != 0
    assert match in capsys.readouterr().err


def test_one_run_has_one_seed(done: tuple[Path, dict[str, Any], list[str]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--run names one network"):
        reproduce_hardware(open_dataset("toy"), tmp_path, seeds=2, run=load_run(done[0] / "float-0"))
