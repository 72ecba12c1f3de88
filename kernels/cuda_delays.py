"""Delayed sums of spikes on a CUDA device, one delay a tap, with the bits of :func:`snnsim.kernels.delays.delayed_sum`.

The order of summation at one target and step is (emission step, source, tap) ascending. With whole delays an earlier
emission is a longer delay: the taps of a target, sorted by delay from long to short and then by source and tap, are in
that order for every step. So each sum belongs to one thread that walks a list, and all steps, samples and targets go in
parallel; targets lie side by side in lists, outputs and threads.

Spikes that are 0 or 1 are first packed along time, 32 steps a word: a thread takes 32 steps of its target at once, and
a tap costs it one weight, one code and a pair of words for 32 sums. The words of one sample and window stay in the
first-level cache. Other numbers take the kernel that reads them as they are, one thread a step. Which one of the two
does the work is read on the device from a flag; the other returns at once, and the host never waits.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_support import times

__all__ = ["STEPS", "delayed_bits", "delayed_numbers", "pack_time"]

STEPS = 32
"""Steps a word, and steps a thread of :func:`delayed_bits` sums."""


@cuda.jit
def pack_time(x, before, words, flag):  # type: ignore[no-untyped-def]
    """Pack spikes along time, and raise a flag if they are no spikes; one thread a word, sources side by side.

    Args:
        x: Shape (time, batch, n_in), float32 or float64.
        before: Empty words before step 0, at least the longest delay / 32, rounded up.
        words: Written, uint32, shape (batch, before + ceil(time / 32), n_in); bit k of word w is step
            ``32 (w - before) + k``.
        flag: int32, shape (1,); set to 1 if an entry is neither 0 nor 1, else left alone.
    """
    item = cuda.grid(1)
    batch, rows, n_in = words.shape
    if item < batch * rows * n_in:
        source = item % n_in
        row = (item // n_in) % rows
        sample = item // (n_in * rows)
        word = np.uint32(0)
        if row >= before:
            first = (row - before) * 32
            for k in range(32):
                if first + k < x.shape[0]:
                    entry = x[first + k, sample, source]
                    if entry != 0:
                        word = np.uint32(word | (np.uint32(1) << np.uint32(k)))
                        if entry != 1:
                            flag[0] = 1  # any thread may say so, and all say the same
        words[sample, row, source] = word


@cuda.jit
def delayed_bits(words, rows, n_in, weight, code, before, flag, out):  # type: ignore[no-untyped-def]
    """Sum delayed, weighted spikes of 0 and 1; one thread a (window of 32 steps, sample, target), targets side by side.

    Args:
        words: From :func:`pack_time`, flat.
        rows: Words of a source and sample.
        n_in: Sources.
        weight: Shape (taps of a target, n_out), dtype of the sums, in the order of summation.
        code: int32, the same shape: ``32 ((before - ceil(d / 32)) n_in + source) + (-d mod 32)`` of a delay d: which
            word holds the emission of a window's first step, and where in it.
        before: Empty words before step 0.
        flag: From :func:`pack_time`; not 0: nothing is done.
        out: Written, shape (time, batch, n_out).
    """
    item = cuda.grid(1)
    n_steps, batch, n_out = out.shape
    windows = rows - before
    if item < windows * batch * n_out and flag[0] == 0:
        target = item % n_out
        sample = (item // n_out) % batch
        window = item // (n_out * batch)
        base = (sample * rows + window) * n_in
        sums = cuda.local.array(32, weight.dtype)
        for k in range(32):
            sums[k] = 0
        for tap in range(weight.shape[0]):
            place = code[tap, target]
            shift = np.uint64(place & 31)
            at = base + (place >> 5)
            pair = np.uint64(words[at])
            if shift != 0:
                pair = (pair | (np.uint64(words[at + n_in]) << np.uint64(32))) >> shift
            bits = np.uint32(pair & np.uint64(0xFFFFFFFF))
            if bits != 0:
                w = weight[tap, target]
                for k in range(32):
                    if bits & np.uint32(1 << k):
                        sums[k] += w
        first = window * 32
        for k in range(32):
            if first + k < n_steps:
                out[first + k, sample, target] = sums[k]


@cuda.jit
def delayed_numbers(x, weight, source, delay, flag, out):  # type: ignore[no-untyped-def]
    """Sum delayed, weighted counts; one thread a (step, sample, target), targets side by side.

    Args:
        x: Counts, shape (time, batch, n_in), dtype of the sums.
        weight: Shape (taps of a target, n_out), in the order of summation.
        source: int32, the same shape.
        delay: Steps, int32, the same shape.
        flag: From :func:`pack_time`; 0: nothing is done.
        out: Written, shape (time, batch, n_out).
    """
    item = cuda.grid(1)
    _, batch, n_out = out.shape
    if item < out.size and flag[0] != 0:
        target = item % n_out
        sample = (item // n_out) % batch
        step = item // (n_out * batch)
        total = weight.dtype.type(0)
        for tap in range(weight.shape[0]):
            emission = step - delay[tap, target]
            if emission >= 0:
                count = x[emission, sample, source[tap, target]]
                if count != 0:
                    total += times(count, weight[tap, target])
        out[step, sample, target] = total
