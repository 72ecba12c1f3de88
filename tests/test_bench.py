"""The comparison with other libraries: every side really runs, what is missing is named, the figures are consistent."""

import json
import mmap
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnsim.bench.pairs import Comparison, Side, compare, format_comparison
from snnsim.bench.products import DENSITIES, BreakEven, format_break_evens, measure_break_evens
from snnsim.bench.tasks import TASKS, Task, choose_tasks
from snnsim.bench.worker import peak_rise
from snnsim.cli.main import run
from snnsim.datasets import open_dataset
from snnsim.datasets.heidelberg_write import write_heidelberg
from snnsim.errors import InputError

SMALL = {
    "delay": replace(TASKS["shd-delay"], sizes=(6, 8, 8, 3), n_steps=12, batch=3, n_delays=5, sigma=2.0),
    "evaluate": replace(TASKS["shd-delay-eval"], sizes=(6, 8, 8, 3), n_steps=12, batch=3, n_delays=5),
    "plain": replace(
        TASKS["plain"], sizes=(6, 8, 8, 3), n_steps=12, batch=3, peers=("spikingjelly", "snntorch", "norse")
    ),
    "recurrent": replace(
        TASKS["recurrent"], sizes=(6, 8, 3), n_steps=12, batch=3, peers=("spikingjelly", "snntorch", "norse")
    ),
    "layer": replace(TASKS["layer"], sizes=(6, 8), n_steps=12, batch=3, peers=("spikingjelly", "snntorch", "norse")),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_side_runs_and_is_measured(name: str) -> None:
    for library in ("spikingjelly", "snntorch", "norse", "DCLS"):
        pytest.importorskip(library)
    comparison = compare(SMALL[name], rounds=2, threads=1)
    assert [side.name for side in comparison.sides] == ["ours", *SMALL[name].peers]
    assert [side.missing for side in comparison.sides] == [""] * len(comparison.sides)
    for side in comparison.sides:
        assert len(side.seconds) == 2
        assert min(side.seconds) > 0
        assert "torch" in side.versions
    text = format_comparison(comparison, 1e9)
    assert text.count("x ours") == len(SMALL[name].peers)
    assert json.loads(json.dumps(comparison.to_json()))["sides"][1]["ratio"] > 0


def test_a_missing_peer_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    task = replace(SMALL["layer"], peers=("spyx", "norse"))
    elsewhere = tmp_path / "python"
    elsewhere.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # an interpreter without any library
    elsewhere.chmod(0o755)
    comparison = compare(task, rounds=1, threads=1, pythons={"spyx": str(elsewhere), "norse": str(elsewhere)})
    assert [side.name for side in comparison.sides] == ["ours", "spyx", "norse"]
    assert "No module named" in comparison.sides[1].missing
    assert "not measured: " in format_comparison(comparison)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            'echo \'{"memory_rise": 1, "versions": {}}\'; read x; echo \'{"seconds": 0.1}\'; read x; exit 1',
            "ended without",
        ),
        ('echo \'{"memory_rise": 1, "versions": {}}\'; read x; exit 1', "ended without"),
        ("echo '{\"hello\": 1}'; read x", "which is not memory_rise and versions"),
        ("echo hello", "it answered 'hello'"),
    ],
)
def test_a_peer_that_fails_on_the_way_is_named_once(words: str, sentence: str, tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/bash\n{words}\n")
    fake.chmod(0o755)
    comparison = compare(replace(SMALL["layer"], peers=("spyx",)), rounds=2, threads=1, pythons={"spyx": str(fake)})
    assert [side.name for side in comparison.sides] == ["ours", "spyx"]
    assert sentence in comparison.sides[1].missing
    assert len(comparison.to_json()["sides"]) == 2
    assert "x ours" not in format_comparison(comparison)


def test_a_peer_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_bytes(b"\0\1x")
    fake.chmod(0o755)
    comparison = compare(replace(SMALL["layer"], peers=("spyx",)), rounds=1, threads=1, pythons={"spyx": str(fake)})
    assert "cannot be started" in comparison.sides[1].missing


def test_ratios_are_round_by_round() -> None:
    task = SMALL["plain"]
    sides = (Side("ours", (1.0, 2.0), 1 << 20, {"snnsim": "1"}), Side("norse", (3.0, 4.0), 4 << 20, {"norse": "1"}))
    comparison = Comparison(task, sides)
    assert comparison.ratios(sides[1]) == [3.0, 2.0]
    assert "2.50 x ours (2.00-3.00), ours takes 0.25 of its memory" in format_comparison(comparison)


def test_the_least_operations_of_a_task() -> None:
    plain = Task("a", "", "plain", "train", (10, 20, 5), 100, 4, 1.0)
    assert plain.least_operations() == 2 * 100 * 4 * (2 * 10 * 20 + 20 * 5)
    assert replace(plain, rate=0.1).least_operations() == pytest.approx(2 * 100 * 4 * (0.2 * 10 * 20 + 20 * 5))
    evaluation = replace(plain, kind="delay", what="evaluate", n_delays=1)
    assert evaluation.least_operations() == 2 * 100 * 4 * (10 * 20 + 20 * 5)
    assert TASKS["shd-delay"].least_operations() == pytest.approx(35.2e9, rel=0.01)


def test_resident_memory_is_sampled() -> None:
    fresh = mmap.mmap(-1, 32 << 20)  # pages that no allocator has touched before
    assert peak_rise(lambda: fresh.write(b"x" * (32 << 20)), steps=1) > 24 << 20
    fresh.close()


def test_tasks_are_chosen_by_kind_of_work() -> None:
    assert [task.name for task in choose_tasks([], "evaluate")] == ["shd-delay-eval"]
    with pytest.raises(InputError, match="expected one of shd-delay, "):
        choose_tasks(["cuba"], "train")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "nonsense"], "expected one of shd-delay"),
        (["infer", "--python", "spyx"], "expected PEER=PATH"),
        (["train", "plain", "--python", "spyx=/tmp"], "expected PEER=PATH"),
        (["epoch", "--data", "/nowhere/x_train.h5"], "expected a plain .h5 file"),
        (["epoch", "--data", "spoken-digits"], "expected a plain .h5 file"),
        (["train", "plain", "--python", "spyx=/nowhere/python"], "expected PEER=PATH"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *words]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert sentence in caught.err
    assert caught.err.strip().count("\n") == 0


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    toy = open_dataset("toy")
    path = tmp_path / "x_train.h5"
    write_heidelberg(path, toy.train.subset(np.arange(12)))
    return path


