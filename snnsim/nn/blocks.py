"""Fixed blocks of torch operations on any number of threads, with the same bits.

torch divides an operation by the number of threads, and where a share begins can decide how a number is rounded: it
changes the order of a sum, and which elements a vector routine leaves to a scalar one. Here work is cut into
blocks by its shape alone, and inside a block torch and its BLAS are limited to one thread. Which thread takes a
block has no influence on what it computes. The threads are kept from call to call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["run_blocks"]

Work = Callable[[int, int], object]

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _start(ready: threading.Barrier) -> None:
    torch.set_num_threads(1)  # of this thread: OpenMP and MKL keep the number by thread
    torch.set_grad_enabled(False)
    ready.wait()


def _pool(helpers: int) -> ThreadPoolExecutor:
    """Return a pool of ``helpers`` threads, all started, whose torch operations use one thread each."""
    key = (os.getpid(), helpers)
    with _pools_lock:
        if key not in _pools:
            ready = threading.Barrier(helpers + 1)
            pool = ThreadPoolExecutor(helpers, "snnsim-blocks", _start, (ready,))
            try:
                for _ in range(helpers):
                    pool.submit(int)
                ready.wait()
            except BaseException:
                ready.abort()
                raise
            _pools[key] = pool
        return _pools[key]


def _work_through(work: Work, starts: Iterable[int], n: int, block: int) -> None:
    for start in starts:
        work(start, min(n, start + block))


def _share(work: Work, n: int, block: int, pool: ThreadPoolExecutor, helpers: int) -> None:
    starts = iter(range(0, n, block))  # every thread takes its next block from it; next() of a range is atomic
    futures = [pool.submit(_work_through, work, starts, n, block) for _ in range(helpers)]
    try:
        _work_through(work, starts, n, block)
    finally:
        for future in futures:
            if not future.cancel():  # one that has not begun has nothing left to do
                future.result()


def run_blocks(work: Work, n: int, block: int) -> None:
    """Call ``work(start, stop)`` for every block of ``n`` items, with torch limited to one thread in each call.

    The calls are shared among ``torch.get_num_threads()`` threads. They must write to different places, and
    they record no gradients.

    Args:
        work: What to do for the items ``start .. stop - 1``.
        n: Number of items.
        block: Items a call. It has to follow from shapes only, never from the number of threads.
    """
    threads = torch.get_num_threads()
    helpers = min(threads, -(-n // block)) - 1
    pool = _pool(helpers) if helpers > 0 else None
    torch.set_num_threads(1)  # even if it says 1: others set OpenMP's number, which it reads, without the BLAS's
    try:
        with torch.no_grad():
            if pool is None:
                _work_through(work, range(0, n, block), n, block)
            else:
                _share(work, n, block, pool, helpers)
    finally:
        torch.set_num_threads(threads)
