"""Plain spiking networks in SpikingJelly: all steps at once, or step by step with its nodes for SLTT and OTTT."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("spikingjelly", "torch")}


def build(task: dict[str, Any]) -> Callable[[], object]:
    """Return one training step of a network, or one pass through a layer and back."""
    import numpy as np
    import torch
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from torch import nn

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    sizes = task["sizes"]
    generator = np.random.default_rng(0)
    counts = generator.poisson(task["rate"], (task["n_steps"], task["batch"], sizes[0])).astype(np.float32)
    x = torch.from_numpy(counts)
    labels = torch.from_numpy(generator.integers(0, sizes[-1], task["batch"]))

    if task["learning"] in ("sltt", "ottt"):
        return _step_by_step(task, x, labels)

    def node() -> nn.Module:
        made: nn.Module = neuron.LIFNode(
            tau=10.0,
            decay_input=False,
            v_reset=None,
            detach_reset=True,
            surrogate_function=surrogate.ATan(5.0),
            step_mode="m",
        )
        return made

    modules: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(pairwise(sizes)):
        modules.append(layer.Linear(n_in, n_out, bias=False, step_mode="m"))
        if index == len(sizes) - 2 and task["kind"] != "layer":
            break
        inner: Any = node()
        if task["kind"] == "recurrent":
            inner.step_mode = "s"
            inner = layer.LinearRecurrentContainer(inner, n_out, n_out, bias=False, step_mode="m")
        modules.append(inner)
    model = nn.Sequential(*modules)
    if task["kind"] == "layer":

        def through() -> object:
            functional.reset_net(model)
            y = model(x)
            y.sum().backward()
            model.zero_grad()
            return y

        return through
    beta = 1.0 - 1.0 / 10.0
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def train() -> object:
        functional.reset_net(model)
        v, total = torch.zeros(task["batch"], sizes[-1]), torch.zeros(task["batch"], sizes[-1])
        by_step: Any = 0.0
        for arrivals in model(x):
            v = beta * v + arrivals
            total = total + v
            if task["loss"] == "steps":
                by_step = by_step + nn.functional.cross_entropy(v, labels) / task["n_steps"]
        loss = by_step
        if task["loss"] == "scores":
            loss = nn.functional.cross_entropy(total / task["n_steps"], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return train


def _step_by_step(task: dict[str, Any], x: Any, labels: Any) -> Callable[[], object]:
    """Return a training step of a rule that goes back in every time step; carried states count as constants."""
    import torch
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from torch import nn

    sizes = task["sizes"]
    made = neuron.SLTTLIFNode if task["learning"] == "sltt" else neuron.OTTTLIFNode
    modules: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(pairwise(sizes)):
        modules.append(layer.Linear(n_in, n_out, bias=False))
        if index < len(sizes) - 2:
            modules.append(made(tau=10.0, decay_input=False, v_reset=None, surrogate_function=surrogate.ATan(5.0)))
    container = nn.Sequential if task["learning"] == "sltt" else layer.OTTTSequential
    model = container(*modules)
    beta = 1.0 - 1.0 / 10.0
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def train() -> object:
        functional.reset_net(model)
        optimiser.zero_grad()
        v, total = torch.zeros(task["batch"], sizes[-1]), 0.0
        for step in range(task["n_steps"]):
            v = beta * v.detach() + model(x[step])
            loss = nn.functional.cross_entropy(v, labels) / task["n_steps"]
            loss.backward()
            total += loss.item()
        optimiser.step()
        return total

    return train
