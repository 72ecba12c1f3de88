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
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.norm import BatchNormTime

STEPS, BATCH, INPUTS, UNITS = 80, 5, 12, 300  # more units than go through time together, more steps than one flush


def block(dtype: torch.dtype, norm: bool, kind: Any = LIF, **options: Any) -> Block:
    generator = torch.Generator().manual_seed(1)
    made = Block(
        Linear(INPUTS, UNITS, generator=generator),
        kind(UNITS, dt=0.01, tau_mem=0.03, **options),
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


KINDS: list[tuple[Any, dict[str, Any]]] = [
    (LIF, {"learn": ("tau_mem", "v_threshold"), "v_threshold": 0.8}),
    (CubaLIF, {"tau_syn": 0.02, "learn": ("tau_mem", "tau_syn", "v_threshold"), "v_threshold": 0.5}),
    (CubaLIF, {"tau_syn": 0.02, "v_threshold": 0.5}),
    (AdaptiveLIF, {"adapt_v": 0.1, "adapt_spike": 0.3, "learn": ("tau_mem", "tau_adapt", "adapt_v", "adapt_spike")}),
    (AdaptiveLIF, {"adapt_threshold": 0.4, "adapt_spike": 0.3, "learn": ("adapt_threshold", "v_threshold")}),
    (AdaptiveLIF, {"adapt_v": 0.1, "adapt_spike": 0.3}),
]


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize(
    ("reset", "detach", "norm"), list(itertools.product(("zero", "subtract"), (True, False), (True, False)))
)
def test_every_kind_of_neuron_and_all_it_learns(kind: int, reset: str, detach: bool, norm: bool) -> None:
    neuron, options = KINDS[kind]
    options = {**options, "reset": reset, "detach_reset": detach}
    apart, fused = (block(torch.float64, norm, neuron, **options) for _ in range(2))
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(STEPS, BATCH, INPUTS, dtype=torch.float64, generator=generator)
    weight = torch.randn(STEPS, BATCH, UNITS, dtype=torch.float64, generator=generator)
    mask = torch.ones(STEPS, BATCH, dtype=torch.bool)
    mask[60:, 2] = False
    context = Context(mask, torch.arange(BATCH))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    start = [
        type(state)(*(0.1 * weight[k] for k in range(len(state) - 1)), state.refractory)
        for state in (made.neuron.initial_state(BATCH, torch.float64) for made in (apart, fused))
    ]
    assert fused.fuses(x)
    y, spikes, state = apart(inputs[0], (None, start[0]), context)
    z, counts, end = fused.run_fused(inputs[1], (None, start[1]), context)
    assert torch.equal(y, z)
    assert torch.equal(counts, (spikes * mask.unsqueeze(2)).sum(dim=(0, 2)).long())
    assert 0 < int(counts.sum()) < spikes.numel()
    for a, b in zip(state[1], end[1], strict=True):
        assert torch.equal(a, b)
    for out, after in ((y, state), (z, end)):
        ((out * weight).sum() + sum((part * weight[k]).sum() for k, part in enumerate(after[1][:-1]))).backward()
    assert relative(inputs[0].grad, inputs[1].grad) < 1e-13  # type: ignore[arg-type]
    for a, b in zip(apart.parameters(), fused.parameters(), strict=True):
        assert relative(a.grad, b.grad) < 1e-11  # type: ignore[arg-type]


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
