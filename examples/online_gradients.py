"""How far gradients found forward in time are from backpropagation through time, and what they cost.

python examples/online_gradients.py [random networks, default 2]
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from snnsim.learning import BPTT, OTTT, RTRL, EProp, Loss, TensorStream
from snnsim.nn.delays import Linear
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF, AdaptiveLIF
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.surrogates import ATan

STEPS, BATCH, UNITS, CLASSES = 60, 16, 30, 5
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
DT = 0.001


def lif(beta: float, reset: str = "zero") -> LIF:
    return LIF(UNITS, dt=DT, beta=beta, reset=reset, surrogate=ATan(2.0))


def model(hidden: list[Any], memory: float, generator: torch.Generator) -> SpikingModel:
    blocks = [Block(Linear(UNITS, UNITS, generator=generator), neuron) for neuron in hidden]
    readout = ReadoutBlock(Linear(UNITS, CLASSES, generator=generator), LI(CLASSES, dt=DT, beta=memory), reduce="mean")
    return SpikingModel(blocks, readout, dt=DT).double()


def stack(generator: torch.Generator, leaks: list[float], memory: float, reset: str = "zero") -> SpikingModel:
    return model([lif(leak, reset) for leak in leaks], memory, generator)


def looped(generator: torch.Generator, kind: str, scale: float) -> SpikingModel:
    neuron: Any = lif(0.9)
    if kind == "adaptive lif":
        own = {"rho": 0.97, "adapt_spike": 0.2, "adapt_threshold": 0.7}
        neuron = AdaptiveLIF(UNITS, dt=DT, beta=0.9, surrogate=ATan(2.0), **own)
    weight = torch.randn(UNITS, UNITS, generator=generator) * scale / UNITS**0.5
    return model([Recurrent(neuron, weight)], 0.9, generator)


def cosine(rule: Any, layer: int, build: Callable[..., SpikingModel], *options: Any) -> float:
    """Mean over random networks of the cosine between the rule's gradient of a layer's weights and the exact one."""
    found = []
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        network = build(generator, *options)
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
    print(f"{title:54s}" + "".join(f"{value:7.3f}" for value in values))


leaks = [0.0, 0.5, 0.8, 0.9, 0.95]
line("leak of the layer, or of the second of two layers", leaks)
for reset in ("subtract", "zero"):
    line(f"ottt, one layer, reset {reset}", [cosine(OTTT(True), 0, stack, [leak], 0.9, reset) for leak in leaks])
line("rtrl, one layer", [cosine(RTRL(True), 0, stack, [leak], 0.9) for leak in leaks])
for memory in (0.0, 0.9):
    for layer, which in enumerate(("first", "second")):
        values = [cosine(RTRL(True), layer, stack, [0.8, leak], memory) for leak in leaks]
        line(f"rtrl, {which} of two layers, leak of the readout {memory}", values)

scales = [0.0, 0.25, 0.5, 1.0]
print()
line("spread of recurrent weights, times sqrt(units)", scales)
for kind in ("lif", "adaptive lif"):
    for feedback in ("symmetric", "random"):
        rule: Any = EProp(True, feedback)
        line(f"e-prop, {kind}, feedback {feedback}", [cosine(rule, 0, looped, kind, scale) for scale in scales])


def seconds(rule: Any, network: SpikingModel, x: torch.Tensor, rounds: int = 3) -> float:
    """Least processor time of a gradient."""
    times = []
    for _ in range(rounds):
        network.zero_grad()
        start = time.process_time()
        rule.gradients(network, TensorStream(x), Loss(torch.arange(x.shape[1]) % 20, "per_step"))
        times.append(time.process_time() - start)
    return min(times)


def one_layer(neuron: Any, recurrent: bool = False) -> SpikingModel:
    readout = ReadoutBlock(Linear(256, 20), LI(20, dt=0.01, tau_mem=0.05))
    return SpikingModel([Block(Linear(140, 256), Recurrent(neuron) if recurrent else neuron)], readout, dt=0.01)


torch.manual_seed(0)
torch.set_num_threads(1)
x = (torch.rand(100, 32, 140) < 0.03).float()
print("\nprocessor time over that of bptt; memory of the traces")
adaptive = AdaptiveLIF(256, dt=0.01, tau_mem=0.05, adapt_spike=0.2, adapt_threshold=0.5)
for title, rule, network in (
    ("ottt, lif", OTTT(), one_layer(LIF(256, dt=0.01, tau_mem=0.05))),
    ("rtrl, lif, reset subtract", RTRL(), one_layer(LIF(256, dt=0.01, tau_mem=0.05, reset="subtract"))),
    ("rtrl, lif, reset zero", RTRL(), one_layer(LIF(256, dt=0.01, tau_mem=0.05))),
    ("e-prop, adaptive lif, recurrent", EProp(), one_layer(adaptive, recurrent=True)),
):
    ratio = seconds(rule, network, x) / seconds(BPTT(), network, x)
    size = rule.gradients(network, TensorStream(x), Loss(torch.arange(32) % 20, "per_step")).facts["trace_bytes"]
    print(f"{title:54s}{ratio:7.1f}{size / 1e6:10.2f} MB")
