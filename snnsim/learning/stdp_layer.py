"""A layer of spiking neurons that learns by spike timing, and what can be put on top of it. Grid of steps, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import check_dt, decay, time_to_step
from snnsim.kernels.philox import Stream, philox4x32, uniform
from snnsim.kernels.stdp import LayerNumbers, stdp_run, stdp_sample
from snnsim.kernels.stochastic import FIRING
from snnsim.kernels.weight_bounds import keep_bounds
from snnsim.learning.local import (
    Normalise,
    WeightBounds,
    check_events,
    check_labels,
    in_blocks,
    number,
    sample_order,
    whole,
)
from snnsim.learning.stdp import STDP, Chance, Homeostasis, Reward, Teacher
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF, LevyBaxter, MetaNeuron, Neuron

__all__ = ["RewardSignal", "STDPLayer"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
RewardSignal = npt.ArrayLike | Callable[[int, npt.NDArray[np.int64]], float]
"""One number a sample, or a function of a sample's label and the spike count of each neuron."""


class _Grid(NamedTuple):
    """Samples as lists of active sources: see :func:`snnsim.kernels.stdp.stdp_run` for the fields."""

    first: Ints
    begin: Ints
    entry: Ints
    source: Ints
    counts: Floats


class STDPLayer:
    """Neurons side by side, all inputs to all neurons, that learn by :class:`STDP` of pairs or triplets.

    The law is that of :class:`snnsim.neurons.LIF`, ``v <- (beta v + drive_step) + arrivals``, every sample from rest;
    ``docs/local-rules.md`` has the order inside a step. ``reward``, ``teacher`` and ``homeostasis`` add to the rule, in
    :meth:`fit` only.

    Args:
        n_inputs: Units of the events.
        n_units: Neurons.
        rule: What changes the weights.
        dt: Time step, seconds.
        neuron: Law and numbers of the neurons, scalars or one a neuron.
        chance: What is random.
        reward: Makes it reward-modulated: :meth:`fit` then needs a reward.
        teacher: Makes it supervised: :meth:`fit` then needs labels.
        homeostasis: Intrinsic plasticity.
        winners: How many neurons may fire in a step, the highest above their thresholds, the first among equals; None:
            all. The others keep their potential.
        inhibition: What a spike takes from the potential of all other neurons one step later: lateral inhibition.
        normalise: ``"sum"`` or ``"norm"`` of the incoming weights of a neuron, kept after each sample; or None.
        total: The sum or norm.
        start: First weights are uniform in this range, put into the bounds of the rule and normalised.
        seed: Of first weights, sample order, release and firing, below 2**32.

    Attributes:
        weight: (neuron, input), float64; a copy, and can be set.
        v_threshold: (neuron,).
        tau_mem: (neuron,), seconds.
        release: (neuron,).

    Raises:
        InputError: A value is out of range; the sentence says which.
    """

    def __init__(
        self,
        n_inputs: int,
        n_units: int,
        rule: STDP,
        *,
        dt: float = 0.001,
        neuron: LIF | None = None,
        chance: Chance | None = None,
        reward: Reward | None = None,
        teacher: Teacher | None = None,
        homeostasis: Homeostasis | None = None,
        winners: int | None = None,
        inhibition: float = 0.0,
        normalise: Normalise | None = None,
        total: float | None = None,
        start: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        self.n_inputs = int(number("STDPLayer", "n_inputs", n_inputs, 1, 2**31 - 1))
        self.n_units = int(number("STDPLayer", "n_units", n_units, 1, 2**31 - 1))
        if not isinstance(rule, STDP):
            raise InputError(f"STDPLayer: rule: expected STDP, got {type(rule).__name__}")
        self.rule, self.dt = rule, check_dt(dt)
        self.neuron = LIF() if neuron is None else neuron
        if type(self.neuron) is not LIF:
            raise InputError(
                f"STDPLayer: neuron: expected LIF, got {type(self.neuron).__name__}; see chance= for noise"
            )
        self.chance = Chance() if chance is None else chance
        self.reward, self.teacher, self.homeostasis = reward, teacher, homeostasis
        kinds = {"chance": Chance, "reward": Reward, "teacher": Teacher, "homeostasis": Homeostasis}
        for name, value in (
            ("chance", self.chance),
            ("reward", reward),
            ("teacher", teacher),
            ("homeostasis", homeostasis),
        ):
            if value is not None and not isinstance(value, kinds[name]):
                raise InputError(f"STDPLayer: {name}: expected {kinds[name].__name__}, got {type(value).__name__}")
        self.winners = 0 if winners is None else int(number("STDPLayer", "winners", winners, 1, self.n_units))
        self.inhibition = number("STDPLayer", "inhibition", inhibition, 0.0)
        self.bounds = WeightBounds(w_min=rule.w_min, w_max=rule.w_max, normalise=normalise, total=total)
        self.seed = int(number("STDPLayer", "seed", seed, 0, 2**32 - 1))
        if teacher is not None and teacher.n_classes > self.n_units:
            raise InputError(
                f"STDPLayer: teacher: {teacher.n_classes} classes need as many neurons, got {self.n_units}"
            )
        step = self.neuron.step(self.n_units, self.dt)
        self._step = step
        self.beta: Floats = step.beta.copy()
        self.v_threshold: Floats = np.nextafter(step.v_threshold, np.inf) if step.strict else step.v_threshold.copy()
        tau = np.asarray(self.neuron.tau_mem, dtype=np.float64)
        self.tau_mem: Floats = np.broadcast_to(tau, (self.n_units,)).copy()
        self.release: Floats = np.full(self.n_units, self.chance.release)
        if homeostasis is not None and "release" in homeostasis.intrinsic and self.chance.release >= 1:
            raise InputError("STDPLayer: homeostasis of release needs synapses with chance=Chance(release=...) below 1")
        if homeostasis is not None and "tau_mem" in homeostasis.intrinsic and self.neuron.dt is not None:
            raise InputError("STDPLayer: homeostasis of tau_mem needs a neuron given by tau_mem, not by from_step")
        if homeostasis is not None and np.any(step.drive_step != 0) and "tau_mem" in homeostasis.intrinsic:
            raise InputError("STDPLayer: homeostasis of tau_mem needs a neuron without drive, whose size depends on it")
        self._first = (self.tau_mem.copy(), self.v_threshold.copy())
        low, high = (number("STDPLayer", "start", value) for value in start)
        draws = uniform(self.seed, Stream.WEIGHT, 0, 0, np.arange(self.n_units)[:, None], np.arange(self.n_inputs))
        self._weight: Floats = np.ascontiguousarray((low + (high - low) * draws).T)
        self._keep()
        self.unit_class: Ints | None = None
        if teacher is not None:
            self.unit_class = np.arange(self.n_units, dtype=np.int64) % teacher.n_classes
        self._epoch = 0
        self._mean = 0.0

    @property
    def weight(self) -> Floats:
        """Weights, (neuron, input)."""
        return np.ascontiguousarray(self._weight.T)

    @weight.setter
    def weight(self, value: npt.ArrayLike) -> None:
        array = np.asarray(value, dtype=np.float64)
        if array.shape != (self.n_units, self.n_inputs) or not np.isfinite(array).all():
            raise InputError(
                f"STDPLayer.weight: expected finite numbers of shape {(self.n_units, self.n_inputs)}, "
                f"got shape {array.shape}"
            )
        if array.min() < self.rule.w_min or array.max() > self.rule.w_max:
            raise InputError(
                f"STDPLayer.weight: expected {self.rule.w_min} to {self.rule.w_max}, the bounds of the rule, got "
                f"{array.min()} to {array.max()}"
            )
        self._weight = np.ascontiguousarray(array.T)

    def _keep(self) -> None:
        for j in range(self.n_units):
            b = self.bounds
            keep_bounds(self._weight[:, j], float(b.w_min), float(b.w_max), b.kind, b.size)

    def _layer(self) -> LayerNumbers:
        step, chance = self._step, self.chance
        return LayerNumbers(
            *(self.beta, step.drive_step, self.v_threshold, step.v_reset),
            *(step.reset_amount, step.refractory_steps, self.release),
            *(float(chance.low), float(chance.high), float(chance.temperature)),
            *(int(not step.reset_zero), self.winners, self.inhibition),
        )

    def _grid(self, events: Events) -> _Grid:
        check_events("STDPLayer", events, self.n_inputs)
        steps = events.n_steps(self.dt)
        begins, sources, counts = [], [], []
        for i in range(len(events)):
            a, b = int(events.offsets[i]), int(events.offsets[i + 1])
            k = time_to_step(events.times[a:b], self.dt)
            if k.size and k.max() >= steps[i]:
                raise InputError(
                    f"STDPLayer: sample {i} has events at or after its last step ({steps[i]} steps of {self.dt} s); "
                    "raise its duration"
                )
            place, count = np.unique(k * self.n_inputs + events.units[a:b], return_counts=True)
            begins.append(np.searchsorted(place, np.arange(steps[i] + 1) * self.n_inputs))
            sources.append(place % self.n_inputs)
            counts.append(count)
        empty = [np.zeros(0, np.int64)]
        return _Grid(
            np.concatenate([[0], np.cumsum(steps)]).astype(np.int64),
            np.concatenate(begins or empty).astype(np.int64),
            np.concatenate([[0], np.cumsum([part.size for part in sources])]).astype(np.int64),
            np.concatenate(sources or empty).astype(np.int64),
            np.concatenate(counts or empty).astype(np.float64),
        )

    def fit(self, events: Events, epochs: int = 1, *, reward: RewardSignal | None = None) -> Floats:
        """Learn from samples, one after the other; may be called again to go on.

        Args:
            events: Samples, with labels if there is a teacher.
            epochs: How often each sample is shown, each time in another order and with other draws.
            reward: With :class:`Reward`: one number a sample, or a function of label and spike counts (neuron,).

        Returns:
            Mean rate of all neurons in each epoch, spikes a second, float64.

        Raises:
            InputError: Units, labels or reward do not fit.
        """
        if (reward is None) != (self.reward is None):
            raise InputError("STDPLayer.fit: give a reward= and make the layer with reward=Reward(...), or neither")
        values: Floats | None = None
        if reward is not None and not callable(reward):
            values = np.asarray(reward, dtype=np.float64)
            if values.shape != (len(events),) or not np.isfinite(values).all():
                raise InputError(f"STDPLayer.fit: reward: expected {len(events)} finite numbers, got {values.shape}")
        if self.teacher is not None:
            check_labels("STDPLayer.fit", events, self.teacher.n_classes)
        grid, rule = self._grid(events), self.rule.numbers(self.dt)
        kept = np.zeros(self._weight.shape if self.reward is not None else (0, 0))
        rates: list[float] = []
        for _ in range(whole("STDPLayer.fit", "epochs", epochs, 1)):
            seed = philox4x32((0, self._epoch, 0, 1), (self.seed, FIRING))[0]
            spiked = 0
            for i in sample_order(self.seed, self._epoch, len(events)):
                a, b = int(grid.first[i]), int(grid.first[i + 1])
                spikes = np.zeros((b - a, self.n_units), dtype=np.uint8)
                fading = np.zeros(0)
                if self.reward is not None:
                    fading = np.exp(-self.dt / self.reward.tau) ** np.arange(b - a - 1, -1, -1.0)
                part = slice(int(grid.entry[i]), int(grid.entry[i + 1]))
                label = int(events.labels[i])
                stdp_sample(
                    *(grid.begin[a + i : b + i + 1], grid.source[part], grid.counts[part], self._weight, kept, fading),
                    *(self._teaching(label), self._layer(), rule, True, seed, int(events.sample_ids[i]), spikes),
                )
                counts = spikes.sum(axis=0, dtype=np.int64)
                if self.reward is not None:
                    given = values[i] if values is not None else reward(label, counts)  # type: ignore[operator,misc]
                    got = number("STDPLayer.fit", "reward", given)
                    self._weight += self.reward.rate * (got - self._mean) * kept
                    self._mean += self.reward.baseline * (got - self._mean)
                self._keep()
                self._move(counts, float(events.duration[i]))
                spiked += int(counts.sum())
            self._epoch += 1
            rates.append(spiked / max(float(events.duration.sum()), 1e-300) / self.n_units)
        return np.array(rates)

    def _teaching(self, label: int) -> Floats:
        if self.teacher is None:
            return np.zeros(self.n_units)
        return np.where(
            np.arange(self.n_units) % self.teacher.n_classes == label, self.teacher.current, -self.teacher.suppress
        ).astype(np.float64)

    def _move(self, counts: Ints, duration: float) -> None:
        """Let the neurons move their own numbers after a sample; see :class:`Homeostasis`."""
        rule = self.homeostasis
        if rule is None:
            return
        by = rule.rate * (counts - rule.target * duration)
        tau, theta = self._first
        if "v_threshold" in rule.intrinsic:
            lowest = np.maximum(theta / 20, self._step.v_reset + 1e-6) if self._step.reset_zero else theta / 20
            self.v_threshold = np.clip(self.v_threshold + by, lowest, theta * 20)
        if "tau_mem" in rule.intrinsic:
            self.tau_mem = np.clip(self.tau_mem * np.exp(-np.clip(by, -50, 50)), tau / 20, tau * 20)
            self.beta = decay(self.tau_mem, self.dt)
        if "release" in rule.intrinsic:
            logit = np.log(self.release) - np.log1p(-self.release) - by
            self.release = 1.0 / (1.0 + np.exp(-np.clip(logit, -10.0, 10.0)))

    def _run(self, events: Events, threads: int | None) -> tuple[Ints, npt.NDArray[np.uint8]]:
        grid, rule, layer = self._grid(events), self.rule.numbers(self.dt), self._layer()
        spikes = np.zeros((int(grid.first[-1]), self.n_units), dtype=np.uint8)
        ids = np.ascontiguousarray(events.sample_ids)

        def run(i0: int, i1: int) -> None:
            stdp_run(i0, i1, *grid, self._weight, layer, rule, self.seed, ids, spikes)

        in_blocks(run, len(events), threads)
        return grid.first, spikes

    def spikes(self, events: Events, *, threads: int | None = None) -> Events:
        """Return the spikes of the neurons without learning, on the grid; labels, durations and ids are kept.

        The result does not depend on the number of threads or on which samples are run together.
        """
        first, spikes = self._run(events, threads)
        times, units = [], []
        for a, b in pairwise(first.tolist()):
            k, unit = np.nonzero(spikes[a:b])
            times.append(k * self.dt)
            units.append(unit)
        return Events.from_lists(
            times,
            units,
            self.n_units,
            events.labels,
            events.duration,
            class_names=events.class_names,
            sample_ids=events.sample_ids,
        )

    def rates(self, events: Events, *, threads: int | None = None) -> Floats:
        """Return spikes a second of each neuron without learning, float64, (sample, neuron)."""
        first, spikes = self._run(events, threads)
        counts = [spikes[a:b].sum(axis=0, dtype=np.int64) for a, b in pairwise(first.tolist())]
        return np.asarray(np.reshape(counts, (-1, self.n_units)) / np.maximum(events.duration, 1e-300)[:, None])

    def assign(self, events: Events, *, threads: int | None = None) -> Ints:
        """Give each neuron the class for which its mean rate is highest (Diehl and Cook 2015); return the classes."""
        n_classes = events.n_classes
        if not len(events):
            raise InputError("STDPLayer.assign: expected labelled samples, got none")
        labels = check_labels("STDPLayer.assign", events, n_classes)
        rates = self.rates(events, threads=threads)
        shown = [rates[labels == c] for c in range(n_classes)]
        means = [part.mean(axis=0) if len(part) else np.full(self.n_units, -math.inf) for part in shown]
        self.unit_class = np.argmax(means, axis=0).astype(np.int64)
        return self.unit_class

    def predict(self, events: Events, *, threads: int | None = None) -> Ints:
        """Return the class whose neurons have the highest mean rate, int64, (sample,).

        Raises:
            InputError: No neuron has a class: there was neither a teacher nor :meth:`assign`.
        """
        if self.unit_class is None:
            raise InputError("STDPLayer.predict: neurons have no classes yet; call assign(events) with labels")
        rates = self.rates(events, threads=threads)
        owned = [rates[:, self.unit_class == c] for c in range(int(self.unit_class.max()) + 1)]
        means = [part.mean(axis=1) if part.shape[1] else np.full(len(rates), -1.0) for part in owned]
        return np.asarray(np.argmax(means, axis=0), dtype=np.int64)

    def score(self, events: Events, *, threads: int | None = None) -> float:
        """Return the share of samples whose class is right."""
        if not len(events):
            raise InputError("STDPLayer.score: expected at least one sample, got none")
        check_labels("STDPLayer.score", events, events.n_classes)
        return float(np.mean(self.predict(events, threads=threads) == events.labels))

    def _record(self) -> Neuron:
        """Return the neurons as a record for the engines: LIF, MetaNeuron or LevyBaxter."""
        step, chance = self._step, self.chance
        if (chance.low, chance.high, chance.temperature) == (0.0, 1.0, 0.0) and not self.beta.any():
            if np.any(step.v_reset != 0) or not step.reset_zero or step.refractory_steps.any():
                raise InputError(
                    "STDPLayer.network: Levy and Baxter's neurons forget all; expected v_reset 0 and no t_ref"
                )
            drive = step.drive_step
            return LevyBaxter.from_step(
                dt=self.dt, drive_step=drive, v_threshold=self.v_threshold, release=self.release.copy()
            )
        numbers: dict[str, Any] = {
            "dt": self.dt,
            "beta": self.beta,
            "drive_step": step.drive_step,
            "v_threshold": self.v_threshold,
            "v_reset": step.v_reset,
            "reset": "zero" if step.reset_zero else "subtract",
            "reset_amount": None if step.reset_zero else step.reset_amount,
            "t_ref": step.refractory_steps * self.dt,
        }
        if chance == Chance():
            return LIF.from_step(**numbers)
        if abs(chance.low + chance.high - 2.0) > 1e-12:
            raise InputError(
                f"STDPLayer.network: expected amplitudes around 1 (MetaNeuron) or from 0 to 1 without memory and "
                f"temperature (LevyBaxter), got {chance}"
            )
        amplitude = 0.5 * (chance.high - chance.low)
        return MetaNeuron.from_step(
            **numbers, release=self.release.copy(), amplitude=amplitude, temperature=chance.temperature
        )

    def network(self) -> Network:
        """Return the layer as it is now as a network with the same spikes on the clock engine.

        Where something is random they are the same with ``simulate(..., seed=layer.seed)``.

        Raises:
            InputError: Something of it has no form in a network: ``winners``, amplitudes that no record has.
        """
        if self.winners:
            raise InputError("STDPLayer.network: winners= has no form in a network; use inhibition= instead")
        chance = self.chance
        if self.inhibition and (np.any(self.release < 1) or (chance.low, chance.high) != (1.0, 1.0)):
            raise InputError(
                "STDPLayer.network: inhibition= with random synapses has no form in a network, where lateral synapses "
                "would release at random too; use one of the two"
            )
        projections = [Projection("input", "stdp", weight=self.weight)]
        if self.inhibition:
            lateral = -self.inhibition * (1.0 - np.eye(self.n_units))
            projections.append(Projection("stdp", "stdp", weight=lateral, delay=self.dt))
        return Network(
            populations=(Population("stdp", self.n_units, self._record()),),
            projections=tuple(projections),
            inputs=(Input("input", self.n_inputs),),
            readout=None,
            dt=self.dt,
        )
