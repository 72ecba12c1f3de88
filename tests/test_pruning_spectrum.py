"""Spectral tools of pruning against closed forms and independent programs."""

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform
from snnsim.pruning.noise import draw_kept, keep_probabilities, noise_scores
from snnsim.pruning.spectrum import (
    edge_covariance,
    effective_resistance,
    inverse_participation,
    leading_modes,
    leverage,
    lyapunov_covariance,
    noise_covariance,
    spectral_abscissa,
    spectral_radius,
)


def draws(seed: int, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    return uniform(seed, Stream.TOY, 0, 0, np.arange(count)).reshape(shape)


def random_graph(n: int, p: float, seed: int) -> np.ndarray:
    """Symmetric weights of a connected undirected graph."""
    weight = np.where(draws(seed, n, n) < p, 0.5 + draws(seed + 1, n, n), 0.0)
    weight = np.triu(weight, 1) + np.diag(np.ones(n - 1), 1)
    return weight + weight.T


def laplacian(weight: np.ndarray) -> np.ndarray:
    return np.diag(weight.sum(axis=1)) - weight


def undirected_scores(weight: np.ndarray, sigma: float, epsilon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise scores of every edge i < j of the diffusion on a graph."""
    i, j = np.nonzero(np.triu(weight, 1))
    c = lyapunov_covariance(-(laplacian(weight) + epsilon * np.eye(len(weight))), sigma)
    return i, j, noise_scores(weight[i, j], i, j, np.diagonal(c), c[i, j])


@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_lyapunov_equation_of_a_symmetric_matrix(sigma: float) -> None:
    shifted = laplacian(random_graph(60, 0.1, 3)) + 0.1 * np.eye(60)
    exact = sigma**2 / 2 * np.linalg.inv(shifted)
    found = lyapunov_covariance(-shifted, sigma)
    assert np.abs(found - exact).max() < 1e-9 * np.abs(exact).max()


def test_lyapunov_equation_of_a_directed_matrix_has_no_residual() -> None:
    a = 0.3 * (draws(5, 40, 40) - 0.5) - np.eye(40)
    noise = np.diag(0.5 + draws(6, 40))
    c = noise_covariance(a, noise)
    assert np.abs(a @ c + c @ a.T + noise).max() < 1e-12
    assert np.linalg.eigvalsh(c).min() > 0


def test_lyapunov_equation_refuses_what_has_no_solution() -> None:
    with pytest.raises(InputError, match=r"Hurwitz.*spectral abscissa is 0.5.*scale the weights down"):
        lyapunov_covariance(np.diag([-1.0, 0.5]))
    with pytest.raises(InputError, match="square matrix"):
        lyapunov_covariance(np.zeros((2, 3)))
    with pytest.raises(InputError, match="finite"):
        lyapunov_covariance(np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="sigma"):
        lyapunov_covariance(-np.eye(2), 0.0)
    with pytest.raises(InputError, match="symmetric"):
        noise_covariance(-np.eye(2), np.array([[1.0, 0.5], [0.0, 1.0]]))


def test_noise_scores_are_leverages() -> None:
    weight = random_graph(12, 0.3, 7)
    i, j, scores = undirected_scores(weight, 0.7, 1e-9)
    assert np.allclose(2 / 0.7**2 * scores, (weight * effective_resistance(weight))[i, j], rtol=1e-5)
    assert 2 / 0.7**2 * scores.sum() == pytest.approx(11, abs=1e-4)
    assert np.triu(leverage(weight), 1).sum() == pytest.approx(11, abs=1e-10)


def two_triangles() -> np.ndarray:
    weight = np.zeros((6, 6))
    for i, j in ((0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)):
        weight[i, j] = weight[j, i] = 1.0
    return weight


def test_a_bridge_has_score_1_and_is_never_pruned() -> None:
    i, j, scores = undirected_scores(two_triangles(), np.sqrt(2.0), 1e-9)
    bridge = (i == 2) & (j == 3)
    assert scores[bridge] == pytest.approx(1, abs=1e-6)
    assert scores[~bridge] == pytest.approx(2 / 3, abs=1e-6)
    keep = keep_probabilities(scores, float(np.minimum(1, 1.001 * scores).sum()))
    assert keep.k == pytest.approx(1.001, rel=1e-3)
    assert all(draw_kept(keep, i, j, seed=seed)[bridge].all() for seed in range(200))
    assert not all(draw_kept(keep, i, j, seed=seed).all() for seed in range(200))


def test_resistance_of_separate_parts_is_infinite() -> None:
    weight = np.zeros((4, 4))
    weight[0, 1] = weight[1, 0] = 2.0
    weight[2, 3] = weight[3, 2] = 1.0
    resistance = effective_resistance(weight)
    assert resistance[0, 1] == pytest.approx(0.5)
    assert resistance[0, 2] == np.inf
    assert np.triu(leverage(weight)).sum() == pytest.approx(2)
    with pytest.raises(InputError, match="symmetric"):
        effective_resistance(np.array([[0.0, 1.0], [0.0, 0.0]]))


def test_inhibition_turns_the_sign_of_the_covariance() -> None:
    scores = noise_scores([2.0, -2.0, 0.0], [0, 0, 0], [1, 1, 1], [1.0, 3.0], [0.5, 0.5, 0.5])
    assert scores.tolist() == [2 * 3.0, 2 * 5.0, 0.0]


def clustered(seed: int) -> np.ndarray:
    """Three clusters of 50, joined by six weak edges a pair (the card's graph)."""
    n = 150
    label = np.arange(n) // 50
    inside = label[:, None] == label
    weight = np.where(inside & (draws(seed, n, n) < 0.5), 0.5 + draws(seed + 1000, n, n), 0.0)
    weight = np.triu(weight, 1)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        picks = draws(seed + 2000 + 10 * a + b, 2, 6)
        rows, columns = 50 * a + (50 * picks[0]).astype(int), 50 * b + (50 * picks[1]).astype(int)
        weight[rows, columns] = 0.2 + 0.3 * draws(seed + 3000 + 10 * a + b, 6)
    return weight + weight.T


def fiedler_errors(seed: int) -> dict[str, tuple[float, bool]]:
    """Relative error of the second Laplacian eigenvalue after keeping a quarter of the edges, and whether cut."""
    weight = clustered(seed)
    wanted = np.linalg.eigvalsh(laplacian(weight))[1]
    i, j, noise = undirected_scores(weight, 1.0, 1e-6)
    size = weight[i, j]
    found = {}
    for name, scores in (("noise", noise), ("uniform", np.ones_like(size)), ("magnitude", size), ("top", size)):
        budget = round(0.25 * size.shape[0])
        if name == "top":
            factor = (np.argsort(np.argsort(-size, kind="stable")) < budget).astype(float)
        else:
            keep = keep_probabilities(scores, budget, p_min=0.0)
            factor = draw_kept(keep, i, j, seed=seed) / keep.probability
        pruned = np.zeros_like(weight)
        pruned[i, j] = pruned[j, i] = size * factor
        value = np.linalg.eigvalsh(laplacian(pruned))[1]
        found[name] = (abs(value - wanted) / wanted, bool(value < 1e-9))
    return found


def test_noise_pruning_keeps_clusters_joined_better_than_its_rivals() -> None:
    runs = [fiedler_errors(seed) for seed in range(40)]
    error = {name: np.mean([run[name][0] for run in runs]) for name in runs[0]}
    assert error["noise"] < error["uniform"] < error["magnitude"] < error["top"]
    assert error["noise"] < 0.45
    cut = {name: sum(run[name][1] for run in runs) for name in runs[0]}
    assert 3 * cut["noise"] < cut["uniform"]
    assert cut["uniform"] < cut["magnitude"] < cut["top"] == 40


def test_participation_of_known_vectors() -> None:
    n = 400
    assert inverse_participation(np.full(n, 3.0)) == pytest.approx(1 / n)
    assert inverse_participation(np.eye(n)[:, 5]) == pytest.approx(1)
    gauss = np.sqrt(-2 * np.log(1 - draws(1, n, 200))) * np.cos(2 * np.pi * draws(2, n, 200))
    assert inverse_participation(gauss).mean() == pytest.approx(3 / n, rel=0.03)
    with pytest.raises(InputError, match="none of them zero"):
        inverse_participation(np.zeros((3, 1)))


def test_abscissa_radius_and_modes() -> None:
    a = np.array([[-1.0, 5.0], [0.0, -3.0]])
    assert spectral_abscissa(a) == pytest.approx(-1)
    assert spectral_radius(a) == pytest.approx(3)
    values, vectors = leading_modes(a, 2)
    assert values.real.tolist() == pytest.approx([-1, -3])
    assert np.allclose(a @ vectors, vectors * values)


def test_estimated_covariance_lies_within_its_stated_error() -> None:
    n = 120
    a = np.where(draws(11, n, n) < 0.06, draws(12, n, n) - 0.4, 0.0)
    np.fill_diagonal(a, 0.0)
    a = 0.6 * a / spectral_radius(a) - np.diag(0.7 + draws(13, n))
    target, source = np.nonzero(a - np.diag(np.diagonal(a)))
    exact = edge_covariance(a, target, source)
    assert (exact.method, exact.error, exact.shrinkage) == ("exact", 0.0, 0.0)
    found = edge_covariance(a, target, source, method="sampled", chains=256, samples=64, seed=2)
    gap = np.sqrt(np.mean((found.covariance - exact.covariance) ** 2)) / exact.variance.mean()
    assert found.method == "sampled"
    assert gap < 1.5 * found.error
    assert found.error < 0.03
    assert 0 < found.shrinkage < 1
    assert np.abs(found.variance / exact.variance - 1).max() < 0.1
    again = edge_covariance(a, target, source, method="sampled", chains=256, samples=64, seed=2)
    assert np.array_equal(again.covariance, found.covariance)
    with pytest.raises(InputError, match="method"):
        edge_covariance(a, target, source, method="guess")


def test_estimator_tends_to_the_lyapunov_solution_with_more_samples() -> None:
    a = np.array([[-1.0, 0.8], [-0.4, -2.0]])
    exact = lyapunov_covariance(a)
    gaps = []
    for samples in (8, 512):
        found = edge_covariance(a, [0], [1], method="sampled", chains=512, samples=samples, seed=1)
        gaps.append(np.abs(found.variance - np.diagonal(exact)).max())
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0]


def test_probabilities_meet_the_budget_and_their_bounds() -> None:
    scores = draws(21, 500) ** 4
    keep = keep_probabilities(scores, 125, p_min=0.02)
    assert keep.probability.sum() == pytest.approx(125, abs=1e-9)
    assert keep.probability.min() == 0.02
    assert keep.probability.max() == 1.0
    assert keep.certain == np.sum(keep.probability == 1)
    assert keep.floored == np.sum(keep.k * scores < 0.02)
    assert keep_probabilities(scores, 500).probability.min() == 1
    assert keep_probabilities([0.0, 1.0], 2).probability.tolist() == [1, 1]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_budgets_are_met_when_scores_differ_by_hundreds_of_orders_of_magnitude(share: float) -> None:
    scores = 10.0 ** (-290 * draws(22, 1000))
    keep = keep_probabilities(scores, 1000 * share)
    assert keep.probability.sum() == pytest.approx(1000 * share, rel=1e-9)
    kept = draw_kept(keep, np.arange(1000), np.arange(1000), seed=1)
    assert kept.sum() == pytest.approx(1000 * share, abs=60)


def test_pruned_weights_have_the_dense_ones_as_their_mean() -> None:
    weight = draws(31, 40) - 0.3
    units = np.arange(40)
    keep = keep_probabilities(np.abs(weight), 20, p_min=0.1)
    total = np.zeros(40)
    for attempt in range(20_000):
        total += draw_kept(keep, units, units + 1, seed=5, attempt=attempt) / keep.probability
    ratio = total / 20_000
    bound = 4 * np.sqrt((1 / keep.probability - 1) / 20_000)
    assert np.all(np.abs(ratio - 1) <= bound + 1e-12)
    assert abs((ratio * weight).sum() / weight.sum() - 1) < 0.012


@pytest.mark.parametrize(
    ("scores", "budget", "message"),
    [
        ([], 1, "at least one edge"),
        ([0.0, 0.0], 1, "not all of them 0"),
        ([1.0, -1.0], 1, "none negative"),
        ([1.0, 1.0], 3, "cannot be met"),
        ([1.0] * 100, 1, "change keep, or lower p_min"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(scores: list[float], budget: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        keep_probabilities(scores, budget)
