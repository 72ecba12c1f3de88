"""Training on a target's grid: the integers that were trained are those that the quantiser finds, and runs resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.datasets import open_dataset
from snnsim.errors import InputError
from snnsim.nn.quantised import Grid, on_grid
from snnsim.quantize import quantize
from snnsim.recipes import Recipe, recipe_from_dict
from snnsim.training import load_run, train
from snnsim.training.checkpoint import load_tensors
from snnsim.training.interrupt import TrainingInterrupted


def recipe(**changes: Any) -> Recipe:
    model: dict[str, Any] = {
        "hidden": [12, 12],
        "connection": {"max_delay": 0.04, "learn_delay": True},
        "neuron": {"tau_mem": 0.02},
        "readout": {"reduce": "mean"},
    }
    model |= changes.pop("model", {})
    data = {"dt": 0.005, "channels": None, "align": "zero"}
    spec = {"epochs": 2, "batch_size": 20, "learning": "bptt", "weights": {"lr": 0.01}, "positions": {"lr": 0.01}}
    spec |= changes.pop("train", {})
    return recipe_from_dict({"name": "tiny", "summary": "x", "data": data, "model": model, "train": spec, **changes})


TARGET = {"quantize": {"profile": "loihi2", "samples": 16}}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised") / "first"
    train(recipe(), open_dataset("toy"), folder)
    return folder


def test_a_grid_rounds_clips_and_gives_back() -> None:
    weight = torch.nn.Parameter(torch.tensor([[0.31, -0.5], [9.0, -9.0]]))
    grid = Grid(weight, torch.tensor([[0.1], [0.5]]).double(), torch.zeros(1, 1).double(), 2, -8, 6)
    assert grid.integers().tolist() == [[4.0, -4.0], [6.0, -8.0]]  # 3.1 -> 4 (even), -5 -> -4 (ties to even twos)
    before = weight.detach().clone()
    with on_grid([grid]):
        assert torch.equal(weight.detach(), torch.tensor([[0.4, -0.4], [3.0, -4.0]]))
        weight.grad = torch.ones_like(weight)
    assert torch.equal(weight.detach(), before)
    grid.clamp_()
    assert torch.equal(weight.detach(), torch.tensor([[0.31, -0.5], [3.0, -4.0]]))


@pytest.mark.parametrize("kind", ["lif", "cubalif"])
def test_the_trained_integers_are_those_of_the_quantiser(first: Path, tmp_path: Path, kind: str) -> None:
    start, model = first, {}
    if kind == "cubalif":
        model = {
            "neuron": {"kind": "cubalif", "tau_mem": 0.02, "tau_syn": 0.01, "learn": ["tau_mem"]},
            "recurrent": True,
        }
        train(recipe(model=model), open_dataset("toy"), tmp_path / "start")
        start = tmp_path / "start"
    train(recipe(model=model, **TARGET), open_dataset("toy"), tmp_path / "run", start=load_run(start))
    run = load_run(tmp_path / "run")
    network = run.network("last")
    integer, report = quantize(network, "loihi2")
    for name, scale in network.notes["quantize"]["scales"].items():
        np.testing.assert_array_equal(integer.scale[name], scale)
    for layer in report.layers:
        assert layer.weight_error < 1e-6
        assert layer.saturated == 0
        assert layer.bias_error < 1e-6
        assert np.abs(layer.beta_error).max() < 1e-12
    weights = load_tensors(tmp_path / "run" / "last.safetensors")
    assert not torch.equal(weights["blocks.0.connection.weight"], run.model("initial").blocks[0].connection.weight)  # type: ignore[union-attr, index]
    assert any("trained for" in item for item in report.changes)
    other, _ = quantize(network, "loihi")  # notes for one target say nothing about another
    assert not np.array_equal(other.scale["hidden1"], integer.scale["hidden1"])


def test_a_stopped_run_ends_in_the_same_bits(first: Path, tmp_path: Path) -> None:
    start, data = load_run(first), open_dataset("toy")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe(**TARGET), data, whole, start=start)
    count = 0

    def stop(kind: str, facts: dict[str, Any]) -> None:
        nonlocal count
        count += kind == "batch"
        if kind == "batch" and count == 3:
            raise TrainingInterrupted("now")

    with pytest.raises(TrainingInterrupted):
        train(recipe(**TARGET), data, parts, start=start, checkpoint_seconds=0.0, callback=stop)
    train(recipe(**TARGET), data, parts, resume=True)
    for name in ("last", "best"):
        if (whole / f"{name}.safetensors").exists():
            one, two = (load_tensors(folder / f"{name}.safetensors") for folder in (whole, parts))
            assert one.keys() == two.keys()
            assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_grid_may_begin_late_and_limit_the_fan_in(tmp_path: Path) -> None:
    spec = {"quantize": {"profile": "loihi2", "samples": 16, "start": 0.5, "fan_in": 5}}
    train(recipe(train={"epochs": 4}, **spec), open_dataset("toy"), tmp_path / "run")
    network = load_run(tmp_path / "run").network("last")
    for item in network.projections:
        into = np.bincount(item.synapses(network.dt).target, minlength=item.shape[0])
        assert into.max() <= 5
    assert quantize(network, "loihi2")[1].layers[0].weight_error < 1e-6


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"quantize": {"profile": "loihi2"}}, r"quantize.start: 0 begins with trained weights; start from a run"),
        ({"quantize": {"profile": "loihi3", "start": 0.5}}, "profile: expected one of .*loihi2"),
        ({"quantize": {"profile": "truenorth", "start": 0.5}}, "has no integer law"),
        (
            {"quantize": {"profile": "loihi2", "start": 0.5}, "model": {"connection": {"max_delay": 0.4}}},
            r"max_delay: 0.4 s is 80 steps, loihi2 holds 63 less 1 that a layer takes; set it to 0.31 or less",
        ),
    ],
)
def test_refusals_before_anything_is_trained(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        train(recipe(**changes), open_dataset("toy"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_that_have_no_grid() -> None:
    with pytest.raises(InputError, match="prune in a run of its own"):
        recipe(**TARGET, prune={"method": "magnitude", "keep": 0.5})
    with pytest.raises(InputError, match=r"expected train.learning 'bptt', 'sltt' or 'sltt-k'"):
        recipe(**TARGET, train={"learning": "eventprop"})


def test_another_model_cannot_start_from_a_run(first: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the run to start from has another model than the recipe"):
        train(recipe(model={"hidden": [9, 9]}), open_dataset("toy"), tmp_path / "run", start=load_run(first))


def test_fine_tuning_without_a_grid_starts_from_the_weights(first: Path, tmp_path: Path) -> None:
    train(recipe(), open_dataset("toy"), tmp_path / "run", start=load_run(first))
    run, origin = load_run(tmp_path / "run"), load_run(first)
    assert run.manifest["from"]["weights"] == origin.default
    one, two = run.model("initial").state_dict(), origin.model().state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"model": {"neuron": {"tau_mem": 0.02, "reset": "subtract"}}},
            "loihi2 cannot hold this network. hidden1: resets",
        ),
        (
            {"model": {"neuron": {"tau_mem": 0.02, "learn": ["tau_mem"], "learn_per": "neuron"}}},
            "learn_per: loihi2 has one time constant a population, tau_mem would get one a neuron",
        ),
        ({"model": {"readout": {"learn": ["tau_mem"]}}}, "the readout would get one a class; set learn = "),
        ({"model": {"neuron": {"tau_mem": 0.02, "learn": ["v_reset"]}}}, "loihi2 resets to 0; take v_reset out"),
        ({"quantize": {"profile": "xylo-audio2", "start": 0.5}}, "the law 'xylo' has no grid of weights to train on"),
    ],
)
def test_what_a_target_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    """Not after the epochs that come before the grid, and without a folder that stands in the way of the next try."""
    chosen = recipe(**{"quantize": {"profile": "loihi2", "start": 0.5}, **changes})
    with pytest.raises(InputError, match=match):
        train(chosen, open_dataset("toy"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*"))
