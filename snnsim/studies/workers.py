"""Runs of a study on several processes, each of them on one thread.

Libraries for matrices start a thread a core in every process; on a machine that is busy these wait for one another
most of the time, and a study took many times as long.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

__all__ = ["carried_out", "one_thread_each"]

COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What torch, NumPy and SciPy read when a process starts."""


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let processes that start meanwhile compute on one thread."""
    before = {name: os.environ.get(name) for name in COUNTS}
    os.environ.update(dict.fromkeys(COUNTS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def carried_out(
    do: Callable[..., dict[str, Any]], calls: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[dict[str, Any]]:
    """Yield what ``do(*call)`` returns as the calls end, from other processes or, for one worker, from this one.

    Args:
        do: A function of a module.
        calls: Its arguments.
        workers: Processes.
    """
    if workers <= 1:
        for call in calls:
            yield do(*call)
        return
    context = multiprocessing.get_context("spawn")
    with one_thread_each(), ProcessPoolExecutor(workers, mp_context=context) as pool:
        for future in as_completed([pool.submit(do, *call) for call in calls]):
            yield future.result()
