"""Surrogates: areas, peaks, finite differences, and the same numbers in the fused kernels."""

from typing import Any

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels import neurons as kernels
from snnsim.nn.surrogates import (
    SURROGATES,
    ATan,
    Boxcar,
    Exponential,
    MultiGaussian,
    Sigmoid,
    SuperSpike,
    Surrogate,
    Triangle,
    make_surrogate,
    spike,
)

CASES = [
    (ATan(5.0), 2.5, 1.0),
    (ATan(2.0), 1.0, 1.0),
    (SuperSpike(25.0), 1.0, 2 / 25),
    (Sigmoid(4.0), 1.0, 1.0),
    (Triangle(2.0), 2.0, 1.0),
    (Triangle(1 / 0.8, scale=0.3), 0.3 / 0.8, 0.3),
    (MultiGaussian(), 0.878223, 0.85),
    (MultiGaussian(scale=0.5), 0.878223 / 2, 0.425),
    (Exponential(5.0, 0.4), 1.0, 0.4),
    (Boxcar(0.5), 2.0, 1.0),
]
NAMES = [str(case[0]) for case in CASES]


@pytest.mark.parametrize(("surrogate", "peak", "area"), CASES, ids=NAMES)
def test_peak_and_area_are_those_of_the_table(surrogate: Surrogate, peak: float, area: float) -> None:
    assert surrogate.derivative(np.zeros(1))[0] == pytest.approx(peak, rel=1e-6)
    ends = np.array([-1e9, 1e9])
    low, high = surrogate.primitive(ends)
    assert low == pytest.approx(0, abs=1e-9)
    assert high == pytest.approx(area, rel=1e-6)
    x = np.linspace(-30, 30, 600_001)
    missing = area - (surrogate.primitive(np.array([30.0])) - surrogate.primitive(np.array([-30.0])))[0]
    assert np.trapezoid(surrogate.derivative(x), x) == pytest.approx(area - missing, rel=3e-4)


@pytest.mark.parametrize("surrogate", [case[0] for case in CASES], ids=NAMES)
def test_derivative_is_the_finite_difference_of_the_primitive(surrogate: Surrogate) -> None:
    x = np.linspace(-2.03, 2.01, 173)
    step = 1e-6
    slope = (surrogate.primitive(x + step) - surrogate.primitive(x - step)) / (2 * step)
    np.testing.assert_allclose(surrogate.derivative(x), slope, rtol=2e-6, atol=1e-8)


def test_multi_gaussian_has_the_published_values() -> None:
    g = MultiGaussian().derivative(np.array([0.0, 0.5, 2.0, 1.2720, 1.2722]))
    np.testing.assert_allclose(g[:3], [0.878223, 0.517716, -0.031391], atol=1e-6)
    assert g[3] > 0 > g[4]


@pytest.mark.parametrize("surrogate", [case[0] for case in CASES], ids=NAMES)
def test_tensors_and_arrays_agree_and_keep_their_dtype(surrogate: Surrogate) -> None:
    x = np.linspace(-3, 3, 41)
    for function in (surrogate.derivative, surrogate.primitive):
        np.testing.assert_allclose(function(torch.from_numpy(x)).numpy(), function(x), rtol=1e-13, atol=1e-15)
        assert function(torch.zeros(3)).dtype == torch.float32
    assert surrogate.derivative(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("surrogate", [case[0] for case in CASES], ids=NAMES)
def test_kernel_computes_the_same_derivative(surrogate: Surrogate, dtype: type) -> None:
    v = np.linspace(-3, 5, 401).astype(dtype)
    threshold = np.full_like(v, 1.003)
    g = np.empty_like(v)
    kernels.surrogate_block(surrogate.code, kernels.surrogate_numbers(surrogate.code, surrogate.parameters, dtype), v,
                            threshold, g, v.size)  # fmt: skip
    want = surrogate.derivative(v.astype(np.float64) - threshold.astype(np.float64))
    np.testing.assert_allclose(g, want, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-6)


@pytest.mark.parametrize("surrogate", [case[0] for case in CASES], ids=NAMES)
def test_far_from_threshold_nothing_overflows(surrogate: Surrogate) -> None:
    v = np.array([-3e38, -1e30, -1e9, 1e9, 1e30, 3e38], dtype=np.float32)
    g = np.empty_like(v)
    numbers = kernels.surrogate_numbers(surrogate.code, surrogate.parameters, np.float32)
    kernels.surrogate_block(surrogate.code, numbers, v, np.ones_like(v), g, v.size)
    np.testing.assert_allclose(g, 0, atol=1e-6)
    assert torch.isfinite(surrogate.derivative(torch.from_numpy(v))).all()
    assert torch.isfinite(surrogate.primitive(torch.from_numpy(v))).all()


def test_gradient_of_a_spike_is_g_times_upstream() -> None:
    x = torch.tensor([-0.5, -1e-9, 0.0, 0.7], dtype=torch.float64, requires_grad=True)
    up = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    s = spike(x, ATan(5.0))
    assert s.tolist() == [0.0, 0.0, 1.0, 1.0]
    (grad,) = torch.autograd.grad(s, x, up)
    assert torch.equal(grad, up * ATan(5.0).derivative(x.detach()))


def test_bad_parameters_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"ATan\.alpha: expected a positive finite number, got -1"):
        ATan(-1)
    with pytest.raises(InputError, match="expected one of ATan"):
        make_surrogate("Atan")
    with pytest.raises(InputError, match="expected parameters slope, got 'alpha'"):
        make_surrogate("SuperSpike", alpha=2.0)
    assert make_surrogate("SuperSpike", slope=3.0) == SuperSpike(3.0)
    assert sorted(kind.code for kind in SURROGATES.values()) == list(range(7))
    with pytest.raises(ValueError, match="surrogate code"):
        kernels.surrogate_numbers(99, (1.0,), np.float32)


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match=r"abstract class Surrogate .*derivative"):
        Surrogate()  # type: ignore[abstract]

    class Half(Surrogate):
        def derivative(self, x: Any) -> Any:
            return x

    with pytest.raises(TypeError, match=r"abstract class Half .*primitive"):
        Half()  # type: ignore[abstract]
