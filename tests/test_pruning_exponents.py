"""Lyapunov exponents: closed forms, known chaotic flows, and spiking pools against matrices and the engine."""

from typing import Any

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.lyapunov import advance_pool, noise_counts
from snnsim.kernels.philox import Stream
from snnsim.kernels.poisson import poisson_counts
from snnsim.kernels.reference_lyapunov import advance_pool as reference_pool
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import IF, LIF, CubaLIF
from snnsim.pruning.exponents import Probe, flow_exponents, linear_exponents, pool_exponents, run_pool
from snnsim.pruning.pool_arrays import pool_arrays
from snnsim.pruning.pools import PoolPlan, make_pool


def test_exponents_of_a_linear_map() -> None:
    found = linear_exponents(np.array([[0.9, 0.3], [0.0, 0.5]]))
    assert found == pytest.approx([np.log(0.9), np.log(0.5)], abs=1e-6)
    assert found.round(5).tolist() == [-0.10536, -0.69315]
    with pytest.raises(InputError, match="singular"):
        linear_exponents(np.zeros((2, 2)))
    with pytest.raises(InputError, match="square"):
        linear_exponents(np.zeros((2, 3)))


def test_exponents_of_lorenz() -> None:
    found = flow_exponents("lorenz63")
    assert found[0] == pytest.approx(0.906, abs=0.02)
    assert found[1] == pytest.approx(0, abs=0.01)
    assert found.sum() == pytest.approx(-(10 + 1 + 8 / 3), abs=1e-3)
    assert np.all(np.diff(found) < 0)


def test_the_sum_of_lorenz_exponents_tends_to_the_divergence_with_the_step() -> None:
    gaps = [abs(flow_exponents("lorenz63", dt=dt, n_steps=2000, discard=500).sum() + 41 / 3) for dt in (0.02, 0.01)]
    assert gaps[1] < gaps[0] / 10  # fourth order: 16


def test_exponents_of_roessler() -> None:
    found = flow_exponents("roessler", dt=0.05, n_steps=200_000)
    assert found[0] == pytest.approx(0.071, abs=0.01)
    assert found[1] == pytest.approx(0, abs=0.005)
    with pytest.raises(InputError, match="expected one of"):
        flow_exponents("henon")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shorter step"):
        flow_exponents("lorenz63", dt=0.5, n_steps=1000)


def pool_network(neuron: Any, weight: np.ndarray, delay: float) -> Network:
    n = weight.shape[0]
    return Network(
        (Population("pool", n, neuron),),
        (Projection("in", "pool", np.eye(n)), Projection("pool", "pool", weight, delay=delay)),
        (Input("in", n),),
        None,
        0.001,
    )


def neurons(n: int) -> dict[str, tuple[Any, float]]:
    """Laws that pools can have, and the shortest recurrent delay of each."""
    tau, syn = np.linspace(0.005, 0.04, n), np.linspace(0.002, 0.008, n)
    return {
        "subtract": (LIF(tau_mem=tau, reset="subtract", drive=3.0), 0.001),
        "zero": (LIF(tau_mem=tau, v_reset=-0.1, t_ref=0.002, drive=2.0), 0.001),
        "strict": (LIF(tau_mem=tau, reset="subtract", strict=True), 0.001),
        "cuba": (CubaLIF(tau_mem=tau, tau_syn=syn, reset="subtract", drive=2.0, drive_syn=1.0), 0.0),
        "cuba-zero": (CubaLIF(tau_mem=tau, tau_syn=syn, t_ref=0.003), 0.0),
    }


