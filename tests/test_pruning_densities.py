"""Budgets of layers: exact totals, Erdos-Renyi densities, layers that would need more than they have."""

import numpy as np
import pytest
import torch

from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.nn.formulation import maskable_layers
from snnsim.pruning.densities import Distribution, layer_budgets
from snnsim.recipes import load_recipe
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

SHAPES: dict[str, tuple[int, ...]] = {"layer1": (256, 70, 3), "layer2": (256, 256, 3), "readout": (10, 256, 3)}
ER: tuple[Distribution, ...] = ("erdos-renyi", "erdos-renyi-kernel")


@pytest.mark.parametrize("distribution", ER)
def test_the_sum_is_exact_and_densities_have_the_published_proportions(distribution: Distribution) -> None:
    size = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    for keep in (0.01, 0.033, 0.05, 0.1, 0.37):
        found = layer_budgets(SHAPES, keep, distribution)
        assert sum(found.values()) == round(keep * sum(size.values()))
        free = [name for name in SHAPES if found[name] < size[name]]
        extra = 1 if distribution == "erdos-renyi-kernel" else 0
        wanted = {name: (sum(SHAPES[name][:2]) + 3 * extra) / size[name] for name in free}
        scale = {name: found[name] / size[name] / wanted[name] for name in free}
        assert max(scale.values()) / min(scale.values()) - 1 < 3 / min(found.values())
        assert len(free) == (2 if keep == 0.37 else 3)  # the readout would need more than it has


def test_a_layer_never_keeps_more_than_it_has_left() -> None:
    shapes = {"a": (40, 40), "b": (4, 40), "c": (4, 4)}
    for keep in np.linspace(0.03, 1, 60):
        found = layer_budgets(shapes, float(keep), "erdos-renyi")
        assert sum(found.values()) == round(float(keep) * 1776)
        assert all(0 < found[name] <= np.prod(shape) for name, shape in shapes.items())
    left = {"a": 100, "b": 20, "c": 16}
    assert sum(layer_budgets(shapes, 0.05, "erdos-renyi", left).values()) == round(0.05 * 1776)
    assert layer_budgets(shapes, 0.9, "erdos-renyi", left) == left
    assert layer_budgets(shapes, 0.5) == {"a": 800, "b": 80, "c": 8}
    with pytest.raises(InputError, match="would leave b no synapse of 2; raise keep"):
        layer_budgets({"a": (100, 100), "b": (1, 2)}, 0.0002, "erdos-renyi")


@pytest.mark.parametrize(
    "prune", [("magnitude", "rounds=3"), ("rigl", "interval=3"), ("synflow", "rounds=5"), ("snip",)]
)
def test_runs_keep_exactly_the_budget_of_all_layers(prune: tuple[str, ...]) -> None:
    sizes = ["model.hidden=[16, 12]", "train.batch_size=16", "train.epochs=4", "data.channels=20", "model.dropout=0.0"]
    more = [f"method={prune[0]}", "keep=0.3", "distribution=erdos-renyi", "layers=['layer1', 'layer2', 'readout']"]
    recipe = load_recipe("shd-dcls", [*sizes, *(f"prune.{item}" for item in (*more, *prune[1:]))])
    trainer = Trainer(recipe, prepare(recipe, make_toy(n_train=48, n_test=4), 0), 0)
    layers = maskable_layers(trainer.model)
    total = sum(layer.weight.numel() for layer in layers.values())
    last = 0
    for epoch in range(3 if prune[0] == "magnitude" else 1):
        trainer.epoch = epoch
        trainer.begin_epoch()
        trainer.prune()
        count = {name: int(torch.count_nonzero(layer.mask)) for name, layer in layers.items() if layer.mask is not None}
        share = 0.3 ** ((epoch + 1) / 3) if prune[0] == "magnitude" else 0.3
        assert sum(count.values()) == round(share * total)
        last = count["layer1"]
    density = {name: layer.density for name, layer in layers.items()}
    assert density["readout"] > density["layer2"] > density["layer1"]
    for batch in trainer.batches.epoch(0):
        trainer.train_batch(batch)
    assert int(layers["layer1"].mask.sum()) == last


def test_one_budget_and_a_distribution_exclude_each_other() -> None:
    with pytest.raises(InputError, match="distribution 'erdos-renyi' gives every layer its budget; use scope 'layer'"):
        load_recipe(
            "shd-lif",
            ["prune.method=magnitude", "prune.keep=0.1", "prune.scope=global", "prune.distribution=erdos-renyi"],
        )
    with pytest.raises(InputError, match="method 'activity' has no 'distribution'"):
        load_recipe("shd-lif", ["prune.method=activity", "prune.keep=0.1", "prune.distribution=erdos-renyi"])


def test_shares_count_what_a_layer_began_with() -> None:
    shapes, began = {"a": (40, 8), "b": (40, 40)}, {"a": 120, "b": 160}
    found = layer_budgets(shapes, 0.5, "erdos-renyi", began, began)
    assert sum(found.values()) == 140
    assert all(found[name] < began[name] for name in began)
    assert sum(layer_budgets(shapes, 0.5, "erdos-renyi", began).values()) == 280  # without it nothing would go
