"""Lyapunov noise pruning as a whole, and its command."""

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
from snnsim.network import Input, Network, Population, Projection, Sparse
from snnsim.neurons import LI, LIF
from snnsim.pruning import METHODS
from snnsim.pruning.exponents import Probe
from snnsim.pruning.lnp import STEPS, prune_lnp
from snnsim.pruning.pool_arrays import keep_neurons, pool_arrays
from snnsim.pruning.pools import PoolPlan, make_pool
from snnsim.pruning.timescales import TimescaleSearch

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


@pytest.mark.parametrize("neuron", ["LIF", "CubaLIF"])
def test_a_pruned_pool_thaws_and_freezes_to_the_same_spikes(neuron: Any) -> None:
    from snnsim.nn.freeze import freeze
    from snnsim.nn.thaw import thaw

    network = pool_of(50, neuron=neuron, input_weight=1.0 if neuron == "LIF" else 5.0)
    pruned = prune_lnp(network, "pool", steps=FAST, probe=QUICK).network
    events = some_events(5, 300)
    mine, theirs = simulate(pruned, events), simulate(freeze(thaw(pruned)), events)
    name = next(iter(theirs.spikes))
    assert mine.spikes["pool"].n_events > 100
    assert np.array_equal(mine.spikes["pool"].times, theirs.spikes[name].times)
    assert np.array_equal(mine.spikes["pool"].units, theirs.spikes[name].units)


def test_kept_weights_are_divided_by_their_probability() -> None:
    network = pool_of(60)
    result = prune_lnp(network, "pool", keep=0.25, steps=("synapses",), score="random", probe=QUICK)
    before, after = (pool_arrays(item, "pool").matrix().toarray() for item in (network, result.network))
    kept = result.mask.toarray()
    assert np.array_equal(after != 0, kept)
    factor = after[kept] / before[kept]
    assert np.ptp(factor) < 1e-9
    assert factor[0] == pytest.approx(4, rel=0.01)  # the budget is a whole number of edges
    drawn = prune_lnp(network, "pool", keep=0.25, steps=("synapses",), score="magnitude", probe=QUICK)
    after = pool_arrays(drawn.network, "pool").matrix().toarray()
    kept = drawn.mask.toarray()
    p = np.clip(drawn.report["synapses"]["k"] * np.abs(before[kept]), 0.02, 1)
    assert after[kept] * p == pytest.approx(before[kept])
