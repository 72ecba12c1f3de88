"""The kernels of SLTT against their plain definition, and the sums of weights' gradients event by event."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.kernels.event_product import event_accumulate, list_events
from snnsim.kernels.reference_neurons import Spiking
from snnsim.kernels.reference_sltt import FeedForward, sltt
from snnsim.learning.fused_stages import FusedStages, fits
from snnsim.nn.context import Context
from snnsim.nn.model import SpikingModel, build_model
from snnsim.recipes import load_recipe

STEPS, BATCH = 13, 9


def make(reset: str, dropout: float, dtype: torch.dtype) -> SpikingModel:
    recipe = load_recipe(
        "shd-dcls",
        [
            *(
                "model.batch_norm=false",
                "model.connection.kind='linear'",
                "model.hidden=[70, 33]",
                "model.tail_steps=0",
            ),
            *(f"model.neuron.reset='{reset}'", f"model.dropout={dropout}", "model.neuron.tau_law='exact'"),
        ],
    )
    model = build_model(recipe.model, 37, 5, recipe.data.dt, 0).to(dtype).train()
    model.blocks[0].connection.formulation = "events"
    with torch.no_grad():
        for layer in model.layers():
            layer.connection.weight *= 2
    assert fits(model)
    return model


def plain(model: SpikingModel, context: Context, dtype: torch.dtype) -> list[FeedForward]:
    layers = []
    for layer in model.layers():
        weight = layer.connection.weight.detach().numpy()
        if layer is model.readout:
            beta = layer.neuron._vector(layer.neuron.beta(), dtype).detach().numpy()
            layers.append(FeedForward(weight, beta))
            continue
        beta, threshold, v_reset, amount = (vector.detach().numpy() for vector in layer.neuron.prepare(dtype).vectors)
        nothing = np.zeros(len(beta), np.int32)
        law = Spiking(threshold, v_reset, amount, nothing, layer.neuron.reset == "zero")
        factor = None
        if layer.dropout is not None:
            given = layer.dropout.factors(context, torch.empty(1, BATCH, len(beta), dtype=dtype))
            factor = None if given is None else given.numpy()
        layers.append(FeedForward(weight, beta, law, factor))
    return layers


@pytest.mark.parametrize("chunk", [1, 4, 13])
@pytest.mark.parametrize(
    ("reset", "dropout", "dtype"),
    list(itertools.product(("zero", "subtract"), (0.0, 0.4), (torch.float32, torch.float64))),
)
def test_kernels_compute_their_definition(reset: str, dropout: float, dtype: torch.dtype, chunk: int) -> None:
    model = make(reset, dropout, dtype)
    generator = torch.Generator().manual_seed(2)
    x = torch.poisson(torch.full((STEPS, BATCH, 37), 0.4), generator=generator).to(dtype)
    by_trace = torch.randn(STEPS, BATCH, 5, generator=generator, dtype=dtype)
    mask = torch.arange(STEPS)[:, None] < torch.randint(3, STEPS, (BATCH,), generator=generator)
    context = Context(mask, torch.arange(BATCH), 5, 1)
    surrogate: Any = model.blocks[0].neuron.surrogate
    trace, spikes, gradients = sltt(
        x.numpy(), plain(model, context, dtype), surrogate.derivative, lambda v, t: by_trace[t].numpy() * (1 + v)
    )
    stages = FusedStages(model, context, BATCH, dtype, chunk, True)
    found = []
    for start in range(0, STEPS, chunk):
        part = stages.forward(x[start : start + chunk], start, True)
        found.append(part)
        stages.backward(by_trace[start : start + chunk] * (1 + part))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(torch.cat(found), trace, **tolerance)
    for own, wanted in zip(stages.gradients, gradients, strict=True):
        np.testing.assert_allclose(own.t(), wanted, **tolerance)
        assert np.abs(wanted).max() > 0.1
    valid = mask.numpy()[:, :, None]
    assert stages.counts().tolist() == [int((layer * valid).sum()) for layer in spikes]
    assert min(stages.counts().tolist()) > 50


@pytest.mark.parametrize("columns", [1, 63, 64, 200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_add_up_event_by_event(dtype: Any, columns: int) -> None:
    generator = np.random.default_rng(0)
    x = (generator.poisson(0.2, (40, 31))).astype(dtype)
    upstream = generator.normal(size=(40, columns)).astype(dtype)
    sums = generator.normal(size=(31, columns)).astype(dtype)
    wanted = sums.astype(np.float64) + x.T.astype(np.float64) @ upstream
    rows = list_events(x, 1)
    half = columns // 2
    for start, stop in ((0, half), (half, columns)):
        event_accumulate(*rows, upstream.reshape(-1), columns, sums.reshape(-1), start, stop)
    np.testing.assert_allclose(sums, wanted, rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-5)
