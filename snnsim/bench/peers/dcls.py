"""The delay paper's network from PyPI packages: DCLS connections, SpikingJelly neurons, growing sequences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("dcls", "spikingjelly", "torch")}


def build(task: dict[str, Any]) -> Callable[[], object]:
    """Return one training step of the network, or one evaluation of a batch."""
    import numpy as np
    import torch
    from DCLS.construct.modules import Dcls1d
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from torch import nn

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    sizes, length = task["sizes"], task["n_delays"]
    connections, nodes = [], []
    for index, (n_in, n_out) in enumerate(pairwise(sizes)):
        made = Dcls1d(n_in, n_out, kernel_count=task["taps"], dilated_kernel_size=length, bias=False, version="gauss")
        nn.init.kaiming_uniform_(made.weight, nonlinearity="relu")
        nn.init.uniform_(made.P, -(length // 2), length // 2)
        made.clamp_parameters()
        nn.init.constant_(made.SIG, task["sigma"])
        made.SIG.requires_grad = False
        connections.append(made)
        options = {
            "tau": 1.005,
            "v_reset": 0.0,
            "decay_input": False,
            "surrogate_function": surrogate.ATan(5.0),
            "detach_reset": True,
            "step_mode": "m",
        }
        if index == len(sizes) - 2:
            nodes.append(nn.ModuleList([neuron.LIFNode(v_threshold=1e9, store_v_seq=True, **options)]))
        else:
            norm = layer.BatchNorm1d(n_out, step_mode="m")
            dropout = layer.Dropout(0.4, step_mode="m")
            nodes.append(nn.ModuleList([norm, neuron.LIFNode(v_threshold=1.0, **options), dropout]))
    model = nn.ModuleList([*connections, *nodes])
    positions = [made.P for made in connections]
    weights = [p for p in model.parameters() if all(p is not q for q in positions) and p.requires_grad]
    optimisers = [
        torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-5),
        torch.optim.Adam(positions, lr=0.1, weight_decay=0),
    ]
    generator = np.random.default_rng(0)
    counts = generator.poisson(task["rate"], (task["n_steps"], task["batch"], sizes[0])).astype(np.float32)
    x = torch.from_numpy(counts)
    labels = torch.from_numpy(generator.integers(0, sizes[-1], task["batch"]))

    def forward() -> torch.Tensor:
        functional.reset_net(model)
        y = x
        for made, rest in zip(connections, nodes, strict=True):
            padded = nn.functional.pad(y.permute(1, 2, 0), (length - 1, (length - 1) // 2))
            y = made(padded).permute(2, 0, 1)
            for module in rest:
                y = module(y)
        trace: Any = nodes[-1][0].v_seq
        scores: torch.Tensor = torch.softmax(trace, dim=2).sum(dim=0)
        return scores

    def train() -> object:
        loss = nn.functional.cross_entropy(forward(), labels)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
        for made in connections:
            made.clamp_parameters()
        return loss.item()

    def evaluate() -> object:
        with torch.no_grad():
            return forward().argmax(dim=1)

    if task["what"] == "train":
        model.train()
        return train
    train()
    for made in connections:  # as the paper's code evaluates: width 0, whole positions
        with torch.no_grad():
            made.SIG.zero_()
            made.P.round_()
            made.clamp_parameters()
        made.version = made.DCK.version = "max"
    model.eval()
    return evaluate
