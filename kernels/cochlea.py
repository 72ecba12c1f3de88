"""Inner hair cell, auditory fibres and bushy cell of one cochlear place, fused over all samples.

Places are independent: each is one pass over the samples with a few numbers of state, so nothing of size
(places x samples x fibres) ever exists. Only the fibres are random; their numbers are a function of
``(seed, unit, sample)`` alone, so the result is the same for any number of threads and any block of places.

Every stage also stands alone (:func:`hair_cell`, :func:`fibres`, :func:`bushy_cell`), made of the same steps as the
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
    return z ^ (z >> uint64(31))


@njit(cache=True, nogil=True)
def stream_key(seed: np.uint64, unit: np.uint64) -> np.uint64:
    """Return the key of one place: mix64(mix64(seed) xor (unit + 1) * constant).

    The seed goes through the mixer by itself: with a key linear in the seed, seeds n and n + 1 would be the same
    numbers shifted by one sample.
    """
    return mix64(mix64(uint64(seed)) ^ ((uint64(unit) + uint64(1)) * _UNIT))


@njit(cache=True, nogil=True)
def uniform53(key: np.uint64, sample: np.uint64) -> float:
    """Return the number in [0, 1) of one place and sample: the top 53 bits of mix64(key + (sample + 1) * gamma)."""
    return float(mix64(key + (uint64(sample) + uint64(1)) * _GAMMA) >> uint64(11)) * _TO_UNIT


@njit(cache=True, nogil=True)
def _hair_step(
    v: float, q: float, c: float, w: float, hair: npt.NDArray[np.float64], dt: float
) -> tuple[float, float, float, float]:
    """Advance the transmitter pools by one sample; return them and the firing probability of a fibre."""
    s = v + hair[0]
    k = hair[2] * s / (s + hair[1]) if s > 0.0 else 0.0
    release = k * q
    missing = hair[8] - q
    if missing < 0.0:
        missing = 0.0
    back = hair[6] * w
    q_next = q + dt * (hair[3] * missing - release + back)
    c_next = c + dt * (release - (hair[4] + hair[5]) * c)
    w_next = w + dt * (hair[5] * c - back)
    c_next = max(c_next, 0.0)
    return max(q_next, 0.0), c_next, max(w_next, 0.0), hair[7] * c_next * dt


@njit(cache=True, nogil=True)
def _binomial(u: float, p: float, n: int) -> int:
    """Return the Binomial(n, p) count at the point ``u`` of the cumulative distribution (inversion)."""
    if n <= 0 or p <= 0.0:
        return 0
    if u < 1.0 - n * p:  # (1 - p)^n is at least this: the usual case needs no power
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
def _bushy_step(
    count: int, v: float, s: float, refractory: int, bushy: npt.NDArray[np.float64]
) -> tuple[float, float, int, bool]:
    """Advance the bushy cell by one sample; the spike that is reported belongs to the sample before."""
    s = s * bushy[1] + count
    fired = False
    if refractory <= 0:
        if v >= 1.0:
            fired = True
            refractory = DEAD_SAMPLES
            v = 0.0
        else:
            v *= bushy[0]
    else:
        v = 0.0
    if refractory <= 0:
        v += s * bushy[2]
    return min(v, 1.0), s, refractory - 1, fired


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
    dt = 1.0 / SAMPLE_RATE
    probability = np.empty((n_places, n_samples))
    for i in range(n_places):
        q, c, w = rest
        for t in range(n_samples):
            q, c, w, probability[i, t] = _hair_step(velocity[i, t], q, c, w, hair, dt)
    return probability


@njit(cache=True, nogil=True)
def fibres(
    probability: npt.NDArray[np.float64], seed: np.uint64, units: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the number of fibres of each place that fire in each sample.

    A fibre fires with the given probability unless it fired in the last 23 samples. The 40 fibres of a place
    are exchangeable and only their sum counts, so the sum is drawn at once: Binomial(40 - sum of the last 23 counts, p).
    This is the same law as 40 fibres with a dead time of 24 samples each.

    Args:
        probability: Per fibre and sample, shape (place, sample).
        seed: Seed of the clip.
        units: Unit of each row, which selects its random numbers, shape (place,).

    Returns:
        Counts, int64, shape (place, sample).
    """
    n_places, n_samples = probability.shape
    counts = np.zeros((n_places, n_samples), dtype=np.int64)
    for i in range(n_places):
        key = stream_key(seed, uint64(units[i]))
        free = N_FIBRES
        for t in range(n_samples):
            if t >= DEAD_SAMPLES:
                free += counts[i, t - DEAD_SAMPLES]
            count = _binomial(uniform53(key, uint64(t)), probability[i, t], free)
            counts[i, t] = count
            free -= count
    return counts


