"""Inner hair cell, auditory fibres and bushy cell of one cochlear place, fused over all samples.

Places are independent: each is one pass over the samples with a few numbers of state, so nothing of size
(places x samples x fibres) ever exists. Only the fibres are random; their numbers are a function of
``(seed, unit, sample)`` alone, so the result is the same for any number of threads and any block of places.

Every stage also stands alone (:func:`hair_cell`, :func:`fibres`, :func:`bushy_cell`), made of the same loops as the
fused :func:`cochlea`. :mod:`snnsim.kernels.reference_cochlea` is the plain NumPy definition.

Sources: Meddis, J. Acoust. Soc. Am. 79, 702 (1986) and 83, 1056 (1988), the hair cell; Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014, the mixer; Cramer, Stradmann, Schemmel and Zenke, IEEE
TNNLS 33, 2744 (2022), the chain and its constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

__all__ = [
    "BUSHY",
    "DEAD_SAMPLES",
    "HAIR",
    "HAIR_REST",
    "N_FIBRES",
    "SAMPLE_RATE",
    "Bushy",
    "HairCell",
    "bushy_cell",
    "cochlea",
    "fibres",
    "hair_cell",
    "mix64",
    "stream_key",
    "uniform53",
]

SAMPLE_RATE = 24_000.0
"""Samples per second of the stages in this module, Hz."""

N_FIBRES = 40
"""Auditory fibres that feed one bushy cell."""

DEAD_SAMPLES = 24
"""Dead time of a fibre and of the bushy cell: 1 ms in samples."""


@dataclass(frozen=True)
class HairCell:
    """Constants of the transmitter pools (Meddis 1986, 1988); rates per second.

    Attributes:
        a: Membrane velocity at which the cell begins to open.
        b: Membrane velocity that, with ``a``, halves the permeability.
        g: Largest permeability.
        y: Replenishment of the free pool.
        l: Loss from the cleft.
        r: Return from the cleft.
        x: Reprocessing.
        h: Firing rate of a fibre per unit of transmitter in the cleft.
        m: Size of the free pool.
    """

    a: float = 5.0
    b: float = 300.0
    g: float = 2000.0
    y: float = 5.05
    l: float = 2500.0  # noqa: E741  # the paper's letter
    r: float = 6580.0
    x: float = 66.3
    h: float = 50_000.0
    m: float = 1.0

    def rest(self) -> tuple[float, float, float]:
        """Return free transmitter, cleft and store at rest (no sound): the fixed point of the equations."""
        k = self.g * self.a / (self.a + self.b)
        c = self.m * self.y * k / (self.l * k + self.y * (self.l + self.r))
        return c * (self.l + self.r) / k, c, c * self.r / self.x

    def vector(self) -> npt.NDArray[np.float64]:
        """Return the constants in the order in which the kernels take them."""
        return np.array([self.a, self.b, self.g, self.y, self.l, self.r, self.x, self.h, self.m], dtype=np.float64)


@dataclass(frozen=True)
class Bushy:
    """Constants of the bushy cell, a leaky integrate-and-fire neuron with an exponential synapse.

    Attributes:
        tau_mem: Membrane time constant, s.
        tau_syn: Synaptic time constant, s.
        weight: Rise of the potential per second and fibre spike; the threshold is 1.
    """

    tau_mem: float = 1e-3
    tau_syn: float = 5e-4
    weight: float = 13_000.0 / N_FIBRES

    def vector(self) -> npt.NDArray[np.float64]:
        """Return decay of the membrane, decay of the synapse and weight, all per sample."""
        dt = 1.0 / SAMPLE_RATE
        return np.array([math.exp(-dt / self.tau_mem), math.exp(-dt / self.tau_syn), self.weight * dt])


HAIR = HairCell()
BUSHY = Bushy()
HAIR_REST = HAIR.rest()

LANES = 8  # places whose hair cells run side by side

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_UNIT = np.uint64(0xD1342543DE82EF95)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


@njit(cache=True, nogil=True)
def mix64(z: np.uint64) -> np.uint64:
    """Return SplitMix64's finaliser of a 64-bit word: every input bit changes every output bit."""
    z = uint64(z)
    z = (z ^ (z >> uint64(30))) * _FIRST
    z = (z ^ (z >> uint64(27))) * _SECOND
    return z ^ (z >> uint64(31))  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def stream_key(seed: np.uint64, unit: np.uint64) -> np.uint64:
    """Return the key of one place: mix64(mix64(seed) xor (unit + 1) * constant).

    The seed goes through the mixer by itself: with a key linear in the seed, seeds n and n + 1 would be the same
    numbers shifted by one sample.
    """
    return mix64(mix64(uint64(seed)) ^ ((uint64(unit) + uint64(1)) * _UNIT))  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def uniform53(key: np.uint64, sample: np.uint64) -> float:
    """Return the number in [0, 1) of one place and sample: the top 53 bits of mix64(key + (sample + 1) * gamma)."""
    return float(mix64(key + (uint64(sample) + uint64(1)) * _GAMMA) >> uint64(11)) * _TO_UNIT


