"""Plain spiking networks in snnTorch: one product over all steps a layer, then its neurons step by step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("snntorch", "torch")}


def build(task: dict[str, Any]) -> Callable[[], object]:
    """Return one training step of a network, or one pass through a layer and back."""
    import numpy as np
    import snntorch
    import torch
    from snntorch import surrogate
    from torch import nn

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    sizes = task["sizes"]
    generator = np.random.default_rng(0)
    counts = generator.poisson(task["rate"], (task["n_steps"], task["batch"], sizes[0])).astype(np.float32)
    x = torch.from_numpy(counts)
    labels = torch.from_numpy(generator.integers(0, sizes[-1], task["batch"]))
    linear = nn.ModuleList([nn.Linear(n_in, n_out, bias=False) for n_in, n_out in pairwise(sizes)])
    gradient = surrogate.atan(alpha=5.0)
    options = {"beta": 0.9, "spike_grad": gradient, "reset_mechanism": "subtract"}
    if task["kind"] == "recurrent":
        hidden = nn.ModuleList([snntorch.RLeaky(linear_features=n, **options) for n in sizes[1:-1]])
    else:
        hidden = nn.ModuleList(
            [snntorch.Leaky(**options) for _ in (sizes[1:] if task["kind"] == "layer" else sizes[1:-1])]
        )

    def run(current: torch.Tensor, cell: Any) -> torch.Tensor:
        spikes = []
        if task["kind"] == "recurrent":
            fired, membrane = cell.init_rleaky()
            for arrivals in current:
                fired, membrane = cell(arrivals, fired, membrane)
                spikes.append(fired)
        else:
            membrane = cell.init_leaky()
            for arrivals in current:
                fired, membrane = cell(arrivals, membrane)
                spikes.append(fired)
        return torch.stack(spikes)

    if task["kind"] == "layer":

        def through() -> object:
            y = run(linear[0](x), hidden[0])
            y.sum().backward()  # type: ignore[no-untyped-call]
            linear.zero_grad()
            return y

        return through
    optimiser = torch.optim.Adam([*linear.parameters(), *hidden.parameters()], lr=1e-3)

    def train() -> object:
        y = x
        for connection, cell in zip(linear[:-1], hidden, strict=True):
            y = run(connection(y), cell)
        v, total = torch.zeros(task["batch"], sizes[-1]), torch.zeros(task["batch"], sizes[-1])
        for arrivals in linear[-1](y):
            v = 0.9 * v + arrivals
            total = total + v
        loss = nn.functional.cross_entropy(total / task["n_steps"], labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.item()

    return train
