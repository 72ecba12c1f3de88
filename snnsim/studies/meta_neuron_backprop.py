"""The study's layer trained by gradient descent: a recipe, a passing run folder, spikes of the frozen network."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from snnsim.datasets.dataset import Dataset
from snnsim.engines import simulate
from snnsim.events import Events
from snnsim.recipes import Recipe, load_recipe
from snnsim.training.loop import train as run_training
from snnsim.training.runs import load_run

if TYPE_CHECKING:
    from snnsim.studies.meta_neuron import Cell, Material

__all__ = ["study_recipe", "trained_spikes"]


def study_recipe(cell: Cell, data: Material, setting: dict[str, float]) -> Recipe:
    """Return the recipe of a combination: one hidden layer, a leaky readout, as many steps as the samples have."""
    from snnsim.studies.meta_neuron import CHANCES, INTRINSIC, TAU_MEM

    sizes, chance = data.sizes, CHANCES[cell.neuron]
    kind = {"lif": "lif", "meta": "meta", "levy-baxter": "levy-baxter"}[cell.neuron]
    changes = [
        f"data.dt={sizes.dt}",
        f"data.channels={data.train.n_units}",
        f"model.hidden=[{data.n_units}]",
        f"model.initial_rate={sizes.rate * sizes.dt}",
        f"model.neuron.kind={kind}",
        f"train.epochs={sizes.backprop_epochs}",
        f"train.batch_size={sizes.batch}",
        f"train.weights.lr={2e-3 * setting['gain']}",
        "train.validation.how=none",
    ]
    if kind != "levy-baxter":
        changes.append(f"model.neuron.tau_mem={TAU_MEM}")
    if kind == "meta":
        changes += [f"model.neuron.amplitude={0.5 * (chance.high - chance.low)}"]
        changes += [f"model.neuron.temperature={chance.temperature}"]
    if kind != "lif":
        changes.append(f"model.neuron.release={chance.release}")
    if cell.intrinsic:
        names = list(INTRINSIC[cell.neuron]["backprop"])
        changes += [f"model.neuron.learn={names}", "model.neuron.learn_per=neuron"]
        changes.append(f"train.neuron.lr={2e-3 * setting['own']}")
    return load_recipe("meta-study", changes)


def trained_spikes(
    cell: Cell, data: Material, train: Events, test: Events, setting: dict[str, float], seed: int, folder: Path
) -> tuple[Events, Events]:
    """Train on all of ``train``, keep the last epoch, and return the layer's spikes for both sets of samples."""
    dataset = Dataset(data.name, train, None, None, digest="of a study")
    with tempfile.TemporaryDirectory(prefix=f"{cell.name}-", dir=folder) as place:
        run = Path(place) / "run"
        run_training(study_recipe(cell, data, setting), dataset, run, seed=seed)
        network = load_run(run).network("last")
    name = network.order()[0].name
    fired, fired_test = (simulate(network, events, engine="clock", seed=seed).spikes[name] for events in (train, test))
    return fired, fired_test
