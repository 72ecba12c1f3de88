"""The `snnsim data` commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from snnsim.cli.main import run
from snnsim.datasets import open_dataset
from snnsim.datasets.heidelberg import write_heidelberg
from snnsim.events import Events


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def folder(home: Path) -> Path:
    for split, speakers in (("train", [0, 1]), ("test", [1, 2])):
        events = Events.from_lists(
            [[0.1, 0.25], [0.0]], [[3, 1], [7]], 8, [0, 1], speakers=speakers, class_names=("yes", "no")
        )
        write_heidelberg(home / f"tiny_{split}.h5", events)
    return home


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["data", *words]) == 0
    return capsys.readouterr().out


def test_ls_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "ls")
    for name in ("spoken-digits", "toy", "snnsim data get shd", "ssc", "gsc", "cache: 0 files"):
        assert name in text
    value = json.loads(said(capsys, "ls", "--json"))
    builtin = ["spoken-digits", "digits", "sequential-digits", "sequential-digits-pixels", "toy"]
    assert [row["name"] for row in value["datasets"]] == [*builtin, "shd", "ssc", "gsc", "fsdd"]


def test_info_shows_what_a_data_set_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = folder(tmp_path / "tiny")
    text = said(capsys, "info", str(home))
    assert "tiny: 2 classes, 8 channels" in text
    assert "classes: yes, no" in text
    assert "train  2 samples, events a sample 2 (1 to 2), 0.126 s (at most 0.251), 2 speakers" in text
    assert "speakers only in test: 2" in text
    value = json.loads(said(capsys, "info", str(home), "--json"))
    assert value["n_samples"] == 4
    assert value["parts"]["test"]["speakers"] == [1, 2]
    assert value["parts"]["train"]["class_counts"] == [1, 1]
    assert value["unseen_test_speakers"] == [2]
    assert value["digest"] == open_dataset(home).digest


def test_convert_writes_files_that_open_as_the_same_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = folder(tmp_path / "tiny")
    text = said(capsys, "convert", str(home), "out", "--name", "copy", "--units", "9")
    assert text.splitlines()[-1] == "use it with --data out"
    copy = open_dataset("out/copy_train.h5")
    assert copy.train == open_dataset(home).train.widen(9)
    value = json.loads(said(capsys, "convert", str(home), "out", "--json"))
    assert value["files"] == ["out/tiny_train.h5", "out/tiny_test.h5"]
    assert value["n_samples"] == 4


def test_convert_sorts_on_request_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train/a", "train/b"):
        (tmp_path / "events" / part).mkdir(parents=True)
        (tmp_path / "events" / part / "1.csv").write_text("t,x\n5,1\n3,0\n")
    assert run(["data", "convert", "events", "out"]) == 2
    caught = capsys.readouterr().err
    assert "times that descend" in caught
    assert caught.count("\n") == 1
    assert not (tmp_path / "out").exists()
    said(capsys, "convert", "events", "out", "--sort")
    assert np.allclose(open_dataset("out/events_train.h5").train[0].times, [0, 2e-6])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["info", "nothing"], "data set 'nothing' is not known; known names: spoken-digits, digits, sequential-digits"),
        (["info", "none/a.h5"], "none/a.h5: is not there; is the path right?"),
        (["info", "bad.h5"], "bad.h5: is not an HDF5 file"),
        (["get", "mnist"], "known: shd, ssc, gsc"),
        (["convert", "bad.h5", "out"], "is not an HDF5 file"),
        (["convert", "toy"], "Missing argument 'out'"),
        (["convert", "tonic:Nothing", "out"], "tonic has no data set 'Nothing'"),
        (["guess"], "No such command 'guess'"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.h5").write_bytes(b"nonsense")
    if any("tonic" in word for word in words):
        pytest.importorskip("tonic")
    assert run(["data", *words]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert sentence in caught.err
    assert caught.err.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("ls", "info", "get", "convert"):
        assert f"Example: snnsim data {command}" in said(capsys, command, "-h")


def test_the_comparison_with_tonic_measures_both_on_the_same_file(tmp_path: Path) -> None:
    pytest.importorskip("tonic")
    from snnsim.datasets.bench_data import bench_data, format_comparisons

    rng = np.random.default_rng(0)
    times = [np.sort(rng.random(500)) for _ in range(4)]
    units = [rng.integers(0, 700, 500) for _ in range(4)]
    events = Events.from_lists(times, units, 700, [0, 1, 0, 1], class_names=("a", "b"), speakers=[0, 0, 1, 1])
    write_heidelberg(tmp_path / "a.h5", events)
    rows = bench_data(tmp_path / "a.h5", rounds=3, samples=3)
    assert [row.what for row in rows] == ["events", "frames"]
    for row in rows:
        assert 0 < row.low <= row.ratio <= row.high
        assert (row.rounds, row.samples) == (3, 3)
    assert "rounds of 3 samples" in format_comparisons(rows)
