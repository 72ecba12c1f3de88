"""Memory that a training step uses again and again.

A step allocates and frees the same large tensors each time. By default glibc returns every block above 32 MiB to the
system and gets it back as fresh pages, which costs more than the elementwise operation that fills them. Our own
kernels take their tensors from a :class:`BufferPool`; for torch's there is :func:`keep_freed_memory`.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import math
import mmap
import os
import sys
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["BufferPool", "buffers", "keep_freed_memory"]


class BufferPool:
    """Large tensors for reuse: memory comes back by itself when nothing refers to a tensor of it any more.

    One stretch of addresses is reserved, which takes no memory; a tensor gets the lowest free place that fits it and
    free neighbours grow together, so tensors of any sizes follow each other without leaving gaps, and the memory in
    use is little more than what is alive at once. Pages stay with the process. What does not fit in is
    allocated as usual.

    Args:
        reserved_bytes: Length of the stretch; by default half of the machine's memory.
    """

    ALIGNMENT = 64

    def __init__(self, reserved_bytes: int | None = None) -> None:
        self._lock = threading.Lock()
        self._returned: deque[tuple[int, int]] = deque()  # a finaliser may run anywhere: it only leaves a note here
        self._size = _half_the_memory() if reserved_bytes is None else reserved_bytes
        self._memory: npt.NDArray[np.uint8] | None = None
        self._starts: list[int] = [0]  # of the free places, in order
        self._lengths: list[int] = [self._size]

    @property
    def lent_bytes(self) -> int:
        """Return the memory that is in use, the fillings between aligned tensors included."""
        with self._lock:
            self._take_back()
            return self._size - sum(self._lengths)

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised contiguous CPU tensor."""
        size = math.prod(shape) * dtype.itemsize
        length = max(1, -(-size // self.ALIGNMENT)) * self.ALIGNMENT
        with self._lock:
            self._take_back()
            start = self._cut(length)
        if start is None or self._memory is None:
            return torch.empty(shape, dtype=dtype)
        lent: npt.NDArray[Any] = self._memory[start : start + size].view(str(dtype).removeprefix("torch."))
        weakref.finalize(lent, self._returned.append, (start, length)).atexit = False
        return torch.from_numpy(lent).view(shape)  # every tensor of this memory keeps ``lent`` alive

    def _cut(self, length: int) -> int | None:
        if self._memory is None:
            self._memory = _reserve(self._size)
            if self._memory is None:
                self._size, self._starts, self._lengths = 0, [], []
        for k, free in enumerate(self._lengths):
            if free >= length:
                start = self._starts[k]
                if free == length:
                    del self._starts[k], self._lengths[k]
                else:
                    self._starts[k] += length
                    self._lengths[k] -= length
                return start
        return None

    def _take_back(self) -> None:
        while self._returned:
            start, length = self._returned.popleft()
            k = bisect.bisect(self._starts, start)
            if k < len(self._starts) and start + length == self._starts[k]:
                length += self._lengths[k]
                del self._starts[k], self._lengths[k]
            if k > 0 and self._starts[k - 1] + self._lengths[k - 1] == start:
                self._lengths[k - 1] += length
            else:
                self._starts.insert(k, start)
                self._lengths.insert(k, length)


def _half_the_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return 1 << 33


def _reserve(size: int) -> npt.NDArray[np.uint8] | None:
    """Return addresses without memory behind them yet, or None where the system has no such thing."""
    if size < 1 or not hasattr(mmap, "MAP_ANONYMOUS"):
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        stretch = mmap.mmap(-1, size, flags=flags)
    except (OSError, ValueError):
        return None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            stretch.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(stretch, dtype=np.uint8)


buffers = BufferPool()
"""The pool of this process."""

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks of any size instead of returning them to the system.

    Call it once before training. Peak memory stays what it is, but is held until the process ends. Results
    do not change.

    Returns:
        Whether the allocator accepted; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 64 * 2**20))
    return all(bool(mallopt(ctypes.c_int(key), ctypes.c_int(value))) for key, value in settings)
