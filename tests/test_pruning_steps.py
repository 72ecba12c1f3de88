"""The steps of Lyapunov noise pruning one by one."""

from typing import Any

import numpy as np
import pytest

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.philox import Stream, uniform
from snnsim.kernels.reference_lyapunov import betweenness as reference_betweenness
from snnsim.network import Network, Population, Projection
from snnsim.neurons import LIF
from snnsim.pruning.bayes import expected_improvement, gaussian_process, minimise
from snnsim.pruning.betweenness import betweenness, choose_removed
from snnsim.pruning.delocalise import _after_each, _pick, degree_heterogeneity, delocalise
from snnsim.pruning.exponents import Probe, pool_exponents, run_pool
from snnsim.pruning.lnp import prune_lnp
from snnsim.pruning.noise import (
    edge_factors,
    edge_scores,
    firing_rate,
    leak_compensation,
    linearise,
)
from snnsim.pruning.pool_arrays import PoolArrays, pool_arrays
from snnsim.pruning.pools import PoolPlan, make_pool
from snnsim.pruning.spectrum import edge_covariance, spectral_abscissa
from snnsim.pruning.timescales import TimescaleSearch, optimise_timescales, with_time_constants

QUICK = Probe(n_steps=300, discard=100)
FAST: tuple[Any, ...] = ("synapses", "neurons", "delocalise")


def draws(seed: int, *shape: int) -> np.ndarray:
    return uniform(seed, Stream.TOY, 0, 0, np.arange(int(np.prod(shape)))).reshape(shape)


def pool_of(size: int = 60, **options: Any) -> Network:
    plan = {"size": size, "probability": 0.15, "n_inputs": 5, "n_outputs": 2, "seed": 1} | options
    return make_pool(PoolPlan(**plan)).network


def some_events(n_units: int, n_steps: int, seed: int = 0, p: float = 0.2) -> Events:
    step, unit = np.nonzero(draws(seed, n_steps, n_units) < p)
    return Events.from_lists([step * 0.001], [unit], n_units=n_units, duration=n_steps * 0.001)


# betweenness ------------------------------------------------------------------------------------------------------


def test_betweenness_of_known_graphs() -> None:
    path = np.diag(np.ones(4), 1)
    assert betweenness(path + path.T) == pytest.approx([0, 0.5, 2 / 3, 0.5, 0])
    star = np.zeros((6, 6))
    star[0, 1:] = star[1:, 0] = 1.0
    assert betweenness(star) == pytest.approx([1, 0, 0, 0, 0, 0])
    assert betweenness(np.ones((5, 5))) == pytest.approx(np.zeros(5))
    assert betweenness(np.zeros((3, 3))).tolist() == [0, 0, 0]
    one_way = np.zeros((3, 3))
    one_way[1, 0] = one_way[2, 1] = 1.0  # 0 -> 1 -> 2
    assert betweenness(one_way) == pytest.approx([0, 0.5, 0])
    with pytest.raises(InputError, match="square"):
        betweenness(np.zeros((2, 3)))
    with pytest.raises(InputError, match="finite"):
        betweenness(np.full((2, 2), np.inf))


@pytest.mark.parametrize("weights", ["equal", "drawn"])
def test_betweenness_kernel_is_its_definition(weights: str) -> None:
    n = 40
    weight = np.where(draws(1, n, n) < 0.1, 1.0 if weights == "equal" else draws(2, n, n) - 0.5, 0.0)
    np.fill_diagonal(weight, 0.0)
    with np.errstate(divide="ignore"):
        length = 1 / np.abs(weight)
    assert np.allclose(betweenness(weight), reference_betweenness(length), rtol=1e-12, atol=1e-15)


def test_betweenness_equals_networkx() -> None:
    networkx = pytest.importorskip("networkx", reason="an independent program for comparison")
    n = 60
    weight = np.where(draws(3, n, n) < 0.08, draws(4, n, n) + 0.1, 0.0)
    np.fill_diagonal(weight, 0.0)
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_weighted_edges_from((j, i, 1 / weight[i, j]) for i, j in zip(*np.nonzero(weight), strict=True))
    theirs = networkx.betweenness_centrality(graph, weight="weight")
    assert betweenness(weight) == pytest.approx([theirs[k] for k in range(n)], rel=1e-12, abs=1e-15)


