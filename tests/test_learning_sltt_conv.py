"""SLTT on convolutional networks: one step at a time against one graph whose carried states are detached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning import BPTT, SLTT, SLTTK, Loss, TensorStream
from snnsim.nn.context import Context
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.model import build_model
from snnsim.nn.state import detach_state
from snnsim.recipes import load_recipe
from snnsim.recipes.schema import RateSpec

STEPS, BATCH = 5, 3
LABELS = torch.tensor([1, 4, 0])
LOSS = Loss(LABELS, "per_step", 0.0, 0.05)


def make(changes: list[str]) -> ConvSpikingModel:
    recipe = load_recipe("digits-vgg", ["model.conv.width=0.25", "model.neuron.v_threshold=0.3", *changes])
    model = build_model(recipe.model, 64, 5, recipe.data.dt, 0).double().train()
    assert isinstance(model, ConvSpikingModel)
    with torch.no_grad():  # the readout of some presets starts at zero
        model.readout.connection.weight.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(2))
    return model


def stream() -> TensorStream:
    x = torch.rand(STEPS, BATCH, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    return TensorStream(x, Context(None, torch.arange(BATCH), 3, 1))


def gradients(model: ConvSpikingModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "changes",
    [[], ["model.conv.preset='resnet-small'"], ["model.conv.preset='resnet-small'", "model.conv.norm='weight'"]],
    ids=["vgg", "resnet", "nf-resnet"],
)
def test_steps_equal_one_graph_with_detached_states(changes: list[str]) -> None:
    data = stream()
    model = make(changes)
    state: Any = None
    traces = []
    for step in range(STEPS):
        trace, _, _, state = model.run_stretch(data.x[step : step + 1], state, data.context, False)
        state = detach_state(state)
        traces.append(trace)
    whole = torch.cat(traces)
    from snnsim.nn.trained import Output

    LOSS.of(Output(whole.mean(dim=0), whole, torch.zeros(0), [], ()), None)[0].backward()  # type: ignore[no-untyped-call]
    wanted = gradients(model)
    assert max(float(value.abs().max()) for value in wanted.values()) > 1e-3

    fresh = make(changes)
    outcome = SLTT().gradients(fresh, data, LOSS)
    found = gradients(fresh)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13)
    assert float(outcome.rates.min()) > 0
    other = make(changes)
    SLTTK(STEPS).gradients(other, data, LOSS)
    for name, value in gradients(other).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-10, atol=1e-13)
    exact = make(changes)
    same = BPTT().gradients(exact, data, LOSS)
    torch.testing.assert_close(outcome.logits, same.logits, rtol=1e-9, atol=1e-12)
    assert any(not torch.allclose(value, wanted[name]) for name, value in gradients(exact).items())


def test_a_penalty_on_rates_is_refused() -> None:
    loss = Loss(LABELS, rate=RateSpec(strength=1.0))
    with pytest.raises(InputError, match=r"known here for networks of blocks, not for ConvSpikingModel"):
        SLTT(two_pass=True).gradients(make([]), stream(), loss)


def test_options_that_would_do_nothing_are_refused() -> None:
    for rule, words in (
        (SLTT(norm="running"), r"a matter of its layers \(model\.conv\.norm\)"),
        (SLTT(chunk_steps=4), "one step at a time; expected chunk_steps 1 or none, got 4"),
    ):
        with pytest.raises(InputError, match=words):
            rule.gradients(make([]), stream(), LOSS)
