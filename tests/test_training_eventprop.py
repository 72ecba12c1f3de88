"""Runs that learn by EventProp: exact evaluation, continuous delays, resume, the recipe's initial weights."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.learning import EventProp, TensorStream, continuous_output
from snnsim.nn.context import Context
from snnsim.nn.model import build_model
from snnsim.recipes import Recipe, load_recipe
from snnsim.training import evaluate, load_run, train
from snnsim.training.distributed import World
from snnsim.training.prepare import prepare, prepare_split, stream
from snnsim.training.trainer import Trainer

SMALL = [
    "data.dt=0.005",
    "model.hidden=[20]",
    "model.connection.kind=delayed",
    "model.connection.max_delay=0.06",
    "model.initial.input.mean=0.4",
    "model.initial.input.std=0.4",
    "model.initial.readout.std=0.6",
    "model.readout.tau_syn=0.05",
    "train.batch_size=16",
    "train.weights.lr=0.02",
    "train.positions.lr=0.1",
    "train.augment.blend=0.0",
    "train.rule.wake=0.01",
]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy(n_train=96, n_test=40)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("shd-eventprop", [*SMALL, "train.epochs=6"])


def test_a_run_learns_and_is_evaluated_in_continuous_time(toy: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    result = train(recipe, toy, tmp_path / "run", seed=0)
    run = load_run(tmp_path / "run")
    assert run.metrics[-1]["loss"] < 0.8 * run.metrics[0]["loss"]
    assert result.accuracy is not None
    assert result.accuracy > 0.5
    last = evaluate(run, toy, which="last")
    assert run.result is not None
    assert last.accuracy == run.result["results"]["last-epoch"]["test_accuracy"]
    events = prepare_split(run.recipe, toy, "test", run.manifest)
    model = run.model("last")
    batch = next(stream(events, run.recipe, run.pool, model.tail_steps, seed=0, training=False).epoch(0))
    context = Context(torch.from_numpy(batch.mask))
    wanted = continuous_output(model, TensorStream(torch.from_numpy(batch.x), context)).logits.numpy()
    assert np.array_equal(last.logits[: len(wanted)], wanted)
    steps = np.asarray(run.network("last").projections[0].delay) / recipe.data.dt
    assert np.abs(steps - np.rint(steps)).max() > 0.05
    exact = evaluate(run, toy, which="last", engine="event")
    assert exact.spikes == pytest.approx(last.spikes, rel=0.02)  # there events keep the times between steps


def test_a_run_goes_on_from_a_checkpoint_within_an_epoch(toy: Dataset, recipe: Recipe) -> None:
    data = prepare(recipe, toy, 0)
    straight = Trainer(recipe, data, 0)
    straight.model.blocks[0].connection.weight.data[3] = -1.0  # type: ignore[union-attr, index]
    straight.begin_epoch()
    for batch in itertools.islice(straight.batches.epoch(0), 2):
        straight.train_batch(batch)
    tensors, values = straight.state()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    resumed = Trainer(recipe, data, 0)
    resumed.restore(2, kept, values)
    for trainer in (straight, resumed):
        trainer.begin_epoch()
        for batch in trainer.batches.epoch(0, 2):
            trainer.train_batch(batch)
        trainer.end_epoch()
    a, b = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    rule = straight.rule
    assert isinstance(rule, EventProp)
    assert rule.fired == []


def test_waking_needs_one_process(toy: Dataset, recipe: Recipe) -> None:
    with pytest.raises(InputError, match=r"train\.rule\.wake .* expected one process, got 2"):
        Trainer(recipe, prepare(recipe, toy, 0), 0, World(0, 2))


def test_initial_weights_are_drawn_as_the_recipe_says() -> None:
    recipe = load_recipe("shd-eventprop")
    model = build_model(recipe.model, 700, 20, recipe.data.dt)
    parts = dict(model.named_parameters())
    for name, mean, std in (
        ("blocks.0.connection.weight", 0.03, 0.01),
        ("blocks.0.neuron.recurrent_weight", 0.0, 0.02),
        ("readout.connection.weight", 0.0, 0.03),
    ):
        assert float(parts[name].detach().mean()) == pytest.approx(mean, abs=0.002)
        assert float(parts[name].detach().std()) == pytest.approx(std, rel=0.05)
    for change in ("model.initial.hidden.std=0.1", "model.recurrent=false"):
        with pytest.raises(InputError, match="initial"):
            load_recipe("shd-eventprop", [change, "model.initial.hidden.mean=0.1"] if "hidden" in change else [change])


def test_options_of_the_rule_belong_to_it() -> None:
    with pytest.raises(InputError, match="learning 'bptt' has no 'shaping'"):
        load_recipe("shd-lif", ["train.rule.shaping=none"])
    with pytest.raises(InputError, match="learning 'eventprop' has no 'two_pass'"):
        load_recipe("shd-eventprop", ["train.rule.two_pass=true"])
