"""Batch norm, LIF and dropout in one function: the spikes of the separate modules, and their gradients."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from snnsim.nn.context import Context
from snnsim.nn.delays import Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF
from snnsim.nn.norm import BatchNormTime

STEPS, BATCH, INPUTS, UNITS = 80, 5, 12, 300  # more units than go through time together, more steps than one flush


def block(dtype: torch.dtype, norm: bool, **options: Any) -> Block:
    generator = torch.Generator().manual_seed(1)
    made = Block(
        Linear(INPUTS, UNITS, generator=generator),
        LIF(UNITS, dt=0.01, tau_mem=0.03, **options),
        norm=BatchNormTime(UNITS) if norm else None,
        dropout=SequenceDropout(0.3, layer=0),
    )
    return made.to(dtype).train()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("reset", "detach", "masked", "norm"), list(itertools.product(("zero", "subtract"), *[(True, False)] * 3))
)
def test_equals_the_separate_modules(dtype: torch.dtype, reset: str, detach: bool, masked: bool, norm: bool) -> None:
    options = {"reset": reset, "detach_reset": detach, "v_reset": -0.1 if reset == "zero" else 0.0}
    apart, fused = block(dtype, norm, **options), block(dtype, norm, **options)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(STEPS, BATCH, INPUTS, dtype=dtype, generator=generator)
    weight = torch.randn(STEPS, BATCH, UNITS, dtype=dtype, generator=generator)
    mask = torch.ones(STEPS, BATCH, dtype=torch.bool)
    mask[60:, 2] = False
    context = Context(mask if masked else None, torch.arange(BATCH))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    assert fused.fuses(x)
    y, spikes, state = apart(inputs[0], None, context)
    z, counts, end = fused.run_fused(inputs[1], None, context)
    assert torch.equal(y, z)
    assert torch.equal(state[1].v, end[1].v)
    valid = spikes * mask.unsqueeze(2) if masked else spikes
    assert 0 < int(counts.sum()) < spikes.numel()
    assert torch.equal(counts, valid.sum(dim=(0, 2)).long())
    for out, after in ((y, state), (z, end)):
        ((out * weight).sum() + (after[1].v * weight[0]).sum()).backward()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    assert relative(inputs[0].grad, inputs[1].grad) < tolerance  # type: ignore[arg-type]
    for a, b in zip(apart.parameters(), fused.parameters(), strict=True):
        assert relative(a.grad, b.grad) < tolerance  # type: ignore[arg-type]
    for a, b in zip(apart.buffers(), fused.buffers(), strict=True):
        assert torch.equal(a, b)


def test_streaming_in_pieces_gives_the_same_spikes() -> None:
    layer = block(torch.float32, False)
    x = torch.rand(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(3))
    context = Context(None, torch.arange(BATCH))
    whole, _, _ = layer.run_fused(x, None, context)
    first, _, state = layer.run_fused(x[:30], None, context)
    second, _, _ = layer.run_fused(x[30:], state, context)
    assert torch.equal(whole, torch.cat([first, second]))


def test_what_is_not_fused() -> None:
    x = torch.rand(4, 2, INPUTS)
    assert not block(torch.float32, True).eval().fuses(x)
    assert not block(torch.float32, True, learn=("tau_mem",)).fuses(x)
    assert not block(torch.float32, True, t_ref=0.02).fuses(x)


def test_a_model_reports_the_same_rates_recorded_or_not() -> None:
    generator = torch.Generator().manual_seed(1)
    layer = block(torch.float32, True)
    model = SpikingModel([layer], ReadoutBlock(Linear(UNITS, 3, generator=generator), LI(3, dt=0.01)), dt=0.01).train()
    x = torch.rand(STEPS, BATCH, INPUTS, generator=generator)
    mask = torch.ones(STEPS, BATCH, dtype=torch.bool)
    mask[50:, 1] = False
    for seen in (None, mask):
        context = Context(seen, torch.arange(BATCH))
        plain, recorded = model(x, None, context), model(x, None, context, record=True)
        assert torch.equal(plain.logits, recorded.logits)
        assert torch.equal(plain.rates, recorded.rates)
        assert (len(plain.spikes), len(recorded.spikes)) == (0, 1)
