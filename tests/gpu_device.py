"""What tests of a real device share: the device, the SHD network at real and at toy size, distances."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.kernels.cuda_support import SIMULATED
from snnsim.nn.context import Context
from snnsim.nn.cuda import use_device
from snnsim.nn.formulation import choose_formulations
from snnsim.nn.model import SpikingModel, build_model
from snnsim.recipes import load_recipe


@dataclass(frozen=True)
class Size:
    """Sizes of a network with delays, or of one without if it has one slot."""

    layers: tuple[int, ...]
    n_steps: int
    batch: int
    n_delays: int = 25
    sigma: float = 6.0

    @property
    def real(self) -> bool:
        """Return whether it needs a device."""
        return self.batch > 8


TOY = Size((3, 4, 3, 2), 5, 2, 3, 1.0)
SHD = Size((140, 256, 256, 20), 100, 256)
SIZES = [pytest.param(TOY, id="toy"), pytest.param(SHD, id="shd", marks=pytest.mark.gpu)]
"""The same test at toy size in Numba's simulator and at the size of the delay paper on a device."""


@contextmanager
def device_for(real: bool) -> Iterator[torch.device]:
    """Yield the device that a size needs; without a device a real size fails with the sentence that says why."""
    if real and SIMULATED:
        pytest.fail("this test needs a CUDA device and Numba without its simulator: run it by `make gpu`")
    if not real and not SIMULATED:
        pytest.skip("toy sizes run in Numba's simulator")
    with use_device("cuda") as device:
        yield device


def make_model(size: Size, dtype: torch.dtype = torch.float32, dropout: float = 0.4) -> SpikingModel:
    """Return the delay paper's network, or the same without delays, always with the same parameters, on the CPU."""
    changes = [f"model.hidden={list(size.layers[1:-1])}", f"model.dropout={dropout}"]
    if size.n_delays > 1:
        recipe = load_recipe("shd-dcls", [*changes, f"model.connection.max_delay={size.n_delays * 0.01}"])
    else:
        recipe = load_recipe("shd-lif", [*changes, "model.batch_norm=false", "model.readout.reduce=mean"])
    model = build_model(recipe.model, size.layers[0], size.layers[-1], recipe.data.dt, 0)
    assert isinstance(model, SpikingModel)
    if size.n_delays > 1:
        model.set_sigma(size.sigma)
    choose_formulations(model, 0.35)
    return model.to(dtype)


def make_batch(size: Size, model: SpikingModel, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return counts (time, batch, channel) and labels, on the CPU."""
    draw = np.random.default_rng(1)
    counts = draw.poisson(0.35, (size.n_steps, size.batch, size.layers[0])).astype(np.float64)
    counts = np.concatenate([counts, np.zeros((model.tail_steps, *counts.shape[1:]))])
    labels = draw.integers(0, size.layers[-1], size.batch)
    return torch.from_numpy(counts).to(dtype), torch.from_numpy(labels)


def context_of(x: torch.Tensor) -> Context:
    """Return the keys of dropout of a batch, on its device as training has them."""
    return Context(None, torch.arange(x.shape[1], device=x.device), 0, 0)


@dataclass
class Step:
    """What one training step gave: scores, gradients by parameter and the spikes of every block."""

    scores: torch.Tensor
    gradients: dict[str, torch.Tensor]
    spikes: list[torch.Tensor]


def training_step(model: SpikingModel, x: torch.Tensor, labels: torch.Tensor) -> Step:
    """Do a forward and a backward pass in training, and a forward pass that records spikes."""
    model.train()
    model.zero_grad(set_to_none=True)
    output = model(x, None, context_of(x))
    torch.nn.functional.cross_entropy(output.logits, labels).backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        spikes = model(x, None, context_of(x), record=True).spikes
    return Step(output.logits.detach(), gradients, spikes)


def on_cpu(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function where no simulator stands for a device: the CPU's own kernels compute."""
    return contextvars.Context().run(call, *arguments)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the relative l2 distance of ``a`` from the reference ``b``."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    norm = float(b.norm())
    return float((a - b).norm()) / norm if norm else float((a - b).norm())
