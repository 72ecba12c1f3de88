"""The tasks of the study: chaotic series in closed loops, and classification of samples of events."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.datasets.chaotic import SERIES, Series, SeriesName, make_series
from snnsim.datasets.dataset import Dataset, open_dataset
from snnsim.datasets.splits import validation_events
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events, replace_fields
from snnsim.network import Network
from snnsim.studies.lnp import GAINS, RIDGES, SCALES, Setting, Sizes, with_inputs
from snnsim.studies.reservoir import Loop, binned_features, fit_classes, fit_ridge, valid_time

__all__ = ["DEFAULT_TASKS", "Classes", "Prediction", "Task", "make_task"]

Floats = npt.NDArray[np.float64]

DEFAULT_TASKS = (*SERIES, "sequential-digits", "spoken-digits")
SERIES_SIZES = {"lorenz63": (10, 3000, 400), "roessler": (10, 4000, 150), "mackey-glass": (5, 4000, 200)}
"""Pool steps a value, values to fit, values of a closed loop."""

LEVELS = 1024
FILTERS = (0.005, 0.02)
BIAS = 0.15
WARM = 100
"""Values that a pool at rest is shown before it predicts."""


@dataclass(frozen=True)
class Prediction:
    """A chaotic series: one step ahead with true input, then a closed loop.

    Attributes:
        name: Of the series.
        sizes: Of the study.
        steps: Pool steps a value.
        fit: Values that the readout is fitted to.
        horizon: Values of a closed loop.
    """

    name: SeriesName
    sizes: Sizes
    steps: int
    fit: int
    horizon: int

    metric = "vpt"

    def facts(self) -> dict[str, Any]:
        """Return what identifies the task in a folder of runs."""
        return {**asdict(self), "kind": "prediction"}

    def run(self, pool: Network, seed: int, found: list[Setting] | None) -> list[dict[str, Any]]:
        """Return results of one setting on test series, or of all settings on series for tuning (``found`` None).

        Each holds ``setting``, ``vpt`` (Lyapunov times, mean over starts), ``rmse`` (one step ahead, in standard
        deviations), ``operations`` (recurrent ones a step with true input) and ``rate``.
        """
        series, at = self._series(seed)
        results = []
        for scale, gain, ridges in _grid(found):
            network = with_inputs(pool, 2 * series.values.shape[1] + 1, scale / LEVELS, gain, seed, bias=BIAS)
            loop = Loop(network, self.steps, FILTERS, LEVELS)
            results += self._measured(loop, series, at, scale, gain, ridges)
        return results

    def _series(self, seed: int) -> tuple[Series, int]:
        at = WARM + self.fit
        return make_series(self.name, at + 1000 + self.sizes.starts * 100 + WARM + self.horizon + 1, seed=seed), at

    def _measured(
        self, loop: Loop, series: Series, at: int, scale: float, gain: float, ridges: list[float]
    ) -> list[dict[str, Any]]:
        x = series.values
        features = loop.features(x[: at + 1000])
        cost = {"operations": loop.operations, "rate": loop.rate}
        change = x[1 : at + 1001] - x[: at + 1000]
        readouts = fit_ridge(features[WARM:at], change[WARM:at], ridges)
        made = []
        for ridge, readout in zip(ridges, readouts, strict=True):
            error = features[at:] @ readout - change[at:]
            times = []
            for start in range(self.sizes.starts):
                begin = at + 1000 + 100 * start
                predicted = loop.predict(readout, x[begin : begin + WARM], self.horizon)
                times.append(valid_time(predicted, x[begin + WARM : begin + WARM + self.horizon]))
            unit = series.dt * series.exponent
            vpt, rmse = float(np.mean(times)) * unit, float(np.sqrt(np.mean(np.sum(error**2, axis=1))))
            made.append({"setting": asdict(Setting(scale, gain, ridge)), "vpt": vpt, "rmse": rmse, **cost})
        return made


@dataclass(frozen=True, eq=False)
class Classes:
    """Samples of events with classes: filtered spikes of each part of a sample, read by ridge regression.

    Attributes:
        name: Of the data set.
        sizes: Of the study.
        train: Training samples.
        fit: Those of them to fit while settings are chosen.
        valid: The others.
        test: Test samples.
        n_classes: Classes.
        parts: Parts of a sample.
        tau: Time constant of the filter, seconds.
    """

    name: str
    sizes: Sizes
    train: Events
    fit: Events
    valid: Events
    test: Events
    n_classes: int
    parts: int = 3
    tau: float = 0.02

    metric = "accuracy"

    def facts(self) -> dict[str, Any]:
        """Return what identifies the task in a folder of runs."""
        samples = {name: len(getattr(self, name)) for name in ("train", "valid", "test")}
        own = {"name": self.name, "parts": self.parts, "tau": self.tau, "classes": self.n_classes}
        return {**own, **samples, "channels": self.train.n_units, "sizes": asdict(self.sizes), "kind": "classes"}

    def run(self, pool: Network, seed: int, found: list[Setting] | None) -> list[dict[str, Any]]:
        """Return results as :meth:`Prediction.run` does: ``accuracy`` instead of ``vpt`` and ``rmse``."""
        train, test = (self.fit, self.valid) if found is None else (self.train, self.test)
        results = []
        for scale, gain, ridges in _grid(found):
            network = with_inputs(pool, train.n_units, 0.5 * scale, gain, seed)
            first, _ = self._features(network, train)
            second, cost = self._features(network, test)
            guesses = fit_classes(first, train.labels, second, self.n_classes, [1e-2 * ridge for ridge in ridges])
            for ridge, guess in zip(ridges, guesses, strict=True):
                accuracy = float(np.mean(guess == test.labels))
                results.append({"setting": asdict(Setting(scale, gain, ridge)), "accuracy": accuracy, **cost})
        return results

    def _features(self, network: Network, events: Events) -> tuple[Floats, dict[str, float]]:
        spikes = simulate(network, events, threads=1).spikes["pool"]
        degree = next(item.out_degree for item in network.projections if item.source == "pool")
        fired = np.bincount(spikes.units, minlength=spikes.n_units)
        steps = int(np.sum(spikes.n_steps(network.dt)))
        cost = {"operations": float(fired @ degree) / steps, "rate": float(fired.mean()) / (steps * network.dt)}
        return binned_features(spikes, network.dt, self.parts, self.tau), cost


Task = Prediction | Classes


def _grid(found: list[Setting] | None) -> list[tuple[float, float, list[float]]]:
    """Return input scale, recurrent gain and ridges of the settings, one entry a simulation."""
    if found is None:
        return [(scale, gain, list(RIDGES)) for scale in SCALES for gain in GAINS]
    return [(item.scale, item.gain, [item.ridge]) for item in found]


def make_task(name: str, sizes: Sizes) -> Task:
    """Make a task: a chaotic series, ``sequential-digits``, or any data set of events with test samples.

    Raises:
        InputError: Nothing of this name is known, or the set has no classes to test.
    """
    if name in SERIES:
        kind: Any = name
        return Prediction(kind, sizes, *SERIES_SIZES[name])
    if name == "sequential-digits":
        from snnsim.datasets.sequential_digits import open_sequential_digits

        return _classes(open_sequential_digits(), sizes)
    return _classes(open_dataset(name), sizes)


def _classes(dataset: Dataset, sizes: Sizes) -> Classes:
    if dataset.test is None or dataset.n_classes < 2:
        raise InputError(f"data set {dataset.name!r}: the study needs test samples of at least two classes")
    pool = -(-max(dataset.train.n_units, dataset.test.n_units) // 70)
    held = validation_events(dataset, how="auto", fraction=0.25, seed=0)
    most, chosen = sizes.samples, sizes.tuning_samples
    cut = ((dataset.train, most), (held.train, chosen), (held.valid, chosen // 2), (dataset.test, most))
    parts = [_pooled(_fewer(events, number), pool) for events, number in cut]
    train, fit, valid, test = parts
    return Classes(dataset.name, sizes, train, fit, valid, test, dataset.n_classes)


def _fewer(events: Events, most: int) -> Events:
    """Return at most so many samples, spread evenly over all."""
    if not most or len(events) <= most:
        return events
    return events.subset(np.arange(most) * len(events) // most)


def _pooled(events: Events, pool: int) -> Events:
    """Return events on pooled channels: unit ``u`` becomes ``u // pool``."""
    units = np.asarray(events.units // pool, dtype=np.int32)
    return replace_fields(events, units=units, n_units=-(-events.n_units // pool))
