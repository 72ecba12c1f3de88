"""Symmetric positive definite systems: the solution, its bits by a plain definition, what has no pivot."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.kernels.positive_solve import solve_positive

Floats = npt.NDArray[np.float64]


def by_definition(matrix: Floats, right: Floats) -> Floats:
    """Return the solution by rows, every element by the same operations in the same order."""
    u, x = matrix.copy(), right.copy()
    n = u.shape[0]
    for k in range(n):
        u[k, k:] = u[k, k:] / np.sqrt(u[k, k])
        for i in range(k + 1, n):
            u[i, i:] = u[i, i:] - u[k, i] * u[k, i:]
    for k in range(n):
        x[k] = x[k] / u[k, k]
        for i in range(k + 1, n):
            x[i] = x[i] - u[k, i] * x[k]
    for k in reversed(range(n)):
        for i in range(k + 1, n):
            x[k] = x[k] - u[k, i] * x[i]
        x[k] = x[k] / u[k, k]
    return x


def test_the_solution_and_its_bits() -> None:
    draw: Any = np.random.default_rng(0)
    for n, m in ((1, 1), (2, 3), (61, 10)):
        features = draw.standard_normal((2 * n, n))
        matrix, right = features.T @ features + 0.1 * np.eye(n), draw.standard_normal((n, m))
        found = right.copy()
        assert solve_positive(matrix.copy(), found, 1e-14) == -1
        assert np.allclose(found, np.linalg.solve(matrix, right), rtol=1e-9, atol=1e-12)
        assert np.array_equal(found, by_definition(matrix, right))


def test_features_that_depend_on_each_other_have_no_pivot() -> None:
    features = np.random.default_rng(1).standard_normal((40, 8))
    features[:, 5] = features[:, 2] + features[:, 3]
    assert solve_positive(features.T @ features, np.ones((8, 1)), 1e-14) == 5
    assert solve_positive(np.zeros((2, 2)), np.ones((2, 1)), 1e-14) == 0
