"""snnsim's own side on a CUDA device; in Numba's simulator the CPU stands for one, which shows no speed."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

BETA = 0.9
_open = ExitStack()
_device: list[Any] = []


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import PackageNotFoundError, version

    from snnsim import __version__

    made = {"snnsim": __version__}
    for name in ("torch", "numba", "numba-cuda"):
        try:
            made[name] = version(name)
        except PackageNotFoundError:
            made[name] = "not installed"
    return made


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a step of a task, or a function that gives facts."""
    import torch

    from snnsim.nn.cuda import use_device

    if not _device:
        torch.set_num_threads(task["threads"])
        _device.append(_open.enter_context(use_device("cuda")))
    kinds: dict[str, Callable[[dict[str, Any], Any], dict[str, Any]]] = {
        "ceilings": _ceilings,
        "delay": _model,
        "plain": _model,
        "linear": _linear,
        "kernel": _kernel,
        "precision": _precision,
        "sim": _simulation,
    }
    return kinds[task["kind"]](task, _device[0])


def _inputs(task: dict[str, Any], device: Any, tail: int = 0) -> tuple[Any, Any]:
    import numpy as np
    import torch

    generator = np.random.default_rng(0)
    shape = (task["n_steps"], task["batch"], task["sizes"][0])
    drawn: Any = generator.poisson(task["rate"], shape) if task["rate"] else generator.standard_normal(shape)
    counts = np.concatenate([drawn, np.zeros((tail, *shape[1:]))]).astype(np.float32)
    labels = generator.integers(0, task["sizes"][-1], task["batch"])
    return torch.from_numpy(counts).to(device), torch.from_numpy(labels).to(device)


def _built(task: dict[str, Any]) -> tuple[Any, Any]:
    """Return a new model of a task on the CPU, and its recipe."""
    from snnsim.nn.model import SpikingModel, build_model
    from snnsim.recipes import load_recipe

    sizes = task["sizes"]
    changes = [f"model.hidden={list(sizes[1:-1])}"]
    if task["n_delays"]:
        base = "shd-dcls"
        changes += [f"model.connection.taps={task['taps']}", f"model.connection.max_delay={task['n_delays'] * 0.01}"]
    else:
        base = "shd-lif"
        changes += ["model.batch_norm=false", "model.dropout=0.0", "model.readout.reduce=mean"]
    recipe = load_recipe(base, changes)
    model = build_model(recipe.model, sizes[0], sizes[-1], recipe.data.dt, 0)
    assert isinstance(model, SpikingModel)
    if task["n_delays"]:
        model.set_sigma(task["sigma"])
    return model, recipe


def _model(task: dict[str, Any], device: Any) -> dict[str, Any]:
    import torch

    from snnsim.learning import BPTT, Loss, TensorStream
    from snnsim.nn.context import Context
    from snnsim.nn.formulation import choose_formulations
    from snnsim.training.schedules import build_optimisers

    model, recipe = _built(task)
    model.to(device)
    optimisers = build_optimisers(model, recipe.train, 100)
    x, labels = _inputs(task, device, model.tail_steps)
    context = Context(None, torch.arange(task["batch"], device=device), 0, 0)
    choose_formulations(model, min(1.0, task["rate"]), [])
    rule, loss = BPTT(), Loss(labels, "cross_entropy")

    def train() -> object:
        for group in optimisers:
            group.optimiser.zero_grad(set_to_none=True)
        outcome = rule.gradients(model, TensorStream(x, context), loss)
        for group in optimisers:
            group.optimiser.step()
        model.clamp_()
        return outcome.losses

    def evaluate() -> object:
        with torch.no_grad():
            return model(x, None, context).logits.argmax(dim=1)

    model.train()
    if task["what"] == "train":
        return {"parts": {"step": train}}
    train()
    model.eval()
    return {"parts": {"step": evaluate}}


