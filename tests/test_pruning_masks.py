"""Budgets, scores and schedules of pruning in plain NumPy."""

from itertools import pairwise

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.pruning.baselines import neuron_masks, neuron_norms, synflow, whole_synapses
from snnsim.pruning.dynamic import deep_r_update, rigl_fraction, rigl_update
from snnsim.pruning.masks import budget, keep_largest, kept_share, random_scores, unreached_outputs


def test_synaptic_flow_of_a_tiny_network_by_hand() -> None:
    first = np.array([[1.0, -2.0], [0.0, 3.0]])
    second = np.array([[2.0, -1.0]])
    # R = 2 (1 + 2) + 1 (0 + 3) = 9; score of w is |w| times what flows in times what flows out
    a, b = synflow([first, second])
    np.testing.assert_allclose(a * 9, [[2.0, 4.0], [0.0, 3.0]])
    np.testing.assert_allclose(b * 9, [[6.0, 3.0]])
    assert a.sum() == pytest.approx(1)  # every layer carries the whole flow
    assert b.sum() == pytest.approx(1)
    taps, _ = synflow([np.stack([first, first], axis=2), second])
    np.testing.assert_allclose(taps.sum(axis=2), a)
    # with the input added to the hidden layer: h = (1 + 2 + 1, 3 + 1), R = 2 h0 + h1 = 12
    c, d = synflow([first, second], residual=[0])
    np.testing.assert_allclose(c * 12, [[2.0, 4.0], [0.0, 3.0]])
    np.testing.assert_allclose(d * 12, [[8.0, 4.0]])


def test_synaptic_flow_is_weight_times_derivative() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape) for shape in ((4, 3), (5, 4), (2, 5))]

    def flow(parts: list[np.ndarray]) -> float:
        x = np.ones(3)
        for part in parts:
            x = np.abs(part) @ x
        return float(x.sum())

    scores, total = synflow(weights), flow(weights)
    for layer, weight in enumerate(weights):
        for place in np.ndindex(weight.shape):
            more = [part.copy() for part in weights]
            more[layer][place] *= 1 + 1e-6
            assert (flow(more) - total) / 1e-6 / total == pytest.approx(scores[layer][place], rel=1e-4)


def test_budgets_are_exact_and_ties_go_to_the_first() -> None:
    masks = keep_largest({"a": np.array([[1.0, 1.0], [1.0, 2.0]])}, 0.5)
    assert masks["a"].tolist() == [[True, False], [False, True]]
    scores = {"a": np.arange(10.0), "b": np.arange(10.0) + 5}
    assert [int(mask.sum()) for mask in keep_largest(scores, 0.3).values()] == [3, 3]
    assert [int(mask.sum()) for mask in keep_largest(scores, 0.3, "global").values()] == [1, 5]
    left = {"a": np.arange(10) < 4, "b": np.ones(10, bool)}
    kept = keep_largest(scores, 0.5, candidates=left)
    assert np.flatnonzero(kept["a"]).tolist() == [0, 1, 2, 3]
    assert budget(0.001, 10) == 1
    assert [round(kept_share(done, 4, 0.0625), 6) for done in range(1, 5)] == [0.5, 0.25, 0.125, 0.0625]
    with pytest.raises(InputError, match="keep: expected a share above 0"):
        budget(0.0, 5)
    with pytest.raises(InputError, match="expected finite scores"):
        keep_largest({"a": np.array([np.nan, 1.0])}, 0.5)


def test_random_scores_depend_on_their_key_alone() -> None:
    a = random_scores((30, 20), 1, 0)
    assert np.array_equal(a, random_scores((30, 20), 1, 0))
    for other in (random_scores((30, 20), 2, 0), random_scores((30, 20), 1, 1), random_scores((30, 20), 1, 0, 1)):
        assert not np.array_equal(a, other)
    assert abs(a.mean() - 0.5) < 0.04


def test_outputs_without_a_path() -> None:
    first = np.array([[1, 0], [0, 0], [0, 0]], bool)
    second = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], bool)
    assert unreached_outputs([first, second]).tolist() == [0, 1]
    loop = np.zeros((3, 3), bool)
    loop[1, 0] = True  # the first neuron excites the second
    assert unreached_outputs([first, second], {0: loop}).tolist() == [1]
    square = np.zeros((2, 2), bool)
    assert unreached_outputs([square, np.eye(2, dtype=bool)], residual=[0]).tolist() == []
    assert unreached_outputs([first[:, :, None], second]).tolist() == [0, 1]


def test_scores_of_neurons_and_their_masks() -> None:
    into, out = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[1.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(neuron_norms(into, out), [5.0, 2.0])
    ones = np.ones((2, 2), bool)
    a, b, c = neuron_masks(np.array([True, False]), ones, ones, ones)
    assert a.tolist() == [[True, True], [False, False]]
    assert b.tolist() == [[True, False], [True, False]]
    assert c is not None
    assert c.tolist() == [[True, False], [False, False]]
    assert whole_synapses(np.array([[[1.0, 2.0]]])).tolist() == [[[3.0, 3.0]]]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_rigl_keeps_the_number_of_synapses(fraction: float) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((20, 15)) < 0.3
    weight, gradient = rng.standard_normal((20, 15)) * mask, rng.standard_normal((20, 15))
    after = rigl_update(weight, gradient, mask, fraction)
    assert after.sum() == mask.sum()
    dropped, grown = mask & ~after, after & ~mask
    assert dropped.sum() == grown.sum() <= int(fraction * mask.sum())
    if fraction == 0.1:
        assert grown.sum() > 0
        assert np.abs(weight[dropped]).max() <= np.abs(weight[mask & after]).max()
        assert np.abs(gradient[grown]).min() >= np.abs(gradient[~mask & ~after]).max()
    full = np.ones((3, 3), bool)
    assert rigl_update(np.ones((3, 3)), np.ones((3, 3)), full, 0.5).all()


def test_rigl_replaces_less_and_less() -> None:
    shares = [rigl_fraction(step, 1000, 0.3) for step in range(0, 1001, 100)]
    assert shares[0] == 0.3
    assert shares[-1] == 0
    assert all(a > b for a, b in pairwise(shares))


def test_deep_r_ends_synapses_that_change_sign_and_begins_others() -> None:
    rng = np.random.default_rng(5)
    mask = rng.random((12, 10)) < 0.4
    sign = np.where(rng.random((12, 10)) < 0.5, -1.0, 1.0)
    weight = np.where(mask, sign * rng.uniform(0.1, 1.0, (12, 10)), 0.0)
    wrong = mask & (rng.random((12, 10)) < 0.3)
    weight[wrong] *= -1
    key = {"lr": 0.01, "l1": 0.0, "temperature": 0.0, "seed": 1, "layer": 0, "step": 4}
    after, exists = deep_r_update(weight, sign, mask, **key)  # type: ignore[arg-type]
    assert wrong.sum() > 5
    assert exists.sum() == mask.sum()
    assert np.array_equal(after[mask & ~wrong], weight[mask & ~wrong])
    assert not after[~(mask & ~wrong)].any()
    again = deep_r_update(weight, sign, mask, **key)  # type: ignore[arg-type]
    assert np.array_equal(again[1], exists)
    other = deep_r_update(weight, sign, mask, **{**key, "seed": 2})  # type: ignore[arg-type]
    assert not np.array_equal(other[1], exists)
    pulled, _ = deep_r_update(np.abs(weight) * sign, sign, mask, **{**key, "l1": 1.0})  # type: ignore[arg-type]
    np.testing.assert_allclose(np.abs(pulled[mask]), np.abs(weight[mask]) - 0.01)
