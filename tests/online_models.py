"""Small models and inputs for the tests of rules that learn forward in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snnsim.learning import Loss, Outcome, TensorStream
from snnsim.nn.context import Context
from snnsim.nn.delays import Linear
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.recurrent import Recurrent

STEPS, BATCH, INPUTS, CLASSES = 60, 4, 7, 3
DT = 0.001
LABELS = torch.tensor([0, 1, 2, 1])
MASK = torch.arange(STEPS)[:, None] < torch.tensor([60, 20, 45, 33])

KINDS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "lif": (LIF, {}, ("tau_mem", "v_threshold")),
    "cuba": (CubaLIF, {"v_threshold": 0.4}, ("tau_mem", "tau_syn", "v_threshold")),
    "alif": (
        AdaptiveLIF,
        {"tau_adapt": 0.03, "adapt_spike": 0.2, "adapt_v": 0.01, "adapt_threshold": 0.7},
        ("tau_mem", "tau_adapt", "adapt_v", "adapt_spike", "adapt_threshold", "v_threshold"),
    ),
    "adlif": (
        AdaptiveLIF,
        {"tau_adapt": 0.03, "adapt_spike": 0.1, "adapt_v": 0.01},
        ("tau_mem", "tau_adapt", "adapt_v", "adapt_spike"),
    ),
}
"""Class, options and learnable parameters of every kind of neurons."""


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spikes(seed: int = 1, steps: int = STEPS, batch: int = BATCH, inputs: int = INPUTS, rate: float = 0.3) -> Tensor:
    return (torch.rand(steps, batch, inputs, generator=source(seed)) < rate).double()


def neurons(kind: str, size: int, learn: bool = False, **options: Any) -> Any:
    make, own, names = KINDS[kind]
    given = {"tau_mem": 0.01, **own, **options}
    return make(size, dt=DT, learn=names if learn else (), **given)


def model(*hidden: Any, readout: Any = None, bias: bool = False, seed: int = 2, reduce: Any = "sum_softmax") -> Any:
    """A float64 model of the given neurons (or blocks made of them), one hidden layer each."""
    generator, blocks, n_in = source(seed), [], INPUTS
    for neuron in hidden:
        if isinstance(neuron, Block):
            blocks.append(neuron)
            n_in = neuron.connection.n_out
            continue
        size = neuron.size
        blocks.append(Block(Linear(n_in, size, bias=bias, generator=generator), neuron))
        n_in = size
    out = LI(CLASSES, dt=DT, tau_mem=0.01) if readout is None else readout
    end = ReadoutBlock(Linear(n_in, CLASSES, bias=bias, generator=generator), out, reduce=reduce)
    return SpikingModel(blocks, end, dt=DT).double()


def looped(neuron: Any, scale: float = 0.5, seed: int = 5, diagonal: bool = True) -> Recurrent:
    size = neuron.size
    values = torch.randn(size, size, generator=source(seed)) * scale
    return Recurrent(neuron, values.diagonal().diag() if diagonal else values)


def found(
    rule: Any,
    network: SpikingModel,
    x: Tensor,
    loss: Loss | None = None,
    context: Context | None = None,
    update: Callable[[], None] | None = None,
) -> tuple[Outcome, dict[str, Tensor]]:
    """The outcome of a rule and the gradients of all parameters that got one."""
    network.zero_grad(set_to_none=True)
    stream = TensorStream(x, Context() if context is None else context)
    outcome = rule.gradients(network, stream, Loss(LABELS) if loss is None else loss, update)
    return outcome, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def difference(a: Tensor, b: Tensor) -> float:
    """Relative to ``a``."""
    return float((a - b).norm() / a.norm())


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))
