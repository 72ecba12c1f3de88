"""snnsim's own side of every comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("snnsim", "torch", "numba")}


def build(task: dict[str, Any], build_net: Callable[[dict[str, Any]], Any] | None = None) -> Callable[[], object]:
    """Return a function that does the task once.

    Args:
        task: See :meth:`snnsim.bench.tasks.Task.to_json` and :meth:`snnsim.bench.sim_tasks.SimTask.to_json`.
        build_net: :func:`snnsim.bench.networks.build_net`, for a simulation.
    """
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    import torch

    from snnsim.nn.memory import keep_freed_memory

    torch.set_num_threads(task["threads"])
    keep_freed_memory()
    if task["what"] == "epoch":
        return _epoch(task)
    if build_net is not None:
        return _simulation(task, build_net(task))
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

    from snnsim.learning import Loss, TensorStream
    from snnsim.nn.context import Context
    from snnsim.nn.formulation import choose_formulations
    from snnsim.nn.inference import infer
    from snnsim.nn.model import SpikingModel, build_model
    from snnsim.recipes import load_recipe
    from snnsim.training.schedules import build_optimisers

    sizes = task["sizes"]
    changes = [f"model.hidden={sizes[1:-1]}"]
    if task["kind"] == "delay":
        base = "shd-dcls"
        changes += [f"model.connection.taps={task['taps']}", f"model.connection.max_delay={task['n_delays'] * 0.01}"]
    elif task["kind"] == "conv":
        base = "nmnist-vgg"
        changes = [f"model.conv.preset='{task['preset']}'", f"model.conv.input={list(task['maps'])}"]
        changes += ["model.conv.width=1.0", "model.dropout=0.0"]
    else:
        base = "shd-lif"
        changes += ["model.batch_norm=false", "model.dropout=0.0", "model.readout.reduce=mean"]
        changes += [f"model.recurrent={str(task['kind'] == 'recurrent').lower()}"]
    recipe = load_recipe(base, changes)
    model = build_model(recipe.model, sizes[0], sizes[-1], recipe.data.dt, 0)
    if task["kind"] == "delay":
        assert isinstance(model, SpikingModel)
        model.set_sigma(task["sigma"])
    optimisers = build_optimisers(model, recipe.train, 100)
    x, labels = _inputs(task, model.tail_steps)
    context = Context(None, torch.arange(task["batch"]), 0, 0)
    density = float((x != 0).float().mean())

    def choose(rates: list[float]) -> None:
        if isinstance(model, SpikingModel):
            choose_formulations(model, density, rates)

    choose([])
    rule = _rule(task)
    loss = Loss(labels, "per_step" if task["loss"] == "steps" else "cross_entropy")

    def train() -> object:
        for group in optimisers:
            group.optimiser.zero_grad(set_to_none=True)
        outcome = rule.gradients(model, TensorStream(x, context), loss)
        for group in optimisers:
            group.optimiser.step()
        model.clamp_()
        choose(outcome.rates.tolist())  # as after an epoch
        return float(outcome.losses.sum())

    def evaluate() -> object:
        assert isinstance(model, SpikingModel)
        return infer(model, x, context).logits.argmax(dim=1)

    if task["what"] == "train":
        model.train()
        return train
    train()
    model.eval()
    return evaluate


def _rule(task: dict[str, Any]) -> Any:
    from snnsim.learning import BPTT, OTTT, SLTT, SLTTK

    steps = task["n_steps"]
    rules: dict[str, Callable[[], Any]] = {
        "bptt": lambda: BPTT(task["checkpoint_steps"] or None),
        "sltt": SLTT,
        "sltt-k": lambda: SLTTK(max(1, steps // 10)),
        "sltt-1": lambda: SLTTK(1),
        "ottt": OTTT,
    }
    return rules[task["learning"]]()


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
    import numpy as np

    from snnsim.datasets import open_dataset
    from snnsim.recipes import load_recipe
    from snnsim.training.prefetch import ahead
    from snnsim.training.prepare import prepare
    from snnsim.training.trainer import Trainer

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


def _simulation(task: dict[str, Any], net: Any) -> Callable[[], object]:
    import time

    from snnsim.engines import ENGINES, grid_inputs
    from snnsim.engines.initial import initial_state
    from snnsim.stimuli import Poisson

    network, events = frozen(net)
    stimuli = tuple(
        Poisson(item.name, net.noise_rate, net.noise_weight) for item in network.populations if net.noise_rate
    )
    runner = ENGINES[task["engine"]]().prepare(network, task["dtype"], task["threads"])
    stretch = replace(grid_inputs(network, events, task["n_steps"]), stimuli=stimuli, seed=1)
    starts = {f"{item.name}.v": layer.v for item, layer in zip(network.populations, net.layers, strict=True)}
    begun = None if net.inputs else initial_state(network, starts, 1, task["dtype"], task["engine"])
    n_exc, state = net.n_exc, begun
    out, given = [net.out_degree(place) for place in range(len(net.layers))], net.input_events()
    del net, events

    def step() -> dict[str, Any]:
        nonlocal state
        begin = time.perf_counter()
        result = runner.run(stretch, state=state)
        seconds = time.perf_counter() - begin
        state = result.state if begun is not None else None
        units = [train.units for train in result.spikes.values()]
        counts = [len(item) for item in units]
        if n_exc:
            first = int((units[0] < n_exc).sum())
            counts = [first, counts[0] - first]
        events = given + sum(int(degree[item].sum()) for degree, item in zip(out, units, strict=True))
        return {"seconds": seconds, "spikes": counts, "events": events}

    return step


def frozen(net: Any) -> tuple[Any, Any]:
    """Return our network of a :class:`snnsim.bench.networks.Net`, and its input events or None."""
    import numpy as np

    from snnsim.events import Events
    from snnsim.network import Input, Network, Population, Projection, Sparse
    from snnsim.network_sparse import Steps
    from snnsim.neurons import LIF, ExpCurrentLIF

    dt = net.dt / 1000
    common = {"tau_mem": net.tau_mem / 1000, "v_threshold": net.v_threshold, "v_reset": net.v_reset}
    common |= {"t_ref": net.t_ref / 1000, "drive": net.drive / (net.tau_mem / 1000)}
    neuron: Any = LIF(**common)
    if net.tau_exc:
        neuron = ExpCurrentLIF(tau_exc=net.tau_exc / 1000, tau_inh=net.tau_inh / 1000, **common)
    names = [f"n{place}" for place in range(len(net.layers))]
    projections = []
    for place, layer in enumerate(net.layers):
        for source, rows in layer.rows:
            shape = (rows.n_target, len(rows.indptr) - 1)
            for array in (rows.indptr, rows.target, rows.weight, rows.steps):
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)  # so that they are taken as they are
            delay = Steps(rows.steps, dt) if isinstance(rows.steps, np.ndarray) else rows.steps * dt
            sparse = Sparse(rows.indptr, rows.target, rows.weight, shape)
            begin = "in" if source < 0 else names[source]
            projections.append(Projection(begin, names[place], sparse, delay, rows.receptor))
    populations = [Population(name, layer.size, neuron) for name, layer in zip(names, net.layers, strict=True)]
    inputs = (Input("in", net.inputs),) if net.inputs else ()
    network = Network(tuple(populations), tuple(projections), inputs, None, dt)
    if not net.inputs:
        return network, None
    duration = (int(net.input_step[-1]) + 1) * dt
    return network, Events.from_lists([net.input_step * dt], [net.input_unit], n_units=net.inputs, duration=duration)
