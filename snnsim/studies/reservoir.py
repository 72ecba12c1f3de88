"""A fixed spiking pool with a readout that alone learns: features of filtered spikes, ridge regression, closed loops.

The readout is that of echo-state networks (Jaeger 2001) on exponentially filtered spikes,
``f <- exp(-dt / tau) f + s``. A prediction is fed back as the next input in place of the true value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import time_to_step
from snnsim.kernels.pool_loop import fill_parts, run_pool
from snnsim.network import Network
from snnsim.neurons import LIF

__all__ = [
    "Loop",
    "binned_features",
    "encode",
    "fit_classes",
    "fit_ridge",
    "valid_time",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def encode(values: Floats, levels: int) -> Integers:
    """Return values as graded events: counts of channel 2 k for positive, of 2 k + 1 for negative parts of dimension k.

    ``rint(levels |x|)`` coincident events a step; one more channel, the last, always has one event.

    Args:
        values: ``(n, d)``.
        levels: Events of a value of 1.

    Returns:
        int64 ``(n, 2 d + 1)``.

    >>> encode(np.array([[0.5, -1.0]]), 4)
    array([[2, 0, 0, 4, 1]])
    """
    size = np.rint(levels * np.abs(values)).astype(np.int64)
    counts = np.zeros((values.shape[0], 2 * values.shape[1] + 1), np.int64)
    counts[:, 0:-1:2] = np.where(values > 0, size, 0)
    counts[:, 1:-1:2] = np.where(values < 0, size, 0)
    counts[:, -1] = 1
    return counts


@dataclass
class Loop:
    """A pool of a network, run symbol by symbol, its input true or predicted.

    Spikes are those of ``simulate(network, events)``, bit for bit. State is in the object; :meth:`reset` clears it.

    Args:
        network: LIF population ``pool`` with one input of ``2 d + 1`` channels (see :func:`encode`) and recurrent
            delays of one step.
        steps: Pool steps of a symbol.
        taus: Time constants of the filters, seconds.
        levels: Events of a value of 1.
        limit: Values are held within this size before they are fed back.

    Raises:
        InputError: The network is of another kind.
    """

    network: Network
    steps: int
    taus: Sequence[float]
    levels: int = 1024
    limit: float = 5.0

    def __post_init__(self) -> None:
        pool = self.network.population("pool")
        neuron: Any = pool.neuron
        n = pool.size
        if type(neuron) is not LIF or neuron.reset != "subtract" or np.any(np.asarray(neuron.t_ref) != 0):
            raise InputError("Loop: expected LIF neurons in 'pool' that reset by subtracting, without refractoriness")
        feeds = [item for item in self.network.projections if item.source != "pool" and item.target == "pool"]
        loops = [item for item in self.network.projections if item.source == "pool" and item.target == "pool"]
        if len(feeds) != 1 or len(loops) != 1 or feeds[0].shape[1] % 2 == 0:
            raise InputError(
                f"Loop: expected one input of 2 d + 1 channels and one recurrent projection, got {len(feeds)} and "
                f"{len(loops)}"
            )
        recurrent = loops[0].synapses(self.network.dt)
        feed = feeds[0].synapses(self.network.dt)
        if np.any(recurrent.delay_steps != 1) or np.any(feed.delay_steps != 0):
            raise InputError("Loop: expected recurrent delays of one step and none of the input")
        step = neuron.step(n, self.network.dt)
        threshold = np.nextafter(step.v_threshold, np.inf) if step.strict else step.v_threshold
        rows = (step.beta, step.drive_step, threshold, step.reset_amount)
        self.n = n
        self.d = feeds[0].shape[1] // 2
        self._numbers = np.ascontiguousarray(np.stack([np.broadcast_to(row, (n,)) for row in rows]), dtype=np.float64)
        self._indptr = recurrent.indptr.astype(np.int64)
        self._target = recurrent.target.astype(np.int64)
        self._weight = np.asarray(recurrent.weight, np.float64)
        self._feed = np.zeros((feeds[0].shape[1], n))
        source = np.repeat(np.arange(feeds[0].shape[1]), np.diff(feed.indptr))
        np.add.at(self._feed, (source, feed.target), feed.weight)
        self._decay = np.exp(-self.network.dt / np.asarray(self.taus, np.float64))
        self.reset()

    def reset(self) -> None:
        """Put the pool at rest and count from 0."""
        self._v, self._pending = np.zeros(self.n), np.zeros(self.n)
        self._trace = np.zeros((self._decay.shape[0], self.n))
        self.fired = np.zeros(self.n, np.int64)
        self.symbols = 0

    @property
    def operations(self) -> float:
        """Recurrent synaptic operations a step since the last reset."""
        return float(self.fired @ np.diff(self._indptr)) / max(1, self.symbols * self.steps)

    @property
    def rate(self) -> float:
        """Spikes a second and neuron since the last reset."""
        return float(self.fired.mean()) / max(1e-12, self.symbols * self.steps * self.network.dt)

    def _run(self, counts: Integers, readout: Floats, features: Floats, outputs: Floats, raster: Any) -> None:
        value = np.zeros(self.d)
        run_pool(
            *(self._numbers, self._indptr, self._target, self._weight, self._feed, counts, self.steps, self._decay),
            *(self._v, self._pending, self._trace, self.fired, readout, value, float(self.levels), self.limit),
            *(features, outputs, raster),
        )
        self.symbols += features.shape[0]

    def features(self, values: Floats, raster: npt.NDArray[np.uint8] | None = None) -> Floats:
        """Show true values and return the filtered spikes after each, then the value, then 1: ``(n, F N + d + 1)``.

        Args:
            values: ``(n, d)``.
            raster: Filled with the spikes if given, uint8 ``(n steps, N)``.
        """
        made = np.empty((values.shape[0], self._trace.size))
        spikes = raster if raster is not None else np.zeros((0, 0), np.uint8)
        empty = np.zeros((0, 0))
        self._run(encode(values, self.levels), empty, made, np.zeros((values.shape[0], 0)), spikes)
        return np.column_stack((made, values, np.ones(values.shape[0])))

    def predict(self, readout: Floats, values: Floats, horizon: int) -> Floats:
        """Show true values to a pool at rest, then let it predict on its own.

        Args:
            readout: Of the features onto the change of the value, ``(F N + d + 1, d)``.
            values: True values up to now, ``(n, d)``.
            horizon: Values to predict.

        Returns:
            The next ``horizon`` values, ``(horizon, d)``.
        """
        self.reset()
        shown = values.shape[0]
        outputs = np.zeros((shown + horizon, self.d))
        outputs[:shown] = values
        nothing = np.zeros((shown + horizon, 0))
        rows = np.ascontiguousarray(readout.T)
        self._run(encode(values, self.levels), rows, nothing, outputs, np.zeros((0, 0), np.uint8))
        return outputs[shown:]


def valid_time(predicted: Floats, true: Floats, scale: npt.ArrayLike = 1.0, limit: float = 0.5) -> int:
    """Return how many values the error stays below the limit: ``sqrt(mean_d ((y - x)^2 / sigma_d^2)) < 0.5``.

    Args:
        predicted: ``(n, d)``.
        true: ``(n, d)``.
        scale: Standard deviations, ``(d,)``.
        limit: Of the error.

    >>> valid_time(np.array([[0.0], [0.4], [0.6], [0.0]]), np.zeros((4, 1)))
    2
    """
    clipped = np.clip(predicted, -1e6, 1e6)
    error = np.sqrt(np.mean(((clipped - true) / np.asarray(scale)) ** 2, axis=1))
    late = np.flatnonzero(~(error < limit))
    return int(late[0]) if late.size else int(true.shape[0])


def fit_ridge(features: Floats, wanted: Floats, ridges: Sequence[float]) -> list[Floats]:
    """Return ``(A^T A + r I)^-1 A^T Y`` for every r.

    Args:
        features: A, ``(n, p)``.
        wanted: Y, ``(n, q)``.
        ridges: Positive.
    """
    if not ridges or min(ridges) <= 0:
        raise InputError(f"fit_ridge: ridges: expected positive numbers, got {list(ridges)}")
    n, p = features.shape
    if p <= n:
        gram, right = features.T @ features, features.T @ wanted
        return [_solve(gram, ridge, right) for ridge in ridges]
    gram = features @ features.T  # the same solution, from the smaller side
    return [features.T @ _solve(gram, ridge, wanted) for ridge in ridges]


def _solve(gram: Floats, ridge: float, right: Floats) -> Floats:
    from scipy.linalg import cho_factor, cho_solve

    lifted = gram + ridge * np.eye(gram.shape[0])
    return np.asarray(cho_solve(cho_factor(lifted, overwrite_a=True, check_finite=False), right, check_finite=False))


def binned_features(spikes: Events, dt: float, parts: int, tau: float) -> Floats:
    """Return the mean filtered spikes of each part of each sample: ``(samples, parts n_units)``.

    Args:
        spikes: Spikes of the pool.
        dt: Step.
        parts: Parts of equal length (in whole steps) that every sample is cut into.
        tau: Time constant of the filter.
    """
    out = np.empty((len(spikes), parts, spikes.n_units))
    steps = np.asarray(time_to_step(spikes.times, dt), np.int64)
    lengths = np.asarray(spikes.n_steps(dt), np.int64)
    decay = float(np.exp(-dt / tau))
    fill_parts(steps, spikes.units.astype(np.int64), spikes.offsets, lengths, parts, decay, out)
    return out.reshape(len(spikes), -1)


def fit_classes(
    train: Floats, labels: Integers, test: Floats, n_classes: int, ridges: Sequence[float]
) -> list[npt.NDArray[np.int64]]:
    """Return the predicted classes of the test samples for every ridge: regression on 1 and -1, the largest wins.

    Features are shifted and scaled by mean and deviation over the training samples; ridges are per training sample.

    Args:
        train: ``(n, p)``.
        labels: ``(n,)``.
        test: ``(m, p)``.
        n_classes: Classes.
        ridges: Positive.
    """
    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0) * np.sqrt(train.shape[1])
    first = np.column_stack(((train - mean) / scale, np.ones(train.shape[0])))
    second = np.column_stack(((test - mean) / scale, np.ones(test.shape[0])))
    wanted = np.where(labels[:, None] == np.arange(n_classes), 1.0, -1.0)
    found = fit_ridge(first, wanted, [ridge * train.shape[0] for ridge in ridges])
    return [np.argmax(second @ weight, axis=1) for weight in found]