@njit(cache=True, nogil=True)
def _hair_lanes(
    velocity: npt.NDArray[np.float64],
    hair: npt.NDArray[np.float64],
    rest: tuple[float, float, float],
    probability: npt.NDArray[np.float64],
) -> None:
    """Run the transmitter pools of LANES places at once (the inner loop becomes vector instructions).

    Args:
        velocity: Shape (sample, LANES).
        hair: Constants, :meth:`HairCell.vector`.
        rest: State before the first sample.
        probability: Filled with the firing probability of a fibre, shape (sample, LANES).
    """
    a, b, g, y, loss, r, x, h, m = hair[0], hair[1], hair[2], hair[3], hair[4], hair[5], hair[6], hair[7], hair[8]
    dt = 1.0 / SAMPLE_RATE
    q = np.full(LANES, rest[0])
    c = np.full(LANES, rest[1])
    w = np.full(LANES, rest[2])
    for t in range(velocity.shape[0]):
        for j in range(LANES):
            s = max(velocity[t, j] + a, 0.0)
            k = g * s / (s + b)
            release = k * q[j]
            back = x * w[j]
            q_next = q[j] + dt * (y * max(m - q[j], 0.0) - release + back)
            c_next = max(c[j] + dt * (release - (loss + r) * c[j]), 0.0)
            w_next = w[j] + dt * (r * c[j] - back)
            q[j] = max(q_next, 0.0)
            c[j] = c_next
            w[j] = max(w_next, 0.0)
            probability[t, j] = h * c_next * dt


@njit(cache=True, nogil=True)
def _binomial(u: float, p: float, n: int) -> int:
    """Return the Binomial(n, p) count at the point ``u`` of the cumulative distribution (inversion)."""
    if n <= 0 or p <= 0.0:
        return 0
    if p >= 1.0:
        return n
    none = 1.0 - p
    term = 1.0
    base = none
    exponent = n
    while exponent > 0:  # whole power by squaring: the same bits on every machine, unlike pow
        if exponent & 1:
            term *= base
        base *= base
        exponent >>= 1
    odds = p / none
    total = term
    count = 0
    while u >= total and count < n:
        term *= odds * (n - count) / (count + 1)
        count += 1
        total += term
    return count


@njit(cache=True, nogil=True)
def _fibre_lane(probability: npt.NDArray[np.float64], key: np.uint64, counts: npt.NDArray[np.int64]) -> None:
    """Draw the fibre spikes of one place.

    Args:
        probability: Shape (sample,).
        key: Key of the place, :func:`stream_key`.
        counts: Filled with fibre spikes, shape (DEAD_SAMPLES + sample,); the first DEAD_SAMPLES are 0.
    """
    free = N_FIBRES
    for t in range(probability.shape[0]):
        free += counts[t]  # those that fired DEAD_SAMPLES ago
        u = uniform53(key, uint64(t))
        p = probability[t]
        count = 0
        if u >= 1.0 - free * p:  # (1 - p)^free is at least this: the usual case needs no power
            count = _binomial(u, p, free)
        counts[t + DEAD_SAMPLES] = count
        free -= count


@njit(cache=True, nogil=True)
def _bushy_lane(
    counts: npt.NDArray[np.int64], bushy: npt.NDArray[np.float64], samples: npt.NDArray[np.int64], n_spikes: int
) -> int:
    """Run one bushy cell; append the samples of its spikes to ``samples`` and return how many are in it then."""
    decay_mem, decay_syn, weight = bushy[0], bushy[1], bushy[2]
    n_samples = counts.shape[0]
    v, s = 0.0, 0.0
    t = 0
    while t < n_samples:
        s = s * decay_syn + counts[t]
        if v < 1.0:
            v = min(v * decay_mem + s * weight, 1.0)
            t += 1
            continue
        samples[n_spikes] = t - 1
        n_spikes += 1
        # The potential stays at 0 for DEAD_SAMPLES samples, this one included; the synapse runs on.
        end = min(t + DEAD_SAMPLES, n_samples)
        for blocked in range(t + 1, end):
            s = s * decay_syn + counts[blocked]
        v = 0.0
        t = end
    return n_spikes


