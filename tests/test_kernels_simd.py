"""Explicit vectors: what the kernels built from them do not test by themselves."""

import numpy as np
import pytest
from numba import njit

from snnsim.kernels.simd import aligned_empty, turn, vector_lanes


@njit(cache=True)
def _turned(x, start, stride, out, out_start, out_stride):  # type: ignore[no-untyped-def]
    turn(x, start, stride, out, out_start, out_stride)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_square_is_transposed_wherever_its_rows_lie(dtype: type) -> None:
    lanes = vector_lanes(dtype)
    x = np.random.default_rng(0).standard_normal((lanes, lanes + 5)).astype(dtype)
    out = np.zeros((lanes, lanes + 3), dtype)
    _turned(x.reshape(-1), 2, lanes + 5, out.reshape(-1), 1, lanes + 3)
    assert np.array_equal(out[:, 1 : lanes + 1], x[:, 2 : lanes + 2].T)
    assert np.count_nonzero(out) == lanes * lanes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_aligned_arrays_begin_on_a_line(dtype: type) -> None:
    for n in (1, 3, 100):
        made = aligned_empty(n, np.empty(1, dtype))
        assert made.shape == (n,)
        assert made.ctypes.data % 64 == 0