def test_removal_protects_and_keeps_one_of_each_component() -> None:
    weight = np.zeros((7, 7))
    weight[1, 0] = weight[2, 1] = 1.0  # 0 -> 1 -> 2, 3 -> 4, 5 and 6 alone
    weight[4, 3] = 1.0
    found = choose_removed(weight, betweenness(weight), 5)
    assert found.components == 2
    # alone first (no out-strength), then by out-strength and number: 2, 4, 5, 6 have none
    assert found.removed.tolist() == [0, 2, 4, 5, 6]
    assert found.kept.tolist() == [1, 3]
    assert choose_removed(weight, betweenness(weight), 2, protected=np.arange(7) < 5).removed.tolist() == [5, 6]
    with pytest.raises(InputError, match=r"cannot remove 6 of 7.*each of 2 components keeps one"):
        choose_removed(weight, betweenness(weight), 6)
    with pytest.raises(InputError, match=r"3 are protected.*protect_inputs=False"):
        choose_removed(weight, betweenness(weight), 5, protected=np.arange(7) < 3)


def test_ties_go_by_out_strength_then_number() -> None:
    weight = np.zeros((4, 4))
    weight[1, 0], weight[0, 1], weight[3, 2], weight[2, 3] = 3.0, 1.0, 2.0, 2.0
    assert choose_removed(weight, np.zeros(4), 1).removed.tolist() == [1]
    assert choose_removed(weight, np.zeros(4), 2).removed.tolist() == [1, 2]


# linearisation and scores -----------------------------------------------------------------------------------------


def test_firing_rate_of_strong_drive_and_of_simulation() -> None:
    tau, one = np.array([0.02]), np.array([1.0])
    strong = firing_rate(np.array([5.0]), np.array([1e-3]), tau, one, 0 * one, 0 * one)
    assert strong == pytest.approx(1 / (0.02 * np.log(5 / 4)), rel=1e-3)
    refractory = firing_rate(np.array([5.0]), np.array([1e-3]), tau, one, 0 * one, 0.01 * one)
    assert 1 / refractory == pytest.approx(1 / strong + 0.01)
    # against a simulated pool without coupling to speak of: small events, short steps
    n, dt = 200, 1e-4
    weight = np.zeros((n, n))
    weight[0, 1] = 1e-12
    population = Population("pool", n, LIF(tau_mem=0.02, reset="zero"))
    network = Network((population,), (Projection("pool", "pool", weight, delay=dt),), (), None, dt)
    rate, size = 4000.0, 0.0125
    pool = pool_arrays(network, "pool")
    from snnsim.kernels.lyapunov import noise_counts

    spikes = run_pool(pool, noise_counts(3, 0, 20_000, n, rate * dt) * size)[1000:]
    mean, sigma = 0.02 * rate * size, np.sqrt(0.02 * rate * size**2)
    expected = firing_rate(np.array([mean]), np.array([sigma]), tau, one, 0 * one, 0 * one)
    assert spikes.mean() / dt == pytest.approx(expected[0], rel=0.1)


def scores_of(pool: PoolArrays, score: Any, rates_of: Any = None) -> np.ndarray:
    linear = linearise(pool, QUICK) if rates_of is None else rates_of
    covariance = edge_covariance(linear.matrix(pool.matrix()), pool.target, pool.source)
    exponents = pool_exponents(pool, QUICK) if score == "lyapunov_noise" else None
    return edge_scores(pool, score, linear, covariance, exponents)


