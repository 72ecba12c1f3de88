"""The emulator that compiles CUDA kernels for the CPU computes what they say, with the types of a device."""

import numpy as np
import pytest
from cuda_emulator import compiled
from numba import cuda, float32

from snnsim.kernels.cuda_support import SIMULATED, launch, times

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")
WIDTH = 8


@cuda.jit(device=True)
def _line(a, b, c):
    return times(a, b) + c


@cuda.jit
def _lines(a, b, c, out):
    i = cuda.grid(1)
    if i < out.shape[0]:
        out[i] = _line(a[i], b[i], c[i])


@cuda.jit
def _mixes(a, out):
    i = cuda.grid(1)
    if i < out.shape[0]:
        out[i] = a[i] * 0.7 - a[i] * 0.3


@cuda.jit
def _sums(a, out, counts):
    shared = cuda.shared.array(WIDTH, float32)
    t, b = cuda.threadIdx.x, cuda.blockIdx.x
    i = b * cuda.blockDim.x + t
    shared[t] = a[i] if i < a.shape[0] else a.dtype.type(0)
    cuda.syncthreads()
    step = WIDTH // 2
    while step > 0:
        if t < step:
            shared[t] += shared[t + step]
        cuda.syncthreads()
        step //= 2
    if t == 0:
        out[b] = shared[0]
    cuda.atomic.add(counts, 0, 1)


def test_device_functions_and_grid():
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 50)).astype(np.float32)
    out = np.zeros(50, np.float32)
    with compiled() as seen:
        launch(_lines, 50, (a, b, c, out))
    assert np.array_equal(out, a * b + c)
    (name,) = seen
    assert name.endswith("._lines")


def test_constants_have_the_types_of_a_device():
    a = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    out = np.zeros_like(a)
    with compiled():
        launch(_mixes, 500, (a, out))
    wide = (a.astype(np.float64) * 0.7 - a.astype(np.float64) * 0.3).astype(np.float32)
    assert np.array_equal(out, wide)
    assert not np.array_equal(out, a * np.float32(0.7) - a * np.float32(0.3))


def test_barriers_and_shared_memory():
    a = np.arange(37, dtype=np.float32)
    out, counts = np.zeros(5, np.float32), np.zeros(1, np.int64)
    with compiled():
        _sums[5, WIDTH](a, out, counts)
    assert np.array_equal(out, [a[k : k + WIDTH].sum() for k in range(0, 40, WIDTH)])
    assert counts[0] == 40


@cuda.jit(device=True)
def _wait_for_all(counter, turn):
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        cuda.threadfence()
        cuda.atomic.add(counter, 0, 1)
        while cuda.atomic.add(counter, 0, 0) < turn * cuda.gridDim.x:
            pass
    cuda.syncthreads()


@cuda.jit
def _passes_on(x, counter, turns):
    i, n = cuda.grid(1), x.shape[0]
    for turn in range(turns):
        before = x[(i + n - 1) % n]
        _wait_for_all(counter, 2 * turn + 1)
        x[i] = before
        _wait_for_all(counter, 2 * turn + 2)


def test_blocks_that_wait_for_one_another():
    x, counter = np.arange(6), np.zeros(1, np.int64)
    with compiled():
        _passes_on[3, 2](x, counter, 50)
    assert np.array_equal(x, np.roll(np.arange(6), 50))


def test_an_index_outside_is_an_error():
    with compiled(), pytest.raises(IndexError):
        launch(_lines, 8, (np.zeros(4), np.zeros(8), np.zeros(8), np.zeros(8)))
