"""What the clock kernel leaves behind is read out as plain NumPy would do it."""

import numpy as np
import pytest

from snnsim.kernels.clock_results import pending_sums, spikes_of
from snnsim.kernels.clock_rows import PORT_COLUMNS, PORT_SIZE, RING, SLOTS


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("length", [0, 1, 9])
def test_spikes_come_by_step_then_thread(threads: int, length: int) -> None:
    rng = np.random.default_rng([threads, length])
    populations, rank = 4, 2
    counts = rng.integers(0, 4, (threads, length * populations)) * (rng.random((threads, 1)) < 0.9)
    edges = np.concatenate(([0], np.cumsum(counts.sum(axis=1) + 5)[:-1]))  # room is left between the threads
    start = edges[:, None] + np.concatenate((np.zeros((threads, 1), np.int64), np.cumsum(counts, axis=1)), axis=1)
    unit = rng.integers(0, 100, int(start[-1, -1]) + 1).astype(np.int32)
    steps, units = spikes_of(start, unit, rank, populations, length, 70)
    wanted = [
        (70 + k, int(u))
        for k in range(length)
        for row in range(threads)
        for u in unit[start[row, k * populations + rank] : start[row, k * populations + rank + 1]]
    ]
    assert list(zip(steps.tolist(), units.tolist(), strict=True)) == wanted
    assert (steps.dtype, units.dtype) == (np.int64, np.int32)
    assert length < 9 or wanted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pending_sums_stand_where_the_head_is_slot_0(dtype: str) -> None:
    rng = np.random.default_rng(1)
    sizes, slots = [5, 1, 16], [4, 1, 7]
    ports = np.zeros((3, PORT_COLUMNS), np.int64)
    ports[:, PORT_SIZE], ports[:, SLOTS] = sizes, slots
    ports[:, RING] = np.cumsum([0, 20, 3])  # two numbers after the second ring belong to nobody
    ring = (rng.normal(size=ports[2, RING] + 112) * (rng.random(ports[2, RING] + 112) < 0.4)).astype(dtype)
    ring[[3, 7]], ring[21:23] = -0.0, 0
    ring[20] = 0.5
    head = np.array([3, 0, 5])
    place, value = pending_sums(ring, ports, head)
    full = np.zeros_like(ring)
    for port, (size, many) in enumerate(zip(sizes, slots, strict=True)):
        begin = ports[port, RING]
        rolled = np.roll(ring[begin : begin + size * many].reshape(many, size), -head[port], axis=0)
        full[begin : begin + size * many] = rolled.reshape(-1)
    np.testing.assert_array_equal(place, np.flatnonzero(full))
    np.testing.assert_array_equal(value, full[place])
    assert value.dtype == dtype
    assert len(place) > 30
