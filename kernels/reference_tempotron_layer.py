"""Plain NumPy definition of Tempotron learning on a time grid; ``kernels/tempotron_layer.py`` is compared with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.kernels.reference_philox import philox_reference, uniform_reference

__all__ = ["passed_reference", "potential_reference"]

Floats = npt.NDArray[np.float64]


def passed_reference(counts: Floats, layer: Any, seed: int, sample: int) -> Floats:
    """Return what the synapses pass on of every event, for weights of 1: ``phi q c``, shape (step, source, neuron)."""
    n_steps, n_sources = counts.shape
    place = np.ogrid[:n_steps, :n_sources, : layer.release.shape[0]]
    where = (sample, place[0], place[2], place[1])
    words = philox_reference(where, (seed, 41))
    high, low = (words[2] >> np.uint64(5)).astype(float), (words[3] >> np.uint64(6)).astype(float)
    q = layer.low + (layer.high - layer.low) * ((high * 2.0**26 + low) * 2.0**-53)
    return np.asarray(np.where(uniform_reference(seed, 41, *where) < layer.release, counts[:, :, None] * q, 0.0))


def potential_reference(passed: Floats, weight: Floats, beta: Floats, drive: Floats) -> Floats:
    """Return the potentials without reset, (step, neuron): ``sum over k' <= k of beta^(k - k') (drive + arrivals)``."""
    moved = drive + np.einsum("ksj,sj->kj", passed, weight)
    lag = np.arange(len(moved))[:, None] - np.arange(len(moved))
    decays = np.where(lag[:, :, None] >= 0, beta ** np.maximum(lag, 0)[:, :, None], 0.0)
    v: Floats = np.einsum("klj,lj->kj", decays, moved)
    return v
