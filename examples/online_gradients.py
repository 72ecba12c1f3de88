"""How far gradients found forward in time are from backpropagation through time.

python examples/online_gradients.py
"""

from collections.abc import Callable
from typing import Any

import torch

from snnsim.learning import BPTT, OTTT, RTRL, EProp, Loss, TensorStream
from snnsim.nn.delays import Linear
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.surrogates import ATan

STEPS, BATCH, UNITS, CLASSES, SEEDS = 60, 16, 30, 5, 4
DT = 0.001


def lif(beta: float, reset: str = "zero") -> LIF:
    return LIF(UNITS, dt=DT, beta=beta, reset=reset, surrogate=ATan(2.0))


def model(hidden: list[Any], memory: float, generator: torch.Generator) -> SpikingModel:
    blocks = [Block(Linear(UNITS, UNITS, generator=generator), neuron) for neuron in hidden]
    readout = ReadoutBlock(Linear(UNITS, CLASSES, generator=generator), LI(CLASSES, dt=DT, beta=memory), reduce="mean")
    return SpikingModel(blocks, readout, dt=DT).double()


def cosine(rule: Any, build: Callable[[torch.Generator], SpikingModel], layer: int = 0) -> float:
    """Mean cosine over random networks and inputs between the rule's gradient of a layer's weights and the exact one."""
    found = []
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        network = build(generator)
        x = (torch.rand(STEPS, BATCH, UNITS, generator=generator) < 0.1).double()
        loss = Loss(torch.randint(0, CLASSES, (BATCH,), generator=generator))
        gradients = []
        for one in (BPTT(), rule):
            network.zero_grad()
            one.gradients(network, TensorStream(x), loss)
            gradients.append(network.blocks[layer].connection.weight.grad.clone())
        found.append(float((gradients[0] * gradients[1]).sum() / (gradients[0].norm() * gradients[1].norm())))
    return sum(found) / SEEDS


def line(title: str, values: list[float]) -> None:
    print(f"{title:52s}" + "".join(f"{value:8.3f}" for value in values))


leaks = [0.0, 0.5, 0.8, 0.9, 0.95]
line("leak of the layer (ottt), of the second layer (rtrl)", leaks)
for reset in ("subtract", "zero"):
    line(f"ottt, one layer, {reset}", [cosine(OTTT(True), lambda g: model([lif(b, reset)], 0.9, g)) for b in leaks])
line("rtrl, one layer, zero", [cosine(RTRL(True), lambda g: model([lif(b)], 0.9, g)) for b in leaks])
for memory in (0.0, 0.9):
    title = f"rtrl, first of two layers, readout's leak {memory}"
    line(title, [cosine(RTRL(True), lambda g: model([lif(0.8), lif(b)], memory, g)) for b in leaks])
    title = f"rtrl, second of two layers, readout's leak {memory}"
    line(title, [cosine(RTRL(True), lambda g: model([lif(0.8), lif(b)], memory, g), 1) for b in leaks])


def looped(kind: str, scale: float, generator: torch.Generator) -> SpikingModel:
    neuron: Any = lif(0.9)
    if kind == "adaptive lif":
        neuron = AdaptiveLIF(
            UNITS, dt=DT, beta=0.9, rho=0.97, adapt_spike=0.2, adapt_threshold=0.7, surrogate=ATan(2.0)
        )
    weight = torch.randn(UNITS, UNITS, generator=generator) * scale / UNITS**0.5
    return model([Recurrent(neuron, weight)], 0.9, generator)


scales = [0.0, 0.25, 0.5, 1.0]
line("\nspread of recurrent weights times sqrt(units)", scales)
for kind in ("lif", "adaptive lif"):
    for feedback in ("symmetric", "random"):
        rule: Any = EProp(True, feedback)
        line(f"e-prop, {kind}, {feedback}", [cosine(rule, lambda g: looped(kind, s, g)) for s in scales])
