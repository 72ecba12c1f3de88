"""Rules that learn forward in time: memory, passes, changes within a sequence, training by recipe, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from kept_memory import assert_flat, kept
from online_models import (
    BATCH,
    INPUTS,
    LABELS,
    MASK,
    STEPS,
    difference,
    found,
    looped,
    model,
    neurons,
    source,
    spikes,
)
from torch import Tensor

from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.learning import BPTT, OTTT, RTRL, EProp, Loss, TensorStream, make_rule
from snnsim.learning.online import CHUNK
from snnsim.learning.step import OnlineNet
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.model import Block
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent
from snnsim.recipes import load_recipe
from snnsim.recipes.schema import RateSpec
from snnsim.training import load_run, train
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

RULES: dict[str, Any] = {
    "ottt": OTTT(two_pass=True),
    "rtrl": RTRL(two_pass=True),
    "e-prop": EProp(two_pass=True),
    "random": EProp(two_pass=True, feedback="random"),
}


@pytest.mark.parametrize("name", ["ottt", "rtrl", "e-prop"])
def test_memory_does_not_depend_on_the_number_of_steps(name: str) -> None:
    hidden = neurons("lif", 24, reset="zero")
    network = model(looped(hidden, diagonal=False) if name == "e-prop" else hidden)
    kept(RULES[name], network, 5)
    kind = "cross_entropy" if name == "rtrl" else "per_step"  # two passes, and one
    short, long = (kept(RULES[name], network, steps, kind) for steps in (48, 480))  # whole stretches
    assert_flat(short, long, 432 * 16 * 24 * 8)
    if name == "rtrl":
        assert kept(BPTT(), network, 480).graphs > 5 * kept(BPTT(), network, 48).graphs


@pytest.mark.parametrize("name", RULES)
def test_few_steps_are_read_at_a_time_and_the_mask_is_respected(name: str) -> None:
    asked = []

    class Asked(TensorStream):
        def chunk(self, start: int, stop: int) -> Tensor:
            asked.append((start, stop))
            return super().chunk(start, stop)

    network = model(neurons("lif", 6))
    x = spikes()
    noisy = torch.where(MASK[:, :, None], x, spikes(9, rate=0.5))
    assert not torch.equal(x, noisy)
    gradients = []
    for given in (x, noisy):
        network.zero_grad(set_to_none=True)
        outcome = RULES[name].gradients(network, Asked(given, Context(MASK)), Loss(LABELS))
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert max(stop - start for start, stop in asked) == CHUNK < STEPS
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert outcome.facts["passes"] == 2
    _, whole = found(RULES[name], network, noisy)
    assert difference(whole["blocks.0.connection.weight"], gradients[0][0]) > 1e-3


@pytest.mark.parametrize("name", RULES)
def test_changes_within_a_sequence_become_those_after_it(name: str) -> None:
    """The difference over the learning rate falls with the learning rate: it is of second order in it."""
    hidden = neurons("lif", 6, learn=name != "ottt", reset="subtract")
    network = model(hidden, bias=True)
    start = {key: value.clone() for key, value in network.state_dict().items()}
    _, gradient = found(RULES[name], network, spikes(), Loss(LABELS, "per_step"))
    gaps = []
    for lr in (2e-6, 1e-6):
        network.load_state_dict(start)
        calls = []

        def update(lr: float = lr, calls: list[int] = calls) -> None:
            calls.append(1)
            with torch.no_grad():
                for parameter in network.parameters():
                    assert parameter.grad is not None
                    parameter -= lr * parameter.grad
                    parameter.grad = None

        found(RULES[name], network, spikes(), Loss(LABELS, "per_step"), update=update)
        assert len(calls) == STEPS
        moved = [(p.detach() - start[key]) / -lr - gradient[key] for key, p in network.named_parameters()]
        gaps.append(float(torch.cat([part.flatten() for part in moved]).norm()))
    total = float(torch.cat([part.flatten() for part in gradient.values()]).norm())
    assert gaps[0] < 1e-3 * total
    assert 1.8 < gaps[0] / gaps[1] < 2.2


def test_a_frozen_parameter_gets_nothing_and_gradients_add_up() -> None:
    network = model(neurons("lif", 6))
    _, once = found(RTRL(two_pass=True), network, spikes())
    RTRL(two_pass=True).gradients(network, TensorStream(spikes()), Loss(LABELS))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert difference(2 * once[name], parameter.grad) < 1e-14
    network.blocks[0].connection.weight.requires_grad_(False)
    _, got = found(RTRL(two_pass=True), network, spikes())
    assert set(got) == {"readout.connection.weight"}


def test_rules_come_from_recipes() -> None:
    for words, expected in (
        (["train.learning=ottt"], OTTT()),
        (["train.learning=rtrl", "train.rule.two_pass=true"], RTRL(two_pass=True)),
        (["train.learning=e-prop", "train.rule.feedback=random"], EProp(feedback="random")),
    ):
        rule = make_rule(load_recipe("shd-dcls", words).train)
        assert rule == expected
        assert rule.name == expected.name


SMALL = [
    "model.hidden=[24]",
    "model.connection.kind=linear",
    "model.batch_norm=false",
    "model.neuron.tau_mem=0.05",
    "model.neuron.v_threshold=0.3",
    "model.readout.connection=linear",
    "model.readout.tau_mem=0.05",
    "model.readout.reduce=mean",
    "train.batch_size=16",
    "train.epochs=4",
    "train.weights.lr=0.01",
    "train.weights.schedule.kind=constant",
]


@pytest.mark.parametrize(
    "words",
    [
        ["train.learning=rtrl", "train.rule.two_pass=true"],
        ["train.learning=ottt", "train.loss=per_step", "train.rule.update=step", "train.weights.lr=0.0005"],
        ["train.learning=e-prop", "train.rule.two_pass=true", "train.clip_norm=1.0", "model.recurrent=true"],
    ],
    ids=["rtrl", "ottt", "e-prop"],
)
def test_a_recipe_trains(words: list[str], tmp_path: Path) -> None:
    recipe = load_recipe("shd-dcls", [*SMALL, *words])
    train(recipe, make_toy(n_train=96, n_test=32), tmp_path / "run", seed=1)
    run = load_run(tmp_path / "run")
    assert run.metrics[-1]["train_accuracy"] > 0.4
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


def test_rtrl_takes_the_steps_of_backpropagation_in_training() -> None:
    ends = []
    for words in (["train.learning=bptt"], ["train.learning=rtrl", "train.rule.two_pass=true"]):
        recipe = load_recipe("shd-dcls", [*SMALL, *words])
        trainer = Trainer(recipe, prepare(recipe, make_toy(n_train=64, n_test=16), seed=1), seed=1)
        trainer.model.double()
        trainer.begin_epoch()
        for batch in trainer.batches.epoch(0):
            trainer.train_batch(dataclasses.replace(batch, counts=batch.x.astype("float64")))
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert float((ends[0] - ends[1]).abs().max()) < 1e-9


def layer(connection: Any = None, neuron: Any = None, norm: Any = None) -> Block:
    given = Linear(INPUTS, 6, generator=source(1)) if connection is None else connection
    return Block(given, neurons("lif", 6) if neuron is None else neuron, norm=norm)


@pytest.mark.parametrize(
    ("block", "match"),
    [
        (layer(norm=BatchNormTime(6)), "layer 0: expected no batch norm.*model.batch_norm = false"),
        (
            layer(DelayedLinear(INPUTS, 6, max_delay_steps=3, generator=source(1))),
            "layer 0: expected a connection without delays, got DelayedLinear.*connection.kind 'linear'",
        ),
        (
            layer(neuron=Recurrent(neurons("lif", 6), delay_steps=2, learn_delay=True, max_delay_steps=3)),
            "layer 0: expected recurrent synapses of one common, fixed delay.*'bptt'",
        ),
    ],
)
def test_layers_that_cannot_learn_forward_in_time(block: Block, match: str) -> None:
    with pytest.raises(InputError, match=match):
        found(EProp(two_pass=True), model(block), spikes())


def test_refusals() -> None:
    network = model(neurons("lif", 6))
    for name, rule in (("ottt", OTTT()), ("rtrl", RTRL()), ("e-prop", EProp())):
        with pytest.raises(InputError, match=f"{name}: the cross-entropy of reduced scores couples the steps"):
            found(rule, network, spikes())
        rated = Loss(LABELS, "per_step", rate=RateSpec(strength=1.0))
        with pytest.raises(InputError, match=f"{name}: a penalty on mean rates couples the steps.*two_pass = true"):
            found(rule, network, spikes(), rated)
        with pytest.raises(InputError, match=f"{name}: expected a network of blocks .*got Linear"):
            rule.gradients(torch.nn.Linear(2, 2), TensorStream(spikes()), Loss(LABELS))
    for loop in (looped(neurons("lif", 6), diagonal=False), Recurrent(neurons("lif", 6), torch.eye(6), delay_steps=2)):
        with pytest.raises(InputError, match=r"rtrl: layer 0: expected recurrent weights on the diagonal.*'e-prop'"):
            found(RTRL(two_pass=True), model(loop), spikes())
    with pytest.raises(InputError, match="at least one hidden layer"):
        OnlineNet(model(), BATCH, torch.float64, Context())