@pytest.mark.parametrize("law", ["subtract", "zero", "strict", "cuba", "cuba-zero"])
def test_the_pool_kernel_is_its_definition_and_the_engine(law: str) -> None:
    n, n_steps = 20, 300
    neuron, delay = neurons(n)[law]
    made = make_pool(PoolPlan(size=n, probability=0.3, seed=3, radius=1.2))
    weight = np.asarray(made.network.projections[-1].weight) * (4.0 if law.startswith("cuba") else 1.0)
    network = pool_network(neuron, weight, delay)
    pool = pool_arrays(network, "pool")
    counts = noise_counts(1, 0, n_steps, n, 0.25)
    external = counts * (2.0 if law.startswith("cuba") else 0.35)
    spikes = run_pool(pool, external)
    assert spikes.sum() > 100

    width = np.full(n, 0.7)
    start = np.linalg.qr(np.cos(np.arange((2 if pool.cuba else 1) * n * 5).reshape(-1, 5) ** 1.3))[0]
    q = start.copy()
    state = [np.zeros(n), np.zeros(n), np.zeros(n, np.int64), np.zeros(n)]
    mine = np.zeros((60, n), np.uint8)
    rows = (pool.indptr, pool.target, pool.weight)
    law_of = (pool.numbers, pool.refractory, pool.reset_zero, pool.cuba)
    advance_pool(*law_of, *rows, external[:60], width, *state, q, mine)
    dense = pool.matrix().toarray()
    theirs, expected = reference_pool(*law_of, dense, external[:60], width, start)
    assert np.array_equal(mine, theirs)
    assert np.array_equal(mine, spikes[:60])
    assert np.allclose(q, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())

    # The engine with the same arrivals: one event of weight 1 is scaled by the input projection.
    step, unit = np.nonzero(counts)
    times = np.repeat(step * 0.001, counts[step, unit])
    events = Events.from_lists([times], [np.repeat(unit, counts[step, unit])], n_units=n, duration=n_steps * 0.001)
    scale = external.max() / counts.max()
    scaled = network.with_weights({0: np.eye(n) * scale})
    result = simulate(scaled, events, n_steps=n_steps)
    found = np.zeros_like(spikes)
    run = result.spikes["pool"]
    found[np.rint(run.times / 0.001).astype(int), run.units] = 1
    assert np.array_equal(found, spikes)


def test_the_noise_is_that_of_the_plain_definition() -> None:
    found = noise_counts(7, 3, 10, 6, 0.8)
    assert np.array_equal(found, poisson_counts(7, int(Stream.POOL_NOISE), 3, 10, 0, 6, 0.8))


def test_tangents_are_the_derivative_while_nothing_fires() -> None:
    """With a slope of 0 far below the threshold, finite differences and tangents agree."""
    n = 5
    weight = np.zeros((n, n))
    weight[1, 0] = 0.3
    network = pool_network(CubaLIF(tau_mem=0.02, tau_syn=0.005, v_threshold=50.0), weight, 0.0)
    pool = pool_arrays(network, "pool")
    external = np.full((40, n), 0.1)
    laws = (pool.numbers, pool.refractory, pool.reset_zero, pool.cuba, pool.indptr, pool.target, pool.weight)

    def final(shift: float) -> np.ndarray:
        v, current = np.zeros(n), np.zeros(n)
        current[2] += shift
        spare = np.zeros((40, n), np.uint8)
        rest = (np.zeros(n, np.int64), np.zeros(n), np.zeros((2 * n, 0)), spare)
        advance_pool(*laws, external, np.ones(n), v, current, *rest)
        return np.concatenate((v, current))

    q = np.eye(2 * n)[:, [n + 2]].copy()
    # the tangent pairs the membrane before the reset with the current after its arrivals: advance both once
    v, current, spare = np.zeros(n), np.zeros(n), np.zeros((40, n), np.uint8)
    advance_pool(*laws, external, np.ones(n), v, current, np.zeros(n, np.int64), np.zeros(n), q, spare)
    change = (final(1e-3) - final(0.0)) / 1e-3
    alpha, beta, kappa = (pool.numbers[row, 2] for row in (2, 0, 3))
    expected = np.linalg.matrix_power(np.array([[beta, kappa], [0.0, alpha]]), 40) @ np.array([0.0, 1.0])
    assert change[[2, n + 2]] == pytest.approx(expected, rel=1e-9)
    step = np.array([[beta, kappa * alpha], [0.0, alpha]])
    assert q[[2, n + 2], 0] == pytest.approx(np.linalg.matrix_power(step, 40) @ np.array([0.0, 1.0]), rel=1e-9)


