"""The adjoint equations against closed forms and finite differences."""

import math
from dataclasses import replace

import numpy as np
import pytest
from eventprop_systems import STOP, count_of_spikes, difference, recurrent, single, some_inputs

from snnsim.kernels.reference_eventprop import (
    ReferenceRun,
    ReferenceSystem,
    eventprop_backward_reference,
    eventprop_forward_reference,
    first_spike_loss,
    weighted_means,
)

BY_MEAN = np.array([0.0, 0.0, 0.0, 0.7, -1.3])


def loss_of(rate: float, begin: float, seed: int = 0):  # type: ignore[no-untyped-def]
    inputs = some_inputs(seed)

    def loss(system: ReferenceSystem) -> float:
        run = eventprop_forward_reference(system, inputs, STOP)
        return float(BY_MEAN @ weighted_means(system, run, rate=rate, begin=begin))

    return loss


def closed_form(w: float) -> tuple[float, float]:
    """Time of the first spike after one input of weight w at tau_mem = 20, tau_syn = 10, and its derivative."""
    x = (1 + math.sqrt(1 - 4 / w)) / 2
    return -20 * math.log(x), -20 / x / (w * w * math.sqrt(1 - 4 / w))


def test_one_input_spike_has_the_closed_form() -> None:
    system = single(5.0)
    run = eventprop_forward_reference(system, [(0.0, 0, 1.0)], 100.0)
    assert run.spikes[0][0] == pytest.approx(6.470142623148936, abs=1e-13)
    first = np.eye(len(run.spikes))[0]
    gradient = eventprop_backward_reference(system, run, spike=first).w_in[0, 0]
    assert gradient == pytest.approx(-2.472135954999581, abs=1e-12)
    assert closed_form(5.0) == pytest.approx((run.spikes[0][0], gradient), abs=1e-12)
    assert not eventprop_forward_reference(single(3.999999), [(0.0, 0, 1.0)], 100.0).spikes


@pytest.mark.parametrize(("rate", "begin", "tau_syn"), [(0.0, 0.0, 0.005), (12.0, 0.01, 0.005), (12.0, 0.0, 0.02)])
def test_gradients_are_those_of_finite_differences(rate: float, begin: float, tau_syn: float) -> None:
    system, inputs = recurrent(1, tau_syn), some_inputs(0)
    if tau_syn == 0.02:  # long currents: fewer spikes
        system = replace(
            system, w_in=0.3 * system.w_in, w=np.where(np.isinf(system.v_threshold)[:, None], 1, 0.3) * system.w
        )
    loss = loss_of(rate, begin)
    run = eventprop_forward_reference(system, inputs, STOP)
    gradients = eventprop_backward_reference(system, run, mean=BY_MEAN, rate=rate, begin=begin)
    assert len(run.spikes) > 5
    assert gradients.clipped == 0
    checked = 0
    for name, weight in (("w_in", system.w_in), ("d_in", system.w_in), ("w", system.w), ("d", system.w)):
        for at in list(zip(*np.nonzero(weight), strict=True))[::3]:
            h = 1e-6 if name.startswith("w") else 1e-7
            wanted = difference(system, name, at, loss, lambda s: count_of_spikes(s, inputs, STOP), h)
            if wanted is not None:
                assert getattr(gradients, name)[at] == pytest.approx(wanted, abs=1e-7, rel=1e-6)
                checked += 1
    assert checked > 12


def test_a_missing_part_of_the_equations_is_noticed() -> None:
    """The comparison above sees a wrong reset, a current that is off and a spike whose worth is lost."""
    system, inputs = recurrent(1), some_inputs(0)
    run = eventprop_forward_reference(system, inputs, STOP)
    right = eventprop_backward_reference(system, run, mean=BY_MEAN)
    off = ReferenceRun(run.inputs, run.stop, [(t, n, i * 1.001) for t, n, i in run.spikes], run.history)
    lost = replace(system, w=np.where(np.isinf(system.v_threshold)[:, None], system.w, 0.0))
    for wrong_system, wrong_run in ((replace(system, v_reset=system.v_reset + 0.1), run), (system, off), (lost, run)):
        wrong = eventprop_backward_reference(wrong_system, wrong_run, mean=BY_MEAN)
        assert np.abs(wrong.w_in - right.w_in).max() > 1e-5