@pytest.mark.parametrize("radius", [0.9, 6.0])
@pytest.mark.parametrize("neuron", ["LIF", "CubaLIF"])
def test_linearised_pools_are_stable(neuron: Any, radius: float) -> None:
    pool = pool_arrays(pool_of(neuron=neuron, radius=radius, excitatory=0.5), "pool")
    linear = linearise(pool, QUICK)
    assert linear.abscissa < 0
    assert linear.abscissa == pytest.approx(spectral_abscissa(linear.matrix(pool.matrix())))
    assert 0 < linear.gamma <= 1
    assert (linear.gamma < 1) == (radius == 6.0 and linear.gamma != 1)
    matrix = linear.matrix(pool.matrix())
    effective = linear.effective(pool)
    assert matrix[pool.target[5], pool.source[5]] == pytest.approx(effective[5])
    assert np.diagonal(matrix) == pytest.approx(-1 / pool.tau_mem)


@pytest.mark.parametrize("radius", [6.0])
def test_unstable_pools_are_scaled(radius: float) -> None:
    pool = pool_arrays(pool_of(radius=radius, excitatory=0.5), "pool")
    linear = linearise(pool, QUICK)
    assert linear.gamma < 1
    assert linear.abscissa <= -min(0.1 * linear.leak.mean(), 0.5 * linear.leak.min()) + 1e-9


@pytest.mark.parametrize("score", ["noise", "lyapunov_noise", "magnitude", "random"])
def test_scores_move_with_the_neurons_when_these_are_permuted(score: Any) -> None:
    """Rates and node exponents move along here; that noise is drawn by number is no part of a score."""
    network = pool_of(40)
    pool = pool_arrays(network, "pool")
    order = np.argsort(draws(8, 40))
    place = np.argsort(order)
    neuron: Any = network.population("pool").neuron
    moved_neuron = neuron.replace(tau_mem=neuron.tau_mem[order], v_threshold=neuron.v_threshold[order])
    dense = pool.matrix().toarray()[np.ix_(order, order)]
    other = Network(
        (Population("pool", 40, moved_neuron),),
        (Projection("pool", "pool", dense, delay=0.001),),
        (),
        None,
        0.001,
    )
    moved = pool_arrays(other, "pool")
    linear = linearise(pool, QUICK)
    covariance = edge_covariance(linear.matrix(pool.matrix()), pool.target, pool.source)
    there = linear.of(order)
    covariance_there = edge_covariance(there.matrix(moved.matrix()), moved.target, moved.source)
    exponents = exponents_there = None
    if score == "lyapunov_noise":
        from dataclasses import replace

        exponents = pool_exponents(pool, QUICK)
        exponents_there = replace(exponents, node=exponents.node[order])
    here = pool.matrix(edge_scores(pool, score, linear, covariance, exponents)).toarray()
    scores = edge_scores(moved, score, there, covariance_there, exponents_there)
    found = moved.matrix(scores).toarray()[np.ix_(place, place)]
    assert np.allclose(found, here, rtol=1e-7, atol=1e-12 * here.max())
    assert betweenness(dense) == pytest.approx(betweenness(pool.matrix())[order], rel=1e-9, abs=1e-12)


def test_edge_factors_are_harmonic_means_over_both_neighbourhoods() -> None:
    pool = pool_arrays(pool_of(30), "pool")
    node = draws(5, 30) - 0.5
    node[3] = 0.0
    found = edge_factors(pool, node)
    joined = pool.matrix().toarray() != 0
    joined = joined | joined.T
    for k in range(0, pool.n_edges, 7):
        i, j = int(pool.target[k]), int(pool.source[k])
        members = sorted({i, j, *np.flatnonzero(joined[i]).tolist(), *np.flatnonzero(joined[j]).tolist()})
        size = np.maximum(np.abs(node[members]), 1e-3)
        assert found[k] == pytest.approx(len(size) / np.sum(1 / size))


