"""The cochlear stages in plain NumPy: the definition that :mod:`snnsim.kernels.cochlea` is compared with.

Written sample by sample over all places at once. The fibres exist twice: as the binomial count that the kernel draws
(same random numbers, same counts) and as 40 separate fibres with a dead time each (same law, own random numbers).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snnsim.kernels.cochlea import BUSHY, DEAD_SAMPLES, HAIR, N_FIBRES, SAMPLE_RATE, Bushy, HairCell

__all__ = ["bushy_cell", "cochlea", "fibres", "fibres_explicit", "hair_cell", "random_numbers"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_MASK = (1 << 64) - 1


def hair_cell(velocity: npt.NDArray[np.floating], hair: HairCell = HAIR) -> Float64:
    """Return the firing probability of a fibre, shape (place, sample); see :func:`snnsim.kernels.cochlea.hair_cell`."""
    dt = 1.0 / SAMPLE_RATE
    q, c, w = (np.full(velocity.shape[0], value) for value in hair.rest())
    probability = np.empty(velocity.shape)
    for t in range(velocity.shape[1]):
        s = velocity[:, t].astype(np.float64) + hair.a
        k = np.where(s > 0, hair.g * s / np.where(s > 0, s + hair.b, 1.0), 0.0)
        release, back = k * q, hair.x * w
        q_next = q + dt * (hair.y * np.maximum(hair.m - q, 0.0) - release + back)
        c_next = c + dt * (release - (hair.l + hair.r) * c)
        w_next = w + dt * (hair.r * c - back)
        q, c, w = (np.maximum(state, 0.0) for state in (q_next, c_next, w_next))
        probability[:, t] = hair.h * c * dt
    return probability


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def random_numbers(seed: int, unit: int, n_samples: int) -> Float64:
    """Return the uniform numbers of one place, shape (n_samples,), with Python's whole numbers.

    >>> random_numbers(0, 0, 2).tolist() == random_numbers(0, 0, 3).tolist()[:2]
    True
    """
    key = _mix(_mix(seed & _MASK) ^ ((unit + 1) * 0xD1342543DE82EF95 & _MASK))
    words = (_mix((key + (t + 1) * 0x9E3779B97F4A7C15) & _MASK) for t in range(n_samples))
    return np.array([(word >> 11) * 2.0**-53 for word in words], dtype=np.float64)


def fibres(probability: Float64, seed: int, units: npt.ArrayLike) -> Int64:
    """Return the fibre spikes of each place and sample by the binomial law of the fibres that are free."""
    from math import comb

    counts = np.zeros(probability.shape, dtype=np.int64)
    for i, unit in enumerate(np.asarray(units)):
        numbers = random_numbers(seed, int(unit), probability.shape[1])
        for t, (u, p) in enumerate(zip(numbers, probability[i], strict=True)):
            free = N_FIBRES - int(counts[i, max(0, t - DEAD_SAMPLES + 1) : t].sum())
            total = 0.0
            for k in range(free + 1):
                total += comb(free, k) * p**k * (1.0 - p) ** (free - k)
                if u < total:
                    break
            counts[i, t] = k
    return counts


def fibres_explicit(probability: Float64, generator: np.random.Generator) -> Int64:
    """Return the fibre spikes of each place and sample from 40 fibres with a dead time each."""
    counts = np.zeros(probability.shape, dtype=np.int64)
    last = np.full((probability.shape[0], N_FIBRES), -DEAD_SAMPLES)
    for t in range(probability.shape[1]):
        wants = generator.random(last.shape) < probability[:, t, None]
        accepted = wants & (t - last >= DEAD_SAMPLES)
        last[accepted] = t
        counts[:, t] = accepted.sum(axis=1)
    return counts


def bushy_cell(counts: Int64, bushy: Bushy = BUSHY) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Return potential and spikes, shape (place, sample); see :func:`snnsim.kernels.cochlea.bushy_cell`."""
    decay_mem, decay_syn, weight = bushy.vector()
    v, s = np.zeros(counts.shape[0]), np.zeros(counts.shape[0])
    refractory = np.zeros(counts.shape[0], dtype=np.int64)
    potential = np.zeros(counts.shape)
    spikes = np.zeros(counts.shape, dtype=np.bool_)
    for t in range(counts.shape[1]):
        s = s * decay_syn + counts[:, t]
        fired = (refractory <= 0) & (v >= 1.0)
        v = np.where((refractory <= 0) & ~fired, v * decay_mem, 0.0)
        refractory = np.where(fired, DEAD_SAMPLES, refractory)
        v = np.minimum(np.where(refractory <= 0, v + s * weight, v), 1.0)
        refractory = refractory - 1
        potential[:, t] = v
        if t > 0:
            spikes[:, t - 1] = fired
    return potential, spikes


def cochlea(velocity: npt.NDArray[np.floating], n_samples: int, seed: int, units: npt.ArrayLike) -> tuple[Int64, Int64]:
    """Return sample indices, place after place, and spikes per place; see :func:`snnsim.kernels.cochlea.cochlea`."""
    probability = hair_cell(velocity[:, :n_samples])
    _, spikes = bushy_cell(fibres(probability, seed, units))
    place, sample = np.nonzero(spikes)
    return sample.astype(np.int64), np.bincount(place, minlength=velocity.shape[0]).astype(np.int64)
