"""The pieces of the frequency-domain path: vectors, transforms and complex products against NumPy."""

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from snnsim.kernels import fourier
from snnsim.kernels.simd import exponential, lanes_of, load, store
from snnsim.kernels.spectral import complex_products

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def relative(got: npt.ArrayLike, wanted: npt.ArrayLike) -> float:
    return float(np.linalg.norm(np.asarray(got) - wanted) / np.linalg.norm(wanted))


@njit
def exponential_of(x, y):  # type: ignore[no-untyped-def]
    for k in range(0, x.size, lanes_of(x)):
        store(y, k, exponential(load(x, k)))


@pytest.mark.parametrize(("dtype", "error"), [("float32", 3e-7), ("float64", 5e-16)])
def test_exponential_is_exact_to_the_last_places(dtype: str, error: float) -> None:
    x = -np.concatenate([np.geomspace(1e-8, 80, 1023), [0.0]]).astype(dtype)
    y = np.empty_like(x)
    exponential_of(x, y)
    wanted = np.exp(x.astype(np.float64))
    assert np.abs(y / wanted - 1).max() < error
    far = np.full(64, -1e4, dtype)
    exponential_of(far, y[:64])
    assert (y[:64] == 0).all()


def test_lengths_have_small_factors_only() -> None:
    assert [fourier.smooth_length(n) for n in (1, 7, 11, 97, 124, 160, 161)] == [2, 8, 12, 100, 128, 160, 162]
    for wrong in (14, 15):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            fourier.plan(wrong, "float32")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        fourier.smooth_length(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [2, 4, 6, 8, 10, 12, 16, 18, 20, 24, 30, 50, 54, 60, 100, 128, 144, 150, 160, 162])
def test_transforms_there_and_back(n: int, dtype: str) -> None:
    draw = np.random.default_rng(n)
    for lanes in (1, 15, 32, 33, 77):
        n_steps = max(1, n - draw.integers(0, 4))
        x = draw.standard_normal((n_steps, lanes)).astype(dtype)
        plan, row = fourier.plan(n, dtype), fourier.row_length(lanes)
        spectrum = np.full((n // 2 + 1, 2, row), np.nan, dtype)
        numbers = (plan.n, plan.radices, plan.twiddles, plan.turns)
        block = fourier.lane_block(dtype)
        for start in range(0, lanes, block):
            stop = min(lanes, start + block)
            fourier.analyse(x.reshape(-1), n_steps, lanes, *numbers, spectrum.reshape(-1), row, start, stop)
        got = spectrum[:, 0, :lanes] + 1j * spectrum[:, 1, :lanes]
        assert relative(got, np.fft.rfft(x.astype(np.float64), n, axis=0)) < TOLERANCE[dtype]
        spectrum[:, :, lanes:] = 0
        back = np.full_like(x, np.nan)
        fourier.synthesise(spectrum.reshape(-1), row, lanes, *numbers, back.reshape(-1), n_steps, 0, lanes)
        assert relative(back, x) < TOLERANCE[dtype]


def spectra(
    draw: np.random.Generator, frequencies: int, rows: int, columns: int, dtype: str
) -> npt.NDArray[np.floating]:
    return draw.standard_normal((frequencies, 2, fourier.row_length(rows * columns))).astype(dtype)


def matrices(data: npt.NDArray[np.floating], rows: int, columns: int) -> npt.NDArray[np.complexfloating]:
    parts = data[:, :, : rows * columns].reshape(-1, 2, rows, columns).astype(np.float64)
    return parts[:, 0] + 1j * parts[:, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("m", "n", "depth"), [(1, 1, 1), (3, 5, 7), (8, 32, 16), (21, 130, 40), (70, 33, 300), (64, 64, 512)]
)
def test_complex_products_of_every_kind(m: int, n: int, depth: int, dtype: str) -> None:
    draw = np.random.default_rng(0)
    frequencies = 3
    for turned_a in (False, True):
        for turned_b in (False, True):
            for sign_a, sign_b in ((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0)):
                shape_a = (depth, m) if turned_a else (m, depth)
                shape_b = (n, depth) if turned_b else (depth, n)
                a, b = spectra(draw, frequencies, *shape_a, dtype), spectra(draw, frequencies, *shape_b, dtype)
                out = np.full((frequencies, 2, fourier.row_length(m * (n + 3))), np.nan, dtype)
                left = (a.reshape(-1), a.shape[2], *((1, m) if turned_a else (depth, 1)), sign_a)
                right = (b.reshape(-1), b.shape[2], *((depth, 1) if turned_b else (1, n)), sign_b)
                for f in range(frequencies):
                    complex_products(*left, *right, out.reshape(-1)[2:], out.shape[2], n + 3, m, n, depth, f, f + 1)
                got = matrices(out, m, n + 3)
                assert np.isnan(got[:, :, :2]).all()
                assert np.isnan(got[:, :, n + 2 :]).all()
                x, y = matrices(a, *shape_a), matrices(b, *shape_b)
                x, y = (x.conj() if sign_a < 0 else x), (y.conj() if sign_b < 0 else y)
                wanted = (x.transpose(0, 2, 1) if turned_a else x) @ (y.transpose(0, 2, 1) if turned_b else y)
                assert relative(got[:, :, 2 : n + 2], wanted) < TOLERANCE[dtype]
