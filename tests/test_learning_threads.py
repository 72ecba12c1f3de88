"""SLTT gives the same bits on any number of threads, whichever way a network is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from snnsim.learning import SLTT, Loss, TensorStream, TraceLoss
from snnsim.nn.context import Context
from snnsim.nn.model import build_model
from snnsim.nn.readouts import REDUCTIONS, Reduce
from snnsim.recipes import load_recipe
from snnsim.recipes.schema import RateSpec

STEPS, BATCH, INPUTS, CLASSES = 30, 150, 60, 20

DELAYS = ["model.connection.kind='delayed'", "model.connection.max_delay=0.05", "model.connection.sigma_init=1.0"]
PLAIN = ["model.connection.kind='linear'", "model.tail_steps=0"]
CASES: dict[str, list[str]] = {
    "plain": [*PLAIN, "model.batch_norm=false"],
    "norm": PLAIN,
    "delays": DELAYS,
    "learned-tau": [*PLAIN, "model.batch_norm=false", "model.neuron.tau_law='exact'", "model.neuron.learn=['tau_mem']"],
    "recurrent": [*PLAIN, "model.recurrent=true", "model.batch_norm=false"],
    "adaptive": [*PLAIN, "model.neuron.kind='adlif'", "model.neuron.adapt_spike=0.2", "model.neuron.tau_law='exact'"],
}


def same_for_all(run: Callable[[], list[torch.Tensor]]) -> None:
    before = torch.get_num_threads()
    try:
        seen = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            seen.append(run())
    finally:
        torch.set_num_threads(before)
    for found in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, seen[0], strict=True))


def mask() -> torch.Tensor:
    lengths = torch.randint(5, STEPS + 1, (BATCH,), generator=torch.Generator().manual_seed(4))
    return torch.arange(STEPS)[:, None] < lengths


@pytest.mark.parametrize("norm", ["step", "running"])
@pytest.mark.parametrize("case", CASES)
def test_stages(case: str, norm: Any) -> None:
    recipe = load_recipe("shd-dcls", [*CASES[case], "model.hidden=[150, 130]", "model.dropout=0.3"])
    x = torch.poisson(torch.full((STEPS, BATCH, INPUTS), 0.3), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) % CLASSES
    data = TensorStream(x, Context(mask(), torch.arange(BATCH), 1, 0))
    loss = Loss(labels, rate=RateSpec(strength=0.5, lower=0.2, upper=0.3))

    def run() -> list[torch.Tensor]:
        model = build_model(recipe.model, INPUTS, CLASSES, recipe.data.dt, 0).train()
        outcome = SLTT(two_pass=True, chunk_steps=7, norm=norm).gradients(model, data, loss)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return [*gradients, *model.buffers(), outcome.losses, outcome.logits, outcome.rates]

    same_for_all(run)


@pytest.mark.parametrize("kind", ["cross_entropy", "per_step"])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_losses_of_a_trace(reduce: Reduce, kind: Any) -> None:
    trace = torch.randn(STEPS, 256, 35, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(256) % 35

    def run() -> list[torch.Tensor]:
        running = TraceLoss(Loss(labels, kind), reduce, 2, STEPS, None)
        if running.couples:
            running.watch(trace[:11], 0)
            running.watch(trace[11:], 11)
            running.turn()
        found = [running.gradient(trace[:11], 0), running.gradient(trace[11:], 11)]
        return [*found, running.logits, running.losses]

    same_for_all(run)
