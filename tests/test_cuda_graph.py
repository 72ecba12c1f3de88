"""Steps as graphs: buffers, keys and gradients with a recorder that computes again; on a GPU the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.kernels import cuda_support
from snnsim.learning import Outcome
from snnsim.recipes import Recipe, load_recipe
from snnsim.training import train
from snnsim.training.checkpoint import load_tensors
from snnsim.training.cuda_graph import WARM_UPS, StepGraph, check_graph
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

SMALL = [
    "model.hidden=[6]",
    "model.initial_rate=none",
    "model.dropout=0.2",
    "train.batch_size=8",
    "train.epochs=2",
    "train.padding=counted",
]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy(n_classes=2, n_groups=4, channels_per_group=2, n_train=26, n_test=6)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("shd-lif", SMALL)


class Recorder:
    """Stands for a capture: a replay computes again and writes to the places of the first time."""

    def __init__(self, graph: StepGraph) -> None:
        self.graph, self.captures = graph, 0

    def __call__(self, run: Any) -> tuple[Outcome, Any]:
        self.captures += 1
        outcome = run()
        model = self.graph.model
        places = {name: p.grad for name, p in model.named_parameters()}

        def replay() -> None:
            model.zero_grad(set_to_none=True)
            again = run()
            for name in ("losses", "logits", "rates"):
                getattr(outcome, name).copy_(getattr(again, name))
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    places[name].copy_(parameter.grad)
                parameter.grad = None

        return outcome, replay


def weights_after(recipe: Recipe, toy: Dataset, graph: bool) -> tuple[dict[str, torch.Tensor], list[Any], int]:
    trainer, captures, sums = Trainer(recipe, prepare(recipe, toy, 0), 0), 0, []
    if graph:
        trainer.graph = StepGraph(trainer.model)
        trainer.graph.record = Recorder(trainer.graph)
    for epoch in range(recipe.train.epochs):
        trainer.begin_epoch()
        for batch in trainer.batches.epoch(epoch):
            sums.append(trainer.train_batch(batch))
        trainer.epoch += 1
        trainer.batch = 0
    if graph:
        captures = trainer.graph.record.captures
    return dict(trainer.model.state_dict()), sums, captures


def test_a_captured_step_trains_to_the_same_weights(recipe: Recipe, toy: Dataset) -> None:
    expected, sums, _ = weights_after(recipe, toy, graph=False)
    found, theirs, captures = weights_after(recipe, toy, graph=True)
    assert captures == recipe.train.epochs  # one length: one capture an epoch, the rest of 5 samples goes without
    assert theirs == sums
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_other_shapes_are_other_steps_and_are_forgotten(recipe: Recipe, toy: Dataset) -> None:
    trainer = Trainer(recipe, prepare(recipe, toy, 0), 0)
    trainer.begin_epoch()
    graph = StepGraph(trainer.model)
    recorder = graph.record = Recorder(graph)
    whole, rest = list(trainer.batches.epoch(0))[1:3]
    assert len(whole) != len(rest)
    before = {name: value.clone() for name, value in trainer.model.named_buffers()}
    calls: list[int] = []
    trainer.model.register_forward_pre_hook(lambda *_: calls.append(1))
    for batch, captures in ((whole, 1), (whole, 1), (rest, 2), (whole, 2)):
        graph.gradients(*trainer.task(batch))
        assert recorder.captures == captures
    assert len(calls) == 2 * (WARM_UPS + 1) + 4
    seen = trainer.model.state_dict()["blocks.0.norm.num_batches_tracked"]
    assert int(seen) == int(before["blocks.0.norm.num_batches_tracked"]) + 4  # warm-up and capture leave no trace
    graph.forget()
    graph.gradients(*trainer.task(whole))
    assert recorder.captures == 3


def test_gradients_come_back_after_they_were_cleared(recipe: Recipe, toy: Dataset) -> None:
    trainer = Trainer(recipe, prepare(recipe, toy, 0), 0)
    trainer.begin_epoch()
    graph = StepGraph(trainer.model)
    graph.record = Recorder(graph)
    batch = next(trainer.batches.epoch(0))
    graph.gradients(*trainer.task(batch))
    first = [parameter.grad.clone() for parameter in trainer.model.parameters()]
    trainer.clear_gradients()
    graph.gradients(*trainer.task(batch))
    assert all(torch.equal(a, p.grad) for a, p in zip(first, trainer.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "device", "processes", "message"),
    [
        ([], "cpu", 1, "the CPU has no graphs"),
        ([], "cuda", 2, "expected one process, got 2"),
        (["train.learning=sltt", "train.loss=per_step"], "cuda", 1, "expected train.learning 'bptt'"),
        (["train.gradient_cosine=true"], "cuda", 1, "without checkpoint_steps and gradient_cosine"),
        (["train.padding=masked"], "cuda", 1, "which train.padding = 'counted' gives"),
        (["prune.method=rigl", "prune.keep=0.5"], "cuda", 1, "'rigl' changes synapses between two steps"),
    ],
)
def test_what_cannot_be_captured_is_refused(
    changes: list[str], device: str, processes: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_support, "SIMULATED", False)
    check_graph(load_recipe("shd-lif", SMALL), "cuda")
    with pytest.raises(InputError, match=f"cuda_graph: .*{message}"):
        check_graph(load_recipe("shd-lif", [*SMALL, *changes]), device, processes)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["shd-lif", "shd-dcls", "shd-adlif"])
def test_graphs_of_a_gpu_train_to_the_same_weights(name: str, toy: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe(name, SMALL)
    for graph in (False, True):
        train(recipe, toy, tmp_path / str(graph), device="cuda", cuda_graph=graph)
    expected, found = (load_tensors(tmp_path / str(graph) / "last.safetensors") for graph in (False, True))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6, msg=key)
