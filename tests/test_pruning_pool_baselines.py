"""Baselines of pool pruning: exact budgets, what goes first, determinism, independence of the numbering."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.network import Network
from snnsim.pruning import METHODS
from snnsim.pruning.pool_arrays import pool_arrays
from snnsim.pruning.pool_baselines import HOW, How, prune_pool
from snnsim.pruning.pools import PoolPlan, make_pool


@pytest.fixture(scope="module")
def pool() -> Network:
    plan = PoolPlan(size=80, n_inputs=2, n_outputs=2, input_share=0.4, excitatory=0.5, inhibition=1.0, seed=2)
    return make_pool(plan).network


@pytest.mark.parametrize("how", HOW)
def test_budgets_are_exact_and_inputs_stay(how: How, pool: Network) -> None:
    result = prune_pool(pool, "pool", how, synapses=0.4, neurons=0.7, seed=5)
    edges = pool_arrays(pool, "pool").n_edges
    counts = result.report["sparsity"]["counts"]
    assert counts["pool_neurons"] == result.kept.size
    if how == "neurons":
        assert counts["pool_synapses"] <= round(0.4 * edges)
        assert result.kept.size < 56
    else:
        assert counts["pool_synapses"] == round(0.4 * edges)
        assert result.kept.size == 56
    fed = np.unique(pool.projections[0].synapses(pool.dt).target)
    assert np.isin(fed, result.kept).all()
    dense, sparse = pool.projections[1].weight, result.network.projections[1].weight
    assert isinstance(dense, np.ndarray)
    assert isinstance(sparse, np.ndarray)
    left = dense[np.ix_(result.kept, result.kept)] * (sparse != 0)
    factor = result.report.get("factor", 1.0)
    assert (factor > 1) == (how == "random")
    assert np.allclose(sparse, factor * left)
    again = prune_pool(pool, "pool", how, synapses=0.4, neurons=0.7, seed=5)
    assert again.network == result.network
    assert (again.mask != result.mask).nnz == 0
    if how == "random":
        other = prune_pool(pool, "pool", how, synapses=0.4, neurons=0.7, seed=6)
        assert not np.array_equal(other.kept, result.kept)


def test_what_goes_is_the_least(pool: Network) -> None:
    result = prune_pool(pool, "pool", "magnitude", synapses=0.4, neurons=0.7)
    dense = pool.projections[1].weight
    assert isinstance(dense, np.ndarray)
    inside = np.abs(dense[np.ix_(result.kept, result.kept)])
    kept = np.asarray(result.mask.todense())[np.ix_(result.kept, result.kept)]
    assert inside[kept].min() >= inside[~kept].max()
    norm = np.linalg.norm(dense, axis=0) * np.linalg.norm(dense, axis=1)
    gone = np.setdiff1d(np.arange(80), result.kept)
    free = np.setdiff1d(result.kept, np.unique(pool.projections[0].synapses(pool.dt).target))
    assert norm[gone].max() <= norm[free].min()


def test_magnitude_does_not_depend_on_how_neurons_are_numbered(pool: Network) -> None:
    order = np.random.default_rng(1).permutation(80)
    moved = []
    for item in pool.projections:
        weight = np.asarray(item.weight)
        weight = weight[order] if item.target == "pool" else weight
        moved.append(replace(item, weight=weight[:, order] if item.source == "pool" else weight))
    values = {
        name: value[order] if isinstance(value, np.ndarray) else value
        for name, value in pool.population("pool").neuron.parameters().items()
    }
    first = replace(pool.population("pool"), neuron=pool.population("pool").neuron.replace(**values))
    turned = pool.replace(populations=(first, *pool.populations[1:]), projections=tuple(moved))
    one = prune_pool(pool, "pool", "magnitude", synapses=0.4, neurons=0.7)
    two = prune_pool(turned, "pool", "magnitude", synapses=0.4, neurons=0.7)
    assert np.array_equal(np.sort(order[two.kept]), one.kept)
    assert np.array_equal(np.asarray(two.mask.todense()), np.asarray(one.mask.todense())[np.ix_(order, order)])


def test_what_cannot_be_pruned_is_refused(pool: Network) -> None:
    with pytest.raises(InputError, match="how: expected one of activity, magnitude, random, neurons, got 'luck'"):
        prune_pool(pool, "pool", "luck")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="synapses: expected a share above 0 and at most 1, got 0"):
        prune_pool(pool, "pool", "random", synapses=0)
    with pytest.raises(InputError, match=r"fewer than the budget of .* keep more neurons, or lower synapses"):
        prune_pool(pool, "pool", "random", synapses=0.9, neurons=0.7)


def test_the_command_knows_the_baselines(pool: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from snnsim.cli.main import run

    path, out = pool.save(tmp_path / "pool.snn.h5"), tmp_path / "out.snn.h5"
    words = ["prune", str(path), "--method", "magnitude", "--keep", "0.4", "--out", str(out)]
    assert run(words) == 0
    expected = METHODS["magnitude"](pool, "pool", keep=0.4, keep_neurons=0.7)
    assert Network.load(out) == expected.network
    assert run([*words, "--score", "noise"]) == 2
    assert "--score: is of method lnp, magnitude has none" in capsys.readouterr().err
