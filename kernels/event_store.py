"""Where arrivals wait: one bucket a window and stage, made of chunks from one pool; and the log of what was emitted.

An arrival keeps its time, weight, target and the number of its delivery; the log says when, through which projection
and from which source a delivery went out, which decides the order of arrivals at one instant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.bare import bare, bare_inline

__all__ = [
    "Log",
    "Pool",
    "append",
    "append_row",
    "append_spread",
    "count_targets",
    "drain",
    "grown_log",
    "grown_pool",
    "keep_late",
    "new_delivery",
    "new_log",
    "new_pool",
    "release",
    "room_in_pool",
]
__all__ += ["sort_targets", "window_of", "window_start"]

CHUNK = 64  # arrivals in a chunk

FREE = 0  # meta: first free chunk
N_FREE = 1  # how many are free
PENDING = 2  # arrivals in all buckets

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


class Pool(NamedTuple):
    """Chunks of arrivals and the buckets made of them; a bucket is a ring slot of windows times a stage.

    Attributes:
        time: Arrival times, ``(chunks * CHUNK,)``.
        weight: What arrives.
        target: ``2 * neuron + receptor``, int32.
        delivery: Number in the log, int32.
        next: Next chunk of the same bucket or of the free ones, int64 ``(chunks,)``.
        head: First chunk of each bucket, int64 ``(slots * stages,)``.
        tail: Last chunk.
        used: Arrivals in the bucket.
        meta: FREE, N_FREE and PENDING, int64 ``(3,)``.
    """

    time: Floats
    weight: Floats
    target: Small
    delivery: Small
    next: Ints
    head: Ints
    tail: Ints
    used: Ints
    meta: Ints


class Log(NamedTuple):
    """Deliveries: one emitted event through one projection."""

    time: Floats
    projection: Small
    source: Small
    used: Ints


def new_pool(buckets: int, chunks: int = 256) -> Pool:
    """Return empty buckets."""
    return Pool(
        np.zeros(chunks * CHUNK),
        np.zeros(chunks * CHUNK),
        np.zeros(chunks * CHUNK, np.int32),
        np.zeros(chunks * CHUNK, np.int32),
        np.append(np.arange(1, chunks, dtype=np.int64), -1),
        np.full(buckets, -1, np.int64),
        np.full(buckets, -1, np.int64),
        np.zeros(buckets, np.int64),
        np.array([0, chunks, 0], np.int64),
    )


def new_log(room: int = 1024) -> Log:
    """Return an empty log."""
    return Log(np.zeros(room), np.zeros(room, np.int32), np.zeros(room, np.int32), np.zeros(1, np.int64))


@bare
def window_start(k, window, origin):  # type: ignore[no-untyped-def]
    """Return where window k begins."""
    return origin + k * window


@bare
def window_of(time, window, origin):  # type: ignore[no-untyped-def]
    """Return the window that holds a time, in agreement with :func:`window_start` to the last bit."""
    k = int((time - origin) / window)
    while time < window_start(k, window, origin):
        k -= 1
    while time >= window_start(k + 1, window, origin):
        k += 1
    return k


def grown_pool(pool: Pool, arrivals: int) -> Pool:
    """Return the pool with twice its chunks and room for so many arrivals more, wherever they go."""
    old = pool.next.shape[0]
    new = 2 * old + arrivals // CHUNK + min(arrivals, pool.head.shape[0]) + 1
    following = np.concatenate((pool.next, np.arange(old + 1, new + 1)))
    following[new - 1] = pool.meta[FREE]
    meta = pool.meta.copy()
    meta[FREE] = old
    meta[N_FREE] += new - old
    room = new * CHUNK
    return Pool(
        _longer(pool.time, room),
        _longer(pool.weight, room),
        _longer(pool.target, room),
        _longer(pool.delivery, room),
        following,
        pool.head,
        pool.tail,
        pool.used,
        meta,
    )


def grown_log(log: Log) -> Log:
    """Return the log with room for twice as many deliveries."""
    room = 2 * log.time.shape[0]
    return Log(_longer(log.time, room), _longer(log.projection, room), _longer(log.source, room), log.used)


def _longer(array: npt.NDArray[Any], room: int) -> npt.NDArray[Any]:
    new = np.zeros(room, array.dtype)
    new[: array.shape[0]] = array
    return new


@bare
def room_in_pool(arrivals, pool):  # type: ignore[no-untyped-def]
    """Return how many chunks are missing for so many arrivals, wherever they go; 0 if none."""
    needed = arrivals // CHUNK + min(arrivals, pool.head.shape[0]) + 1
    return 0 if pool.meta[N_FREE] >= needed else needed


@bare_inline
def _take(bucket, pool):  # type: ignore[no-untyped-def]
    """Give a bucket whose chunks are full one more."""
    chunk = pool.meta[FREE]
    pool.meta[FREE] = pool.next[chunk]
    pool.meta[N_FREE] -= 1
    pool.next[chunk] = -1
    if pool.used[bucket] == 0:
        pool.head[bucket] = chunk
    else:
        pool.next[pool.tail[bucket]] = chunk
    pool.tail[bucket] = chunk


@bare
def append(bucket, pool, time, weight, target, number):  # type: ignore[no-untyped-def]
    """Add one arrival to a bucket; :func:`room_in_pool` came before."""
    times, weights, targets, deliveries = pool.time, pool.weight, pool.target, pool.delivery
    tail, used = pool.tail, pool.used
    n = used[bucket]
    if n % CHUNK == 0:
        _take(bucket, pool)
    at = np.uint64(tail[bucket] * CHUNK + n % CHUNK)
    times[at] = time
    weights[at] = weight
    targets[at] = target
    deliveries[at] = number
    used[bucket] = n + 1
    pool.meta[PENDING] += 1


@bare
def append_row(bucket, pool, plan, begin, end, time, count, number):  # type: ignore[no-untyped-def]
    """Add the synapses ``begin : end``, all of which an event reaches at one time; :func:`room_in_pool` came before."""
    times, weights, targets, deliveries = pool.time, pool.weight, pool.target, pool.delivery
    tail, used, weight, target = pool.tail, pool.used, plan.weight, plan.target
    pool.meta[PENDING] += end - begin
    while begin < end:
        place = used[bucket] % CHUNK
        if place == 0:
            _take(bucket, pool)
        many = min(CHUNK - place, end - begin)
        to = tail[bucket] * CHUNK + place
        for x in range(many):
            times[np.uint64(to + x)] = time
            weights[np.uint64(to + x)] = weight[np.uint64(begin + x)] * count
            targets[np.uint64(to + x)] = target[np.uint64(begin + x)]
            deliveries[np.uint64(to + x)] = number
        used[bucket] += many
        begin += many


@bare
def append_spread(stage, now, pool, plan, begin, end, own, time, count, number):  # type: ignore[no-untyped-def]
    """Add the synapses ``begin : end``, each with its own delay; :func:`room_in_pool` came before."""
    window, origin, delay = plan.window, plan.origin, plan.delay
    stages = plan.stage_start.shape[0] - 1
    slots = pool.head.shape[0] // stages
    low, high, bucket = 0.0, 0.0, 0
    for s in range(begin, end):
        at = time + delay[np.uint64(own + s - begin)]
        if not low <= at < high:
            k = max(window_of(at, window, origin), now)
            low, high = window_start(k, window, origin), window_start(k + 1, window, origin)
            bucket = (k % slots) * stages + stage
        u = np.uint64(s)
        append(bucket, pool, at, plan.weight[u] * count, plan.target[u], number)


@bare
def count_targets(bucket, limit, pool, scratch):  # type: ignore[no-untyped-def]
    """Find the neurons with arrivals before the limit in a bucket and where theirs begin when sorted by neuron.

    ``count`` is 0 before and holds the beginnings afterwards.

    Returns:
        Number of touched neurons; their arrivals are ``begin[j] : begin[j + 1]``.
    """
    times, targets, following, head, used = pool.time, pool.target, pool.next, pool.head, pool.used
    count, touched, begin = scratch.fill, scratch.touched, scratch.begin
    left, chunk, many = used[bucket], head[bucket], 0
    while left > 0:
        for s in range(chunk * CHUNK, chunk * CHUNK + min(CHUNK, left)):
            u = np.uint64(s)
            if times[u] < limit:
                neuron = np.uint64(targets[u] >> 1)
                if count[neuron] == 0:
                    touched[np.uint64(many)] = neuron
                    many += 1
                count[neuron] += 1
        left -= CHUNK
        chunk = following[chunk]
    at = 0
    for j in range(many):
        begin[j] = at
        size = count[touched[j]]
        count[touched[j]] = at
        at += size
    begin[many] = at
    return many


@bare
def sort_targets(bucket, limit, pool, scratch, buffer):  # type: ignore[no-untyped-def]
    """Copy a bucket's arrivals before the limit, sorted by neuron and else in their order."""
    times, weights, targets, deliveries = pool.time, pool.weight, pool.target, pool.delivery
    following, head, used, count = pool.next, pool.head, pool.used, scratch.fill
    time, weight, target, number = buffer.time, buffer.weight, buffer.target, buffer.number
    left, chunk = used[bucket], head[bucket]
    while left > 0:
        for s in range(chunk * CHUNK, chunk * CHUNK + min(CHUNK, left)):
            u = np.uint64(s)
            if times[u] < limit:
                neuron = np.uint64(targets[u] >> 1)
                to = np.uint64(count[neuron])
                count[neuron] += 1
                time[to], weight[to], target[to], number[to] = times[u], weights[u], targets[u], deliveries[u]
        left -= CHUNK
        chunk = following[chunk]


