"""LIF networks of other libraries on a device: SpikingJelly, snnTorch, Norse, and a loop in torch that is compiled.

The task's ``side`` says which library, ``way`` which of its own ways: for SpikingJelly ``torch``, ``triton``,
``cuda`` or ``cupy`` (its own choice if empty), for torch ``compile``. All have ``v <- 0.9 v + current``, threshold 1,
reset by subtraction that passes no gradient, the surrogate ATan(5), and one product over all steps a layer. The
readout's scores are the mean membrane of leaky integrators; that is a weighted sum over time, and every library is
given it as such.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

BETA = 0.9
PACKAGES = {"spikingjelly": "spikingjelly", "snntorch": "snntorch", "norse": "norse"}
SWITCH = "SJ_LIF_CUDA_IMPLEMENTATION"
"""Environment variable by which SpikingJelly 2 is told which kernels to take."""

_used: list[str] = []


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    made = {name: version(name) for name in (*_used, "torch")}
    if "spikingjelly" in _used:
        made["kernels"] = _kernels()
    return made


def _kernels() -> str:
    """Return which of its kernels SpikingJelly has taken, as far as it tells."""
    import sys

    module = sys.modules.get("spikingjelly._ops.lif")
    names = [
        str(chosen.name)
        for item in vars(module or object).values()
        for chosen in getattr(item, "_selections", {}).values()
        if chosen is not None
    ]
    return ", ".join(sorted(set(names))) or "not told"


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Return a training step of a network, or forward and backward of one Linear and LIF."""
    import numpy as np
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # float32 on every side
    device, sizes = torch.device(task["device"]), task["sizes"]
    torch.set_float32_matmul_precision("highest")
    node = _nodes(task["side"].partition(":")[0], task["way"])
    single = task["kind"] == "linear"
    generator = np.random.default_rng(0)
    shape = (task["n_steps"], task["batch"], sizes[0])
    made = generator.poisson(task["rate"], shape) if task["rate"] else generator.standard_normal(shape)
    x = torch.from_numpy(made.astype(np.float32)).to(device)
    linear = nn.ModuleList([nn.Linear(n, m, bias=single) for n, m in pairwise(sizes)]).to(device)
    nodes = [node() for _ in (sizes[1:] if single else sizes[1:-1])]
    _move(nodes, device)
    if single:
        kept: dict[str, Any] = {}

        def forward() -> object:
            kept["y"] = nodes[0](linear[0](x))
            return kept["y"]

        def backward() -> object:
            linear.zero_grad(set_to_none=True)
            kept.pop("y").sum().backward()
            return None

        return {"parts": {"forward": forward, "backward": backward}}
    labels = torch.from_numpy(generator.integers(0, sizes[-1], task["batch"])).to(device)
    steps = task["n_steps"]
    left = torch.arange(steps, 0, -1, device=device, dtype=torch.float32)
    share = ((1 - BETA**left) / (1 - BETA) / steps)[:, None, None]  # of an arrival in the mean membrane
    optimiser = torch.optim.Adam(linear.parameters(), lr=1e-3)

    def train() -> object:
        y = x
        for connection, cell in zip(linear[:-1], nodes, strict=True):
            y = cell(connection(y))
        loss = nn.functional.cross_entropy((linear[-1](y) * share).sum(dim=0), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.detach()

    return {"parts": {"step": train}}


def _move(nodes: list[Any], device: Any) -> None:
    for cell in nodes:
        module = getattr(cell, "module", None)
        if module is not None:
            module.to(device)


def _nodes(library: str, way: str) -> Callable[[], Callable[[Any], Any]]:
    """Return what makes the neurons of a layer: currents (time, batch, unit) to spikes."""
    if library in PACKAGES and library not in _used:
        _used.append(library)
    if library == "spikingjelly":
        return _spikingjelly(way)
    if library == "snntorch":
        return _snntorch
    return _norse if library == "norse" else _compiled


def _spikingjelly(way: str) -> Callable[[], Callable[[Any], Any]]:
    if way:
        os.environ[SWITCH] = way
    from spikingjelly.activation_based import functional, neuron, surrogate

    choose: Any = getattr(functional, "set_backend", None)  # before version 2
    if way == "cupy" and choose is None:
        raise RuntimeError("this SpikingJelly has no CuPy kernels")

    def make() -> Callable[[Any], Any]:
        cell = neuron.LIFNode(
            tau=1 / (1 - BETA),
            decay_input=False,
            v_reset=None,
            detach_reset=True,
            surrogate_function=surrogate.ATan(5.0),
            step_mode="m",
        )
        if choose is not None:
            choose(cell, way or "cupy")

        def run(current: Any) -> Any:
            functional.reset_net(cell)
            return cell(current)

        run.module = cell  # type: ignore[attr-defined]
        return run

    return make


def _snntorch() -> Callable[[Any], Any]:
    import snntorch
    import torch
    from snntorch import surrogate

    cell = snntorch.Leaky(beta=BETA, spike_grad=surrogate.atan(alpha=5.0), reset_mechanism="subtract")

    def run(current: Any) -> Any:
        membrane, spikes = torch.zeros_like(current[0]), []
        for arrivals in current:
            fired, membrane = cell(arrivals, membrane)
            spikes.append(fired)
        return torch.stack(spikes)

    run.module = cell  # type: ignore[attr-defined]
    return run


def _norse() -> Callable[[Any], Any]:
    import torch
    from norse.torch import LIFBoxCell, LIFBoxParameters

    cell = LIFBoxCell(p=LIFBoxParameters(tau_mem_inv=torch.as_tensor((1 - BETA) / 1e-3)))

    def run(current: Any) -> Any:
        state, spikes = None, []
        for arrivals in current:
            fired, state = cell(arrivals, state)
            spikes.append(fired)
        return torch.stack(spikes)

    run.module = cell  # type: ignore[attr-defined]
    return run


def _compiled() -> Callable[[Any], Any]:
    """Return a loop over a step that torch.compile has made one kernel of; whole loops take too long to compile."""
    import torch

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Any) -> Any:
            ctx.save_for_backward(v)
            return (v >= 0).to(v.dtype)

        @staticmethod
        def backward(ctx: Any, *upstream: Any) -> Any:
            (v,) = ctx.saved_tensors
            return upstream[0] * 2.5 / (1 + (math.pi / 2 * 5.0 * v) ** 2)

    def step(v: Any, arrivals: Any) -> tuple[Any, Any]:
        h = BETA * v + arrivals
        fired = Spike.apply(h - 1.0)  # type: ignore[no-untyped-call]
        return h - fired.detach(), fired

    compiled: Any = torch.compile(step, dynamic=False)

    def run(current: Any) -> Any:
        v, spikes = torch.zeros_like(current[0]), []
        for arrivals in current:
            v, fired = compiled(v, arrivals)
            spikes.append(fired)
        return torch.stack(spikes)

    return run
