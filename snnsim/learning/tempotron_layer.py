"""The Tempotron's rule for layers on a time grid: LIF, and neurons whose synapses release at random. No torch."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import decay
from snnsim.kernels.philox import philox4x32
from snnsim.kernels.stochastic import FIRING
from snnsim.kernels.tempotron_layer import peak_gradient, peaks
from snnsim.learning.local import check_events, check_labels, number, sample_order, whole
from snnsim.learning.stdp import STDP, Chance
from snnsim.learning.stdp_layer import STDPLayer
from snnsim.neurons import LIF

__all__ = ["Learned", "TempotronLayer"]

Floats = npt.NDArray[np.float64]
Learned = Literal["v_threshold", "tau_mem", "release"]
LIMIT = 20.0


class TempotronLayer(STDPLayer):
    """Neurons of several classes that learn from mistakes only, by the peak of their potential.

    Unit j belongs to class ``j % n_classes`` and should fire for its samples alone. In :meth:`fit` its potential runs
    without reset. A neuron that misses a sample of its class (its peak stays below the threshold) has its weights
    raised by ``rate dv/dw`` at the peak, one that fires for another class has them lowered; a right one learns nothing.
    Gutig and Sompolinsky 2006, with the exponential kernel of :class:`snnsim.neurons.LIF`; for neurons with random
    synapses (:class:`Chance`) reconstructed: the draws of the sample are part of the kernel. With ``intrinsic`` the
    neuron's own numbers move by the same rule: ``log(tau_mem)``, the threshold, and ``logit(release)`` by the mean over
    release. Time constants and thresholds stay within a factor of 20 of their first values.

    Everything else, spikes with reset included, is that of :class:`STDPLayer`.

    Args:
        n_inputs: Units of the events.
        n_units: Neurons, at least one a class.
        n_classes: Classes, 2 or more.
        rate: Learning rate of the weights.
        momentum: Share of the last change in the next one, 0 to below 1.
        intrinsic: Which of ``"v_threshold"``, ``"tau_mem"``, ``"release"`` learn too.
        intrinsic_rate: Their learning rate.
        w_min: Smallest weight.
        w_max: Largest weight.
        dt: Time step, seconds.
        neuron: Law and numbers of the neurons.
        chance: What is random; a temperature plays no part in :meth:`fit`.
        start: First weights are uniform in this range.
        seed: As there.

    Raises:
        InputError: A value is out of range; the sentence says which.
    """

    def __init__(
        self,
        n_inputs: int,
        n_units: int,
        n_classes: int,
        *,
        rate: float = 0.01,
        momentum: float = 0.0,
        intrinsic: tuple[Learned, ...] = (),
        intrinsic_rate: float = 0.001,
        w_min: float = -1.0,
        w_max: float = 1.0,
        dt: float = 0.001,
        neuron: LIF | None = None,
        chance: Chance | None = None,
        start: tuple[float, float] = (0.0, 0.1),
        seed: int = 0,
    ) -> None:
        rule = STDP(a_plus=0.0, a_minus=0.0, w_min=w_min, w_max=w_max)
        super().__init__(n_inputs, n_units, rule, dt=dt, neuron=neuron, chance=chance, start=start, seed=seed)
        self.n_classes = int(number("TempotronLayer", "n_classes", n_classes, 2, 2**31 - 1))
        if self.n_classes > self.n_units:
            raise InputError(f"TempotronLayer: {n_classes} classes need as many neurons, got n_units={n_units}")
        self.rate = number("TempotronLayer", "rate", rate, 0.0)
        self.momentum = number("TempotronLayer", "momentum", momentum, 0.0, 1.0 - 1e-9)
        self.intrinsic_rate = number("TempotronLayer", "intrinsic_rate", intrinsic_rate, 0.0)
        if isinstance(intrinsic, str) or not set(intrinsic) <= set(get_args(Learned)):
            raise InputError(
                f"TempotronLayer: intrinsic: expected some of {list(get_args(Learned))}, got {intrinsic!r}"
            )
        if "release" in intrinsic and self.chance.release >= 1:
            raise InputError("TempotronLayer: release learns only below 1; use chance=Chance(release=...)")
        if "tau_mem" in intrinsic and (self.neuron.dt is not None or np.any(self._step.drive_step != 0)):
            raise InputError("TempotronLayer: tau_mem learns in neurons given by tau_mem and without drive")
        self.intrinsic = tuple(intrinsic)
        self.unit_class = np.arange(self.n_units, dtype=np.int64) % self.n_classes
        self._velocity = np.zeros_like(self._weight)

    def fit(self, events: Events, epochs: int = 1) -> Floats:  # type: ignore[override]  # labels, no reward
        """Learn from samples, one after the other; may be called again to go on.

        Args:
            events: Samples with labels.
            epochs: How often each sample is shown, each time in another order and with other draws.

        Returns:
            Share of wrong decisions (sample, neuron) in each epoch, float64.

        Raises:
            InputError: Units or labels do not fit.
        """
        check_events("TempotronLayer.fit", events, self.n_inputs)
        labels = check_labels("TempotronLayer.fit", events, self.n_classes)
        grid = self._grid(events)
        v_max, k_max = np.zeros(self.n_units), np.zeros(self.n_units, dtype=np.int64)
        by_weight, by_beta, by_release = np.zeros_like(self._weight), np.zeros(self.n_units), np.zeros(self.n_units)
        wrong: list[float] = []
        for _ in range(whole("TempotronLayer.fit", "epochs", epochs, 1)):
            seed = philox4x32((0, self._epoch, 0, 1), (self.seed, FIRING))[0]
            errors = 0
            for i in sample_order(self.seed, self._epoch, len(events)):
                a, b = int(grid.first[i]), int(grid.first[i + 1])
                part = slice(int(grid.entry[i]), int(grid.entry[i + 1]))
                sample = (grid.begin[a + i : b + i + 1], grid.source[part], grid.counts[part])
                layer, name = self._layer(), int(events.sample_ids[i])
                peaks(*sample, self._weight, layer, seed, name, v_max, k_max)
                fired, wanted = v_max >= self.v_threshold, self.unit_class == labels[i]
                sign = wanted.astype(np.float64) - fired
                errors += int(np.count_nonzero(sign))
                sign[k_max < 0] = 0.0  # without an event there is nothing to learn from
                if not sign.any():
                    continue
                peak_gradient(*sample, self._weight, layer, seed, name, k_max, sign, by_weight, by_beta, by_release)
                self._velocity = self.momentum * self._velocity + self.rate * by_weight
                self._weight = np.clip(self._weight + self._velocity, self.rule.w_min, self.rule.w_max)
                self._learn_numbers(sign, by_beta, by_release)
            self._epoch += 1
            wrong.append(errors / max(1, len(events) * self.n_units))
        return np.array(wrong)

    def _learn_numbers(self, sign: Floats, by_beta: Floats, by_release: Floats) -> None:
        tau, theta = self._first
        if "tau_mem" in self.intrinsic:
            step = self.intrinsic_rate * by_beta * self.beta * self.dt / self.tau_mem
            self.tau_mem = np.clip(self.tau_mem * np.exp(np.clip(step, -1.0, 1.0)), tau / LIMIT, tau * LIMIT)
            self.beta = decay(self.tau_mem, self.dt)
        if "v_threshold" in self.intrinsic:
            lowest = np.maximum(theta / LIMIT, self._step.v_reset + 1e-6) if self._step.reset_zero else theta / LIMIT
            self.v_threshold = np.clip(self.v_threshold - self.intrinsic_rate * sign, lowest, theta * LIMIT)
        if "release" in self.intrinsic:
            step = self.intrinsic_rate * by_release * self.release * (1.0 - self.release)
            logit = np.log(self.release) - np.log1p(-self.release) + step
            self.release = 1.0 / (1.0 + np.exp(-np.clip(logit, -10.0, 10.0)))
