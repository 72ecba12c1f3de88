"""Batches made ahead of time: order, errors, and stopping early."""

import threading
from collections.abc import Iterator

import pytest

from snnsim.training.prefetch import ahead


def numbers(n: int, seen: list[str], fail: bool = False) -> Iterator[int]:
    for k in range(n):
        seen.append(threading.current_thread().name)
        yield k
    if fail:
        raise ValueError("the end is missing")


def test_everything_comes_in_order_from_another_thread() -> None:
    seen: list[str] = []
    assert list(ahead(numbers(20, seen))) == list(range(20))
    assert all(name.startswith("snnsim-ahead") for name in seen)
    assert list(ahead(iter(()))) == []
    waits: list[float] = []
    assert list(ahead(iter(range(3)), waits)) == [0, 1, 2]
    assert len(waits) == 4
    assert min(waits) >= 0


def test_an_error_comes_after_the_items_before_it() -> None:
    source = ahead(numbers(3, [], fail=True))
    assert [next(source) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the end is missing"):
        next(source)


def test_stopping_early_leaves_no_thread() -> None:
    before = threading.active_count()
    for item in ahead(numbers(100, [])):
        if item == 3:
            break
    assert threading.active_count() <= before + 1
    running = ahead(numbers(100, []))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= before + 1
