"""Plain NumPy definition of the random generator in :mod:`snnsim.kernels.philox`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["philox_reference", "uniform_reference"]

Words = npt.NDArray[np.uint64]


def philox_reference(counter: tuple[npt.ArrayLike, ...], key: tuple[npt.ArrayLike, ...]) -> tuple[Words, ...]:
    """Return the four words of Philox4x32-10 for arrays of counters (four words) and keys (two words)."""
    mask = np.uint64(0xFFFFFFFF)
    words = np.broadcast_arrays(*(np.asarray(word).astype(np.uint64) & mask for word in (*counter, *key)))
    x0, x1, x2, x3, k0, k1 = words
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * x0
        p1 = np.uint64(0xCD9E8D57) * x2
        x0, x1, x2, x3 = (
            (p1 >> np.uint64(32)) ^ x1 ^ k0,
            p1 & mask,
            (p0 >> np.uint64(32)) ^ x3 ^ k1,
            p0 & mask,
        )
        k0 = (k0 + np.uint64(0x9E3779B9)) & mask
        k1 = (k1 + np.uint64(0xBB67AE85)) & mask
    return x0, x1, x2, x3


def uniform_reference(
    seed: npt.ArrayLike,
    stream: npt.ArrayLike,
    sample: npt.ArrayLike,
    step: npt.ArrayLike,
    unit: npt.ArrayLike,
    synapse: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """Return float64 in [0, 1) from the first two words: 27 bits of one, 26 of the other."""
    x0, x1, _, _ = philox_reference((sample, step, unit, synapse), (seed, stream))
    high = (x0 >> np.uint64(5)).astype(np.float64)
    low = (x1 >> np.uint64(6)).astype(np.float64)
    return (high * 2.0**26 + low) * 2.0**-53