def _linear(task: dict[str, Any], device: Any) -> dict[str, Any]:
    from snnsim.nn.delays import Linear
    from snnsim.nn.model import Block

    n_in, n_out = task["sizes"]
    connection = Linear(n_in, n_out, bias=True)
    block = Block(connection, _neurons(n_out)).to(device).train()
    x, _ = _inputs(task, device)
    kept: dict[str, Any] = {}

    def forward() -> object:
        kept["y"] = block.run_fused(x)[0] if block.fuses(x) else block(x)[0]
        return kept["y"]

    def backward() -> object:
        block.zero_grad(set_to_none=True)
        kept.pop("y").sum().backward()
        return None

    return {"parts": {"forward": forward, "backward": backward}}


def _neurons(size: int) -> Any:
    from snnsim.nn.neurons import LIF

    return LIF(size, dt=0.001, beta=BETA, reset="subtract")


def _kernel(task: dict[str, Any], device: Any) -> dict[str, Any]:
    import torch

    (size,) = task["sizes"]
    neurons = _neurons(size).to(device).train()
    current = torch.randn(task["n_steps"], task["batch"], size, device=device).requires_grad_()
    upstream = torch.randn(task["n_steps"], task["batch"], size, device=device)
    kept: dict[str, Any] = {}

    def forward() -> object:
        kept["y"] = neurons(current)[0]
        return kept["y"]

    def backward() -> object:
        return torch.autograd.grad(kept.pop("y"), current, upstream)

    return {"parts": {"forward": forward, "backward": backward}}


def _ceilings(task: dict[str, Any], device: Any) -> dict[str, Any]:
    """Return facts: the device, and what it reaches in a large copy and in large products."""
    import torch

    from snnsim.kernels.cuda_support import SIMULATED

    def facts() -> dict[str, Any]:
        real = device.type == "cuda"
        made: dict[str, Any] = {"simulated": SIMULATED, "torch_cuda": torch.version.cuda or "none"}
        if real:
            properties = torch.cuda.get_device_properties(device)
            made |= {
                "device": properties.name,
                "memory": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": properties.multi_processor_count,
            }
        else:
            made["device"] = "the CPU in Numba's simulator"
        source = torch.ones(1 << (28 if real else 12), device=device)
        target = torch.empty_like(source)
        made["copy_bytes"] = 8.0 * source.numel() / _best(partial(target.copy_, source), real)
        size = 8192 if real else 32
        for name, dtype in (("operations", torch.float32), ("bf16_operations", torch.bfloat16)):
            a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
            out = torch.empty_like(a)
            made[name] = 2.0 * size**3 / _best(partial(torch.mm, a, b, out=out), real)
        return made

    return {"facts": facts}


def _best(call: Callable[[], object], real: bool, rounds: int = 7, calls: int = 5) -> float:
    """Return the median seconds of a call."""
    import statistics

    import torch

    call()
    times: list[float] = []
    for _ in range(rounds):
        if real:
            event: Any = torch.cuda.Event
            begin, end = event(enable_timing=True), event(enable_timing=True)
            begin.record()
            for _ in range(calls):
                call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3 / calls)
        else:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _distance(a: Any, b: Any) -> float:
    """Return the relative l2 distance of what a device gave from the float64 reference."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return float((a - b).norm() / b.norm()) if float(b.norm()) else float((a - b).norm())


def _precision(task: dict[str, Any], device: Any) -> dict[str, Any]:
    """Return facts: relative l2 distances from the CPU's float64, layer by layer and of whole networks."""

    def facts() -> dict[str, Any]:
        made: dict[str, Any] = {"layers": _layers(task, device), "float32": _whole(task, device, "float32")}
        plain = {**task, "n_delays": 0, "rate": 0.05}
        made["plain float32"] = _whole(plain, device, "float32")
        made["plain bf16"] = _whole(plain, device, "bf16")
        return made

    return {"facts": facts}


