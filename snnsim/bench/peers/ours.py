"""snnsim's own side of every comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("snnsim", "torch", "numba")}


def build(task: dict[str, Any]) -> Callable[[], object]:
    """Return a function that does the task once."""
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    import torch

    from snnsim.nn.memory import keep_freed_memory

    torch.set_num_threads(task["threads"])
    keep_freed_memory()
    if task["what"] == "epoch":
        return _epoch(task)
    if task["what"] == "simulate":
        return _simulation(task)
    return _layer(task) if task["kind"] == "layer" else _model(task)


def _inputs(task: dict[str, Any], tail: int = 0) -> tuple[Any, Any]:
    import numpy as np
    import torch

    generator = np.random.default_rng(0)
    sizes = task["sizes"]
    counts = generator.poisson(task["rate"], (task["n_steps"], task["batch"], sizes[0])).astype(np.float32)
    counts = np.concatenate([counts, np.zeros((tail, *counts.shape[1:]), np.float32)])
    labels = generator.integers(0, sizes[-1], task["batch"])
    return torch.from_numpy(counts), torch.from_numpy(labels)


def _model(task: dict[str, Any]) -> Callable[[], object]:
    import torch

    from snnsim.learning.bptt import training_loss
    from snnsim.nn.context import Context
    from snnsim.nn.formulation import choose_formulations
    from snnsim.nn.inference import infer
    from snnsim.nn.model import build_model
    from snnsim.recipes import load_recipe
    from snnsim.training.schedules import build_optimisers

    sizes = task["sizes"]
    changes = [f"model.hidden={sizes[1:-1]}"]
    if task["kind"] == "delay":
        base = "shd-dcls"
        changes += [f"model.connection.taps={task['taps']}", f"model.connection.max_delay={task['n_delays'] * 0.01}"]
    else:
        base = "shd-lif"
        changes += ["model.batch_norm=false", "model.dropout=0.0", "model.readout.reduce=mean"]
        changes += [f"model.recurrent={str(task['kind'] == 'recurrent').lower()}"]
    recipe = load_recipe(base, changes)
    model = build_model(recipe.model, sizes[0], sizes[-1], recipe.data.dt, 0)
    if task["kind"] == "delay":
        model.set_sigma(task["sigma"])
    optimisers = build_optimisers(model, recipe.train, 100)
    x, labels = _inputs(task, model.tail_steps)
    context = Context(None, torch.arange(task["batch"]), 0, 0)
    density = float((x != 0).float().mean())
    choose_formulations(model, density)

    def train() -> object:
        output = model(x, None, context, checkpoint_steps=task["checkpoint_steps"] or None)
        loss, losses = training_loss(output, labels, None, recipe.train, len(labels), 0)
        for group in optimisers:
            group.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimisers:
            group.optimiser.step()
        model.clamp_()
        choose_formulations(model, density, output.rates.tolist())  # as after an epoch
        return float(losses.sum())

    def evaluate() -> object:
        return infer(model, x, context).logits.argmax(dim=1)

    if task["what"] == "train":
        model.train()
        return train
    train()
    model.eval()
    return evaluate


def _layer(task: dict[str, Any]) -> Callable[[], object]:
    from snnsim.nn.delays import Linear
    from snnsim.nn.formulation import EVENT_DENSITY
    from snnsim.nn.model import Block
    from snnsim.nn.neurons import LIF

    n_in, n_out = task["sizes"]
    connection, neuron = Linear(n_in, n_out), LIF(n_out, dt=0.001, tau_mem=0.02)
    x, _ = _inputs(task)
    connection.formulation = "events" if float((x != 0).float().mean()) < EVENT_DENSITY else "dense"
    block = Block(connection, neuron).train()

    def step() -> object:
        spikes, _, _ = block.run_fused(x)
        spikes.sum().backward()  # type: ignore[no-untyped-call]
        connection.weight.grad = None
        return spikes

    return step


def _epoch(task: dict[str, Any]) -> Callable[[], object]:
    from dataclasses import replace

    import numpy as np

    from snnsim.datasets import open_dataset
    from snnsim.recipes import load_recipe
    from snnsim.training.loop import Trainer
    from snnsim.training.prefetch import ahead
    from snnsim.training.prepare import prepare

    recipe = load_recipe(
        "shd-dcls",
        [f"model.hidden={list(task['sizes'])}", f"train.batch_size={task['batch']}", "train.validation.how=none"],
    )
    dataset = open_dataset(task["data"])
    if task["samples"]:
        dataset = replace(dataset, train=dataset.train.subset(np.arange(min(task["samples"], len(dataset.train)))))
    trainer = Trainer(recipe, prepare(recipe, dataset, 0), 0)

    def epoch() -> object:
        trainer.begin_epoch()
        for batch in ahead(trainer.batches.epoch(trainer.epoch), []):
            trainer.train_batch(batch)
        return trainer.end_epoch()["loss"]

    return epoch


def _simulation(task: dict[str, Any]) -> Callable[[], object]:
    import numpy as np

    from snnsim.engines import ENGINES, grid_inputs
    from snnsim.engines.initial import initial_state
    from snnsim.network import Network, Population, Projection, Sparse
    from snnsim.neurons import LIF

    size, inputs = (250, 25) if task["samples"] else task["sizes"]
    excitatory = inputs * 4 // 5
    draw = np.random.default_rng(1)
    source = np.concatenate(
        [
            draw.integers(0, size * 4 // 5, (size, excitatory)),
            draw.integers(size * 4 // 5, size, (size, inputs - excitatory)),
        ],
        axis=1,
    ).reshape(-1)
    weight = Sparse.from_triples(
        source, np.repeat(np.arange(size), inputs), np.where(source < size * 4 // 5, 0.1, -0.5), (size, size)
    )
    neuron = LIF(tau_mem=0.02, v_threshold=20.0, v_reset=10.0, t_ref=0.002, drive=24.0 / 0.02)
    network = Network((Population("n", size, neuron),), (Projection("n", "n", weight, 0.0015),), (), None, 1e-4)
    potentials = np.random.default_rng(2).uniform(0, 20, size)
    runner = ENGINES["clock"]().prepare(network, task["dtype"], task["threads"])
    stretch = grid_inputs(network, None, task["n_steps"])
    state = initial_state(network, {"n.v": potentials}, 1, task["dtype"], "clock")

    def step() -> object:
        nonlocal state
        result = runner.run(stretch, state=state)
        assert result.state is not None
        state = result.state
        return len(result.spikes["n"].times)

    return step
