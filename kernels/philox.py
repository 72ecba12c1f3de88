"""Philox4x32-10: counter-based random numbers that depend on nothing but what they are for.

A number is a pure function of ``(seed, stream, sample, step, unit, synapse)``, so the same sample gets the
same numbers in any batch, window, order and thread. Key = ``(seed, stream)``, counter = ``(sample, step,
unit, synapse)``; every word is 32 bits wide and taken modulo 2**32. What is drawn once an epoch rather than once
a step (dropout masks, augmentation) puts the epoch in the place of ``step``; see :class:`Stream`.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011 (constants and
round function of section 3.3; ten rounds).

>>> [hex(word) for word in philox4x32((0, 0, 0, 0), (0, 0))]
['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["Stream", "normal", "philox4x32", "philox_words", "uniform", "uniform_scalar"]

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


class Stream(IntEnum):
    """Who draws. Each purpose has its own stream, so that no two purposes share numbers.

    The comment says what the counter holds where it is not ``(sample, step, unit, synapse)``. An id is never
    used again for another purpose: stored results depend on it.
    """

    DROPOUT = 1  # (sample, epoch, unit, layer)
    ORDER = 2  # (0, epoch, position, 0)
    SPLIT = 3  # (sample, 0, 0, 0)
    TIME_MASK = 10  # (sample, epoch, draw, 0)
    CHANNEL_MASK = 11  # (sample, epoch, draw, 0)
    TIME_SHIFT = 12  # (sample, epoch, draw, 0)
    CHANNEL_SHIFT = 13  # (sample, epoch, draw, 0)
    JITTER = 14  # (sample, epoch, event, 0)
    CHANNEL_JITTER = 15  # (sample, epoch, event, 0)
    CUTMIX = 16  # (sample, epoch, draw, 0)
    EVENT_DROP = 17  # (sample, epoch, event, 0)
    TIME_STRETCH = 18  # (sample, epoch, draw, 0)
    BLEND = 19  # (sample, epoch, draw or event, 0 or 1)
    DELAY = 20  # (layer, 0, target, source)
    WEIGHT = 21  # (layer, 0, target, source)
    TAU = 22  # (layer, parameter, unit, 0)
    FEEDBACK = 24  # (layer, 0, unit, class)
    COCHLEA = 30  # (sample, time step, channel, fibre)
    SPEECH = 31  # (sample, 0, draw, 0)
    SLTT_STEPS = 23  # (batch, epoch, step, 0)
    TOY = 32  # (sample, step, unit, draw)
    SOURCE = 33  # (sample, step or draw, unit, what): sources of spike trains; what = 9: fair symbol strings
    NOISE = 40  # (sample, step, unit, 0)
    RELEASE = 41  # (sample, step of emission, target, synapse): stochastic synapses; the projection is in the key
    FIRING = 44  # (sample, step, unit, 0): noisy thresholds; the population is in the key
    RUN_SEED = 45  # (epoch, 0, 0, 0): the seed of an epoch's releases and firings
    POISSON = 43  # (sample, step // 4, unit, stimulus)
    PRUNING = 42  # (sample, step, unit, synapse)
    POOL_VALUE = 70  # (0, parameter, unit, 0): time constants and thresholds of a pool
    POOL_EDGE = 71  # (0, draw, target, source): which synapses a pool has
    POOL_WEIGHT = 72  # (0, block, target, source): how strong they are
    POOL_NOISE = 73  # (run, step // 4, unit, 0): Poisson noise that probes a pool; (run, step, unit, 0): white noise
    LNP_KEEP = 74  # (draw, 0, target, source): whether a synapse is kept
    LNP_EDGE = 75  # (0, 0, target, source): sign of an added synapse
    LNP_SEARCH = 76  # (0, round, draw, coordinate): points of the search of time constants
    CONNECT_ROW = 60  # (source, draw or four draws, attempt, projection): gaps or targets of a source
    CONNECT_COLUMN = 61  # (target, four draws, attempt, projection): sources of a target
    CONNECT_TOTAL = 62  # (draw, its high word, attempt, projection): sources of all synapses
    CONNECT_PAIR = 63  # (source, target, 0, projection): whether a pair is connected
    CONNECT_VALUE = 64  # (source, place in its row, attempt, projection): weight and delay of a synapse


@njit(cache=True, nogil=True)
def _round(x0, x1, x2, x3, key0, key1):  # type: ignore[no-untyped-def]
    p0 = _M0 * x0
    p1 = _M1 * x2
    return (p1 >> _SHIFT) ^ x1 ^ key0, p1 & _MASK, (p0 >> _SHIFT) ^ x3 ^ key1, p0 & _MASK


@njit(cache=True, nogil=True, inline="always")
def philox_words(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Return the four 32-bit words of one Philox4x32-10 block, as uint64 (callable from kernels).

    Args:
        c0: Counter words c0..c3 and key words k0, k1; integers, taken modulo 2**32.
        c1: See c0.
        c2: See c0.
        c3: See c0.
        k0: See c0.
        k1: See c0.
    """
    x0 = np.uint64(c0) & _MASK
    x1 = np.uint64(c1) & _MASK
    x2 = np.uint64(c2) & _MASK
    x3 = np.uint64(c3) & _MASK
    key0 = np.uint64(k0) & _MASK
    key1 = np.uint64(k1) & _MASK
    for _ in range(10):
        x0, x1, x2, x3 = _round(x0, x1, x2, x3, key0, key1)
        key0, key1 = (key0 + _W0) & _MASK, (key1 + _W1) & _MASK
    return x0, x1, x2, x3