@njit(cache=True, nogil=True)
def hair_cell(
    velocity: npt.NDArray[np.floating], hair: npt.NDArray[np.float64], rest: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """Return the firing probability of one fibre per sample, from the velocity of the membrane.

    With free transmitter q, cleft c and store w (forward Euler, all right-hand sides from the old values)::

        s = v + A;  k = g s / (s + B) if s > 0 else 0
        dq/dt = y (M - q)+ - k q + x w;   dc/dt = k q - (l + r) c;   dw/dt = r c - x w;   p = h c dt

    Args:
        velocity: Membrane velocity, shape (place, sample), at 24 kHz.
        hair: Constants, :meth:`HairCell.vector`.
        rest: State before the first sample, :meth:`HairCell.rest`.

    Returns:
        Probability per sample, float64, shape (place, sample).
    """
    n_places, n_samples = velocity.shape
    probability = np.empty((n_places, n_samples))
    lanes_in = np.zeros((n_samples, LANES))
    lanes_out = np.empty((n_samples, LANES))
    for i in range(0, n_places, LANES):
        here = min(LANES, n_places - i)
        for j in range(here):
            lanes_in[:, j] = velocity[i + j]
        _hair_lanes(lanes_in, hair, rest, lanes_out)
        for j in range(here):
            probability[i + j] = lanes_out[:, j]
    return probability


@njit(cache=True, nogil=True)
def fibres(
    probability: npt.NDArray[np.float64], seed: np.uint64, units: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the number of fibres of each place that fire in each sample.

    A fibre fires with the given probability unless it fired in the last 23 samples. The 40 fibres of a place are
    exchangeable and only their sum counts, so the sum is drawn at once: Binomial(40 - sum of the last 23 counts,
    p). This is the same law as 40 fibres with a dead time of 24 samples each.

    Args:
        probability: Per fibre and sample, shape (place, sample).
        seed: Seed of the clip.
        units: Unit of each row, which selects its random numbers, shape (place,).

    Returns:
        Counts, int64, shape (place, sample).
    """
    n_places, n_samples = probability.shape
    counts = np.zeros((n_places, DEAD_SAMPLES + n_samples), dtype=np.int64)
    for i in range(n_places):
        _fibre_lane(probability[i], stream_key(seed, uint64(units[i])), counts[i])
    return counts[:, DEAD_SAMPLES:].copy()


@njit(cache=True, nogil=True)
def bushy_cell(
    counts: npt.NDArray[np.int64], bushy: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the spikes of bushy cells, leaky integrate-and-fire neurons driven by their fibres.

    The synapse ``s`` sums fibre spikes and decays; it is not cleared by a spike. The spike time is the sample at which
    the potential reached 1, found one sample later, so a threshold reached in the very last sample is not a spike.

    Args:
        counts: Fibre spikes, shape (place, sample).
        bushy: Constants, :meth:`Bushy.vector`.

    Returns:
        Sample indices of all spikes, place after place, ascending within a place, int64; and the number of spikes
        of each place, int64, shape (place,).
    """
    n_places, n_samples = counts.shape
    samples = np.empty(n_places * (n_samples // (DEAD_SAMPLES + 1) + 1), dtype=np.int64)
    numbers = np.zeros(n_places, dtype=np.int64)
    n_spikes = 0
    for i in range(n_places):
        first = n_spikes
        n_spikes = _bushy_lane(counts[i], bushy, samples, n_spikes)
        numbers[i] = n_spikes - first
    return samples[:n_spikes].copy(), numbers


@njit(cache=True, nogil=True)
def cochlea(
    velocity: npt.NDArray[np.floating],
    n_samples: int,
    seed: np.uint64,
    units: npt.NDArray[np.int64],
    hair: npt.NDArray[np.float64],
    rest: tuple[float, float, float],
    bushy: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Turn membrane velocity into the spikes of the bushy cells, a few places at a time.

    Args:
        velocity: Membrane velocity, float32 or float64, shape (place, at least n_samples), at 24 kHz.
        n_samples: Samples to run.
        seed: Seed of the clip.
        units: Unit of each row, shape (place,).
        hair: Constants of the hair cell, :meth:`HairCell.vector`.
        rest: State of the hair cell before the first sample.
        bushy: Constants of the bushy cell, :meth:`Bushy.vector`.

    Returns:
        As :func:`bushy_cell`.
    """
    n_places = velocity.shape[0]
    # The shortest interval is DEAD_SAMPLES + 1, so this is room for every spike.
    samples = np.empty(n_places * (n_samples // (DEAD_SAMPLES + 1) + 1), dtype=np.int64)
    numbers = np.zeros(n_places, dtype=np.int64)
    lanes_in = np.zeros((n_samples, LANES))
    probability = np.empty((n_samples, LANES))
    counts = np.zeros(DEAD_SAMPLES + n_samples, dtype=np.int64)
    n_spikes = 0
    for i in range(0, n_places, LANES):
        here = min(LANES, n_places - i)
        for j in range(here):
            lanes_in[:, j] = velocity[i + j, :n_samples]
        _hair_lanes(lanes_in, hair, rest, probability)
        for j in range(here):
            first = n_spikes
            _fibre_lane(probability[:, j], stream_key(seed, uint64(units[i + j])), counts)
            n_spikes = _bushy_lane(counts[DEAD_SAMPLES:], bushy, samples, n_spikes)
            numbers[i + j] = n_spikes - first
    return samples[:n_spikes].copy(), numbers
