"""Heterogeneous pools: their distributions, structures, scale, and what is refused."""

from typing import Any

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.network import Sparse
from snnsim.pruning.laws import Constant, Empirical, Gamma, Law, LogNormal, draw
from snnsim.pruning.pool_arrays import pool_arrays
from snnsim.pruning.pools import PoolPlan, make_pool
from snnsim.pruning.spectrum import spectral_abscissa, spectral_radius

FREE = {"low": 0.0, "high": np.inf}


@pytest.mark.parametrize(
    "law", [Gamma(0.7, 0.02), Gamma(3.0, 0.007), LogNormal(0.02, 0.5), Empirical((0.01, 0.02, 0.07))]
)
def test_numbers_have_the_mean_and_variance_of_their_law(law: Law) -> None:
    n = 20_000
    values, clipped = draw(law, n, seed=3, parameter=0, **FREE)
    assert clipped == 0
    spread = values.std()
    assert abs(values.mean() - law.mean()) < 3 * spread / np.sqrt(n)
    if isinstance(law, Gamma):
        fourth = np.mean((values - values.mean()) ** 4)
        wanted = law.shape * law.scale**2
        assert abs(values.var() - wanted) < 3 * np.sqrt((fourth - wanted**2) / n)


def test_clipped_numbers_are_counted_and_neurons_keep_theirs_when_the_pool_grows() -> None:
    law = Gamma(2.0, 0.01)
    free, _ = draw(law, 1000, seed=1, parameter=0, **FREE)
    values, clipped = draw(law, 1000, seed=1, parameter=0, low=0.01, high=0.03)
    assert clipped == np.mean((free < 0.01) | (free > 0.03))
    assert 0 < clipped < 1
    assert values.min() == 0.01
    assert values.max() == 0.03
    assert np.array_equal(draw(law, 100, seed=1, parameter=0, **FREE)[0], free[:100])
    assert not np.array_equal(draw(law, 1000, seed=1, parameter=1, **FREE)[0], free)
    with pytest.raises(InputError, match="low <= high"):
        draw(law, 3, seed=0, parameter=0, low=1.0, high=0.0)


def test_laws_refuse_what_is_no_distribution() -> None:
    with pytest.raises(InputError, match="shape: expected a positive number"):
        Gamma(0.0, 1.0)
    with pytest.raises(InputError, match="expected a number"):
        Constant("fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="all positive"):
        Empirical((1.0, -1.0))


def recurrent(made: Any) -> np.ndarray:
    return pool_arrays(made.network, "pool").matrix().toarray()


@pytest.mark.parametrize("structure", ["random", "small-world", "blocks"])
def test_structure_density_and_dale(structure: Any) -> None:
    plan = PoolPlan(size=200, structure=structure, probability=0.1, between=0.02, seed=4)
    made = make_pool(plan)
    weight = recurrent(made)
    density = np.mean(weight != 0)
    expected = {"random": 0.1, "small-world": 0.1, "blocks": 0.1 / 4 + 0.02 * 3 / 4}[structure]
    assert density == pytest.approx(expected, rel=0.1)
    assert made.report["density"] == pytest.approx(np.count_nonzero(weight) / (200 * 199))
    assert np.all(np.diagonal(weight) == 0)
    assert np.all(weight[:, :160] >= 0)
    assert np.all(weight[:, 160:] <= 0)
    assert -weight[:, 160:][weight[:, 160:] < 0].mean() > 3 * weight[weight > 0].mean()
    if structure == "small-world":
        assert np.all(np.count_nonzero(weight, axis=0) == 20)
        target, source = np.nonzero(weight)
        ring = np.minimum((target - source) % 200, (source - target) % 200)
        assert np.mean(ring > 10) == pytest.approx(0.1, abs=0.02)
    if structure == "blocks":
        block = np.arange(200) // 50
        assert np.mean(weight[block[:, None] == block] != 0) > 3 * np.mean(weight[block[:, None] != block] != 0)


def test_the_same_plan_gives_the_same_network_and_another_seed_another() -> None:
    plan = PoolPlan(size=60, n_inputs=4, n_outputs=2, seed=9)
    assert make_pool(plan).network == make_pool(plan).network
    assert make_pool(PoolPlan(size=60, n_inputs=4, n_outputs=2, seed=10)).network != make_pool(plan).network


def test_weights_are_scaled_to_radius_or_abscissa() -> None:
    assert spectral_radius(recurrent(make_pool(PoolPlan(size=80, radius=1.3)))) == pytest.approx(1.3)
    made = make_pool(PoolPlan(size=80, radius=None, abscissa=0.4))
    assert spectral_abscissa(recurrent(made)) == pytest.approx(0.4)
    pool = pool_arrays(make_pool(PoolPlan(size=80, neuron="CubaLIF", radius=0.7)).network, "pool")
    assert spectral_radius((pool.tau_syn / pool.tau_mem)[:, None] * pool.matrix().toarray()) == pytest.approx(0.7)


def test_the_homogeneous_control_has_the_same_mean() -> None:
    plan = {"size": 50, "tau_mem": Gamma(2.0, 0.02), "v_threshold": LogNormal(1.0, 0.3)}
    neuron: Any = make_pool(PoolPlan(**plan, homogeneous=True)).network.population("pool").neuron  # type: ignore[arg-type]
    assert np.all(neuron.tau_mem == 0.04)
    assert neuron.v_threshold == pytest.approx(np.full(50, LogNormal(1.0, 0.3).mean()))
    spread: Any = make_pool(PoolPlan(**plan)).network.population("pool").neuron  # type: ignore[arg-type]
    assert np.std(spread.tau_mem) > 0.005


def test_input_and_readout() -> None:
    made = make_pool(PoolPlan(size=100, n_inputs=7, input_share=0.2, input_weight=0.4, n_outputs=3))
    feed, _, out = made.network.projections
    rows = np.flatnonzero(np.any(np.asarray(feed.weight) != 0, axis=1))
    assert rows.shape[0] == made.report["input_neurons"] == 20
    assert np.asarray(feed.weight)[rows].mean() == pytest.approx(0.4, rel=0.2)
    assert out.shape == (3, 100)
    assert made.network.readout is not None


def test_large_pools_are_sparse() -> None:
    made = make_pool(PoolPlan(size=2100, probability=0.005, radius=0.9))
    weight = made.network.projections[0].weight
    assert isinstance(weight, Sparse)
    assert weight.nnz == pytest.approx(2100 * 2099 * 0.005, rel=0.05)
    assert np.abs(np.linalg.eigvals(recurrent(made))).max() == pytest.approx(0.9, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"excitatory": 1.5}, "share from 0 to 1"),
        ({"tau_max": 0.0}, "tau_max: expected a positive number"),
        ({"structure": "tree"}, "structure: expected one of"),
        ({"neuron": "IF"}, "'LIF' or 'CubaLIF'"),
        ({"tau_mem": 0.02}, "distribution such as"),
        ({"abscissa": 1.0}, "both are given"),
        ({"radius": -1.0}, "positive number or None"),
        ({"size": 1}, "size"),
    ],
)
def test_bad_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PoolPlan(**change)


def test_pools_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(InputError, match="no synapse among 20 neurons"):
        make_pool(PoolPlan(size=20, probability=0.0))
    with pytest.raises(InputError, match="no loop that could be scaled"):
        make_pool(PoolPlan(size=5, probability=0.1, seed=6))
    with pytest.raises(InputError, match=r"small-world: .* neighbours"):
        make_pool(PoolPlan(size=20, probability=1.0, structure="small-world"))
