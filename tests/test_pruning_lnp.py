"""Lyapunov noise pruning: its steps one by one, the whole, and its command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnsim.cli.main import run as command
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.philox import Stream, uniform
from snnsim.kernels.reference_lyapunov import betweenness as reference_betweenness
from snnsim.network import Input, Network, Population, Projection, Sparse
from snnsim.neurons import LI, LIF
from snnsim.pruning import METHODS
from snnsim.pruning.bayes import expected_improvement, gaussian_process, minimise
from snnsim.pruning.betweenness import betweenness, choose_removed
from snnsim.pruning.delocalise import _after_each, degree_heterogeneity, delocalise
from snnsim.pruning.exponents import Probe, pool_exponents, run_pool
from snnsim.pruning.lnp import STEPS, prune_lnp
from snnsim.pruning.noise import (
    edge_factors,
    edge_scores,
    firing_rate,
    leak_compensation,
    linearise,
)
from snnsim.pruning.pool_arrays import PoolArrays, keep_neurons, pool_arrays
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


# the whole --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["noise", "lyapunov_noise", "magnitude", "random"])
@pytest.mark.parametrize("neuron", ["LIF", "CubaLIF"])
def test_pruning_meets_its_budgets_and_stays_stable(neuron: Any, score: Any) -> None:
    network = pool_of(80, neuron=neuron)
    before = network.digest()
    result = prune_lnp(network, "pool", keep=0.5, keep_neurons=0.7, score=score, steps=FAST, probe=QUICK, seed=3)
    assert network.digest() == before
    report = json.loads(json.dumps(result.report))
    assert report["steps"] == list(FAST)
    edges = report["synapses"]["edges"]
    assert report["synapses"]["budget"] == round(0.5 * edges)
    assert abs(report["synapses"]["kept"] - 0.5 * edges) < 4 * np.sqrt(edges / 4)
    assert report["synapses"]["largest_factor"] <= 50
    assert result.network.population("pool").size == result.kept.shape[0] == 56
    pool = pool_arrays(result.network, "pool")
    assert pool.n_edges == result.mask.nnz
    assert all(report[name]["abscissa"] < 0 for name in FAST)
    share = report["sparsity"]
    assert share["pool"]["neurons"] == pytest.approx(0.3)
    assert share["pool"]["synapses"] == pytest.approx(1 - pool.n_edges / edges)
    assert share["with_readout"]["synapses"] < share["pool"]["synapses"]
    assert share["counts"]["readout_synapses"] == 2 * 56
    receiving = np.flatnonzero(np.any(np.asarray(network.projections[0].weight) != 0, axis=1))
    assert set(receiving) <= set(result.kept.tolist())


def test_the_seed_decides_everything() -> None:
    network = pool_of(60)
    options: dict[str, Any] = {"steps": FAST, "probe": QUICK}
    first, second = (prune_lnp(network, "pool", seed=4, **options) for _ in range(2))
    assert first.network == second.network
    assert first.report == second.report
    assert prune_lnp(network, "pool", seed=5, **options).network != first.network


def test_every_step_can_be_left_out() -> None:
    network = pool_of(50)
    size, pool = 50, pool_arrays(network, "pool")
    for left_out in STEPS:
        steps = [name for name in STEPS if name != left_out]
        options = TimescaleSearch(initial=1, iterations=0)
        result = prune_lnp(network, "pool", steps=steps, probe=QUICK, timescales=options)
        assert result.report["steps"] == steps
        assert left_out not in result.report
        assert (result.kept.shape[0] == size) == (left_out == "neurons")
        inside = np.isin(pool.target, result.kept) & np.isin(pool.source, result.kept)
        survived = np.asarray(result.mask[pool.target[inside], pool.source[inside]]).mean()
        assert (survived == 1) == (left_out == "synapses")
        taus = pool_arrays(result.network, "pool").tau_mem
        kept = pool.tau_mem[result.kept]
        assert np.array_equal(taus, kept) == (left_out == "timescales" or not result.report["timescales"]["changed"])


@pytest.mark.parametrize("sparse", [False, True])
def test_the_pruned_network_has_the_spikes_of_the_masked_dense_one(sparse: bool) -> None:
    network = pool_of(70, radius=2.0, excitatory=0.5, input_weight=1.0)
    if sparse:
        item = network.projections[1]
        dense = np.asarray(item.weight)
        target, source = np.nonzero(dense)
        weight = Sparse.from_triples(source, target, dense[target, source], (70, 70))
        delay = 0.001 * (1 + np.arange(weight.nnz) % 3)
        recurrent = Projection("pool", "pool", weight, delay=delay)
        network = network.replace(projections=(network.projections[0], recurrent, network.projections[2]))
    result = prune_lnp(network, "pool", steps=FAST, probe=QUICK, seed=1)
    kept = result.kept
    small = pool_arrays(result.network, "pool")
    # the dense network of all neurons, in which what was removed has weight 0
    full = np.zeros((70, 70))
    full[kept[small.target], kept[small.source]] = small.weight
    steps = np.zeros((70, 70))
    synapses = result.network.projections[1].synapses(0.001)
    sources = np.repeat(np.arange(kept.shape[0]), np.diff(synapses.indptr))
    steps[kept[synapses.target], kept[sources]] = synapses.delay_steps * 0.001
    out = np.zeros((2, 70))
    out[:, kept] = result.network.projections[2].weight
    masked = network.replace(
        projections=(
            network.projections[0],
            Projection("pool", "pool", full, delay=steps),
            Projection("pool", "out", out),
        )
    )
    events = some_events(5, 400)
    mine, theirs = simulate(result.network, events), simulate(masked, events)
    inside = np.isin(theirs.spikes["pool"].units, kept)
    assert mine.spikes["pool"].n_events > 300
    assert np.array_equal(mine.spikes["pool"].times, theirs.spikes["pool"].times[inside])
    assert np.array_equal(kept[mine.spikes["pool"].units], theirs.spikes["pool"].units[inside])
    assert mine.logits is not None
    assert theirs.logits is not None
    assert np.array_equal(mine.logits, theirs.logits)
    assert np.array_equal(result.mask.toarray(), full != 0)


def test_removing_neurons_slices_parameters_delays_and_readers() -> None:
    n = 6
    neuron = LIF(tau_mem=np.linspace(0.01, 0.02, n), v_threshold=np.linspace(1, 2, n))
    weight = draws(1, n, n)
    delay = 0.001 * (1 + np.arange(n))
    network = Network(
        (Population("pool", n, neuron, 1, 90), Population("out", 2, LI(tau_mem=0.01))),
        (
            Projection("in", "pool", draws(2, n, 3), delay=delay[:, None]),
            Projection("pool", "pool", weight, delay=delay[None, :]),
            Projection("pool", "out", draws(3, 2, n)),
        ),
        (Input("in", 3),),
        None,
        0.001,
    )
    kept = np.array([1, 4, 5])
    found = keep_neurons(network, "pool", kept)
    pool: Any = found.population("pool")
    assert (pool.size, pool.start_step, pool.stop_step) == (3, 1, 90)
    assert np.array_equal(pool.neuron.tau_mem, neuron.tau_mem[kept])  # type: ignore[index]
    assert np.array_equal(found.projections[0].delay, delay[kept][:, None])
    assert np.array_equal(found.projections[1].delay, delay[None, kept])
    assert np.array_equal(found.projections[1].weight, weight[np.ix_(kept, kept)])
    assert found.projections[2].shape == (2, 3)
    assert keep_neurons(network, "pool", np.arange(n)) is network
    with pytest.raises(InputError, match="at least one neuron"):
        keep_neurons(network, "pool", np.zeros(0, np.int64))


def test_leak_compensation_of_a_network() -> None:
    network = pool_of(50)
    result = prune_lnp(network, "pool", steps=("synapses",), compensate_leak=True, probe=QUICK)
    assert not np.array_equal(pool_arrays(result.network, "pool").tau_mem, pool_arrays(network, "pool").tau_mem)
    assert result.report["synapses"]["leak"]["mean"] > 0
    frozen = LIF.from_step(dt=0.001, beta=np.full(50, 0.95), reset="subtract")
    stored = network.replace(populations=(Population("pool", 50, frozen), network.populations[1]))
    with pytest.raises(InputError, match=r"numbers per step.*leave this step out"):
        prune_lnp(stored, "pool", steps=("synapses",), compensate_leak=True, probe=QUICK)
    with pytest.raises(InputError, match="numbers per step"):
        prune_lnp(stored, "pool", steps=("timescales",), probe=QUICK)
    assert prune_lnp(stored, "pool", steps=FAST, probe=QUICK).network.population("pool").neuron.dt == 0.001


def chain() -> Network:
    """One way through the pool: in -> 0 -> 1 -> 2 -> out, and three neurons beside it."""
    weight = np.zeros((6, 6))
    weight[1, 0] = weight[2, 1] = 0.5
    weight[4, 3] = weight[5, 4] = weight[3, 5] = 0.5
    feed, out = np.zeros((6, 1)), np.zeros((1, 6))
    feed[0, 0], out[0, 2] = 1.0, 1.0
    return Network(
        (Population("pool", 6, LIF(reset="subtract")), Population("out", 1, LI())),
        (
            Projection("in", "pool", feed),
            Projection("pool", "pool", weight, delay=0.001),
            Projection("pool", "out", out),
        ),
        (Input("in", 1),),
        None,
        0.001,
    )


def test_budgets_that_cut_the_way_to_the_readout_are_refused() -> None:
    with pytest.raises(InputError, match="no path through 'pool' reaches 'out' any more; raise keep"):
        prune_lnp(chain(), "pool", keep=0.3, steps=("synapses",), score="random", probe=QUICK, seed=2)
    with pytest.raises(InputError, match="cannot remove 5 of 6"):
        prune_lnp(chain(), "pool", keep_neurons=0.1, steps=("neurons",), probe=QUICK)
    result = prune_lnp(chain(), "pool", keep_neurons=0.7, steps=("neurons",), protected=(1, 2), probe=QUICK)
    assert {0, 1, 2} <= set(result.kept.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.0}, "keep: expected a share above 0"),
        ({"keep_neurons": 1.5}, "keep_neurons: expected a share"),
        ({"steps": ()}, "steps: expected some of"),
        ({"steps": ("synapses", "weights")}, "steps: expected some of"),
        ({"p_min": -1.0}, "p_min"),
        ({"keep": 0.01}, "change keep, or lower p_min"),
        ({"score": "best"}, "score: expected one of"),
        ({"protected": (99,)}, "protected"),
        ({"keep_neurons": 0.1}, "cannot remove"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_lnp(pool_of(30), "pool", **({"probe": QUICK, "steps": FAST} | options))


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(InputError, match="no population 'hidden'"):
        prune_lnp(pool_of(30), "hidden")
    with pytest.raises(InputError, match="LIF or CubaLIF"):
        prune_lnp(pool_of(30), "out")


def test_the_command_prunes_writes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, report = tmp_path / "pool.snn.h5", tmp_path / "pruned.snn.h5", tmp_path / "report.json"
    pool_of(50).save(source)
    words = ["prune", str(source), "--keep", "0.5", "--steps", "synapses,neurons", "--seed", "3"]
    assert command([*words, "--out", str(out), "--report", str(report), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads(report.read_text())
    assert printed["report"] == stored
    assert printed["files"] == [str(out), str(report)]
    pruned = Network.load(out)
    expected = METHODS["lnp"](pool_of(50), "pool", steps=("synapses", "neurons"), seed=3)
    assert pruned == expected.network
    assert pruned.notes["pruned"]["sparsity"] == stored["sparsity"]
    assert command(words) == 0
    assert "removed of the pool:" in capsys.readouterr().out
    for more, message in (
        (["--method", "magic"], "--method: expected one of"),
        (["--steps", "all"], "steps: expected some of"),
        (["--population", "nobody"], "no population"),
    ):
        assert command([*words, *more]) == 2
        assert message in capsys.readouterr().err


def test_the_command_asks_which_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = pool_of(30)
    network.replace(projections=(network.projections[0], network.projections[2])).save(tmp_path / "none.snn.h5")
    assert command(["prune", str(tmp_path / "none.snn.h5")]) == 2
    assert "no population of the network reaches itself" in capsys.readouterr().err


@pytest.mark.slow
def test_large_pools_are_pruned_with_estimated_covariances() -> None:
    network = pool_of(2100, probability=0.005)
    result = prune_lnp(network, "pool", steps=("synapses", "neurons"), probe=QUICK)
    covariance = result.report["synapses"]["covariance"]
    assert covariance["method"] == "sampled"
    assert 0 < covariance["error"] < 0.05
    assert 0 < covariance["shrinkage"] < 1
    assert result.report["neurons"]["abscissa"] < 0
    assert isinstance(result.network.projections[1].weight, Sparse)
    assert result.kept.shape[0] == 1470
    with pytest.raises(InputError, match="at most 2000 neurons"):
        prune_lnp(network, "pool", score="lyapunov_noise", steps=("synapses",), probe=QUICK)
