"""Spectra of recurrent networks: stability, noise covariance, localisation, effective resistance.

A rate model is ``dx/dt = A x + sigma xi`` with white noise ``xi``; ``A`` must be Hurwitz (every eigenvalue has a
negative real part). Matrices are ``A[target, source]``, dense or of :mod:`scipy.sparse`. Up to :data:`DENSE_MAX`
neurons everything is exact to rounding; above, eigenvalues come from Arnoldi iterations and covariances from noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, normal
from snnsim.network_checks import check_integer

__all__ = [
    "DENSE_MAX",
    "EdgeCovariance",
    "check_hurwitz",
    "edge_covariance",
    "effective_resistance",
    "inverse_participation",
    "leading_modes",
    "leverage",
    "lyapunov_covariance",
    "noise_covariance",
    "spectral_abscissa",
    "spectral_radius",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DENSE_MAX = 2000
"""Neurons up to which matrices are dense and solvers exact."""


def _square(matrix: Any, what: str = "matrix") -> int:
    """Return the size of a finite square matrix, or refuse it."""
    shape = getattr(matrix, "shape", np.shape(matrix))
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise InputError(f"{what}: expected a square matrix, got shape {tuple(shape)}")
    values = getattr(matrix, "data", matrix) if hasattr(matrix, "tocsc") else matrix
    if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
        raise InputError(f"{what}: expected finite numbers, got nan or infinity")
    return int(shape[0])


def _dense(matrix: Any) -> Floats:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=np.float64)


def _extreme(matrix: Any, which: str, count: int) -> tuple[Any, Any]:
    """Return some eigenvalues and right eigenvectors of a large matrix by Arnoldi iterations."""
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import eigs

    n = matrix.shape[0]
    sparse = csc_matrix(matrix, dtype=np.float64)
    if sparse.nnz == 0:
        return np.zeros(count), np.eye(n, count)
    return eigs(sparse, k=count, which=which, v0=np.ones(n) / np.sqrt(n), maxiter=50 * n)  # type: ignore[no-any-return]


def spectral_abscissa(matrix: Any) -> float:
    """Return the greatest real part of an eigenvalue of a square matrix.

    Raises:
        InputError: The matrix is not square or not finite.
    """
    if _square(matrix) <= DENSE_MAX:
        return float(np.linalg.eigvals(_dense(matrix)).real.max())
    return float(_extreme(matrix, "LR", 6)[0].real.max())


def spectral_radius(matrix: Any) -> float:
    """Return the greatest absolute value of an eigenvalue of a square matrix.

    Raises:
        InputError: The matrix is not square or not finite.
    """
    if _square(matrix) <= DENSE_MAX:
        return float(np.abs(np.linalg.eigvals(_dense(matrix))).max())
    return float(np.abs(_extreme(matrix, "LM", 6)[0]).max())


def leading_modes(matrix: Any, count: int) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    """Return the eigenvalues with the greatest real parts, and their right eigenvectors.

    Args:
        matrix: ``(N, N)``.
        count: How many; above :data:`DENSE_MAX` neurons at most ``N - 2``.

    Returns:
        Eigenvalues ``(count,)`` in falling order of their real parts, and vectors ``(N, count)``, one a column.

    Raises:
        InputError: The matrix is not square or ``count`` out of range.
    """
    n = _square(matrix)
    count = check_integer(count, "leading_modes: count", 1, n)
    values, vectors = np.linalg.eig(_dense(matrix)) if n <= DENSE_MAX else _extreme(matrix, "LR", count)
    order = np.lexsort((-values.imag, -values.real))[:count]
    return values[order].astype(np.complex128), vectors[:, order].astype(np.complex128)


def check_hurwitz(matrix: Any, what: str = "matrix") -> float:
    """Return the spectral abscissa of a Hurwitz matrix.

    Raises:
        InputError: It is not negative.
    """
    found = spectral_abscissa(matrix)
    if not found < 0:
        raise InputError(
            f"{what}: expected a Hurwitz matrix (all eigenvalues with negative real part), its spectral abscissa is "
            f"{found:.6g}; scale the weights down or use linearise(), which does it"
        )
    return found


def noise_covariance(matrix: Any, diffusion: npt.ArrayLike) -> Floats:
    """Solve ``A C + C A^T = -Q`` for the stationary covariance ``C`` of ``dx/dt = A x + noise`` of covariance ``Q``.

    Args:
        matrix: A, Hurwitz, ``(N, N)``, N at most :data:`DENSE_MAX`.
        diffusion: Q, symmetric, ``(N, N)``.

    Returns:
        C, symmetric, ``(N, N)``.

    Raises:
        InputError: A is not Hurwitz, too large, or C is not positive semidefinite to rounding.
    """
    from scipy.linalg import solve_continuous_lyapunov

    n = _square(matrix, "Lyapunov equation")
    if n > DENSE_MAX:
        raise InputError(
            f"Lyapunov equation: expected at most {DENSE_MAX} neurons, got {n}; use edge_covariance(), which estimates"
        )
    noise = np.asarray(diffusion, dtype=np.float64)
    if noise.shape != (n, n) or not np.isfinite(noise).all() or not np.allclose(noise, noise.T):
        raise InputError(f"Lyapunov equation: diffusion: expected a finite symmetric ({n}, {n}), got {noise.shape}")
    check_hurwitz(matrix, "Lyapunov equation")
    solution: Floats = np.asarray(solve_continuous_lyapunov(_dense(matrix), -noise), dtype=np.float64)
    solution = (solution + solution.T) / 2
    lowest, highest = np.linalg.eigvalsh(solution)[[0, -1]]
    if not lowest >= -1e-8 * abs(highest):
        raise InputError(
            f"Lyapunov equation: the solution is not positive semidefinite (eigenvalue {lowest:.3g} beside "
            f"{highest:.3g}): the matrix is too close to instability; scale the weights down"
        )
    return solution


def lyapunov_covariance(matrix: Any, sigma: float = 1.0) -> Floats:
    """Solve ``A C + C A^T = -sigma**2 I``: the covariance of ``dx/dt = A x + sigma xi``; see :func:`noise_covariance`.

    >>> np.round(lyapunov_covariance(np.array([[-1.0, 0.0], [0.0, -2.0]])), 12).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    if not (np.isfinite(sigma) and sigma > 0):
        raise InputError(f"Lyapunov equation: sigma: expected a positive number, got {sigma!r}")
    return noise_covariance(matrix, sigma**2 * np.eye(_square(matrix, "Lyapunov equation")))


