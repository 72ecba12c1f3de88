"""The study of learned neuron parameters: statistics, equal budgets, runs, going on, the page, the command."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnsim.datasets.sources import make_sources
from snnsim.errors import InputError
from snnsim.studies.meta_neuron import FEATURES, Cell, Material, Sizes, cells, local_layer, material, run_cell, settings
from snnsim.studies.meta_neuron_backprop import study_recipe
from snnsim.studies.meta_neuron_page import accuracy_rows, comparisons, study_page, study_text
from snnsim.studies.meta_neuron_run import reproduce_meta_neuron
from snnsim.studies.statistics import paired_difference, summary


@pytest.fixture(scope="module")
def small() -> Material:
    made = make_sources("rates", n_train=40, n_test=30, n_steps=100, n_units=8)
    sizes = Sizes(dt=0.001, channels=8, per_class=2, backprop_epochs=2, stdp_epochs=1, tempotron_epochs=1, batch=16)
    return material(made, sizes)


def test_intervals_are_those_of_student() -> None:
    found = summary([1.0, 2.0, 4.0, 5.0])
    spread = math.sqrt(10.0 / 3) / 2
    assert found.mean == 3.0
    assert found.high - found.mean == pytest.approx(3.182446 * spread, rel=1e-6)  # t table: 0.975, 3 degrees
    difference = paired_difference([3.0, 4.0, 5.0], [1.0, 2.0, 3.0])
    assert (difference.mean, difference.low, difference.high) == (2.0, 2.0, 2.0)
    assert difference.excludes_zero
    assert not summary([0.7]).excludes_zero
    assert not summary([-1.0, 1.0, 0.5]).excludes_zero
    with pytest.raises(InputError, match="expected the same seeds on both sides, got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="finite numbers of at least one seed"):
        summary([])


def test_every_combination_has_the_same_budget() -> None:
    every = cells()
    assert len({cell.name for cell in every}) == len(every) == 3 * (1 + 3 * 2)
    assert {len(settings(cell)) for cell in every if cell.rule != "none"} == {4}
    assert {len(settings(cell)) for cell in every if cell.rule == "none"} == {1}


def test_recipes_differ_only_in_what_is_compared(small: Material) -> None:
    fixed = study_recipe(Cell("meta", "backprop", False), small, {"gain": 1.0}).to_dict()
    learned = study_recipe(Cell("meta", "backprop", True), small, {"gain": 1.0, "own": 1.0}).to_dict()
    assert learned["model"]["neuron"].pop("learn")
    assert learned["model"]["neuron"].pop("learn_per") == "neuron"
    for name in ("learn", "learn_per"):
        fixed["model"]["neuron"].pop(name, None)
    assert learned == fixed


@pytest.mark.parametrize("neuron", ["lif", "meta", "levy-baxter"])
@pytest.mark.parametrize("rule", ["none", "stdp", "tempotron", "backprop"])
def test_a_run_is_the_same_twice_and_learns_what_it_says(
    neuron: Any, rule: Any, small: Material, tmp_path: Path
) -> None:
    cell = Cell(neuron, rule, rule != "none")
    setting = settings(cell)[-1]
    one, two = (run_cell(cell, small, setting, 3, tmp_path) for _ in range(2))
    assert one["accuracy"] == two["accuracy"]
    assert one["rate"] == two["rate"]
    assert 0 < one["rate"] < 500
    assert set(one["accuracy"]) == {"logistic", "class-mean"}
    assert all(0 <= one["accuracy"]["logistic"][name] <= 1 for name in FEATURES)
    assert list(tmp_path.iterdir()) == []
    if rule in ("stdp", "tempotron"):
        fixed, learned = (local_layer(Cell(neuron, rule, own), small, small.train, setting, 0) for own in (False, True))
        start = learned.v_threshold.copy()
        for layer in (fixed, learned):
            layer.fit(small.train, 2)
        assert np.array_equal(fixed.v_threshold, start)
        assert not np.array_equal(learned.v_threshold, start)


def test_first_weights_fire_near_the_wanted_rate(small: Material) -> None:
    layer = local_layer(Cell("lif", "none", False), small, small.train, {"gain": 0.0}, 1)
    assert layer.rates(small.train).mean() == pytest.approx(small.sizes.rate, rel=0.3)


CHOSEN = [Cell("lif", "none", False), Cell("lif", "stdp", False), Cell("lif", "stdp", True)]


def test_a_study_goes_on_where_it_stopped_and_does_not_depend_on_processes(small: Material, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = reproduce_meta_neuron(
        [small], tmp_path / "a", seeds=2, chosen=CHOSEN, jobs=2, told=lambda done, total, _: told.append((done, total))
    )
    assert told[-1] == (14, 14)  # two combinations try four settings, three run two seeds
    path = tmp_path / "a" / "runs.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:9]) + "\n" + lines[9][:40])  # stopped in the middle of a line
    told.clear()
    again = reproduce_meta_neuron(
        [small], tmp_path / "a", seeds=2, chosen=CHOSEN, jobs=1, told=lambda done, total, _: told.append((done, total))
    )
    assert told[0] == (10, 14)
    for run, other in zip(first["runs"], again["runs"], strict=True):
        assert run["accuracy"] == other["accuracy"]
    assert first["chosen"] == again["chosen"]
    tuned = [json.loads(line) for line in path.read_text().splitlines() if '"tuning": true' in line]
    assert {run["seed"] for run in tuned} == {1000}
    page = (tmp_path / "a" / "report.html").read_text()
    assert "own parameters learned, against fixed" in page
    assert "input channels themselves" in page
    bigger = material(make_sources("rates", n_train=40, n_test=30, n_steps=100, n_units=8), Sizes(dt=0.001))
    with pytest.raises(InputError, match="of other sizes; choose another --out"):
        reproduce_meta_neuron([bigger], tmp_path / "a", seeds=2, chosen=CHOSEN)
    with pytest.raises(InputError, match="expected at least 2 for an interval"):
        reproduce_meta_neuron([small], tmp_path / "b", seeds=1)


def made_result() -> dict[str, Any]:
    """Two seeds of two combinations, the learned one better by 0.1 for rates and equal on average for the rest."""
    runs = []
    for intrinsic in (False, True):
        for seed in range(3):
            shift = 0.1 * intrinsic
            odd = 0.2 * (seed - 1) * intrinsic
            values = {"rate": 0.5 + 0.01 * seed + shift, "lzc": 0.6 + odd, "both": 0.6}
            cell = asdict(Cell("meta", "backprop", intrinsic))
            accuracy = {"logistic": values, "class-mean": values}
            runs.append({"data": "made", "cell": cell, "seed": seed, "accuracy": accuracy, "seconds": 1.0, "rate": 9.0})
    for run in runs:
        run["lzc_milliseconds"] = 0.1
    facts = {
        "name": "made",
        "classes": 2,
        "train": 8,
        "held_out": 2,
        "test": 4,
        "channels": 3,
        "neurons": 4,
        "dt": 0.001,
    }
    own = {rule: dict.fromkeys(FEATURES, 0.25) for rule in ("logistic", "class-mean")}
    chosen = {f"made {Cell('meta', 'backprop', own).name}": {"gain": 1.0} for own in (False, True)}
    return {"seeds": 3, "data": [facts], "inputs": {"made": own}, "chosen": chosen, "runs": runs}


def test_only_what_excludes_zero_is_claimed() -> None:
    result = made_result()
    found = {(what, name): interval for _, what, name, interval in comparisons(result)}
    what = "MetaNeuron, backprop: own parameters learned, against fixed"
    assert found[what, "rate"].low == pytest.approx(0.1)
    assert found[what, "lzc"].mean == pytest.approx(0.0)
    assert not found[what, "lzc"].excludes_zero
    assert (
        study_text(result)
        .splitlines()[0]
        .startswith("own parameters learned, against fixed: 1 of 3 differences lie above")
    )
    rows = accuracy_rows(result, "made", "logistic")
    assert rows[0] == ("input channels themselves", "25.0", "25.0", "25.0")
    assert rows[1][1].startswith("51.0 (")
    page = study_page(result)
    assert page.count("<svg") == 1
    assert "excludes zero" in page


def test_a_study_takes_no_recipe_changes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from snnsim.cli.main import run

    assert run(["reproduce", "meta-neuron", "--epochs", "3", "--out", str(tmp_path / "x")]) == 2
    assert "is a study, which has no --epochs" in capsys.readouterr().err
    assert run(["reproduce", "shd-dcls", "--data", "toy", "--data", "toy"]) == 2
    assert "expected one data set, got 2" in capsys.readouterr().err
    assert run(["reproduce", "meta-neuron", "--data", "sources:nothing", "--out", str(tmp_path / "x")]) == 2
    assert "set of sources 'nothing' is not known" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