@bare
def keep_late(bucket, limit, pool):  # type: ignore[no-untyped-def]
    """Leave only the arrivals at or after the limit in a bucket, in their order."""
    times, weights, targets, deliveries = pool.time, pool.weight, pool.target, pool.delivery
    following, head, tail, used, meta = pool.next, pool.head, pool.tail, pool.used, pool.meta
    left, chunk, kept, into = used[bucket], head[bucket], 0, head[bucket]
    while left > 0:
        for s in range(chunk * CHUNK, chunk * CHUNK + min(CHUNK, left)):
            if times[s] >= limit:
                if kept and kept % CHUNK == 0:
                    into = following[into]
                d = into * CHUNK + kept % CHUNK
                times[d], weights[d], targets[d], deliveries[d] = times[s], weights[s], targets[s], deliveries[s]
                kept += 1
        left -= CHUNK
        chunk = following[chunk]
    n = used[bucket]
    meta[PENDING] -= n - kept
    used[bucket] = kept
    spare = (n + CHUNK - 1) // CHUNK - (kept + CHUNK - 1) // CHUNK
    if spare:
        first = following[into] if kept else head[bucket]
        following[tail[bucket]] = meta[FREE]
        meta[FREE] = first
        meta[N_FREE] += spare
        tail[bucket] = into if kept else -1
        if kept == 0:
            head[bucket] = -1


