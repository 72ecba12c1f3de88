"""What threads of one simulation share: arrays by their address, and a barrier that yields.

A plan of many projections would need one argument an array, of types that differ; an address is a number, so one
table holds them all. Who makes a table of addresses keeps the arrays alive.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["SPINS", "array_at", "fetch", "loose", "run_together", "wait_for_all"]

SPINS = 2000
"""Looks at the barrier before a thread gives its processor away: about the length of a short stretch of work."""


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """Return an address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@njit(cache=True, nogil=True)
def array_at(address, n, dtype):  # type: ignore[no-untyped-def]
    """Return the array of ``n`` numbers of ``dtype`` that begins at an address; it counts no references."""
    return carray(_pointer(address), n, dtype)


@njit(cache=True, nogil=True)
def loose(array):  # type: ignore[no-untyped-def]
    """Return the same numbers as an array whose references nobody counts: its owner must outlive it.

    Counting takes an atomic operation each time an array is handed on, on a counter that all threads share.
    """
    return carray(_pointer(np.int64(array.ctypes.data)), array.shape, array.dtype)


@intrinsic
def fetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]``, which may lie outside the array: nothing is read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, ir.Constant(word, 0), ir.Constant(word, 3), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@intrinsic
def _add_and_get(typing: Any, array: Any) -> Any:
    """Add 1 to the first number of an int64 array, for all threads at once, and return what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(array), generate


@intrinsic
def _look(typing: Any, array: Any) -> Any:
    """Return the first number of an int64 array as other threads last wrote it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, "seq_cst", 8)

    return types.int64(array), generate


_yield = types.ExternalFunction("SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32())


@njit(cache=True, nogil=True)
def wait_for_all(counter, threads, turn):  # type: ignore[no-untyped-def]
    """Return when all threads have called this for the ``turn``-th time, counted from 1.

    Args:
        counter: int64 ``(1,)``, 0 before the first turn, shared.
        threads: How many threads call.
        turn: The number of this call in each of them.
    """
    _add_and_get(counter)
    looks = 0
    while _look(counter) < threads * turn:
        looks += 1
        if looks > SPINS:
            _yield()


def run_together(part: Callable[[int], None], threads: int) -> None:
    """Call ``part(t)`` for every ``t`` below ``threads`` at the same time, so that the calls may wait for one another.

    Every call has a thread of its own: in a shared pool two callers could each hold what the other waits for.
    """
    failed: list[BaseException] = []

    def work(t: int) -> None:
        try:
            part(t)
        except BaseException as error:
            failed.append(error)

    others = [threading.Thread(target=work, args=(t,), daemon=True) for t in range(1, threads)]
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]