@njit(cache=True, nogil=True)
def bushy_cell(
    counts: npt.NDArray[np.int64], bushy: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the potential of each bushy cell after each sample, and where it spikes.

    The synapse ``s`` sums fibre spikes and decays; it is not cleared by a spike. The spike time is the sample at which
    the potential reached 1, reported one sample later, so a threshold reached in the very last sample is not a spike.

    Args:
        counts: Fibre spikes, shape (place, sample).
        bushy: Constants, :meth:`Bushy.vector`.

    Returns:
        Potential, float64, and spikes, bool, both of shape (place, sample).
    """
    n_places, n_samples = counts.shape
    potential = np.zeros((n_places, n_samples))
    spikes = np.zeros((n_places, n_samples), dtype=np.bool_)
    for i in range(n_places):
        v, s, refractory = 0.0, 0.0, 0
        for t in range(n_samples):
            v, s, refractory, fired = _bushy_step(counts[i, t], v, s, refractory, bushy)
            potential[i, t] = v
            if fired:
                spikes[i, t - 1] = True
    return potential, spikes


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
    """Turn membrane velocity into the spikes of the bushy cells, in one pass per place.

    Args:
        velocity: Membrane velocity, float32 or float64, shape (place, at least n_samples), at 24 kHz.
        n_samples: Samples to run.
        seed: Seed of the clip.
        units: Unit of each row, shape (place,).
        hair: Constants of the hair cell, :meth:`HairCell.vector`.
        rest: State of the hair cell before the first sample.
        bushy: Constants of the bushy cell, :meth:`Bushy.vector`.

    Returns:
        Sample indices of all spikes, place after place, ascending within a place, int64; and the number of spikes
        of each place, int64, shape (place,).
    """
    n_places = velocity.shape[0]
    dt = 1.0 / SAMPLE_RATE
    # The shortest interval is DEAD_SAMPLES + 1, so this is room for every spike.
    samples = np.empty(n_places * (n_samples // (DEAD_SAMPLES + 1) + 1), dtype=np.int64)
    numbers = np.zeros(n_places, dtype=np.int64)
    ring = np.zeros(DEAD_SAMPLES, dtype=np.int64)
    n_spikes = 0
    for i in range(n_places):
        first = n_spikes
        key = stream_key(seed, uint64(units[i]))
        q, c, w = rest
        v, s, refractory = 0.0, 0.0, 0
        free = N_FIBRES
        place = 0
        ring[:] = 0
        for t in range(n_samples):
            q, c, w, p = _hair_step(float(velocity[i, t]), q, c, w, hair, dt)
            free += ring[place]
            count = _binomial(uniform53(key, uint64(t)), p, free)
            ring[place] = count
            free -= count
            place += 1
            if place == DEAD_SAMPLES:
                place = 0
            v, s, refractory, fired = _bushy_step(count, v, s, refractory, bushy)
            if fired:
                samples[n_spikes] = t - 1
                n_spikes += 1
        numbers[i] = n_spikes - first
    return samples[:n_spikes].copy(), numbers
