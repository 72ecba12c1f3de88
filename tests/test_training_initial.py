"""The initial rate of a recipe: a network that would be silent fires, once, before the first update."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from snnsim.datasets.toy import make_toy
from snnsim.recipes import list_recipes, load_recipe
from snnsim.training import load_run, train
from snnsim.training.display import Display
from snnsim.training.health import SILENT
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

# The threshold stands for tiny weights: with it no neuron of the second layer, and hardly one of the first, fires.
DEAF = [
    "model.hidden=[16, 12]",
    "model.batch_norm=false",
    "model.neuron.v_threshold=40.0",
    "train.batch_size=16",
    "train.epochs=1",
]


def trainer(changes: list[str], seed: int = 0) -> Trainer:
    recipe = load_recipe("shd-lif", [*DEAF, *changes])
    return Trainer(recipe, prepare(recipe, make_toy(n_train=80, n_test=20), seed), seed)


def test_a_deaf_network_fires_from_the_first_batch_on(tmp_path: Path) -> None:
    data = make_toy(n_train=80, n_test=20)
    heard: dict[str, list[str]] = {}
    for rate in ("none", "0.06"):
        recipe = load_recipe("shd-lif", [*DEAF, f"model.initial_rate={rate}"])
        stream = io.StringIO()
        train(recipe, data, tmp_path / rate, callback=Display(stream))
        heard[rate] = stream.getvalue().splitlines()
    assert sum("is silent" in line for line in heard["none"]) == 2
    assert not any("scaled by" in line for line in heard["none"])
    assert load_run(tmp_path / "none").manifest["initial_rates"] == []
    assert not any("is silent" in line for line in heard["0.06"])
    assert [line.split(" before")[0] for line in heard["0.06"] if "scaled by" in line] == [
        f"hidden layer {index} scaled by {layer['factor']:.3g}"
        for index, layer in enumerate(load_run(tmp_path / "0.06").manifest["initial_rates"], start=1)
    ]
    run = load_run(tmp_path / "0.06")
    assert all(layer["before"] < SILENT for layer in run.manifest["initial_rates"])
    assert all(0.04 <= layer["after"] <= 0.09 for layer in run.manifest["initial_rates"])
    assert all(rate > 0.02 for rate in run.metrics[0]["rates"])


def test_tiny_weights_are_scaled_on_the_batch_that_is_trained_on_first() -> None:
    ours = trainer(["model.initial_rate=0.06", "model.neuron.v_threshold=1.0"])
    with torch.no_grad():
        for block in ours.model.blocks:
            block.connection.weight.mul_(1e-3)
            block.dropout = None
    ours.initialise()
    ours.begin_epoch()
    sums = ours.forward_backward(next(ours.batches.epoch(0)))
    rates = [value / sums["neuron_steps"] for value in sums["rates"]]
    assert rates == pytest.approx([layer.after for layer in ours.initial_rates], rel=1e-6)
    assert all(0.04 <= rate <= 0.09 for rate in rates)


def test_it_depends_on_the_seed_only_and_is_not_repeated() -> None:
    first, second, other = trainer(["model.initial_rate=0.06"]), trainer(["model.initial_rate=0.06"]), trainer([], 1)
    for item in (first, second, other):
        item.initialise()
    assert first.initial_rates == second.initial_rates
    weights = {name: value.clone() for name, value in first.model.state_dict().items()}
    assert all(torch.equal(value, weights[name]) for name, value in second.model.state_dict().items())
    assert other.initial_rates != first.initial_rates
    first.step = 1
    first.initialise()
    assert all(torch.equal(value, weights[name]) for name, value in first.model.state_dict().items())


def test_published_delay_recipes_keep_the_weights_as_drawn() -> None:
    targets = {name: load_recipe(name).model.initial_rate for name in list_recipes()}
    drawn = {name for name in targets if name.endswith("-dcls")} | {"shd-eventprop"}
    assert {name for name, target in targets.items() if target is None} == drawn


def test_a_recipe_that_fires_already_keeps_its_weights() -> None:
    recipe = load_recipe("spoken-digits")
    ours = Trainer(recipe, prepare(recipe, make_toy(n_train=80, n_test=20), 0), 0)
    before = {name: value.clone() for name, value in ours.model.state_dict().items()}
    ours.initialise()
    assert [layer.factor for layer in ours.initial_rates] == [1.0, 1.0]
    after = ours.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.endswith(".sigma"))
