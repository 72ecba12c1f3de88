"""Convolutional networks in training: recipes, runs, resume, threads, frozen evaluation, refusals."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.frames import Frames
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.recipes import load_recipe
from snnsim.training import evaluate, load_run, train
from snnsim.training.loop import TrainingInterrupted
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

IMAGES = ["train.epochs=3", "train.batch_size=8", "model.conv.width=0.25", "data.repeat_steps=4"]
EVENTS = ["train.epochs=2", "train.batch_size=8", "model.conv.input=[2, 8, 8]", "data.channels=128", "data.dt=0.02"]
EVENTS += ["model.neuron.tau_mem=0.022", "model.readout.tau_mem=0.02"]


@pytest.fixture(scope="module")
def bars() -> Dataset:
    """Images of 8 x 8 pixels: a noisy bar in one of three places."""
    rng = np.random.default_rng(0)
    labels = np.arange(72) % 3
    values = 0.3 * rng.random((72, 1, 8, 8), dtype=np.float32)
    for image, label in zip(values, labels, strict=True):
        image[0, :, 2 * label + 1 : 2 * label + 3] += 0.7
    frames = Frames.build(values.reshape(72, 1, 64), labels, 1e-3)
    return Dataset("bars", frames.subset(np.arange(48)), frames.subset(np.arange(48, 72)), None, "0" * 64)


@pytest.fixture(scope="module")
def moving() -> Dataset:
    """Events of a camera of 8 x 8 pixels: a bar that moves right or left, for 100 or 120 ms."""
    rng = np.random.default_rng(0)

    def part(n: int) -> Events:
        times, units, labels = [], [], np.arange(n) % 2
        for label in labels:
            count = 400
            t = rng.random(count) * 0.1
            x = (np.floor(t / 0.1 * 8) if label == 0 else 7 - np.floor(t / 0.1 * 8)).astype(int)
            unit = (rng.integers(0, 2, count) * 8 + rng.integers(0, 8, count)) * 8 + x
            times.append(t)
            units.append(unit)
        return Events.from_lists(times, units, 128, labels, np.where(labels, 0.1, 0.12), sort=True)

    return Dataset("moving", part(32), part(16), None, "1" * 64)


@pytest.mark.parametrize("name", ["digits-vgg", "digits-resnet", "nmnist-vgg"])
def test_recipes_of_the_papers_neuron(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.neuron.beta(recipe.data.dt) == pytest.approx(1 - 1 / 1.1)
    assert recipe.model.readout.beta(recipe.data.dt) == 0.0  # no integration over time
    assert (recipe.train.loss, recipe.train.mse_share, recipe.train.mse_target) == ("per_step", 0.05, "one")


@pytest.mark.parametrize("name", ["digits-vgg", "digits-resnet"])
def test_a_small_run_learns_and_is_evaluated(name: str, bars: Dataset, tmp_path: Path) -> None:
    result = train(load_recipe(name, [*IMAGES, "train.epochs=12"]), bars, tmp_path / "run")
    assert result.accuracy is not None
    assert result.accuracy > 0.9
    run = load_run(tmp_path / "run")
    assert isinstance(run.model(), ConvSpikingModel)
    again = evaluate(run, bars)
    assert again.accuracy == result.accuracy
    assert all(0.01 < rate < 0.6 for rate in again.rates)
    assert again.synaptic_operations > 0
    assert all("silent" not in line for record in run.metrics for line in record["warnings"])
    with pytest.raises(InputError, match="these samples are dense frames, not events"):
        evaluate(run, bars, engine="clock")


def test_networks_without_normalisation_train(bars: Dataset, tmp_path: Path) -> None:
    changes = ["model.conv.norm=weight", "train.epochs=12", "train.weights.lr=0.1"]
    train(load_recipe("digits-resnet", [*IMAGES, *changes]), bars, tmp_path / "run")
    metrics = load_run(tmp_path / "run").metrics
    assert metrics[-1]["loss"] < 0.75 * metrics[0]["loss"]  # the readout and the branches start at 0: a slow start
    assert all(0.02 < rate < 0.5 for rate in metrics[-1]["rates"])


def test_interrupted_and_resumed_a_run_ends_in_the_same_bytes(bars: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe("digits-vgg", IMAGES)
    train(recipe, bars, tmp_path / "whole")
    seen = 0

    def stop(kind: str, facts: dict[str, Any]) -> None:
        nonlocal seen
        seen += kind == "batch"
        if kind == "batch" and seen == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match="epoch 2 after batch 2"):
        train(recipe, bars, tmp_path / "parts", callback=stop)
    train(recipe, bars, tmp_path / "parts", resume=True)
    for name in ("metrics.jsonl", "last.safetensors", "best.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("name", ["digits-vgg", "digits-resnet"])
def test_training_gives_the_same_bits_for_any_thread_count(name: str, bars: Dataset) -> None:
    recipe = load_recipe(name, [*IMAGES, "train.batch_size=20"])
    before = torch.get_num_threads()
    states = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            trainer = Trainer(recipe, prepare(recipe, bars, 0), 0)
            trainer.initialise()
            trainer.begin_epoch()
            for batch in trainer.batches.epoch(0):
                trainer.train_batch(batch)
            states.append(([value.clone() for value in trainer.model.state_dict().values()], trainer.totals))
    finally:
        torch.set_num_threads(before)
    for state, totals in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(state, states[0][0], strict=True))
        assert totals == states[0][1]


def test_events_train_and_the_frozen_network_gives_the_scores_of_torch(moving: Dataset, tmp_path: Path) -> None:
    train(load_recipe("nmnist-vgg", EVENTS), moving, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert not (run.path / "best.snn.h5").exists()  # made when somebody asks for it
    ours = evaluate(run, moving, engine="torch")
    frozen = evaluate(run, moving, engine="clock")
    assert np.array_equal(ours.predictions, frozen.predictions)
    assert np.allclose(ours.logits, frozen.logits, rtol=1e-3, atol=1e-3)
    assert frozen.rates == pytest.approx(ours.rates, rel=1e-4)
    assert ours.synaptic_operations == pytest.approx(frozen.synaptic_operations, rel=0.1)  # borders: fewer synapses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.channels=20"], "maps of 1 x 8 x 8 have 64 values a step, the data have 16"),
        (["model.conv.input=[1, 9, 8]"], "maps of 1 x 9 x 8 have 72 values a step, the data have 64"),
        (["train.checkpoint_steps=2"], "without batch norm"),
        (["model.hidden=[10]"], "'hidden' says nothing about a convolutional network"),
    ],
)
def test_what_does_not_fit_is_refused(changes: list[str], message: str, bars: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(load_recipe("digits-vgg", [*IMAGES, *changes]), bars, tmp_path / "run")
