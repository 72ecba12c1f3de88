"""A network that Xylo can hold, for the study of hardware targets: CubaLIF, subtracting reset, no delays.

Recipes end in integrators, and Xylo has only spiking outputs. So the network is trained with an integrating readout,
then the integrators get a threshold, and the class with most output spikes wins. The threshold is the one with the best
accuracy on training samples; accuracies are those of this network. This conversion is ours and not from a paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnsim.datasets.dataset import Dataset
from snnsim.engines import simulate
from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError
from snnsim.events import Events, replace_fields
from snnsim.network import Network, Population, Readout
from snnsim.neurons import CubaLIF
from snnsim.quantize import check, quantize
from snnsim.recipes import Recipe, load_recipe
from snnsim.training.prepare import pool_units, prepare_split

if TYPE_CHECKING:
    from snnsim.studies.hardware import Sizes

__all__ = ["CLASSES", "XYLO", "XyloCase", "few_classes", "spiking_readout", "xylo_network"]

XYLO = "xylo-audio2"
"""The limits profile."""

CLASSES = 8
CHANNELS = 16
DT = 0.01
TAU_MEM, TAU_SYN = -DT / np.log(0.75), -DT / np.log(0.5)
"""Time constants whose decays a step are shifts: 1 - 1/4 and 1 - 1/2."""

MORE = 6
"""Times as many samples in its proof as in others: few outputs give few spikes."""

THRESHOLDS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Thresholds tried, as shares of the largest membrane of the readout on training samples."""


@dataclass(frozen=True)
class XyloCase:
    """The network for Xylo.

    Attributes:
        network: Frozen, all spiking.
        events: Training samples on its channels.
        accuracies: ``float_accuracy`` and ``integer_accuracy`` on the test set, or ``no_accuracy``, why there are none.
        words: What it is.
    """

    network: Network
    events: Events
    accuracies: dict[str, Any]
    words: str


def few_classes(data: Dataset, most: int = CLASSES) -> Dataset:
    """Return a data set with its first ``most`` classes alone."""

    def cut(events: Events | None) -> Events | None:
        if events is None:
            return None
        kept = events.subset(np.flatnonzero((events.labels >= 0) & (events.labels < most)))
        return replace_fields(kept, class_names=kept.class_names[:most])

    if data.n_classes <= most:
        return data
    train = cut(data.train)
    assert train is not None
    notes = {**data.notes, "classes": f"the first {most} of {data.n_classes}"}
    return replace(
        data,
        train=train,
        valid=cut(data.valid),
        test=cut(data.test),
        name=f"{data.name}-{most}",
        digest=f"{data.digest}-{most}",
        notes=notes,
    )


def xylo_recipe(sizes: Sizes, data: Dataset) -> Recipe:
    """Return the recipe: one hidden layer twice as wide as the first of the study, 16 channels or fewer."""
    channels = next(count for count in range(min(CHANNELS, data.n_units), 0, -1) if data.n_units % count == 0)
    return load_recipe(
        "spoken-digits",
        [
            f"model.hidden=[{2 * sizes.hidden[0]}]",
            "model.connection.kind=linear",
            "model.neuron.kind=cubalif",
            f"model.neuron.tau_mem={TAU_MEM}",
            f"model.neuron.tau_syn={TAU_SYN}",
            "model.neuron.tau_law=exact",
            "model.neuron.reset=subtract",
            "model.readout.neuron=cubali",
            f"model.readout.tau_mem={TAU_MEM}",
            f"model.readout.tau_syn={TAU_SYN}",
            "model.readout.tau_law=exact",
            "model.readout.reduce=mean",
            f"data.channels={channels}",
            f"train.epochs={sizes.epochs}",
        ],
    )


def spiking_readout(network: Network, threshold: float) -> Network:
    """Return the network with a threshold on its integrators; scores become numbers of spikes.

    Raises:
        InputError: The readout is no population of CubaLI.
    """
    assert network.readout is not None
    populations: list[Population] = []
    for item in network.populations:
        if item.name == network.readout.population:
            if item.neuron.kind != "CubaLI":
                raise InputError(f"population {item.name!r}: expected CubaLI, got {item.neuron.kind}")
            given = item.neuron.parameters()
            neuron = CubaLIF(**{**given, "v_threshold": threshold, "reset": "subtract"})
            item = replace(item, neuron=neuron)
        populations.append(item)
    readout = Readout(network.readout.population, "spikes", "count", network.readout.skip_steps)
    return network.replace(populations=tuple(populations), readout=readout)


def xylo_network(data: Dataset, folder: Path, sizes: Sizes, *, told: Callable[[str], None]) -> XyloCase:
    """Train the network for Xylo, or take it from ``folder``, and measure it.

    Args:
        data: Data set; its first eight classes are used.
        folder: Run folder.
        sizes: Sizes of the study.
        told: Told what begins.
    """
    from snnsim.studies.hardware import samples_of, trained

    small = few_classes(data)
    run = trained(xylo_recipe(sizes, small), small, folder, seed=0, told=told)
    network = run.network()
    tail = int(network.notes.get("tail_steps") or 0)
    events = samples_of(run, small, max(MORE * sizes.samples, 64))
    train = pool_units(prepare_split(run.recipe, small, "train", run.manifest), run.pool)
    name = network.readout.population if network.readout is not None else ""
    record = simulate(network, events, tail_steps=tail, record=[f"{name}.v"])
    largest = float(max(np.max(values) for values in record.records[f"{name}.v"]))
    made = [spiking_readout(network, share * max(largest, 1e-6)) for share in THRESHOLDS]
    scores = [_accuracy(simulate(item, train, tail_steps=tail).predictions, train) for item in made]
    best = made[int(np.argmax(scores))]
    words = (
        f"delay-free CubaLIF of its own: {run.manifest['n_inputs']} channels, {small.n_classes} classes, "
        "spiking outputs"
    )
    fits = check(best, XYLO)
    if not fits.fits:
        reason = " ".join(item.sentence() for item in fits.violations[:3])
        return XyloCase(best, events, {"no_accuracy": reason}, words)
    integer, _ = quantize(best, XYLO, calibration=events, tail_steps=tail)
    run.folder.record_test_run("study of hardware targets, as xylo-audio2", ["best"])
    test = pool_units(prepare_split(run.recipe, small, "test", run.manifest), run.pool)
    exact = simulate(best, test, tail_steps=tail).predictions
    whole = simulate_integer(integer, test, tail_steps=tail).predictions
    accuracies = {
        "float_accuracy": _accuracy(exact, test),
        "integer_accuracy": _accuracy(whole, test),
        "n_test": len(test),
    }
    return XyloCase(best, events, accuracies, words)


def _accuracy(predictions: Any, events: Events) -> float:
    return float(np.mean(np.asarray(predictions) == np.asarray(events.labels)))