def _layers(task: dict[str, Any], device: Any) -> list[dict[str, float]]:
    """Return the distances of every delay layer alone: output, and gradients of input, weights and positions."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = []
    layers = zip(_built(task)[0].delay_layers(), _built(task)[0].double().delay_layers(), strict=True)
    for place, (here, there) in enumerate(layers):
        rate = task["rate"] if place == 0 else 0.1
        x = (torch.rand(task["n_steps"], task["batch"], here.n_in, generator=generator) < rate).double()
        upstream = torch.randn(task["n_steps"], task["batch"], here.n_out, generator=generator).double()

        def run(layer: Any, x: Any, upstream: Any) -> tuple[Any, ...]:
            x = x.requires_grad_()
            y = layer.train()(x)[0]
            return y, *torch.autograd.grad(y, [x, layer.weight, layer.position], upstream)

        reference = contextvars.Context().run(run, there, x.clone(), upstream)
        found = run(here.to(device), x.float().to(device), upstream.float().to(device))
        names = ("output", "input", "weight", "position")
        rows.append({name: _distance(a, b) for name, a, b in zip(names, found, reference, strict=True)})
    return rows


def _whole(task: dict[str, Any], device: Any, precision: str) -> dict[str, float]:
    """Return the distances of a whole network's scores and gradients, and how many spikes differ."""
    from importlib import import_module

    import torch

    from snnsim.nn.context import Context

    model, reference = _built(task)[0].to(device), _built(task)[0].double()
    x, labels = _inputs(task, torch.device("cpu"), model.tail_steps)

    def run(model: Any, x: Any, labels: Any) -> tuple[Any, Any, list[Any]]:
        model.train()
        context = Context(None, torch.arange(x.shape[1], device=x.device), 0, 0)
        output = model(x, None, context)
        torch.nn.functional.cross_entropy(output.logits, labels).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        with torch.no_grad():
            spikes = model(x, None, context, record=True).spikes
        return output.logits, torch.cat(gradients), spikes

    there = contextvars.Context().run(run, reference, x.double(), labels)
    with import_module("snnsim.nn.precision").products(precision):
        here = run(model, x.to(device), labels.to(device))
    spikes = [(a.cpu() != 0, b != 0) for a, b in zip(here[2], there[2], strict=True)]
    return {
        "scores": _distance(here[0], there[0]),
        "gradients": _distance(here[1], there[1]),
        "differing": float(sum(int((a != b).sum()) for a, b in spikes)),
        "spikes": float(sum(int(b.sum()) for _, b in spikes)),
    }


def _simulation(task: dict[str, Any], device: Any) -> dict[str, Any]:
    """Return stretches of a network of the literature on engine "cuda" and on engine "clock", both in float32."""
    from dataclasses import replace

    from snnsim import models
    from snnsim.engines import ENGINES, grid_inputs
    from snnsim.engines.initial import initial_state

    begin = time.perf_counter()
    model = getattr(models, task["model"])(scale=task["scale"])
    network = model.network
    built = time.perf_counter() - begin
    stretch = replace(grid_inputs(network, None, task["n_steps"]), stimuli=model.stimuli, seed=1)
    states: dict[str, Any] = {}
    counts: dict[str, list[int]] = {"cuda": [], "clock": []}
    notes: dict[str, Any] = {}

    def side(name: str) -> Callable[[], object]:
        runner = ENGINES[name]().prepare(network, "float32", task["threads"])
        if model.initial:
            states[name] = initial_state(network, model.initial, 1, "float32", name)

        def run() -> object:
            result = runner.run(stretch, state=states.get(name))
            states[name] = result.state
            counts[name].append(sum(int(train.units.shape[0]) for train in result.spikes.values()))
            notes[name] = {key: str(value) for key, value in result.notes.items()}
            return result

        return run

    def facts() -> dict[str, Any]:
        return {
            "neurons": sum(item.size for item in network.populations),
            "synapses": sum(item.n_synapses for item in network.projections),
            "stretch_seconds": task["n_steps"] * network.dt,
            "build_seconds": built,
            "spikes": counts,
            "notes": notes,
        }

    return {"parts": {"cuda": side("cuda"), "clock": side("clock")}, "facts": facts, "wall": True}