@dataclass(frozen=True)
class EdgeCovariance:
    """Covariances of the two ends of every edge.

    Attributes:
        variance: ``C_ii``, ``(N,)``.
        covariance: ``C_ij`` of every edge, ``(E,)``.
        method: ``"exact"`` or ``"sampled"``.
        shrinkage: Factor ``1 - shrinkage`` was put on the covariances; 0 if exact.
        error: Root mean square standard error of the covariances, relative to the mean variance; 0 if exact.
    """

    variance: Floats
    covariance: Floats
    method: str
    shrinkage: float
    error: float


def edge_covariance(
    matrix: Any,
    target: npt.ArrayLike,
    source: npt.ArrayLike,
    *,
    sigma: float = 1.0,
    method: str = "auto",
    chains: int = 256,
    samples: int = 64,
    seed: int = 0,
) -> EdgeCovariance:
    """Return the noise covariance between the ends of edges: exactly, or from simulated noise for large networks.

    The estimator runs ``chains`` independent copies of the implicit midpoint rule ``(I - hA/2) x' = (I + hA/2) x +
    sigma sqrt(h) xi``. Its stationary covariance solves the Lyapunov equation exactly for every step ``h`` (insert
    it), so that the only error is that of sampling; ``h`` is a fifth of the relaxation time ``1/|abscissa|``, ten
    relaxation times are discarded. The means over chains give covariances and their standard errors; covariances are
    shrunk towards 0 by ``lambda = sum var(r) / sum r**2`` of the correlations r of the edges (Schaefer and Strimmer,
    2005), which leaves variances alone.

    Args:
        matrix: A, Hurwitz, ``(N, N)``.
        target: Row of every edge, ``(E,)``.
        source: Column of every edge, ``(E,)``.
        sigma: Strength of the noise.
        method: ``"exact"``, ``"sampled"``, or ``"auto"``: exact up to :data:`DENSE_MAX` neurons.
        chains: Independent copies, at least 8.
        samples: Instants that are averaged in each, one a fifth of the relaxation time apart.
        seed: Of the noise.

    Raises:
        InputError: A is not Hurwitz, or an argument is out of range.
    """
    n = _square(matrix, "edge_covariance")
    rows, columns = np.asarray(target, dtype=np.int64), np.asarray(source, dtype=np.int64)
    if method not in ("auto", "exact", "sampled"):
        raise InputError(f"edge_covariance: method: expected 'auto', 'exact' or 'sampled', got {method!r}")
    if method == "exact" or (method == "auto" and n <= DENSE_MAX):
        full = lyapunov_covariance(matrix, sigma)
        return EdgeCovariance(np.diagonal(full).copy(), full[rows, columns], "exact", 0.0, 0.0)
    chains = check_integer(chains, "edge_covariance: chains", 8)
    samples = check_integer(samples, "edge_covariance: samples", 1)
    return _sampled(matrix, rows, columns, sigma, chains, samples, seed)