@bare
def release(pool, bucket):  # type: ignore[no-untyped-def]
    """Empty a bucket."""
    n = pool.used[bucket]
    if n == 0:
        return
    pool.next[pool.tail[bucket]] = pool.meta[FREE]
    pool.meta[FREE] = pool.head[bucket]
    pool.meta[N_FREE] += (n + CHUNK - 1) // CHUNK
    pool.meta[PENDING] -= n
    pool.head[bucket] = -1
    pool.tail[bucket] = -1
    pool.used[bucket] = 0


@bare
def new_delivery(log, time, projection, source):  # type: ignore[no-untyped-def]
    """Note a delivery and return its number, or -1 if the log is full."""
    n = log.used[0]
    if n == log.time.shape[0]:
        return -1
    log.time[n] = time
    log.projection[n] = projection
    log.source[n] = source
    log.used[0] = n + 1
    return n


@njit(cache=True, nogil=True)
def drain(pool):  # type: ignore[no-untyped-def]
    """Return times, weights, targets and delivery numbers of all arrivals, those of a bucket in their order."""
    total = pool.meta[PENDING]
    time, weight = np.zeros(total), np.zeros(total)
    target, number = np.zeros(total, np.int32), np.zeros(total, np.int32)
    at = 0
    for bucket in range(pool.head.shape[0]):
        chunk, left = pool.head[bucket], pool.used[bucket]
        while left > 0:
            for s in range(chunk * CHUNK, chunk * CHUNK + min(CHUNK, left)):
                time[at], weight[at] = pool.time[s], pool.weight[s]
                target[at], number[at] = pool.target[s], pool.delivery[s]
                at += 1
            left -= CHUNK
            chunk = pool.next[chunk]
    return time, weight, target, number
