"""Every recipe that comes with the package learns the toy: nobody starts from a silent network."""

from __future__ import annotations

from pathlib import Path

import pytest

from snnsim.datasets.toy import make_toy
from snnsim.recipes import list_recipes, load_recipe
from snnsim.training import train

# The toy has 320 training samples and the recipes are made for thousands: smaller batches give a comparable number
# of updates. Nothing else of a recipe is changed in the slow test; the quick one also makes its layers narrower.
FEWER = ["train.batch_size=32", "train.epochs=8"]


ELSEWHERE = {"shd-eventprop", "digits-meta", "meta-study"}
"""The published weights of the first suit 700 channels and leave the toy silent; test_training_eventprop.py has it
learn, test_training_meta.py the second, which is for images, and test_studies.py the third, one plain layer."""

ON_CHANNELS = [name for name in list_recipes() if name not in ELSEWHERE and load_recipe(name).model.hidden]
"""Recipes for maps of pixels learn in test_training_conv.py, those of pools in test_training_pool.py."""


def learn(name: str, changes: list[str], out: Path) -> float:
    recipe = load_recipe(name, changes)
    warnings: list[str] = []
    result = train(
        recipe,
        make_toy(),
        out,
        callback=lambda kind, facts: warnings.append(facts["text"]) if kind == "warning" else None,
    )
    assert warnings == []
    accuracy = result.results["best-validation"]["valid_accuracy"]
    assert isinstance(accuracy, float)
    return accuracy


@pytest.mark.parametrize("name", ON_CHANNELS)
def test_recipe_learns_the_toy(name: str, tmp_path: Path) -> None:
    layers = len(load_recipe(name).model.hidden)
    assert learn(name, [*FEWER, f"model.hidden={[48] * layers}"], tmp_path / "run") >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CHANNELS)
def test_recipe_learns_the_toy_at_full_width(name: str, tmp_path: Path) -> None:
    assert learn(name, FEWER, tmp_path / "run") >= 0.95
