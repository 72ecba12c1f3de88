"""Recurrent neurons in one kernel: the spikes and gradients of the step-by-step modules."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.nn.neurons import LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.recurrent import Recurrent

STEPS, BATCH = 40, 37


def layer(units: int, delay: Any, **options: Any) -> Recurrent:
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


KINDS: list[tuple[Any, dict[str, Any]]] = [
    (LIF, {"learn": ("tau_mem", "v_threshold")}),
    (CubaLIF, {"tau_syn": 0.02, "learn": ("tau_mem", "tau_syn", "v_threshold")}),
    (CubaLIF, {"tau_syn": 0.02}),
    (AdaptiveLIF, {"adapt_v": 0.1, "adapt_spike": 0.3, "learn": ("tau_mem", "tau_adapt", "adapt_v", "adapt_spike")}),
    (AdaptiveLIF, {"adapt_threshold": 0.4, "adapt_spike": 0.3, "learn": ("adapt_threshold", "v_threshold")}),
    (AdaptiveLIF, {"adapt_v": 0.1, "adapt_spike": 0.3}),
]


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize(
    ("reset", "detach", "delay"), list(itertools.product(("zero", "subtract"), (True, False), (1, 4)))
)
def test_every_kind_of_neuron_and_all_it_learns(kind: int, reset: str, detach: bool, delay: int) -> None:
    units, (neuron, options) = 21, KINDS[kind]
    made = neuron(units, dt=0.01, tau_mem=0.03, reset=reset, detach_reset=detach, **options)
    module = Recurrent(made, delay_steps=delay, generator=torch.Generator().manual_seed(1)).double().train()
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(STEPS, BATCH, units, dtype=torch.float64, generator=generator) * 1.6
    upstream = torch.randn(STEPS, BATCH, units, dtype=torch.float64, generator=generator)
    assert module.has_kernel
    results = []
    for run in (module.forward, module.reference_forward):
        leaf = x.clone().requires_grad_()
        spikes, state = run(leaf)
        last = sum((part * upstream[k]).sum() for k, part in enumerate(state.neuron[:-1]))
        ((spikes * upstream).sum() + last).backward()
        gradients = [leaf.grad, *(parameter.grad for parameter in module.parameters())]
        module.zero_grad(set_to_none=True)
        results.append([spikes.detach(), *(part.detach() for part in state.neuron), *gradients])
    assert 0 < results[0][0].sum() < results[0][0].numel()
    for got, wanted in zip(*results, strict=True):
        assert got is not None
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


class Deaf(LIF):
    """Neurons that hear nothing: a kind of its own must not be run as the kind it is made from."""

    def advance(self, current: Any, state: Any, prepared: Any) -> Any:
        return super().advance(current * 0, state, prepared)


def test_neurons_of_a_subclass_stay_what_they_are() -> None:
    module = Recurrent(Deaf(4, dt=0.01)).train()
    assert not module.has_kernel
    assert module(torch.full((6, 2, 4), 3.0))[0].sum() == 0


def test_what_goes_step_by_step() -> None:
    assert not layer(5, 1, t_ref=0.02).has_kernel
    assert not layer(5, np.ones((5, 5), int)).has_kernel