def test_an_epoch_reads_the_same_file_on_both_sides(digits: Path) -> None:
    for library in ("spikingjelly", "DCLS", "h5py"):
        pytest.importorskip(library)
    task = replace(TASKS["shd-delay-epoch"], data=str(digits), sizes=(8, 8), batch=5, n_delays=5)
    comparison = compare(task, rounds=2, threads=1)
    assert [side.missing for side in comparison.sides] == ["", ""]
    assert min(comparison.sides[0].seconds) > 0
    assert "floor" not in format_comparison(comparison, 1e9)


def test_memory_is_measured_without_rounds() -> None:
    pytest.importorskip("norse")
    comparison = compare(replace(SMALL["layer"], peers=("norse",)), rounds=0, threads=1)
    assert [side.seconds for side in comparison.sides] == [(), ()]
    text = format_comparison(comparison, 1e9)
    assert " ms" not in text
    assert "ours takes " in text
    assert set(comparison.to_json()["sides"][1]) == {"side", "versions", "missing", "memory_rise"}


def test_where_events_and_dense_products_take_equally_long() -> None:
    rising = BreakEven(1, 1, (0.2, 0.4, 0.6, 0.8, 0.9, 1.1, 1.2, 1.5))
    assert rising.density == pytest.approx(0.225)
    assert BreakEven(1, 1, (0.1,) * len(DENSITIES)).density == DENSITIES[-1]
    (row,) = measure_break_evens(1, [(40, 30)], rows=50, rounds=1)
    assert len(row.ratios) == len(DENSITIES)
    assert min(row.ratios) > 0
    assert "40 -> 30" in format_break_evens([row])
    assert json.loads(json.dumps(row.to_json()))["n_in"] == 40