def _sampled(
    matrix: Any, rows: Integers, columns: Integers, sigma: float, chains: int, samples: int, seed: int
) -> EdgeCovariance:
    """Estimate covariances from noise; see :func:`edge_covariance`."""
    from scipy.sparse import csc_matrix, identity
    from scipy.sparse.linalg import splu

    n = matrix.shape[0]
    step = 0.2 / abs(check_hurwitz(matrix, "edge_covariance"))
    half = csc_matrix(matrix, dtype=np.float64) * (step / 2)
    unit = identity(n, format="csc")
    solver, forward = splu(csc_matrix(unit - half)), csc_matrix(unit + half).tocsr()
    x = np.zeros((n, chains))
    groups = 8
    member = np.arange(chains) % groups
    power = np.zeros((groups, n))
    cross = np.zeros((groups, rows.shape[0]))
    discard = 50
    units, copies = np.arange(n)[:, None], np.arange(chains)
    for count in range(discard + samples):
        noise = normal(seed, Stream.POOL_NOISE, 2**31, count, units, copies)
        x = solver.solve(forward @ x + (sigma * np.sqrt(step)) * noise)
        if count < discard:
            continue
        for group in range(groups):
            part = x[:, member == group]
            power[group] += np.mean(part * part, axis=1) / samples
            cross[group] += np.mean(part[rows] * part[columns], axis=1) / samples
    variance, covariance = power.mean(axis=0), cross.mean(axis=0)
    spread = cross.var(axis=0, ddof=1) / groups  # squared standard error of the mean over groups
    scale = variance[rows] * variance[columns]
    correlation = np.sum(covariance**2 / scale)
    shrinkage = float(min(1.0, np.sum(spread / scale) / correlation)) if correlation > 0 else 1.0
    error = float(np.sqrt(spread.mean()) / variance.mean()) if rows.size else 0.0
    return EdgeCovariance(variance, (1 - shrinkage) * covariance, "sampled", shrinkage, error)


def inverse_participation(vectors: npt.ArrayLike) -> Floats:
    """Return ``sum |v_i|**4 / (sum |v_i|**2)**2`` of every column: 1/N if spread evenly, 1 if on one neuron.

    A Gaussian random real vector has about 3/N, a complex one 2/N.

    Args:
        vectors: ``(N, k)`` or ``(N,)``.

    Raises:
        InputError: A column is zero.

    >>> inverse_participation(np.ones(4)).tolist()
    [0.25]
    """
    power = np.abs(np.asarray(vectors)) ** 2
    power = power[:, None] if power.ndim == 1 else power
    total = power.sum(axis=0)
    if power.ndim != 2 or not np.all(total > 0):
        raise InputError("inverse_participation: expected vectors as columns, none of them zero")
    return np.asarray((power**2).sum(axis=0) / total**2, dtype=np.float64)


def effective_resistance(weight: npt.ArrayLike) -> Floats:
    """Return the resistance between every two nodes of an undirected graph of conductances.

    ``R_ij = L+_ii + L+_jj - 2 L+_ij`` with the pseudoinverse of the Laplacian; infinite between components.

    Args:
        weight: Symmetric, not negative, ``(N, N)``; the diagonal is left out.

    Raises:
        InputError: The matrix is not symmetric or has negative numbers.
    """
    from scipy.sparse.csgraph import connected_components

    n = _square(weight, "effective_resistance")
    graph = _dense(weight).copy()
    np.fill_diagonal(graph, 0.0)
    if not np.array_equal(graph, graph.T) or graph.min(initial=0.0) < 0:
        raise InputError("effective_resistance: expected a symmetric matrix of conductances, none negative")
    laplacian = np.diag(graph.sum(axis=1)) - graph
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    own = np.diagonal(inverse)
    resistance: Floats = own[:, None] + own - 2 * inverse
    _, label = connected_components(graph, directed=False)
    resistance[label[:, None] != label] = np.inf
    resistance[np.arange(n), np.arange(n)] = 0.0
    return resistance


def leverage(weight: npt.ArrayLike) -> Floats:
    """Return ``w_ij R_ij`` of every edge of an undirected graph: the share of spanning trees that hold it.

    The sum over edges is the number of nodes minus that of components (Spielman and Srivastava, 2011).

    Args:
        weight: As in :func:`effective_resistance`.
    """
    graph = _dense(weight).copy()
    resistance = effective_resistance(graph)
    np.fill_diagonal(graph, 0.0)
    return np.where(graph > 0, graph * np.where(np.isfinite(resistance), resistance, 0.0), 0.0)
