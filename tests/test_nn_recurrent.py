"""Recurrent connections: delays, gradients, carried state, learned delays."""

from typing import Any

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.surrogates import Sigmoid

UNITS = 4
MATRIX = np.random.default_rng(0).integers(1, 6, (UNITS, UNITS))
OPTIONS: list[dict[str, Any]] = [
    {},
    {"delay_steps": 3},
    {"delay_steps": MATRIX},
    {"delay_steps": MATRIX + 2},
    {"delay_steps": 2, "learn_delay": True, "max_delay_steps": 5, "sigma": 0.5},
]


def make(kind: Any = LIF, **options: Any) -> Recurrent:
    generator = torch.Generator().manual_seed(0)
    neuron = kind(UNITS, dt=0.001, tau_mem=0.01, learn=("tau_mem",), surrogate=Sigmoid(3.0), detach_reset=False)
    return Recurrent(neuron, generator=generator, **options).double()


def drive(steps: int = 17, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(steps, 3, UNITS, dtype=torch.float64, generator=generator)


def plain(module: Recurrent, x: torch.Tensor) -> torch.Tensor:
    """Every synapse by hand: a spike of i at t reaches j at t + delay[j, i]."""
    delays = module.delay_steps.expand(UNITS, UNITS)
    total, state, spikes = x.clone(), None, []
    for t in range(x.shape[0]):
        s, state = module.neuron(total[t : t + 1], state)
        spikes.append(s[0])
        for j in range(UNITS):
            for i in range(UNITS):
                if t + int(delays[j, i]) < x.shape[0]:
                    total[t + int(delays[j, i]), :, j] += module.recurrent_weight[j, i] * s[0, :, i]
    return torch.stack(spikes)


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_every_spike_arrives_after_its_delay(options: dict[str, Any]) -> None:
    module = make(**options).eval()
    with torch.no_grad():
        module.recurrent_weight.mul_(5)
        spikes, _ = module(drive(30))
        assert spikes.sum() > 20
        assert torch.equal(spikes, plain(module, drive(30)))
        if not module.learn_delay:
            moved = make(**{**options, "delay_steps": options.get("delay_steps", 1) + np.ones((UNITS, UNITS), int)})
            moved.load_state_dict({**module.state_dict(), "fixed_delay": moved.state_dict()["fixed_delay"]})
            assert not torch.equal(spikes, moved(drive(30))[0])


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
@pytest.mark.parametrize("kind", [LIF, CubaLIF, AdaptiveLIF])
def test_fused_equals_step_by_step(kind: Any, options: dict[str, Any]) -> None:
    module = make(kind, **options)
    x = drive().requires_grad_()
    results = []
    for function in (module.forward, module.reference_forward):
        spikes, _ = function(x)
        up = drive(seed=5)
        results.append([spikes, *torch.autograd.grad(spikes, [x, *module.parameters()], up)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_smoothed_recurrence_passes_gradcheck(options: dict[str, Any]) -> None:
    module = make(**options)
    x = drive(7).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, *_: module.reference_forward(x, smooth=True)[0], (x, *module.parameters())
    )


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_chunks_with_carried_state_equal_one_run(options: dict[str, Any]) -> None:
    module = make(CubaLIF, **options)
    whole, end = module(drive())
    parts, state = [], None
    for chunk in (drive()[:1], drive()[1:1], drive()[1:8], drive()[8:]):
        y, state = module(chunk, state)
        parts.append(y)
    assert torch.equal(whole, torch.cat(parts))
    assert state is not None
    assert torch.equal(end.history, state.history)
    assert torch.equal(end.neuron.v, state.neuron.v)


def test_causality() -> None:
    module, x = make(delay_steps=2), drive()
    changed = x.clone()
    changed[9:] += 3
    assert torch.equal(module(x)[0][:9], module(changed)[0][:9])


def test_fixed_delays_train_as_they_are_evaluated() -> None:
    module, x = make(delay_steps=2, learn_delay=True, max_delay_steps=5, sigma=1.0), drive()
    with torch.no_grad():
        module.position += 0.3
    evaluated, _ = module.eval()(x)
    assert not torch.equal(module.train()(x)[0], evaluated)
    module.fix_delays()
    assert torch.equal(module(x)[0], evaluated)
    module(x)[0].sum().backward()
    assert module.position.grad is None
    assert module.recurrent_weight.grad is not None


def test_a_learned_delay_moves_towards_the_target() -> None:
    # unit 0 fires at step 2 and drives unit 1; the wish is a current at step 8, that is a delay of 6
    neuron = LIF(2, dt=0.001, beta=0.0, surrogate=Sigmoid(2.0))
    module = Recurrent(neuron, [[0.0, 0.0], [0.6, 0.0]], delay_steps=3, learn_delay=True, max_delay_steps=10, sigma=2.0)
    x = torch.zeros(12, 1, 2)
    x[2, 0, 0] = 2.0
    optimiser = torch.optim.Adam([module.position], lr=0.1)
    for _ in range(80):
        optimiser.zero_grad()
        total, _ = module.reference_forward(x)
        # read the smooth response of unit 1 by its distance to threshold
        wish = torch.zeros(12)
        wish[8] = 1.0
        (-(total[:, 0, 1] * wish).sum() + 0 * total.sum()).backward()
        optimiser.step()
        module.clamp_()
    assert int(module.delay_steps[1, 0]) == 6
    assert module.delay_steps.min() >= 1


def test_mistakes_are_refused() -> None:
    neuron = LIF(2, dt=0.001)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"weight": torch.zeros(3, 2)}, r"weights of shape \(2, 2\)"),
        ({"delay_steps": 0}, "at least 1"),
        ({"delay_steps": 1.5}, "whole steps"),
        ({"delay_steps": [1, 2]}, "one delay or a matrix"),
        ({"sigma": 1.0}, "belong to learn_delay"),
        ({"learn_delay": True}, "max_delay_steps >= 2"),
    ]
    for options, match in cases:
        with pytest.raises(InputError, match=match):
            Recurrent(neuron, **options)
    with pytest.raises(InputError, match="expected spiking neurons such as LIF, got LI"):
        Recurrent(LI(2, dt=0.001))
