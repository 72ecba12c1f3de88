"""Linear systems with a symmetric positive definite matrix, in one fixed order of operations.

LAPACK cuts its work by the number of threads, and the last bits follow. Here they depend on the numbers alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["solve_positive"]

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True)
def solve_positive(matrix: Floats, right: Floats, least: float) -> int:
    """Solve ``matrix x = right`` by ``matrix = U^T U`` (Cholesky); ``right`` becomes x, ``matrix`` U.

    Args:
        matrix: Symmetric, ``(n, n)``; its upper triangle is read and overwritten.
        right: ``(n, m)``, overwritten.
        least: Share of its diagonal element below which a pivot counts as none.

    Returns:
        The row without a pivot (the matrix is not positive definite), or -1.
    """
    n, m = right.shape
    diagonal = np.diag(matrix).copy()
    for k in range(n):
        if not matrix[k, k] > least * diagonal[k]:
            return k
        root = np.sqrt(matrix[k, k])
        for j in range(k, n):
            matrix[k, j] /= root
        for i in range(k + 1, n):
            factor = matrix[k, i]
            for j in range(i, n):
                matrix[i, j] -= factor * matrix[k, j]
    for k in range(n):
        for c in range(m):
            right[k, c] /= matrix[k, k]
        for i in range(k + 1, n):
            for c in range(m):
                right[i, c] -= matrix[k, i] * right[k, c]
    for k in range(n - 1, -1, -1):
        for i in range(k + 1, n):
            for c in range(m):
                right[k, c] -= matrix[k, i] * right[i, c]
        for c in range(m):
            right[k, c] /= matrix[k, k]
    return -1
