"""Plain NumPy definition of random synapses and noisy thresholds; which number is drawn for what.

The kernels are :mod:`snnsim.kernels.stochastic` (clock engine), :mod:`snnsim.kernels.stochastic_product` and
:mod:`snnsim.kernels.neurons_stochastic` (training); all of them draw these numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.philox import Stream
from snnsim.kernels.reference_models import exponential
from snnsim.kernels.reference_philox import philox_reference

__all__ = [
    "Chance",
    "ReferenceSynapses",
    "drawn_sum",
    "fires_reference",
    "firing_probability",
    "release_numbers",
    "synapse_words",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def _number(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> Floats:
    first = (high >> np.uint64(5)).astype(np.float64)
    return (first * 2.0**26 + (low >> np.uint64(6)).astype(np.float64)) * 2.0**-53


def release_numbers(
    seed: int,
    projection: int,
    sample: npt.ArrayLike,
    step: npt.ArrayLike,
    target: npt.ArrayLike,
    word: npt.ArrayLike,
) -> tuple[Floats, Floats]:
    """Return the numbers in [0, 1) that decide about releases and amplitudes, in the broadcast shape.

    Args:
        seed: Seed of the run.
        projection: Place of the projection in its network.
        sample: Id of the sample.
        step: Step in which the source emitted.
        target: Target unit.
        word: Word of the synapse, see :func:`synapse_words`.
    """
    x0, x1, x2, x3 = philox_reference((sample, step, target, word), (seed, int(Stream.RELEASE) | projection << 8))
    return _number(x0, x1), _number(x2, x3)


def synapse_words(source: npt.NDArray[np.int64], target: npt.NDArray[np.int64], n_source: int) -> npt.NDArray[np.int64]:
    """Return the word of every synapse: ``source + n_source * k``, k counting earlier synapses of the same pair.

    Args:
        source: Source of each synapse in stored order, shape (synapses,).
        target: Its target.
        n_source: Number of sources.
    """
    seen: dict[tuple[int, int], int] = {}
    words = np.empty(source.shape[0], np.int64)
    for place, pair in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
        k = seen.get(pair, 0)
        seen[pair] = k + 1
        words[place] = pair[0] + n_source * k
    return words


def firing_probability(v: Array, theta: Array, temperature: Array) -> Floats:
    """Return ``1 / (1 + exp(-(v - theta) / temperature))`` in float64; where the temperature is 0: 1 if v >= theta."""
    warm = temperature > 0
    safe = np.where(warm, temperature, 1).astype(np.float64)
    x = (v.astype(np.float64) - theta.astype(np.float64)) / safe
    return np.where(warm, 1.0 / (1.0 + exponential(-x)), (v >= theta).astype(np.float64))


def fires_reference(
    v: Array, theta: Array, temperature: Array, seed: int, population: int, sample: npt.ArrayLike, step: int
) -> npt.NDArray[np.bool_]:
    """Return which neurons fire in a step.

    Args:
        v: Membranes before the reset, shape (unit,) or (batch, unit).
        theta: Thresholds, shape (unit,).
        temperature: Temperatures, shape (unit,); 0 is a sharp threshold.
        seed: Seed of the run.
        population: Place of the population in its network.
        sample: Id of the sample, or one a row of ``v``, shape (batch, 1).
        step: This step.
    """
    units = np.arange(v.shape[-1])
    key = (seed, int(Stream.FIRING) | population << 8)
    x0, x1, _, _ = philox_reference((sample, np.int64(step), units, np.int64(0)), key)
    return _number(x0, x1) < firing_probability(v, theta, temperature)


class ReferenceSynapses(NamedTuple):
    """Random synapses of a projection: their words, and what they have by target, float64 ``(n_target,)``."""

    word: npt.NDArray[np.int64]
    release: Floats
    low: Floats
    span: Floats


class Chance(NamedTuple):
    """What is drawn in the run of one sample.

    Attributes:
        seed: Seed of the run.
        sample: Id of the sample.
        synapses: By place of a projection, where it releases at random.
        noisy: Places of the populations whose threshold is noisy.
    """

    seed: int
    sample: int
    synapses: dict[int, ReferenceSynapses]
    noisy: frozenset[int]

    def term(self, projection: int, step: int, synapse: int, target: int, term: Any) -> Any:
        """Return what arrives of ``count * weight``: nothing at all, or the term times its amplitude."""
        if projection not in self.synapses:
            return term
        own = self.synapses[projection]
        u, other = release_numbers(self.seed, projection, self.sample, step, target, own.word[synapse])
        if not u < own.release[target]:
            return type(term)(0)
        return term * type(term)(own.low[target] + own.span[target] * other)

    def fires(self, place: int, item: Any, v: Array, step: int) -> npt.NDArray[np.bool_]:
        """Return which neurons of a noisy population fire."""
        return fires_reference(v, item.v_threshold, item.extra["temperature"], self.seed, place, self.sample, step)


def drawn_sum(
    spikes: Array,
    weight: Array,
    delay_steps: npt.NDArray[np.int64],
    law: tuple[Floats, Floats, Floats],
    *,
    seed: int,
    projection: int,
    sample: npt.NDArray[np.int64],
    first_step: int = 0,
) -> Array:
    """Sum delayed, weighted, randomly released spikes in the order emission step, tap, source.

    Args:
        spikes: Counts, shape (time, batch, n_in).
        weight: Shape (n_out, n_in, taps).
        delay_steps: Same shape, non-negative.
        law: Release, lowest amplitude and span of every target, float64, shape (n_out,) each.
        seed: Seed of the run.
        projection: Place of the first tap's projection; the others follow.
        sample: Ids, shape (batch,).
        first_step: Number of the first step.

    Returns:
        Shape (time, batch, n_out), in the type of the weights.
    """
    n_steps, batch, n_in = spikes.shape
    n_out, _, taps = weight.shape
    kind = weight.dtype.type
    release, low, span = law
    total = np.zeros((n_steps, batch, n_out), weight.dtype)
    targets = np.arange(n_out)
    for step in range(n_steps):
        for tap in range(taps):
            for source in range(n_in):
                arrival = step + delay_steps[:, source, tap]
                for b in np.flatnonzero(spikes[step, :, source]):
                    u, other = release_numbers(
                        seed, projection + tap, sample[b], first_step + step, targets, np.int64(source)
                    )
                    term = kind(spikes[step, b, source]) * weight[:, source, tap]
                    term = term * (low + span * other).astype(weight.dtype)
                    kept = (u < release) & (arrival < n_steps)
                    total[arrival[kept], b, targets[kept]] += term[kept]
    return total