def test_uncoupled_silent_neurons_decay_with_their_own_time_constants() -> None:
    tau = np.array([0.01, 0.02, 0.05, 0.1])
    weight = np.zeros((4, 4))
    weight[0, 1] = 1e-12  # a pool needs a synapse
    pool = pool_arrays(pool_network(LIF(tau_mem=tau, reset="subtract"), weight, 0.001), "pool")
    probe = Probe(n_steps=500, discard=1000)
    found = pool_exponents(pool, probe, external=np.zeros((1500, 4)))
    assert found.spectrum == pytest.approx(np.sort(-1 / tau)[::-1], rel=1e-6)
    assert found.node == pytest.approx(-1 / tau, rel=1e-3)
    assert found.rates.sum() == 0
    assert found.floored == 0


def test_exponents_fall_depend_on_the_width_and_leading_ones_do_not_on_how_many() -> None:
    pool = pool_arrays(make_pool(PoolPlan(size=60, seed=2)).network, "pool")
    probe = Probe(n_steps=600, discard=400)
    full = pool_exponents(pool, probe, seed=4)
    assert np.all(np.diff(full.spectrum) <= 0)
    assert full.spectrum.shape == full.node.shape == (60,)
    assert full.node.sum() == pytest.approx(full.spectrum.sum(), rel=1e-9)
    assert full.rates.mean() > 5
    few = pool_exponents(pool, probe, count=5, seed=4, every=2)
    assert few.spectrum == pytest.approx(full.spectrum[:5], rel=0.02)
    narrow = pool_exponents(pool, probe, count=5, seed=4, width=0.3)
    assert narrow.width == 0.3
    assert abs(narrow.spectrum[0] - few.spectrum[0]) > 0.01 * abs(few.spectrum[0])


def test_a_strongly_coupled_pool_is_chaotic_and_a_weak_one_is_not() -> None:
    leading = []
    for radius in (0.5, 8.0):
        pool = pool_arrays(make_pool(PoolPlan(size=80, seed=5, radius=radius, excitatory=0.5)).network, "pool")
        leading.append(pool_exponents(pool, Probe(n_steps=500), count=1, seed=1).spectrum[0])
    assert leading[0] < 0 < leading[1]


def test_pools_that_cannot_be_measured_are_refused() -> None:
    weight = np.ones((3, 3))
    with pytest.raises(InputError, match="LIF or CubaLIF"):
        pool_arrays(pool_network(IF(), weight, 0.001), "pool")
    with pytest.raises(InputError, match="expected recurrent synapses, it has none"):
        pool_arrays(pool_network(LIF(), np.zeros((3, 3)), 0.001), "pool")
    with pytest.raises(InputError, match="beta = 1"):
        pool_arrays(pool_network(LIF.from_step(dt=0.001, beta=np.array([1.0, 0.5, 0.5])), weight, 0.001), "pool")
    pool = pool_arrays(pool_network(LIF(), weight, 0.001), "pool")
    with pytest.raises(InputError, match="external: expected"):
        run_pool(pool, np.zeros((4, 2)))
    with pytest.raises(InputError, match="width"):
        pool_exponents(pool, width=0.0)
    with pytest.raises(InputError, match="count"):
        pool_exponents(pool, count=4)
    with pytest.raises(InputError, match="50 events a step"):
        pool_exponents(pool, Probe(rate=1e6))
    with pytest.raises(InputError, match="rate"):
        Probe(rate=-1.0)
