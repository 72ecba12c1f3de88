"""Evaluation by groups of samples: the modules' numbers, whatever the batch and the threads."""

from typing import Any

import pytest
import torch

from snnsim.nn.context import Context
from snnsim.nn.inference import infer, infers
from snnsim.nn.model import SpikingModel, build_model
from snnsim.recipes import load_recipe

STEPS, BATCH, INPUTS = 60, 37, 21
ALIF = "model.neuron.adapt_spike=0.5"
LOW = "model.neuron.v_threshold=0.3"


def trained(recipe: str, *changes: str) -> tuple[SpikingModel, torch.Tensor, torch.Tensor]:
    """Return a model whose batch norm has seen a batch, an input and a mask."""
    loaded = load_recipe(recipe, list(changes))
    model = build_model(loaded.model, INPUTS, 5, loaded.data.dt, 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((STEPS, BATCH, INPUTS), 0.35), generator=generator)
    mask = torch.ones(STEPS, BATCH, dtype=torch.bool)
    mask[40:, 3] = False
    with torch.no_grad():
        model.train()(x, None, Context(mask, torch.arange(BATCH)))
    return model.eval(), x, mask


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("shd-dcls", ["model.hidden=[40,33]"]),
        ("shd-dcls", ["model.hidden=[19]", "model.connection.taps=3", "model.neuron.reset=subtract"]),
        ("shd-lif", ["model.hidden=[24,24]"]),
        ("speech-dcls", ["model.hidden=[40,33]"]),
        ("shd-adlif", ["model.hidden=[20,30]", "model.recurrent=false", "model.neuron.adapt_v=0.05"]),
        ("shd-dcls", ["model.hidden=[20,9]", "model.neuron.kind=alif", "model.neuron.adapt_threshold=0.2", ALIF]),
        ("shd-rsnn", ["model.hidden=[30,20]", "model.recurrent=false", "model.readout.neuron=cubali", LOW]),
        ("shd-rsnn", ["model.hidden=[21]", "model.recurrent=false", "model.neuron.learn=['tau_mem','tau_syn']", LOW]),
    ],
)
def test_equals_the_modules_within_rounding(recipe: str, changes: list[str]) -> None:
    model, x, mask = trained(recipe, *changes)
    assert infers(model)
    context = Context(mask)
    with torch.no_grad():
        wanted = model(x, None, context)
    got = infer(model, x, context)
    assert float((wanted.trace - got.trace).norm() / wanted.trace.norm()) < 1e-6
    torch.testing.assert_close(got.logits, wanted.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(got.rates, wanted.rates)
    assert got.rates.min() > 0


def test_bits_depend_on_neither_batch_nor_threads() -> None:
    model, x, mask = trained("shd-dcls", "model.hidden=[40,33]")
    whole = infer(model, x, Context(mask))
    part = infer(model, x[:, 5:9].contiguous(), Context(mask[:, 5:9]))
    assert torch.equal(part.trace, whole.trace[:, 5:9])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            again = infer(model, x, Context(mask))
            assert torch.equal(again.trace, whole.trace)
            assert torch.equal(again.rates, whole.rates)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "changes",
    [
        {"recurrent": True},
        {"t_ref": 0.02},
        {"dtype": torch.float64},
    ],
)
def test_other_models_stay_with_the_modules(changes: dict[str, Any]) -> None:
    sets = ["model.hidden=[8]"]
    if "recurrent" in changes:
        sets.append("model.recurrent=true")
    if "t_ref" in changes:
        sets.append("model.neuron.t_ref=0.02")
    model, _, _ = trained("shd-dcls", *sets)
    assert not infers(model.to(changes.get("dtype", torch.float32)))