def test_scores_differ_and_unknown_ones_are_refused() -> None:
    pool = pool_arrays(pool_of(30), "pool")
    linear = linearise(pool, QUICK)
    noise, lyapunov = scores_of(pool, "noise", linear), scores_of(pool, "lyapunov_noise", linear)
    assert not np.allclose(noise, lyapunov)
    assert np.array_equal(scores_of(pool, "magnitude", linear), np.abs(pool.weight))
    with pytest.raises(InputError, match="score: expected one of"):
        edge_scores(pool, "best", None, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a linearisation"):
        edge_scores(pool, "noise", None, None)


def test_leak_compensation_keeps_rows_as_dominant_as_they_were() -> None:
    target = np.array([0, 0, 1, 1])
    before, after = np.array([1.0, -2.0, 1.0, 1.0]), np.array([2.0, 0.0, 3.0, 0.0])
    leak, bounded = leak_compensation(np.array([5.0, 5.0]), target, before, after)
    assert leak.tolist() == [4.0, 6.0]
    assert bounded == 0
    leak, bounded = leak_compensation(np.array([1.0, 5.0]), target, before, 0 * after)
    assert leak.tolist() == [0.1, 3.0]
    assert bounded == 1


# delocalisation ---------------------------------------------------------------------------------------------------


def test_heterogeneity_after_an_edge_is_that_of_the_graph_with_it() -> None:
    n = 25
    graph = draws(1, n, n) < 0.12
    graph = np.triu(graph, 1)
    graph = graph | graph.T
    unit = int(np.argmax(graph.sum(axis=0)))
    two = graph[graph[unit]].any(axis=0) & ~graph[unit]
    two[unit] = False
    candidates = np.flatnonzero(two)
    assert candidates.size > 3
    found = _after_each(graph, unit, candidates)
    for place, k in enumerate(candidates):
        more = graph.copy()
        more[unit, k] = more[k, unit] = True
        assert found[place] == pytest.approx(degree_heterogeneity(more, unit))
    assert np.ptp(found) > 0
    assert _pick(graph, unit, set()) == candidates[np.argmax(found)]
    assert _pick(graph, unit, {(unit, int(k)) for k in candidates}) is None


def ring(n: int) -> np.ndarray:
    """A ring whose modes sit on one slow neuron."""
    weight = np.zeros((n, n))
    weight[(np.arange(n) + 1) % n, np.arange(n)] = 0.3
    return weight


def test_new_synapses_spread_modes_within_the_budget_and_stay_stable() -> None:
    n = 60
    leak = 1.0 + draws(3, n)

    def linear(weight: Any) -> np.ndarray:
        return np.asarray(weight.toarray() if hasattr(weight, "toarray") else weight) - np.diag(leak)

    found = delocalise(ring(n), linear, 12, seed=1)
    assert found.source.shape[0] <= 12
    assert found.source.shape[0] > 0
    assert found.participation_after < found.participation_before
    assert np.all(found.weight == 0.3)  # every neuron has one synapse of this size and sign
    after = ring(n)
    assert np.all(after[found.target, found.source] == 0)
    after[found.target, found.source] = found.weight
    assert spectral_abscissa(linear(after)) < 0
    again = delocalise(ring(n), linear, 12, seed=1)
    assert np.array_equal(again.source, found.source)
    assert delocalise(ring(n), linear, 0).source.shape[0] == 0
    assert delocalise(ring(n), linear, 12, factor=1e9).source.shape[0] == 0


def test_synapses_that_would_be_unstable_are_rejected() -> None:
    n = 30

    def linear(weight: Any) -> np.ndarray:
        return np.asarray(weight.toarray() if hasattr(weight, "toarray") else weight) - 0.30001 * np.eye(n)

    found = delocalise(ring(n), linear, 5, factor=0.01, seed=1)
    assert found.rejected > 0
    after = ring(n)
    after[found.target, found.source] = found.weight
    assert spectral_abscissa(linear(after)) < 0
    with pytest.raises(InputError, match="expected a stable network"):
        delocalise(ring(n), lambda weight: linear(weight) + np.eye(n), 5)


# search of time constants -----------------------------------------------------------------------------------------


def test_gaussian_process_goes_through_what_it_knows() -> None:
    x = draws(1, 12, 1)
    y = np.sin(6 * x[:, 0])
    y = (y - y.mean()) / y.std()
    mean, deviation = gaussian_process(x, y, x)
    assert np.abs(mean - y).max() < 0.01
    far_mean, far = gaussian_process(x, y, np.array([[0.5]]))
    wanted = np.sin(3.0)
    assert abs(far_mean[0] - (wanted - np.sin(6 * x[:, 0]).mean()) / np.sin(6 * x[:, 0]).std()) < 0.3
    assert far[0] > deviation.max()


def test_expected_improvement_is_the_mean_of_what_is_gained() -> None:
    normal = np.sqrt(-2 * np.log(1 - draws(2, 200_000))) * np.cos(2 * np.pi * draws(3, 200_000))
    sampled = np.maximum(0, 0.2 - (0.5 + 0.7 * normal)).mean()
    assert expected_improvement(np.array([0.5]), np.array([0.7]), 0.2)[0] == pytest.approx(sampled, rel=0.02)


def test_search_finds_a_minimum_with_few_points() -> None:
    def bowl(point: np.ndarray) -> float:
        return float((point[0] - 0.3) ** 2 + 2 * (point[1] + 1.2) ** 2)

    found = minimise(bowl, [-1.0, -2.0], [1.0, 0.0], initial=8, iterations=20, seed=3)
    assert found.value < 0.005
    assert found.value < np.min([bowl(p) for p in found.points[:8]])
    again = minimise(bowl, [-1.0, -2.0], [1.0, 0.0], initial=8, iterations=20, seed=3)
    assert np.array_equal(again.points, found.points)
    with pytest.raises(InputError, match="low < high"):
        minimise(bowl, [1.0], [0.0])
    with pytest.raises(InputError, match="function is nan"):
        minimise(lambda _: float("nan"), [0.0], [1.0])


@pytest.mark.parametrize("neuron", ["LIF", "CubaLIF"])
def test_other_time_constants_in_arrays_are_those_of_the_network(neuron: Any) -> None:
    network = pool_of(20, neuron=neuron)
    law: Any = network.population("pool").neuron
    extra = {"drive": 3.0} | ({"drive_syn": 2.0} if neuron == "CubaLIF" else {})
    driven = Population("pool", 20, law.replace(**extra))
    network = network.replace(populations=(driven, *network.populations[1:]))
    tau, syn = 0.01 + 0.02 * draws(1, 20), 0.002 + 0.004 * draws(2, 20) if neuron == "CubaLIF" else None
    found = with_time_constants(pool_arrays(network, "pool"), tau, syn, 1.0)
    changes = {"tau_mem": tau} | ({"tau_syn": syn} if syn is not None else {})
    changed = Population("pool", 20, driven.neuron.replace(**changes))
    wanted = pool_arrays(network.replace(populations=(changed, *network.populations[1:])), "pool")
    assert np.allclose(found.numbers, wanted.numbers, rtol=1e-12, atol=1e-15)


def test_search_of_time_constants_improves_its_objective_and_repeats() -> None:
    network = pool_of(40)
    dense = pool_arrays(network, "pool")
    pruned = pool_arrays(prune_lnp(network, "pool", steps=("synapses",), probe=QUICK).network, "pool")
    pruned = with_time_constants(pruned, np.full(40, 0.1), None, 1.0)  # far from those of the dense pool
    options = TimescaleSearch(initial=4, iterations=4)
    found = optimise_timescales(pruned, dense, options, probe=QUICK, seed=2)
    assert found.report["objective_after"] < found.report["objective_before"]
    assert found.report["evaluations"] == 1 + 4 + 4 + 2
    assert np.all((found.tau_mem >= 0.002) & (found.tau_mem <= 0.2))
    again = optimise_timescales(pruned, dense, options, probe=QUICK, seed=2)
    assert np.array_equal(again.tau_mem, found.tau_mem)
    with pytest.raises(InputError, match="expected CubaLIF"):
        optimise_timescales(pruned, dense, TimescaleSearch(synapses=True))
    with pytest.raises(InputError, match="leading"):
        TimescaleSearch(leading=0.0)
