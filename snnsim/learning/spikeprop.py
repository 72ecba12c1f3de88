"""SpikeProp: gradient descent on the times of first spikes, in continuous time. No torch."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.philox import Stream, uniform
from snnsim.kernels.spikeprop import spikeprop_gradient, spikeprop_times
from snnsim.kernels.weight_bounds import keep_bounds
from snnsim.learning.local import WeightBounds, check_events, check_labels, in_blocks, number, whole
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import CubaLIF

__all__ = ["SpikeProp"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class SpikeProp:
    """Inputs, one hidden layer, outputs; each pair of neurons joined by one synapse a delay; every neuron spikes once.

    ::

        u_j(t) = sum_i sum_k w_jik eps(t - t_i - d_k),   eps(s) = s / tau exp(1 - s / tau)      fires at u = v_threshold
        E = 1/2 sum (t_o - wanted_o)^2,   dt_j/dw_jik = -eps(t_j - t_i - d_k) / u_j'(t_j)

    Only the first event of an input unit counts. Spike times are exact, and so are the gradients wherever every spike
    moves smoothly with the weights: the potential is linearised at the crossing. Bohte, Kok and La Poutre (2002). The
    steps use all samples at once.

    Where the gradient says nothing, and what is done (this is ours, not the paper's): a slope u' below ``least_slope``
    counts as that, which bounds the steps near spikes that are about to vanish; for an output neuron that does not fire
    in a sample its time counts as ``end`` in E, and its weights from hidden neurons that fired are raised by
    ``revive``; a hidden neuron that fires in no sample has all its weights raised by ``revive``.

    Args:
        n_inputs: Units of the events.
        n_hidden: Hidden neurons.
        n_outputs: Output neurons.
        delays: Delays of the synapses of each pair of neurons, seconds; default 1 to 16 ms.
        tau: Time constant of the potential, seconds.
        v_threshold: Above 0.
        end: Seconds after which nothing fires.
        rate: Learning rate, with times in units of ``tau``.
        momentum: Share of the last step that is added to a step, 0 to below 1.
        least_slope: Smallest slope, thresholds a ``tau``.
        revive: See above.
        bounds: Limits and normalisation of the incoming weights of a neuron, kept after each step.
        start: First weights are uniform in this range; default such that a few inputs make a neuron fire.
        seed: Of the first weights.

    Attributes:
        hidden: Weights (hidden, input, delay), float64.
        output: Weights (output, hidden, delay), float64.

    Raises:
        InputError: A value is out of range; the sentence says which.
    """

    def __init__(
        self,
        n_inputs: int,
        n_hidden: int,
        n_outputs: int,
        *,
        delays: npt.ArrayLike | None = None,
        tau: float = 0.007,
        v_threshold: float = 1.0,
        end: float = 0.05,
        rate: float = 0.01,
        momentum: float = 0.0,
        least_slope: float = 0.1,
        revive: float = 0.01,
        bounds: WeightBounds | None = None,
        start: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> None:
        sizes = zip(("n_inputs", "n_hidden", "n_outputs"), (n_inputs, n_hidden, n_outputs), strict=True)
        self.n_inputs, self.n_hidden, self.n_outputs = (int(number("SpikeProp", k, v, 1, 2**31 - 1)) for k, v in sizes)
        given = np.arange(1, 17) * 0.001 if delays is None else np.asarray(delays, dtype=np.float64)
        if given.ndim != 1 or not given.size or not np.isfinite(given).all() or given.min() < 0:
            raise InputError(f"SpikeProp: delays: expected seconds of 0 or more, one row, got shape {given.shape}")
        self.delays: Floats = np.ascontiguousarray(given)
        self.tau = number("SpikeProp", "tau", tau, 1e-9, 1e9)
        self.v_threshold = number("SpikeProp", "v_threshold", v_threshold, 1e-9)
        self.end = number("SpikeProp", "end", end, 1e-9, 1e9)
        self.rate = number("SpikeProp", "rate", rate, 0.0)
        self.momentum = number("SpikeProp", "momentum", momentum, 0.0, 0.9999)
        self.least_slope = number("SpikeProp", "least_slope", least_slope, 1e-9)
        self.revive = number("SpikeProp", "revive", revive, 0.0)
        self.bounds = WeightBounds() if bounds is None else bounds
        self.seed = int(number("SpikeProp", "seed", seed, 0, 2**32 - 1))
        layers = []
        for layer, (target, source) in enumerate(((n_hidden, n_inputs), (n_outputs, n_hidden))):
            typical = self.v_threshold / (source * self.delays.size)
            low, high = (0.0, 6.0 * typical) if start is None else start
            synapses = np.arange(source * self.delays.size)
            draws = uniform(self.seed, Stream.WEIGHT, layer, 0, np.arange(target)[:, None], synapses)
            layers.append((low + (high - low) * draws).reshape(target, source, self.delays.size))
        self.hidden: Floats = layers[0]
        self.output: Floats = layers[1]
        self._change = [np.zeros_like(self.hidden), np.zeros_like(self.output)]

    def first_spikes(self, events: Events) -> Floats:
        """Return the first event of each input unit, seconds, inf for none, (sample, input)."""
        check_events("SpikeProp", events, self.n_inputs)
        out = np.full((len(events), self.n_inputs), np.inf)
        sample = np.repeat(np.arange(len(events)), events.counts)
        np.minimum.at(out, (sample, events.units), events.times)
        return out

    def times(self, events: Events, *, threads: int | None = None) -> tuple[Floats, Floats]:
        """Return the spike times of hidden and output neurons, seconds, inf for none, (sample, neuron)."""
        first = self.first_spikes(events)
        hidden, out = np.empty((len(first), self.n_hidden)), np.empty((len(first), self.n_outputs))
        numbers = (self.delays, self.tau, self.v_threshold, self.end)

        def run(i0: int, i1: int) -> None:
            spikeprop_times(i0, i1, first, self.hidden, self.output, *numbers, hidden, out)

        in_blocks(run, len(first), threads)
        return hidden, out

    def _wanted(self, events: Events, wanted: npt.ArrayLike) -> Floats:
        array = np.asarray(wanted, dtype=np.float64)
        if array.shape != (len(events), self.n_outputs) or not np.isfinite(array).all():
            raise InputError(
                f"SpikeProp: wanted: expected finite seconds of shape {(len(events), self.n_outputs)}, "
                f"got shape {array.shape}"
            )
        return array

    def gradient(
        self, events: Events, wanted: npt.ArrayLike, *, threads: int | None = None
    ) -> tuple[float, Floats, Floats]:
        """Return E in seconds squared and its derivatives by both layers of weights; nothing is learned.

        Args:
            events: Samples.
            wanted: Spike times of the outputs, seconds, (sample, output).
            threads: Threads of the forward pass. The result does not depend on it.
        """
        target = self._wanted(events, wanted)
        hidden, out = self.times(events, threads=threads)
        return self._gradient(self.first_spikes(events), target, hidden, out)

    def _gradient(self, first: Floats, target: Floats, hidden: Floats, out: Floats) -> tuple[float, Floats, Floats]:
        g1, g2 = np.zeros_like(self.hidden), np.zeros_like(self.output)
        least = self.least_slope * self.v_threshold / self.tau
        loss: float = spikeprop_gradient(
            *(first, target, self.hidden, self.output, self.delays, self.tau, self.end, least, hidden, out, g1, g2)
        )
        return loss, g1, g2

    def fit(
        self,
        events: Events,
        wanted: npt.ArrayLike,
        epochs: int = 500,
        *,
        stop_at: float = 0.0,
        threads: int | None = None,
    ) -> Floats:
        """Learn until the mean distance of output spikes from the wanted times is small, at most for some steps.

        Args:
            events: Samples.
            wanted: Spike times of the outputs, seconds, (sample, output); see :meth:`code`.
            epochs: Steps at most.
            stop_at: Seconds: stop before the step at which the root of the mean squared error is at or below it.
            threads: Threads of the forward pass. The result does not depend on it.

        Returns:
            Root of the mean squared error before each step, seconds.
        """
        target, first = self._wanted(events, wanted), self.first_spikes(events)
        errors: list[float] = []
        for _ in range(whole("SpikeProp.fit", "epochs", epochs, 1)):
            hidden, out = self.times(events, threads=threads)
            loss, g1, g2 = self._gradient(first, target, hidden, out)
            errors.append(math.sqrt(2.0 * loss / max(target.size, 1)))
            if errors[-1] <= stop_at:
                break
            scale = self.rate / self.tau**2
            up1 = np.asarray(np.isinf(hidden).all(axis=0))[:, None, None]
            lost = np.isinf(out)[:, :, None] & np.isfinite(hidden)[:, None, :]
            up2 = np.asarray(lost.any(axis=0))[:, :, None]
            for layer, gradient, up, last in zip((self.hidden, self.output), (g1, g2), (up1, up2), (0, 1), strict=True):
                change = self._change[last] = self.momentum * self._change[last] - scale * gradient
                layer += change + self.revive * up
                b = self.bounds
                for row in layer.reshape(layer.shape[0], -1):
                    keep_bounds(row, float(b.w_min), float(b.w_max), b.kind, b.size)
        return np.array(errors)

    def code(self, events: Events, early: float, late: float) -> Floats:
        """Return wanted times for classes: the output of a sample's class at ``early``, all others at ``late``."""
        if not 0 < early < late <= self.end:
            raise InputError(f"SpikeProp.code: expected 0 < early < late <= {self.end}, got {early} and {late}")
        labels = check_labels("SpikeProp.code", events, self.n_outputs)
        return np.where(labels[:, None] == np.arange(self.n_outputs), early, late)

    def predict(self, events: Events, *, threads: int | None = None) -> Ints:
        """Return the output that fires first, int64, (sample,); 0 if none does."""
        return np.asarray(np.argmin(self.times(events, threads=threads)[1], axis=1), dtype=np.int64)

    def score(self, events: Events, *, threads: int | None = None) -> float:
        """Return the share of samples whose class fires first."""
        if not len(events):
            raise InputError("SpikeProp.score: expected at least one sample, got none")
        check_labels("SpikeProp.score", events, events.n_classes)
        return float(np.mean(self.predict(events, threads=threads) == events.labels))

    def spikes(self, events: Events, *, threads: int | None = None) -> Events:
        """Return the spikes of the output neurons, one at most each; a sample lasts at least ``end``."""
        out = self.times(events, threads=threads)[1]
        units = [np.flatnonzero(np.isfinite(row)) for row in out]
        return Events.from_lists(
            [row[unit] for row, unit in zip(out, units, strict=True)],
            units,
            self.n_outputs,
            events.labels,
            np.maximum(events.duration, self.end),
            class_names=events.class_names,
            sample_ids=events.sample_ids,
            sort=True,
        )

    def rates(self, events: Events, *, threads: int | None = None) -> Floats:
        """Return spikes a second of the output neurons: 0 or one over the duration of :meth:`spikes`."""
        fired = np.isfinite(self.times(events, threads=threads)[1])
        return np.asarray(fired / np.maximum(events.duration, self.end)[:, None])

    def network(self, dt: float = 0.001) -> Network:
        """Return a network of :class:`snnsim.neurons.CubaLIF` with equal time constants, one projection a delay.

        Its potential is ``w e t / tau exp(-t / tau)``, the alpha function above, if weights are ``e w``. A refractory
        time as long as ``end`` leaves one spike a neuron. Inputs must have one event a unit, and samples must last
        until ``end`` for the same spikes on the event engine in continuous time.

        Args:
            dt: Time step of the network, for engines on a grid, seconds.
        """
        neuron = CubaLIF(tau_mem=self.tau, tau_syn=self.tau, v_threshold=self.v_threshold, t_ref=self.end)
        projections = []
        for source, target, weight in (("input", "hidden", self.hidden), ("hidden", "output", self.output)):
            for k, delay in enumerate(self.delays):
                projections.append(Projection(source, target, weight=math.e * weight[:, :, k], delay=float(delay)))
        return Network(
            populations=(Population("hidden", self.n_hidden, neuron), Population("output", self.n_outputs, neuron)),
            projections=tuple(projections),
            inputs=(Input("input", self.n_inputs),),
            readout=None,
            dt=dt,
        )
