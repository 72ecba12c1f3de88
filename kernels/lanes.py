"""Lanes: how a kernel walks over (sample, unit) pairs in blocks, on any number of threads with the same bits.

A lane is one (sample, unit) pair: arrays of shape (time, batch, unit) are seen as (time, lanes) without a
copy, ``unit = lane % n_units``. Lanes do not interact, so a block of lanes keeps its state in the first-level
cache for all steps and blocks may run on any number of threads. The threads are kept from call to call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.memory import wait_for_all

__all__ = ["BLOCK", "block_size", "lane_ranges", "run_lanes", "run_phases", "run_ranges", "share", "spread"]

BLOCK = 1024
"""Lanes a block; 2048 and 512 are within 5 % of it."""

Floats = npt.NDArray[np.floating[Any]]

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)
    with _pools_lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(max_workers=threads - 1, thread_name_prefix="snnsim-lanes")
        return _pools[key]


def lane_ranges(n_lanes: int, threads: int, block: int = BLOCK) -> list[tuple[int, int]]:
    """Return at most ``threads`` contiguous ranges of whole blocks that cover ``n_lanes`` lanes."""
    blocks = -(-n_lanes // block)
    parts = max(1, min(threads, blocks))
    edges = [min(n_lanes, block * (blocks * part // parts)) for part in range(parts + 1)]
    return [(edges[part], edges[part + 1]) for part in range(parts)]


PIECES = 8
"""Pieces of work a thread: the last one to finish keeps the others waiting for at most one piece."""


def run_ranges(
    kernel: Callable[..., Any], arguments: Sequence[Any], n: int, threads: int, block: int, pieces: int = PIECES
) -> None:
    """Call ``kernel(*arguments, start, stop)`` over ranges of whole blocks of ``n`` items on ``threads`` threads.

    Every block is computed by one thread with the same operations, whichever thread takes it, so the result does not
    depend on ``threads``.
    """
    ranges = lane_ranges(n, threads * pieces if threads > 1 else 1, block)
    if len(ranges) == 1:
        kernel(*arguments, 0, n)
        return
    waiting = iter(ranges)  # every thread takes its next piece from it; next() of a list's iterator is atomic

    def work() -> None:
        try:
            for start, stop in waiting:
                kernel(*arguments, start, stop)
        except BaseException:
            for _ in waiting:  # nobody begins another piece
                pass
            raise

    helpers = min(threads, len(ranges)) - 1
    pool = _pool(threads)
    futures = [pool.submit(work) for _ in range(helpers)]
    try:
        work()
        for future in futures:
            if not future.cancel():  # one that has not begun has nothing left to do
                future.result()
    finally:
        wait(future for future in futures if not future.cancel())


RELEASED = 1 << 60
"""What a barrier's counter jumps by so that nobody waits for a thread that has failed."""

_phases_lock = threading.Lock()


def share(n: int, t: int, threads: int) -> tuple[int, int]:
    """Return the first of thread ``t``'s part of ``n`` items, and the one after its last."""
    return n * t // threads, n * (t + 1) // threads


def run_phases(part: Callable[[int, Callable[[], None]], None], threads: int) -> None:
    """Call ``part(t, wait)`` for every ``t`` below ``threads`` at the same time; ``wait()`` lets all catch up.

    Where phases are short, waiting so takes a small part of the time that handing each of them to a pool takes. If a
    call fails, the others run to their end and its error is raised. Callers take turns: together they could each hold
    a thread that the other waits for.
    """
    if threads == 1:
        part(0, _nothing)
        return
    counter = np.zeros(1, np.int64)

    def work(t: int) -> None:
        turn = 0

        def wait() -> None:
            nonlocal turn
            turn += 1
            wait_for_all(counter, threads, turn)

        try:
            part(t, wait)
        except BaseException:
            counter[0] += RELEASED
            raise

    with _phases_lock:
        futures = [_pool(threads).submit(work, t) for t in range(1, threads)]
        try:
            work(0)
        finally:
            wait(futures)
        for future in futures:
            future.result()


def _nothing() -> None:
    """Wait for nobody."""


def run_lanes(kernel: Callable[..., Any], arguments: Sequence[Any], n_lanes: int, threads: int) -> None:
    """Call ``kernel(*arguments, start, stop)`` over ranges of lanes on ``threads`` threads."""
    run_ranges(kernel, arguments, n_lanes, threads, BLOCK)


@njit(cache=True, nogil=True)
def block_size(units: int) -> int:
    """Return the lanes a block: whole samples where they fit, so that all blocks have the same parameters."""
    return BLOCK - BLOCK % units if units <= BLOCK else BLOCK


@njit(cache=True, nogil=True)
def spread(parameter: Floats, start: int, n: int, out: Floats) -> None:
    """Spread a per-unit parameter over the lanes ``start .. start + n``."""
    units = parameter.shape[0]
    unit = start % units
    done = 0
    while done < n:
        run = min(units - unit, n - done)
        for j in range(run):
            out[done + j] = parameter[unit + j]
        done += run
        unit = 0
