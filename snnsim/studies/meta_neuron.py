"""The study of learned neuron parameters and of complexity as a code: what is compared, and how one run goes.

After Rudnicka, Szczepanski and Pregowska 2025, whose abstracts name the comparison (neuron models, learning rules, own
parameters learned or not, a Lempel-Ziv decision); every detail here is this package's own.

One layer of neurons sees a sample; what it fires is described by rates, by Lempel-Ziv complexities, or by both, and a
classifier that is the same for all decides. So neurons, rules and features are compared with all else equal. Each
combination tries the same number of settings on held-out training samples before its seeds are run, and the test
samples choose nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from snnsim.complexity_classifier import LZClassifier, lz_features
from snnsim.datasets.dataset import Dataset
from snnsim.datasets.splits import validation_events
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.learning.stdp import STDP, Chance, Homeostasis, Teacher
from snnsim.learning.stdp_layer import STDPLayer
from snnsim.learning.tempotron_layer import TempotronLayer
from snnsim.neurons import LIF
from snnsim.training.prepare import pool_units

__all__ = ["FEATURES", "NEURONS", "RULES", "Cell", "Material", "Sizes", "cells", "material", "run_cell", "settings"]

NeuronName = Literal["lif", "meta", "levy-baxter"]
RuleName = Literal["none", "backprop", "stdp", "tempotron"]
NEURONS: tuple[NeuronName, ...] = get_args(NeuronName)
RULES: tuple[RuleName, ...] = get_args(RuleName)
FEATURES = ("rate", "lzc", "both")
DECISIONS = ("logistic", "class-mean")

TAU_MEM = 0.02
CHANCES: dict[NeuronName, Chance] = {
    "lif": Chance(),
    "meta": Chance(release=0.8, low=0.7, high=1.3, temperature=0.1),
    "levy-baxter": Chance(release=0.8, low=0.0, high=1.0),
}
"""What is random in each neuron: the meta neuron's synapses and threshold a little, Levy and Baxter's by definition."""

INTRINSIC: dict[NeuronName, dict[str, tuple[str, ...]]] = {
    "lif": {"backprop": ("tau_mem", "v_threshold"), "local": ("tau_mem", "v_threshold")},
    "meta": {
        "backprop": ("tau_mem", "v_threshold", "release", "amplitude", "temperature", "drive_step"),
        "local": ("tau_mem", "v_threshold", "release"),
    },
    "levy-baxter": {"backprop": ("v_threshold", "release", "drive_step"), "local": ("v_threshold", "release")},
}
"""The neurons' own parameters that learn, by backprop and by the local rules."""


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        neuron: Neuron model.
        rule: Learning rule; ``none`` keeps the first weights.
        intrinsic: Whether the neurons' own parameters learn too.
    """

    neuron: NeuronName
    rule: RuleName
    intrinsic: bool

    @property
    def name(self) -> str:
        """Short name, also that of files."""
        return f"{self.neuron}-{self.rule}{'-intrinsic' if self.intrinsic else ''}"


def cells(neurons: tuple[NeuronName, ...] = NEURONS, rules: tuple[RuleName, ...] = RULES) -> list[Cell]:
    """Return all combinations; without a rule nothing learns, so there is one of each neuron."""
    return [
        Cell(neuron, rule, intrinsic)
        for neuron in neurons
        for rule in rules
        for intrinsic in ((False, True) if rule != "none" else (False,))
    ]


@dataclass(frozen=True)
class Sizes:
    """How large the runs on a data set are.

    Attributes:
        dt: Time step, seconds.
        channels: Input channels after pooling, at most.
        per_class: Neurons a class.
        rate: Spikes a second of a neuron that the first weights are scaled to.
        backprop_epochs: Epochs of backprop.
        stdp_epochs: Epochs of STDP.
        tempotron_epochs: Epochs of the Tempotron.
        batch: Samples of a batch of backprop.
    """

    dt: float = 0.002
    channels: int = 70
    per_class: int = 3
    rate: float = 20.0
    backprop_epochs: int = 15
    stdp_epochs: int = 2
    tempotron_epochs: int = 5
    batch: int = 32


@dataclass(frozen=True)
class Material:
    """A data set as the study sees it: pooled channels, and training samples held out for choosing settings.

    Attributes:
        name: Name of the set.
        train: Training samples.
        fit: Those of them to learn from while settings are chosen.
        valid: The others, to choose by.
        test: Test samples.
        n_classes: Classes.
        sizes: Sizes of the runs.
    """

    name: str
    train: Events
    fit: Events
    valid: Events
    test: Events
    n_classes: int
    sizes: Sizes

    @property
    def n_units(self) -> int:
        """Neurons of the layer."""
        return self.n_classes * self.sizes.per_class


def material(dataset: Dataset, sizes: Sizes | None = None) -> Material:
    """Pool the channels of a data set and hold out training samples, by speaker where test speakers are unseen.

    Raises:
        InputError: The set has no test samples.
    """
    sizes = sizes or Sizes()
    if dataset.test is None:
        raise InputError(f"data set {dataset.name!r}: the study needs test samples, got none")
    pool = -(-max(dataset.train.n_units, dataset.test.n_units) // sizes.channels)
    held = validation_events(dataset, how="auto", fraction=0.25, seed=0)
    train, fit, valid, test = (
        pool_units(events, pool) for events in (dataset.train, held.train, held.valid, dataset.test)
    )
    return Material(dataset.name, train, fit, valid, test, dataset.train.n_classes, sizes)


def settings(cell: Cell) -> list[dict[str, float]]:
    """Return the settings a combination may choose from: four each, whatever learns.

    ``gain`` multiplies the rule's usual learning rate, ``own`` that of the neurons' own parameters. Without a rule
    there is nothing to choose.
    """
    if cell.rule == "none":
        return [{"gain": 0.0}]
    if cell.intrinsic:
        return [{"gain": gain, "own": own} for gain in (1.0, 3.0) for own in (1.0, 5.0)]
    return [{"gain": gain} for gain in (0.3, 1.0, 3.0, 10.0)]


def run_cell(
    cell: Cell, data: Material, setting: dict[str, float], seed: int, folder: Path, *, tuning: bool = False
) -> dict[str, Any]:
    """Train one layer, describe what it fires, classify.

    Args:
        cell: What is run.
        data: On what.
        setting: One of :func:`settings`.
        seed: Seed of everything random.
        folder: Place for files of the run, which are removed.
        tuning: Learn from ``data.fit`` and score ``data.valid`` instead of training and test samples.

    Returns:
        ``accuracy`` by decision and features, ``seconds`` of training, ``lzc_milliseconds`` a sample, ``rate`` of the
        layer (spikes a second and neuron), and what was run.
    """
    train, test = (data.fit, data.valid) if tuning else (data.train, data.test)
    begin = time.perf_counter()
    if cell.rule == "backprop":
        from snnsim.studies.meta_neuron_backprop import trained_spikes

        fired, fired_test = trained_spikes(cell, data, train, test, setting, seed, folder)
    else:
        layer = local_layer(cell, data, train, setting, seed)
        if isinstance(layer, TempotronLayer):
            layer.fit(train, data.sizes.tempotron_epochs)
        elif cell.rule == "stdp":
            layer.fit(train, data.sizes.stdp_epochs)
        fired, fired_test = layer.spikes(train, threads=1), layer.spikes(test, threads=1)
    seconds = time.perf_counter() - begin
    return {
        "data": data.name,
        "cell": asdict(cell),
        "setting": setting,
        "seed": seed,
        "tuning": tuning,
        "seconds": seconds,
        "rate": float(fired_test.n_events / max(1e-9, float(fired_test.duration.sum())) / fired_test.n_units),
        **classify(fired, fired_test, data.sizes.dt),
    }


def classify(train: Events, test: Events, dt: float) -> dict[str, Any]:
    """Return the accuracy on ``test`` by decision and features, and the time that complexity takes."""
    accuracy: dict[str, dict[str, float]] = {}
    for rule in DECISIONS:
        accuracy[rule] = {}
        for name in FEATURES:
            decide = LZClassifier(name, rule=rule, dt=dt).fit(train)  # type: ignore[arg-type]
            accuracy[rule][name] = decide.score(test)
    seconds = lz_features(test, dt=dt).lzc_seconds
    return {"accuracy": accuracy, "lzc_milliseconds": 1000 * seconds / max(1, len(test))}


def local_layer(cell: Cell, data: Material, train: Events, setting: dict[str, float], seed: int) -> STDPLayer:
    """Return a layer with first weights, its thresholds set so that it fires near ``data.sizes.rate``."""
    chance, theta, samples = CHANCES[cell.neuron], 1.0, train.subset(np.arange(min(32, len(train))))
    low, high = -12.0, 12.0  # logarithms of the threshold
    for _ in range(12):
        theta = math.exp(0.5 * (low + high))
        rate = float(_layer(cell, data, theta, setting, seed, chance).rates(samples, threads=1).mean())
        low, high = (math.log(theta), high) if rate > data.sizes.rate else (low, math.log(theta))
    return _layer(cell, data, theta, setting, seed, chance)


def _layer(cell: Cell, data: Material, theta: float, setting: dict[str, float], seed: int, chance: Chance) -> STDPLayer:
    sizes, n = data.sizes, data.n_units
    neuron = LIF(tau_mem=1e-4 * sizes.dt if cell.neuron == "levy-baxter" else TAU_MEM, v_threshold=theta)
    chance = replace(chance, temperature=chance.temperature * theta)
    names: Any = INTRINSIC[cell.neuron]["local"] if cell.intrinsic else ()
    if cell.rule == "tempotron":
        weights = {"start": (0.0, 1.0), "w_min": -2.0, "w_max": 2.0}
        own = 1e-3 * setting.get("own", 0.0) * theta
        return TempotronLayer(
            *(data.train.n_units, n, data.n_classes),
            rate=2e-4 * setting["gain"] * theta,
            momentum=0.5,
            intrinsic=names,
            intrinsic_rate=own,
            dt=sizes.dt,
            neuron=neuron,
            chance=chance,
            seed=seed,
            **weights,  # type: ignore[arg-type]
        )
    size = 2e-3 * setting["gain"]
    homeostasis = None
    if names:
        homeostasis = Homeostasis(target=sizes.rate, rate=1e-3 * setting["own"], intrinsic=names)
    return STDPLayer(
        *(data.train.n_units, n, STDP(a_plus=size, a_minus=1.05 * size)),
        dt=sizes.dt,
        neuron=neuron,
        chance=chance,
        teacher=None
        if cell.rule == "none"
        else Teacher(n_classes=data.n_classes, current=0.1 * theta, suppress=0.05 * theta),
        homeostasis=homeostasis,
        normalise=None if cell.rule == "none" else "sum",
        total=None if cell.rule == "none" else 0.5 * data.train.n_units,
        seed=seed,
    )


def plan(all_cells: list[Cell], seeds: int) -> Iterator[tuple[Cell, str, int]]:
    """Yield combination, ``tune`` or ``run``, and which setting or seed, in the order in which they are run."""
    for cell in all_cells:
        for index in range(len(settings(cell))):
            yield cell, "tune", index
        for seed in range(seeds):
            yield cell, "run", seed
