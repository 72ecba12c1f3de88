"""The next batch is made while this one is trained on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

__all__ = ["ahead"]

T = TypeVar("T")
_END = object()


def ahead(source: Iterator[T], waits: list[float] | None = None) -> Iterator[T]:
    """Yield what an iterator yields, in its order; its next item is made in another thread meanwhile.

    An exception of the source is raised where its item would have come. When the consumer stops early, the item that
    is being made is finished and dropped.

    Args:
        source: Iterator that nobody else advances.
        waits: Gets the seconds that the consumer waited for each item.
    """
    with ThreadPoolExecutor(1, "snnsim-ahead") as pool:
        pending = pool.submit(next, source, _END)
        while True:
            begin = time.perf_counter()
            item = pending.result()
            if waits is not None:
                waits.append(time.perf_counter() - begin)
            if item is _END:
                return
            pending = pool.submit(next, source, _END)
            yield cast(T, item)
