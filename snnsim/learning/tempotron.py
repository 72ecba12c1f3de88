"""The Tempotron: neurons that learn, by their errors, to fire for the samples of a class. Continuous time, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.philox import Stream, uniform
from snnsim.kernels.tempotron import (
    peak_gain,
    tempotron_derivatives,
    tempotron_peak,
    tempotron_peaks,
    tempotron_train,
)
from snnsim.learning.local import WeightBounds, check_events, check_labels, in_blocks, number, sample_order, whole
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import CubaLIF

__all__ = ["Decision", "Intrinsic", "Tempotron", "TempotronGradient"]

Decision = Literal["peak", "first"]
Intrinsic = Literal["tau_mem", "tau_syn", "v_threshold"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RATIO = 1.05
"""Smallest ratio of tau_mem to tau_syn that learning leaves: at 1 the kernel has another form."""


@dataclass(frozen=True)
class TempotronGradient:
    """The smooth view of a Tempotron's errors; see :meth:`Tempotron.gradient`.

    Attributes:
        loss: Sum of ``|V(t_max) - v_threshold|`` over the neurons and samples that are wrong.
        weight: Its derivative by the weights, (neuron, input).
        tau_mem: By the membrane time constants, (neuron,).
        tau_syn: By the synaptic time constants.
        v_threshold: By the thresholds.
    """

    loss: float
    weight: Floats
    tau_mem: Floats
    tau_syn: Floats
    v_threshold: Floats


class Tempotron:
    """Neurons with exponential currents that learn from their errors at the peak of their potential.

    ::

        V(t) = sum_i w_i sum_{t_i < t} K(t - t_i),   K(t) = V0 (exp(-t / tau_mem) - exp(-t / tau_syn)),   max K = 1

    A neuron fires if V reaches its threshold; with ``shunt`` events after that have no effect. A neuron that should
    have fired and did not gets ``w_i += rate sum_{t_i < t_max} K(t_max - t_i)``, one that fired and should not loses as
    much; t_max is the time of the highest V. Nothing changes where there is no error. Peaks and crossings are exact:
    there is no time step. Guetig and Sompolinsky (2006), "The tempotron: a neuron that learns spike timing-based
    decisions"; with two classes one neuron, which fires for class 1, with more one neuron a class, each learning its
    class against all others.

    ``intrinsic`` lets the neurons learn their own numbers by the same error, with the derivative of
    ``V(t_max) - v_threshold`` in closed form: time constants on a logarithmic scale, the threshold as it is. This is
    reconstructed, not part of the paper.

    Args:
        n_inputs: Units of the events.
        n_classes: Classes, 2 or more.
        tau_mem: Membrane time constant, seconds.
        tau_syn: Synaptic time constant, seconds, below ``tau_mem``.
        v_threshold: Threshold, above 0.
        rate: Learning rate of the weights.
        momentum: Share of its last change that is added to a weight's change, at errors, 0 to below 1.
        margin: How far from the threshold the peak must be, on its right side, to be no error.
        shunt: Whether events after a neuron's first crossing have no effect on it.
        decision: ``"peak"``: the class of the neuron with the highest V minus threshold. ``"first"``: of the neuron
            that fires first, by peak if none does. With two classes, whether the neuron fires, in both.
        bounds: Limits and normalisation of the weights, kept after each change.
        intrinsic: Which of ``"tau_mem"``, ``"tau_syn"``, ``"v_threshold"`` are learned, one number a neuron.
        intrinsic_rate: Their learning rate.
        w_start: Standard range of the first weights: uniform in ``0 .. 2 w_start``, default ``1 / n_inputs``.
        seed: Of the first weights and of the order of samples.

    Attributes:
        weight: (neuron, input), float64.
        tau_mem: (neuron,), seconds.
        tau_syn: (neuron,), seconds.
        v_threshold: (neuron,).

    Raises:
        InputError: A value is out of range; the sentence says which.

    >>> events = Events.from_lists([[0.001, 0.002], [0.001, 0.012]], [[0, 1], [0, 1]], 2, labels=[1, 0], duration=0.03)
    >>> rule = Tempotron(2, rate=0.05, w_start=0.3)
    >>> int(rule.fit(events, epochs=50)[-1]), rule.score(events)
    (0, 1.0)
    """

    def __init__(
        self,
        n_inputs: int,
        n_classes: int = 2,
        *,
        tau_mem: float = 0.015,
        tau_syn: float = 0.00375,
        v_threshold: float = 1.0,
        rate: float = 0.01,
        momentum: float = 0.0,
        margin: float = 0.0,
        shunt: bool = True,
        decision: Decision = "peak",
        bounds: WeightBounds | None = None,
        intrinsic: Iterable[Intrinsic] = (),
        intrinsic_rate: float = 0.001,
        w_start: float | None = None,
        seed: int = 0,
    ) -> None:
        self.n_inputs = int(number("Tempotron", "n_inputs", n_inputs, 1, 2**31 - 1))
        self.n_classes = int(number("Tempotron", "n_classes", n_classes, 2, 2**31 - 1))
        tau_m = number("Tempotron", "tau_mem", tau_mem, 1e-9, 1e9)
        tau_s = number("Tempotron", "tau_syn", tau_syn, 1e-9, 1e9)
        if tau_m < RATIO * tau_s:
            raise InputError(f"Tempotron: expected tau_mem of at least {RATIO} tau_syn, got {tau_m} and {tau_s}")
        self.rate = number("Tempotron", "rate", rate, 0.0)
        self.momentum = number("Tempotron", "momentum", momentum, 0.0, 0.9999)
        self.margin = number("Tempotron", "margin", margin, 0.0)
        self.shunt = bool(shunt)
        if decision not in get_args(Decision):
            raise InputError(f"Tempotron: decision: expected one of {list(get_args(Decision))}, got {decision!r}")
        self.decision = decision
        self.bounds = WeightBounds() if bounds is None else bounds
        self.intrinsic = tuple(intrinsic)
        for name in self.intrinsic:
            if name not in get_args(Intrinsic):
                raise InputError(f"Tempotron: intrinsic: expected names of {list(get_args(Intrinsic))}, got {name!r}")
        self.intrinsic_rate = number("Tempotron", "intrinsic_rate", intrinsic_rate, 0.0)
        self.seed = int(number("Tempotron", "seed", seed, 0, 2**32 - 1))
        theta = number("Tempotron", "v_threshold", v_threshold, 1e-9)
        size = number("Tempotron", "w_start", 1.0 / self.n_inputs if w_start is None else w_start)
        n = 1 if self.n_classes == 2 else self.n_classes
        draws = uniform(self.seed, Stream.WEIGHT, 0, 0, np.arange(n)[:, None], np.arange(self.n_inputs))
        self.weight: Floats = 2.0 * size * draws
        self.tau_mem: Floats = np.full(n, tau_m)
        self.tau_syn: Floats = np.full(n, tau_s)
        self.v_threshold: Floats = np.full(n, theta)
        self._first = (tau_m, tau_s, theta)
        self._velocity = np.zeros_like(self.weight)
        self._epoch = 0

    def _arrays(self, events: Events) -> tuple[Any, Any, Any, Any]:
        check_events("Tempotron", events, self.n_inputs)
        return (
            np.ascontiguousarray(events.times),
            np.ascontiguousarray(events.units),
            np.ascontiguousarray(events.offsets),
            np.ascontiguousarray(events.duration),
        )

    def _wanted(self, labels: Ints) -> npt.NDArray[np.bool_]:
        if self.n_classes == 2:
            return np.asarray(labels[:, None] == 1)
        return np.asarray(labels[:, None] == np.arange(self.n_classes))

    def fit(self, events: Events, epochs: int = 100, *, threads: int | None = None) -> Ints:
        """Learn from labelled samples until no neuron errs, at most for some epochs; may be called again to go on.

        Args:
            events: Samples with labels.
            epochs: How often each sample is shown at most.
            threads: Threads; neurons are shared out among them. The result does not depend on it.

        Returns:
            Errors of all neurons in each epoch, int64; the last one is 0 if it ended early.

        Raises:
            InputError: Units or labels do not fit.
        """
        times, units, offsets, end = self._arrays(events)
        wanted = self._wanted(check_labels("Tempotron.fit", events, self.n_classes))
        rates = (self.rate, self.intrinsic_rate, self.momentum, self.margin)
        learns = np.array([name in self.intrinsic for name in get_args(Intrinsic)])
        tau_m, tau_s, theta = self._first
        b = self.bounds
        limits = (float(b.w_min), float(b.w_max), b.kind, b.size, tau_s / 20, tau_m * 20, theta / 20, RATIO)
        errors: list[int] = []
        for _ in range(whole("Tempotron.fit", "epochs", epochs, 1)):
            order = sample_order(self.seed, self._epoch, len(events))

            def learn(n0: int, n1: int, order: Ints = order) -> int:
                count: int = tempotron_train(
                    *(n0, n1, times, units, offsets, end, order, wanted, self.weight, self._velocity),
                    *(self.tau_mem, self.tau_syn, self.v_threshold, self.shunt, rates, learns, limits),
                )
                return count

            self._epoch += 1
            errors.append(sum(in_blocks(learn, self.weight.shape[0], threads)))
            if errors[-1] == 0:
                break
        return np.array(errors, dtype=np.int64)

    def peaks(self, events: Events, *, threads: int | None = None) -> tuple[Floats, Floats, Floats]:
        """Return highest potential, its time and the first crossing of the threshold (inf: none).

        Each is float64 of shape (sample, neuron), times in seconds. The peak is sought after the first event, so it is
        below 0 where all that arrives pushes down; without events it is 0, at time 0.
        """
        times, units, offsets, end = self._arrays(events)
        out = np.zeros((len(events), self.weight.shape[0], 3))

        def look(n0: int, n1: int) -> None:
            tempotron_peaks(
                *(n0, n1, times, units, offsets, end),
                *(self.weight, self.tau_mem, self.tau_syn, self.v_threshold, self.shunt, out),
            )

        in_blocks(look, self.weight.shape[0], threads)
        return out[..., 0], out[..., 1], out[..., 2]

    def predict(self, events: Events, *, threads: int | None = None) -> Ints:
        """Return the class of each sample, int64, shape (sample,)."""
        height, _, spike = self.peaks(events, threads=threads)
        if self.n_classes == 2:
            return (spike[:, 0] < math.inf).astype(np.int64)
        best = np.argmax(height - self.v_threshold, axis=1)
        if self.decision == "first":
            first = np.argmin(spike, axis=1)
            best = np.where(spike.min(axis=1) < math.inf, first, best)
        return np.asarray(best, dtype=np.int64)

    def score(self, events: Events, *, threads: int | None = None) -> float:
        """Return the share of samples whose class is right."""
        labels = check_labels("Tempotron.score", events, self.n_classes)
        if not len(events):
            raise InputError("Tempotron.score: expected at least one sample, got none")
        return float(np.mean(self.predict(events, threads=threads) == labels))

    def spikes(self, events: Events, *, threads: int | None = None) -> Events:
        """Return the spikes of the neurons, one at most a sample: the first crossing. Labels and ids are kept."""
        spike = self.peaks(events, threads=threads)[2]
        units = [np.flatnonzero(row < math.inf) for row in spike]
        return Events.from_lists(
            [row[fired] for row, fired in zip(spike, units, strict=True)],
            units,
            spike.shape[1],
            events.labels,
            events.duration,
            class_names=events.class_names,
            sample_ids=events.sample_ids,
            sort=True,
        )

    def rates(self, events: Events, *, threads: int | None = None) -> Floats:
        """Return spikes a second of each neuron, (sample, neuron): 0 or one over the duration of the sample."""
        fired = self.peaks(events, threads=threads)[2] < math.inf
        return np.asarray(fired / np.maximum(events.duration, 1e-300)[:, None])

    def gradient(self, events: Events) -> TempotronGradient:
        """Return loss ``sum |V(t_max) - v_threshold|`` over errors and its derivatives; nothing is learned.

        An error is a neuron and a sample with V on the wrong side of the threshold by less than no ``margin``. What
        :meth:`fit` does after a sample is a step against this gradient (time constants by their logarithms).
        """
        times, units, offsets, end = self._arrays(events)
        wanted = self._wanted(check_labels("Tempotron.gradient", events, self.n_classes))
        by_weight = np.zeros_like(self.weight)
        by_tau, by_tau_s, by_theta = np.zeros((3, self.weight.shape[0]))
        loss = 0.0
        for n, w in enumerate(self.weight):
            tau, tau_s, theta = float(self.tau_mem[n]), float(self.tau_syn[n]), float(self.v_threshold[n])
            for i in range(len(events)):
                best, when, used, _ = tempotron_peak(
                    *(times, units, offsets[i], offsets[i + 1], end[i], w, tau, tau_s, theta, self.shunt)
                )
                wrong = best < theta + self.margin if wanted[i, n] else best >= theta - self.margin
                if not wrong:
                    continue
                sign = -1.0 if wanted[i, n] else 1.0
                one = np.zeros(self.n_inputs)
                d_tau, d_tau_s = tempotron_derivatives(times, units, offsets[i], used, when, w, tau, tau_s, one)
                loss += sign * (best - theta)
                by_weight[n] += sign * one
                by_tau[n] += sign * d_tau
                by_tau_s[n] += sign * d_tau_s
                by_theta[n] -= sign
        return TempotronGradient(loss, by_weight, by_tau, by_tau_s, by_theta)

    def network(self, dt: float = 0.001, *, t_ref: float = 0.0) -> Network:
        """Return the neurons as a network of :class:`snnsim.neurons.CubaLIF`, without delays.

        On the event engine in continuous time the first spike of each neuron is that of :meth:`spikes`. A CubaLIF goes
        on after it: its current stays, and it may fire again; a ``t_ref`` longer than the samples leaves one spike.
        The weights are ``w V0 (tau_mem - tau_syn) / tau_syn``, since a current that decays from 1 moves the membrane by
        ``tau_syn / (tau_mem - tau_syn) (exp(-t / tau_mem) - exp(-t / tau_syn))``.

        Args:
            dt: Time step of the network, for engines on a grid, seconds.
            t_ref: Refractory time, seconds.
        """
        pairs = zip(self.tau_mem, self.tau_syn, strict=True)
        gain = np.array([peak_gain(tau, tau_s)[0] * (tau - tau_s) / tau_s for tau, tau_s in pairs])
        neuron = CubaLIF(
            tau_mem=self.tau_mem.copy(), tau_syn=self.tau_syn.copy(), v_threshold=self.v_threshold.copy(), t_ref=t_ref
        )
        return Network(
            populations=(Population("tempotron", self.weight.shape[0], neuron),),
            projections=(Projection("input", "tempotron", weight=self.weight * gain[:, None]),),
            inputs=(Input("input", self.n_inputs),),
            readout=None,
            dt=dt,
        )