def test_a_silent_layer_has_gradients_of_exactly_zero() -> None:
    system = recurrent(1)
    system = replace(system, w_in=0.01 * system.w_in)
    run = eventprop_forward_reference(system, some_inputs(0), STOP)
    gradients = eventprop_backward_reference(system, run, mean=BY_MEAN)
    assert not run.spikes
    for part in (gradients.w_in, gradients.d_in, gradients.w, gradients.d, gradients.time):
        assert not part.any()


def test_a_readout_alone_has_the_integral_of_its_potential() -> None:
    system = replace(single(2.0), v_threshold=np.array([np.inf]), d_in=np.array([[3.0]]))
    run = eventprop_forward_reference(system, [(1.0, 0, 2.0)], 50.0)
    gradients = eventprop_backward_reference(system, run, mean=np.ones(1))
    span = 46.0  # K(s) = e^(-s/20) - e^(-s/10), integrated
    integral = 20 * (1 - math.exp(-span / 20)) - 10 * (1 - math.exp(-span / 10))
    assert gradients.w_in[0, 0] == pytest.approx(2 * integral / 50, rel=1e-13)
    moved = -(math.exp(-span / 20) - math.exp(-span / 10))
    assert gradients.d_in[0, 0] == pytest.approx(2.0 * 2 * moved / 50, rel=1e-12)


def test_moving_an_input_spike_is_moving_all_its_delays() -> None:
    system, inputs = recurrent(1), some_inputs(0)
    alone = [(0.011, 3, 1.0)]
    inputs = sorted([event for event in inputs if event[1] != 3] + alone)
    run = eventprop_forward_reference(system, inputs, STOP)
    gradients = eventprop_backward_reference(system, run, mean=BY_MEAN)
    at = inputs.index(alone[0])
    assert gradients.d_in[:, 3].sum() == pytest.approx(gradients.time[at], abs=1e-12)
    values = []
    for h in (1e-7, -1e-7):
        moved = eventprop_forward_reference(
            system, sorted([*inputs[:at], *inputs[at + 1 :], (0.011 + h, 3, 1.0)]), STOP
        )
        assert len(moved.spikes) == len(run.spikes)
        values.append(float(BY_MEAN @ weighted_means(system, moved)))
    assert gradients.time[at] == pytest.approx((values[0] - values[1]) / 2e-7, abs=1e-6)


def test_gradients_do_not_depend_on_when_the_sample_begins() -> None:
    system, inputs = recurrent(1), some_inputs(0)
    found = []
    for shift in (0.0, 0.37):
        run = eventprop_forward_reference(system, [(t + shift, u, c) for t, u, c in inputs], STOP + shift)
        found.append(eventprop_backward_reference(system, run, mean=BY_MEAN, rate=12.0, begin=shift))
    for name in ("w_in", "d_in", "w", "d"):
        np.testing.assert_allclose(getattr(found[0], name), getattr(found[1], name), rtol=1e-9, atol=1e-11)


def test_grazing_spikes_are_clipped_and_counted() -> None:
    silent, grazing, early = single(3.9), single(4.0 + 1e-9), single(400.0)
    for system, clipped in ((silent, 0), (grazing, 1), (early, 0)):
        run = eventprop_forward_reference(system, [(0.0, 0, 1.0)], 100.0)
        gradients = eventprop_backward_reference(system, run, spike=np.ones(len(run.spikes)))
        assert np.all(np.isfinite(gradients.w_in))
        assert gradients.clipped == clipped
    run = eventprop_forward_reference(grazing, [(0.0, 0, 1.0)], 100.0)
    one, ten = (eventprop_backward_reference(grazing, run, spike=np.ones(1), clip=c).w_in[0, 0] for c in (1e3, 1e4))
    assert ten == pytest.approx(10 * one, rel=1e-9)


