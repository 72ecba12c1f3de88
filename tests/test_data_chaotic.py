"""Chaotic series: known statistics, order of the integrators, exponents."""

from __future__ import annotations

import numpy as np
import pytest

from snnsim.datasets.chaotic import SERIES, SYSTEMS, SeriesName, mackey_glass_exponent, make_series
from snnsim.errors import InputError
from snnsim.kernels import chaotic
from snnsim.pruning.exponents import flow_exponents


@pytest.mark.parametrize("name", SERIES)
def test_series_are_normalised_and_follow_the_seed(name: SeriesName) -> None:
    one, two, other = make_series(name, 800, seed=3), make_series(name, 800, seed=3), make_series(name, 800, seed=4)
    assert np.array_equal(one.values, two.values)
    assert not np.array_equal(one.values, other.values)
    assert one.values.shape == (800, 1 if name == "mackey-glass" else 3)
    assert np.allclose(one.values.mean(axis=0), 0, atol=1e-12)
    assert np.allclose(one.values.std(axis=0), 1)


def test_statistics_are_those_of_the_systems() -> None:
    lorenz = make_series("lorenz63", 50_000)
    assert np.allclose(lorenz.mean, [0, 0, 23.55], atol=0.8)  # x and y are symmetric
    assert np.allclose(lorenz.scale, [7.92, 9.01, 8.62], rtol=0.02)
    assert lorenz.mean[0] == pytest.approx(lorenz.mean[1], abs=0.02)  # the mean of dx/dt is 0
    roessler = make_series("roessler", 20_000)
    assert roessler.mean[1] == pytest.approx(-roessler.mean[2], abs=0.02)  # the mean of dx/dt is 0
    assert roessler.mean[0] == pytest.approx(-0.2 * roessler.mean[1], abs=0.02)  # that of dy/dt
    glass = make_series("mackey-glass", 20_000)
    raw = glass.values[:, 0] * glass.scale + glass.mean
    assert 0.2 < raw.min() < 0.5
    assert 1.2 < raw.max() < 1.4
    assert glass.mean[0] == pytest.approx(0.93, abs=0.01)


def test_integrators_have_the_fourth_order() -> None:
    steps = (0.2, 0.1, 0.05)
    a, b, c = (chaotic.mackey_glass(0.9, round(17 / h), h, round(100 / h), 1, 1)[0] for h in steps)
    assert (a - b) / (b - c) == pytest.approx(16, rel=0.1)
    start = np.array([1.0, 1.0, 20.0])
    for kind, size in ((chaotic.LORENZ, 0.01), (chaotic.ROESSLER, 0.05)):
        a, b, c = (chaotic.flow(kind, start, size / k, 20 * k, 1, 1)[0] for k in (1, 2, 4))
        assert np.linalg.norm(a - b) / np.linalg.norm(b - c) == pytest.approx(16, rel=0.35)


def test_exponents_are_those_that_are_measured() -> None:
    for name, tolerance in (("lorenz63", 0.02), ("roessler", 0.01)):
        found = flow_exponents(name, dt=0.02, n_steps=50_000)[0]  # type: ignore[arg-type]
        assert SYSTEMS[name].exponent == pytest.approx(found, abs=tolerance)
    assert mackey_glass_exponent() == pytest.approx(SYSTEMS["mackey-glass"].exponent, abs=3e-4)


def test_tangent_of_the_delay_equation_is_the_growth_of_small_differences() -> None:
    logs = []
    for place in range(60):
        start = 0.8 + 0.003 * place
        one, two = (chaotic.mackey_glass(x, 170, 0.1, 0, 200, 100) for x in (start, start + 1e-9))
        logs.append(np.log(np.abs(one - two)))
    slope = np.polyfit(10.0 * np.arange(40, 200), np.mean(logs, axis=0)[40:], 1)[0]
    assert slope == pytest.approx(SYSTEMS["mackey-glass"].exponent, rel=0.2)


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of lorenz63, roessler, mackey-glass, got 'henon'"):
        make_series("henon", 10)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="make_series: n: expected an integer from 2"):
        make_series("lorenz63", 1)
    with pytest.raises(InputError, match="make_series: seed: expected an integer from 0"):
        make_series("lorenz63", 10, seed=-1)
    with pytest.raises(InputError, match=r"expected a part of the delay of 17, got 0\.3"):
        mackey_glass_exponent(step=0.3)
