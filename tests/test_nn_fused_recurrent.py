"""Recurrent LIF neurons in one kernel: the spikes and gradients of the step-by-step modules."""

import itertools
from typing import Any

import pytest
import torch

from snnsim.nn.neurons import LIF
from snnsim.nn.recurrent import Recurrent

STEPS, BATCH = 40, 37


def layer(units: int, delay: int, **options: Any) -> Recurrent:
    made = Recurrent(
        LIF(units, dt=0.01, tau_mem=0.03, **options), delay_steps=delay, generator=torch.Generator().manual_seed(1)
    )
    return made.double().train()


@pytest.mark.parametrize(
    ("reset", "detach", "delay", "units"),
    list(itertools.product(("zero", "subtract"), (True, False), (1, 3, 50), (5, 70))),
)
def test_equals_the_step_by_step_neurons(reset: str, detach: bool, delay: int, units: int) -> None:
    module = layer(units, delay, reset=reset, detach_reset=detach, v_reset=-0.1 if reset == "zero" else 0.0)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(STEPS, BATCH, units, dtype=torch.float64, generator=generator) * 0.8
    upstream = torch.randn(STEPS, BATCH, units, dtype=torch.float64, generator=generator)
    assert module.has_kernel
    results = []
    for run in (module.forward, module.reference_forward):
        leaf = x.clone().requires_grad_()
        spikes, state = run(leaf)
        ((spikes * upstream).sum() + (state.neuron.v * upstream[0]).sum()).backward()
        results.append((spikes, state, leaf.grad, module.recurrent_weight.grad))
        module.recurrent_weight.grad = None
    (spikes, state, dx, dw), (wanted, end, dx_wanted, dw_wanted) = results
    assert 0 < spikes.sum() < spikes.numel()
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(state.neuron.v, end.neuron.v, rtol=1e-12, atol=1e-12)
    assert torch.equal(state.history, end.history)
    torch.testing.assert_close(dx, dx_wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dw, torch.zeros_like(dw) if dw_wanted is None else dw_wanted, rtol=1e-10, atol=1e-12)


def test_bits_do_not_depend_on_threads() -> None:
    module = layer(70, 2).float()
    x = torch.rand(STEPS, BATCH, 70, generator=torch.Generator().manual_seed(3))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            spikes, _ = module(leaf)
            results.append((spikes.detach(), *torch.autograd.grad(spikes.sum(), (leaf, module.recurrent_weight))))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_goes_step_by_step() -> None:
    assert not layer(5, 1, t_ref=0.02).has_kernel
    assert not layer(5, 1, learn=("tau_mem",)).has_kernel