def test_a_chain_of_neurons_multiplies_closed_forms() -> None:
    """Neuron k hears neuron k - 1 and an input of its own; dt_k / dt_(k-1) = w K'(t_k - t_(k-1)) / v'."""
    n, w_chain, w_own = 5, 3.0, 3.5
    tau = np.full(n, 20.0), np.full(n, 10.0)
    w = np.diag(np.full(n - 1, w_chain), -1)
    d = np.full((n, n), 1.5)
    system = ReferenceSystem(*tau, np.ones(n), np.zeros(n), np.zeros((n, n)), np.zeros((n, n)), w, d)
    w_in = w_own * np.eye(n)
    w_in[0, 0] = 5.0
    system = replace(system, w_in=w_in)
    inputs = [(0.0, 0, 1.0), (5.0, 1, 1.0), (10.0, 2, 1.0), (15.0, 3, 1.0), (20.0, 4, 1.0)]
    run = eventprop_forward_reference(system, inputs, 60.0)
    first = {m: k for k, (_, m, _) in reversed(list(enumerate(run.spikes)))}
    times = [run.spikes[first[m]][0] for m in range(n)]
    assert [m for _, m, _ in sorted(run.spikes)][:2] == [0, 1]
    assert len(first) == n

    def slope(t: float) -> float:
        return math.exp(-t / 10) / 10 - math.exp(-t / 20) / 20

    wanted = closed_form(5.0)[1]
    assert times[0] == pytest.approx(closed_form(5.0)[0], abs=1e-12)
    for k in range(1, n):
        chain, own = w_chain * slope(times[k] - times[k - 1] - 1.5), w_own * slope(times[k] - inputs[k][0])
        assert sum(1 for t, m, _ in run.spikes if m == k and t < times[k]) == 0
        wanted *= chain / (chain + own)
    gradients = eventprop_backward_reference(system, run, spike=np.eye(len(run.spikes))[first[n - 1]])
    assert gradients.w_in[0, 0] == pytest.approx(wanted, rel=1e-10)
    assert wanted != 0


def grid_run(system: ReferenceSystem, inputs: list[tuple[float, int, float]], dt: float) -> ReferenceRun:
    """Spikes on a grid: exact decays from step to step, threshold tested at steps."""
    n = system.w.shape[0]
    v, i = np.zeros(n), np.zeros(n)
    a, b = np.exp(-dt / system.tau_mem), np.exp(-dt / system.tau_syn)
    kappa = system.tau_syn / (system.tau_mem - system.tau_syn) * (a - b)
    steps = round(STOP / dt)
    due: list[list[tuple[str, int, int, float]]] = [[] for _ in range(steps + 1)]
    run = ReferenceRun(inputs, STOP)

    def send(kind: str, index: int, at: float, weights: np.ndarray, delays: np.ndarray, count: float) -> None:
        for m in np.flatnonzero(weights):
            k = round((at + delays[m]) / dt)
            if k < steps:
                due[k].append((kind, index, int(m), count * weights[m]))

    for e, (t, u, c) in enumerate(inputs):
        send("input", e, t, system.w_in[:, u], system.d_in[:, u], c)
    for k in range(steps):
        v, i = v * a + kappa * i, i * b
        for m in np.flatnonzero(v >= system.v_threshold):
            run.history.append((k * dt, "spike", len(run.spikes), int(m)))
            run.spikes.append((k * dt, int(m), float(i[m])))
            send("synapse", len(run.spikes) - 1, k * dt, system.w[:, m], system.d[:, m], 1.0)
            v[m] = system.v_reset[m]
        for kind, index, m, jump in due[k]:
            run.history.append((k * dt, kind, index, m))
            i[m] += jump
    return run