@njit(cache=True, nogil=True)
def uniform_scalar(seed, stream, sample, step, unit, synapse):  # type: ignore[no-untyped-def]
    """Return one float64 in [0, 1) with 53 random bits (callable from kernels)."""
    x0, x1, _, _ = philox_words(sample, step, unit, synapse, seed, stream)
    high = np.float64(x0 >> np.uint64(5))
    low = np.float64(x1 >> np.uint64(6))
    return (high * 67108864.0 + low) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True)
def _fill_uniform(seed, stream, sample, step, unit, synapse, out):  # type: ignore[no-untyped-def]
    for j in range(out.shape[0]):
        out[j] = uniform_scalar(seed[j], stream[j], sample[j], step[j], unit[j], synapse[j])


@njit(cache=True, nogil=True)
def _fill_normal(seed, stream, sample, step, unit, synapse, out):  # type: ignore[no-untyped-def]
    for j in range(out.shape[0]):
        x0, x1, x2, x3 = philox_words(sample[j], step[j], unit[j], synapse[j], seed[j], stream[j])
        high = np.float64(x0 >> np.uint64(5))
        low = np.float64(x1 >> np.uint64(6))
        u = 1.0 - (high * 67108864.0 + low) * (1.0 / 9007199254740992.0)
        high = np.float64(x2 >> np.uint64(5))
        low = np.float64(x3 >> np.uint64(6))
        angle = (high * 67108864.0 + low) * (2.0 * np.pi / 9007199254740992.0)
        out[j] = np.sqrt(-2.0 * np.log(u)) * np.cos(angle)


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the four 32-bit words of one block of Philox4x32-10.

    Args:
        counter: Four words.
        key: Two words.
    """
    words = [np.uint64(int(word) & 0xFFFFFFFF) for word in (*counter, *key)]
    out = philox_words(*words)
    return int(out[0]), int(out[1]), int(out[2]), int(out[3])


def _broadcast(words: tuple[npt.ArrayLike, ...]) -> tuple[tuple[int, ...], list[npt.NDArray[Any]]]:
    arrays = []
    for word in words:
        array = np.asarray(word)
        if array.dtype.kind not in "iub":
            raise TypeError(f"philox: expected integers for seed, stream and counter, got {array.dtype}")
        arrays.append(array.astype(np.uint32))
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    flat = [np.ascontiguousarray(np.broadcast_to(array, shape)).reshape(-1) for array in arrays]
    return shape, flat


def uniform(
    seed: npt.ArrayLike,
    stream: npt.ArrayLike,
    sample: npt.ArrayLike = 0,
    step: npt.ArrayLike = 0,
    unit: npt.ArrayLike = 0,
    synapse: npt.ArrayLike = 0,
) -> npt.NDArray[np.float64]:
    """Return random numbers in [0, 1), one for each element of the broadcast arguments.

    Args:
        seed: Integers, any shapes that broadcast; words are taken modulo 2**32.
        stream: A :class:`Stream` (or its number).
        sample: Index of the sample in its data set, never its place in a batch.
        step: Step, or the epoch for what is drawn once an epoch.
        unit: Unit.
        synapse: Synapse, or another draw index.

    Returns:
        float64 with 53 random bits, in the broadcast shape.

    Raises:
        TypeError: An argument is not of integer type.

    >>> uniform(7, Stream.DROPOUT, sample=3, unit=np.arange(2)).shape
    (2,)
    """
    shape, flat = _broadcast((seed, stream, sample, step, unit, synapse))
    out = np.empty(flat[0].shape[0])
    _fill_uniform(*flat, out)
    return out.reshape(shape)


def normal(
    seed: npt.ArrayLike,
    stream: npt.ArrayLike,
    sample: npt.ArrayLike = 0,
    step: npt.ArrayLike = 0,
    unit: npt.ArrayLike = 0,
    synapse: npt.ArrayLike = 0,
) -> npt.NDArray[np.float64]:
    """Return standard normal numbers (Box-Muller, cosine branch); arguments as in :func:`uniform`.

    The last bits depend on the ``log`` and ``cos`` of the platform; :func:`uniform` is exact everywhere.
    """
    shape, flat = _broadcast((seed, stream, sample, step, unit, synapse))
    out = np.empty(flat[0].shape[0])
    _fill_normal(*flat, out)
    return out.reshape(shape)
