"""Spikes as bits on a CUDA device: the words of :mod:`snnsim.kernels.spike_bits`.

Neither kernel says whether the array held anything but spikes: that would have to be read back. The caller knows it.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, uint8

__all__ = ["PIECE", "WORD", "pack_spikes", "unpack_spikes"]

WORD = 64
"""Entries a word."""

PIECE = 4096
"""Entries a block of threads packs: whole words."""

_STRIDE = 36  # bytes between the flags of half words: another bank of shared memory for every thread
_FLAGS = PIECE // 32 * _STRIDE


@cuda.jit
def pack_spikes(x, halves):  # type: ignore[no-untyped-def]
    """Write which entries are not 0, one bit an entry; one block of threads a :data:`PIECE`.

    Args:
        x: Flat, shape (n,), float32 or float64.
        halves: Written: the words' halves, the low one first, uint32, shape (2 ceil(n / 64),); entry k is bit
            ``k % 32`` of half ``k // 32``, bits without an entry are 0.
    """
    flags = cuda.shared.array(_FLAGS, uint8)
    first = cuda.blockIdx.x * PIECE
    n = x.shape[0]
    for k in range(cuda.threadIdx.x, PIECE, cuda.blockDim.x):
        flag = np.uint8(0)
        if first + k < n and x[first + k] != 0:
            flag = np.uint8(1)
        flags[(k // 32) * _STRIDE + k % 32] = flag
    cuda.syncthreads()
    for h in range(cuda.threadIdx.x, PIECE // 32, cuda.blockDim.x):
        half = first // 32 + h
        if half < halves.shape[0]:
            word = np.uint32(0)
            for bit in range(32):
                word = np.uint32(word | (np.uint32(flags[h * _STRIDE + bit]) << np.uint32(bit)))
            halves[half] = word


@cuda.jit
def unpack_spikes(halves, one, x):  # type: ignore[no-untyped-def]
    """Write ``one`` where a bit is 1 and 0 elsewhere; one thread an entry.

    Args:
        halves: From :func:`pack_spikes`.
        one: The value of a spike.
        x: Written, flat, shape (n,), float32 or float64.
    """
    k = cuda.grid(1)
    if k < x.shape[0]:
        word = halves[k // 32]
        x[k] = one if (word >> np.uint32(k % 32)) & np.uint32(1) else 0.0