def test_gradients_on_a_grid_converge_with_the_first_order_of_dt() -> None:
    coarse, errors = 8e-5, np.zeros(4)
    for seed in (0, 2):
        system = recurrent(1)
        system = replace(system, d_in=np.rint(system.d_in / coarse) * coarse, d=np.rint(system.d / coarse) * coarse)
        inputs = [(round(t / coarse) * coarse, u, c) for t, u, c in some_inputs(seed)]
        run = eventprop_forward_reference(system, inputs, STOP)
        exact = eventprop_backward_reference(system, run, mean=BY_MEAN)
        for k in range(4):
            on_grid = grid_run(system, inputs, coarse / 2**k)
            assert sorted(m for _, m, _ in run.spikes) == sorted(m for _, m, _ in on_grid.spikes)
            difference = eventprop_backward_reference(system, on_grid, mean=BY_MEAN).w_in - exact.w_in
            errors[k] += np.linalg.norm(difference) / np.linalg.norm(exact.w_in)
    assert errors[3] < 0.05
    assert 4 < errors[0] / errors[3] < 16  # first order: 8


def test_samples_of_the_trace_have_the_gradient_of_their_values() -> None:
    system, inputs = recurrent(1), some_inputs(0)
    samples = [(0.03, 3, 0.5), (0.03, 4, -2.0), (0.071, 3, 1.0)]

    def loss(s: ReferenceSystem) -> float:
        """v(t) is the slope of the integral: a mean over the last instants before t."""
        total = 0.0
        for time, m, by in samples:
            run = eventprop_forward_reference(s, inputs, time)
            total += by * weighted_means(s, run, begin=time - 1e-9)[m]
        return total

    run = eventprop_forward_reference(system, inputs, STOP)
    gradients = eventprop_backward_reference(system, run, samples=samples)
    checked = 0
    for at in zip(*np.nonzero(system.w), strict=True):
        wanted = difference(system, "w", at, loss, lambda s: count_of_spikes(s, inputs, STOP), 1e-4)
        if wanted is not None:
            assert gradients.w[at] == pytest.approx(wanted, rel=1e-3, abs=1e-5)
            checked += 1
    assert checked > 5


def test_first_spike_loss_has_the_derivative_of_finite_differences() -> None:
    first = np.array([3.0, 2.5, np.inf, 4.0])
    value, derivative = first_spike_loss(first, 0, tau=1.5, late=0.1, scale=10.0)
    for k in (0, 1, 3):
        moved = [first_spike_loss(first + h * np.eye(4)[k], 0, tau=1.5, late=0.1, scale=10.0)[0] for h in (1e-6, -1e-6)]
        assert derivative[k] == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=1e-8)
    assert derivative[2] == 0
    assert value > 0
    assert first_spike_loss(first, 2, tau=1.5)[0] == math.inf


def test_first_spike_loss_reaches_the_weights() -> None:
    system, inputs = recurrent(1), some_inputs(0)

    def firsts(s: ReferenceSystem) -> tuple[np.ndarray, np.ndarray, ReferenceRun]:
        run = eventprop_forward_reference(s, inputs, STOP)
        where = np.array([min(k for k, (_, m, _) in enumerate(run.spikes) if m == n) for n in range(3)])
        return np.array([run.spikes[k][0] for k in where]), where, run

    def loss(s: ReferenceSystem) -> float:
        return first_spike_loss(firsts(s)[0], 1, tau=0.005, late=0.1, scale=0.02)[0]

    times, where, run = firsts(system)
    spike = np.zeros(len(run.spikes))
    spike[where] = first_spike_loss(times, 1, tau=0.005, late=0.1, scale=0.02)[1]
    gradients = eventprop_backward_reference(system, run, spike=spike)
    checked = 0
    for at in zip(*np.nonzero(system.w_in), strict=True):
        wanted = difference(system, "w_in", at, loss, lambda s: count_of_spikes(s, inputs, STOP), 1e-7)
        if wanted is not None:
            assert gradients.w_in[at] == pytest.approx(wanted, abs=1e-6, rel=1e-5)
            checked += 1
    assert checked > 5
    assert np.abs(gradients.w_in).max() > 0.01
