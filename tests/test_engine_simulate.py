"""Closed forms and invariances of simulate."""

import math

import numpy as np
import pytest
from test_engine_clock import DT, assert_same, compare, layered, recordable, spike_trains, tangled

from snnsim.engines import grid_inputs, simulate
from snnsim.engines.clock import ClockRunner
from snnsim.engines.clock_plan import make_layout
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.metrics import accuracy, footprint
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF


def alone(neuron, n_steps, record=(), dt=DT, **options):
    """Run one neuron without inputs; return its spike steps and records."""
    network = Network((Population("n", 1, neuron),), (), (), None, dt)
    result = simulate(network, None, n_steps=n_steps, record=[f"n.{name}" for name in record], **options)
    steps = np.rint(result.spikes["n"].times / dt).astype(int) if neuron.spiking else None
    return steps, *(result.records[f"n.{name}"][0][:, 0] for name in record)


def driven(neuron, weight=1.0, steps=(0,), n_steps=20, record="n.v", **options):
    """Run one neuron that gets single events."""
    network = Network((Population("n", 1, neuron),), (Projection("in", "n", [[weight]]),), (Input("in", 1),), None, DT)
    events = Events.from_lists([np.array(steps) * DT], [[0] * len(steps)], n_units=1, duration=n_steps * DT)
    return simulate(network, events, record=record, **options)


# Closed forms


@pytest.mark.parametrize(("ratio", "step"), [(10, 11), (5, 6)])
def test_constant_drive_fires_at_the_exact_step(ratio, step):
    """v_n = I (1 - beta**n) reaches 1 at n = ceil(tau ln(I / (I - 1)) / dt); update n happens in step n - 1."""
    tau = ratio * DT
    steps, *_ = alone(LIF(tau_mem=tau, drive=1.5 / tau), 20)
    assert steps[0] + 1 == step == math.ceil(ratio * math.log(3))


@pytest.mark.parametrize("t_ref", [0.0, 0.002, 0.0035])
def test_rate_follows_drive_and_refractory_period(t_ref):
    dt, tau, drive = 1e-5, 0.01, 1.7
    steps, *_ = alone(LIF(tau_mem=tau, drive=drive / tau, t_ref=t_ref), 20_000, dt=dt)
    period = t_ref + tau * math.log(drive / (drive - 1))
    assert np.diff(steps).max() - np.diff(steps).min() <= 1
    assert abs(np.diff(steps).mean() * dt - period) < 2 * dt


def test_no_spike_at_or_below_the_threshold_drive():
    steps, *_ = alone(LIF(tau_mem=0.01, drive=0.999 / 0.01), 5000)
    assert steps.size == 0


def test_postsynaptic_potential_has_the_exact_peak():
    """tau_m = 20, tau_s = 5: the unit current jump peaks at 9.241962 ms with height 0.157490."""
    dt = 1e-5
    network = Network(
        (Population("n", 1, CubaLI(tau_mem=0.02, tau_syn=0.005)),),
        (Projection("in", "n", [[1.0]]),),
        (Input("in", 1),),
        None,
        dt,
    )
    events = Events.from_lists([[0.0]], [[0]], n_units=1, duration=0.03)
    v = simulate(network, events, record="n.v").records["n.v"][0][:, 0]
    assert abs(np.argmax(v) * dt - 9.241962e-3) <= dt
    assert abs(v.max() - 0.157490) < 1e-6


def test_equal_time_constants_are_the_limit_of_near_ones():
    traces = [
        driven(CubaLI(tau_mem=0.01, tau_syn=0.01 * (1 + step)), record="n.v").records["n.v"][0]
        for step in (0.0, 1e-9, -1e-9)
    ]
    assert np.abs(traces[1] - traces[0]).max() < 1e-9
    assert np.abs(traces[2] - traces[0]).max() < 1e-9
    k = np.arange(20)[:, None] * DT
    assert np.abs(traces[0] - k / 0.01 * np.exp(-k / 0.01)).max() < 1e-12


def test_exact_current_neuron_does_not_depend_on_the_step():
    neuron = CubaLI(tau_mem=0.02, tau_syn=0.003, drive=4.0, drive_syn=30.0)

    def trace(dt, n_steps):
        network = Network((Population("n", 1, neuron),), (Projection("in", "n", [[2.0]]),), (Input("in", 1),), None, dt)
        # the zero state lies one step before step 0, so the event is put the same time after it
        events = Events.from_lists([[0.01 - dt]], [[0]], n_units=1, duration=n_steps * dt)
        return simulate(network, events, record="n.v").records["n.v"][0][:, 0]

    assert np.abs(trace(0.002, 40)[4:] - trace(0.001, 80)[9::2]).max() < 1e-12


def test_responses_add_below_threshold():
    one = driven(CubaLIF(), 0.1, (0,)).records["n.v"][0]
    other = driven(CubaLIF(), 0.1, (5,)).records["n.v"][0]
    both = driven(CubaLIF(), 0.1, (0, 5)).records["n.v"][0]
    assert np.abs(both - one - other).max() < 1e-15


def test_impulse_response_of_the_membrane_is_a_power_of_beta():
    v = driven(LI.from_step(dt=DT, beta=0.5)).records["n.v"][0][:, 0]
    assert v.tolist() == [0.5**k for k in range(20)]


def test_subtract_reset_keeps_the_whole_input():
    rng = np.random.default_rng(0)
    steps = np.sort(rng.integers(0, 400, 900))
    result = driven(IF(reset="subtract", v_threshold=1.0), 0.3125, steps, 400)
    spikes = len(result.spikes["n"].times)
    assert spikes == 281
    assert abs(result.records["n.v"][0][-1, 0] - (900 * 0.3125 - spikes)) == 0


def test_an_arrival_moves_a_current_neuron_one_step_later():
    result = driven(CubaLI(), 1.0, (3,), record=["n.v", "n.i"])
    assert np.flatnonzero(result.records["n.i"][0])[0] == 3
    assert np.flatnonzero(result.records["n.v"][0])[0] == 4


def test_refractory_steps_lose_arrivals_and_hold_v():
    result = driven(LIF(t_ref=0.003, v_reset=-0.5), 1.0, (2, 3, 4, 5, 6), 10)
    assert np.rint(result.spikes["n"].times / DT).tolist() == [2]
    v = result.records["n.v"][0][:, 0]
    assert v[2:6].tolist() == [-0.5] * 4
    assert v[6] > 0


def test_adaptation_raises_the_threshold_or_lowers_the_membrane():
    drive = 3.0 / 0.02
    plain, *_ = alone(AdaptiveLIF(drive=drive), 400)
    on_v, *_ = alone(AdaptiveLIF(drive=drive, adapt_spike=0.02), 400)
    on_theta, v, w = alone(AdaptiveLIF(drive=drive, adapt_spike=0.2, adapt_threshold=1.0), 400, "vw")
    assert 3 < len(on_v) < len(plain)
    assert 3 < len(on_theta) < len(plain)
    assert np.diff(on_theta)[-1] > np.diff(on_theta)[0]
    rho = np.exp(-DT / 0.1)
    spikes = np.isin(np.arange(400), on_theta)
    expected = 0.0
    for k in range(400):
        expected = rho * expected + 0.0 * v[k] + 0.2 * spikes[k]
        assert w[k] == expected


def test_threshold_is_met_at_equality_unless_strict():
    assert len(driven(LIF(), 1.0).spikes["n"].times) == 1
    assert len(driven(LIF(strict=True), 1.0).spikes["n"].times) == 0
    assert len(driven(LIF(strict=True), np.nextafter(1.0, 2)).spikes["n"].times) == 1


def test_strict_means_the_next_float_of_the_dtype_of_the_run():
    between = 1.0 + 2**-40  # above 1 in float64, equal to 1 in float32
    for neuron in (LIF(strict=True), AdaptiveLIF(strict=True)):
        assert len(driven(neuron, between).spikes["n"].times) == 1
        assert len(driven(neuron, between, dtype="float32").spikes["n"].times) == 0
        assert len(driven(neuron, 1.0 + 2**-23, dtype="float32").spikes["n"].times) == 1


@pytest.mark.parametrize("value", [1e300, 5e-324, -0.0, 1.7976931348623157e308])
def test_extreme_weights_follow_the_reference(value):
    network = Network(
        (Population("n", 2, LIF(v_threshold=1e-3)), Population("c", 2, CubaLIF())),
        (Projection("in", "n", [[value], [-value]]), Projection("in", "c", [[value], [-value]])),
        (Input("in", 1),),
        None,
        DT,
    )
    events = Events.from_lists([[0.0, 0.0, 0.001, 0.005]], [[0] * 4], n_units=1, duration=0.02)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for dtype in ("float64", "float32"):
            one, other = (
                simulate(network, events, record=recordable(network), engine=engine, dtype=dtype)
                for engine in ("clock", "reference")
            )
            for name in one.spikes:
                assert one.spikes[name] == other.spikes[name]
            for name in one.records:
                assert np.array_equal(one.records[name][0], other.records[name][0], equal_nan=True)


def test_delay_d_shifts_by_d():
    network = Network(
        (Population("n", 1, LI(tau_mem=0.004)),), (Projection("in", "n", [[0.3]]),), (Input("in", 1),), None, DT
    )
    events = Events.from_lists([[0.0, 0.002, 0.003]], [[0, 0, 0]], n_units=1, duration=0.05)
    plain = simulate(network, events, record="n.v").records["n.v"][0]
    for steps in (1, 7, 49, 50, 1000):
        late = network.replace(projections=(Projection("in", "n", [[0.3]], steps * DT),))
        v = simulate(late, events, record="n.v").records["n.v"][0]
        assert not v[:steps].any()
        assert v[steps:].tobytes() == plain[: max(50 - steps, 0)].tobytes()


# Invariances


def busy(seed=0):
    rng = np.random.default_rng([9, seed])
    return layered(rng, "CubaLIF", refractory=True), spike_trains(rng, 7, 6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_threads_batches_and_windows_change_no_bit(dtype):
    network, events = busy()
    record = tuple(recordable(network))
    one = simulate(network, events, record=record, threads=1, dtype=dtype)
    for threads, batch in ((2, None), (3, 1), (2, 4), (1, 100)):
        assert_same(one, simulate(network, events, record=record, threads=threads, batch=batch, dtype=dtype))
    inputs = grid_inputs(network, events)
    for window in (1, 7, 49):
        runner = ClockRunner(network, dtype, 1, make_layout(network, dtype), window)
        assert_same(one, runner.run(inputs, record=record))


def test_a_sample_does_not_depend_on_its_neighbours():
    network, events = busy()
    together = simulate(network, events)
    order = np.array([3, 0, 6, 1])
    chosen = simulate(network, events.subset(order))
    for name in together.spikes:
        assert chosen.spikes[name] == together.spikes[name].subset(order)
    assert chosen.logits.tobytes() == together.logits[order].tobytes()


@pytest.mark.parametrize("cut", [0, 1, 13, 50])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "AdaptiveLIF"])
def test_a_run_split_in_two_with_carried_state_equals_one_run(kind, cut):
    rng = np.random.default_rng([10, cut])
    network = layered(rng, kind, refractory=True)
    network = network.replace(
        populations=tuple(Population(item.name, item.size, item.neuron, 3, 45) for item in network.populations),
        readout=Readout("out", "v", "mean", skip_steps=4),
    )
    record = recordable(network)
    events = spike_trains(rng, 3, 6)
    step = np.floor(events.times / DT + 1e-6)
    whole = simulate(network, events, record=record, n_steps=50)

    def piece(mask, shift):
        counts = [int(np.sum(mask[a:b])) for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True)]
        times = np.maximum(events.times[mask] - shift * DT, 0)
        parts = np.split(np.arange(int(mask.sum())), np.cumsum(counts)[:-1])
        return Events.from_lists(
            [times[part] for part in parts], [events.units[mask][part] for part in parts], 6, duration=0.05
        )

    first = simulate(network, piece(step < cut, 0), record=record, n_steps=cut)
    second = simulate(network, piece(step >= cut, cut), record=record, n_steps=50 - cut, state=first.state)
    for name in record:
        for b in range(3):
            joined = np.concatenate((first.records[name][b], second.records[name][b]))
            assert joined.tobytes() == whole.records[name][b].tobytes()
    assert second.logits.tobytes() == whole.logits.tobytes()
    for name, events_of in whole.spikes.items():
        for b in range(3):
            early, late = first.spikes[name][b], second.spikes[name][b]
            steps = np.concatenate((np.rint(early.times / DT), np.rint(late.times / DT) + cut))
            assert steps.tolist() == np.rint(events_of[b].times / DT).tolist()
            assert np.concatenate((early.units, late.units)).tolist() == events_of[b].units.tolist()
    counts = [first.operations, second.operations]
    assert sum(item.synaptic_operations for item in counts) == whole.operations.synaptic_operations
    assert sum(item.neuron_updates for item in counts) == whole.operations.neuron_updates


def test_state_is_not_changed_by_using_it():
    network, events = busy()
    state = simulate(network, events).state
    one = simulate(network, events, state=state)
    assert_same(one, simulate(network, events, state=state))


def test_future_events_do_not_reach_the_past():
    network, events = busy()
    keep = events.times < 0.02
    counts = [int(keep[a:b].sum()) for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True)]
    parts = np.split(np.flatnonzero(keep), np.cumsum(counts)[:-1])
    early = Events.from_lists([events.times[p] for p in parts], [events.units[p] for p in parts], 6, duration=0.05)
    one, other = (simulate(network, item, record="b.v").records["b.v"] for item in (events, early))
    for a, b in zip(one, other, strict=True):
        assert a[:20].tobytes() == b[:20].tobytes()
        assert a[20:].tobytes() != b[20:].tobytes()


def test_permuting_units_permutes_the_result():
    rng = np.random.default_rng(12)
    weight = rng.integers(-8, 16, (6, 5)) / 16  # dyadic: sums are exact in any order
    network = Network((Population("n", 6, IF()),), (Projection("in", "n", weight),), (Input("in", 5),), None, DT)
    events = spike_trains(rng, 1, 5)
    turn = rng.permutation(6)
    turned = network.replace(projections=(Projection("in", "n", weight[turn]),))
    one = simulate(network, events, record="n.v").records["n.v"][0]
    assert simulate(turned, events, record="n.v").records["n.v"][0].tobytes() == one[:, turn].tobytes()


def test_absent_synapses_and_silence():
    rng = np.random.default_rng(13)
    network, events = busy()
    silent = network.replace(
        projections=tuple(
            Projection(item.source, item.target, np.zeros(item.shape), item.delay) for item in network.projections
        ),
        populations=tuple(Population(name, size, LIF()) for name, size in (("a", 7), ("b", 5), ("out", 3))),
    )
    result = simulate(silent, events)
    assert all(len(item.times) == 0 for item in result.spikes.values())
    assert result.operations.synaptic_operations == 0
    empty = Events.from_lists([[], []], [[], []], n_units=6, duration=0.02)
    quiet = simulate(tangled(rng).replace(inputs=(Input("x", 6), Input("y", 6))), {"x": empty, "y": empty})
    assert quiet.operations.spikes["x"] == 0


def test_zero_steps_and_no_samples():
    network, events = busy()
    none = simulate(network, events, n_steps=0, record="a.v")
    assert none.records["a.v"][0].shape == (0, 7)
    assert none.dropped.sum() == events.n_events
    assert none.logits.tolist() == [[0.0] * 3] * 7
    nobody = simulate(network, events.subset([]), record="a.v")
    assert nobody.logits.shape == (0, 3)
    assert nobody.records["a.v"] == []


def test_every_neuron_fires_in_every_step():
    network = Network((Population("n", 4, LIF(drive=1e4)),), (), (), Readout("n", "spikes", "count"), DT)
    result = simulate(network, None, n_steps=30)
    assert result.logits.tolist() == [[30.0] * 4]
    assert len(result.spikes["n"].times) == 120


# Readout, operations, steps


def test_readouts_reduce_the_trace():
    network, events = busy()
    v = simulate(network, events, record="out.v").records["out.v"]

    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    expected = {
        "sum_softmax": [softmax(x[5:]).sum(axis=0) for x in v],
        "mean": [x[5:].mean(axis=0) for x in v],
        "max": [x[5:].max(axis=0) for x in v],
        "last": [x[-1] for x in v],
    }
    for reduce, logits in expected.items():
        result = simulate(network.replace(readout=Readout("out", "v", reduce, 5)), events)
        assert np.allclose(result.logits, logits, rtol=1e-13, atol=1e-13)
        assert result.predictions.tolist() == np.argmax(logits, axis=1).tolist()
    counted = compare(network.replace(readout=Readout("a", "spikes", "count", 5)), events)
    spikes = counted.spikes["a"]
    for b in range(len(events)):
        late = spikes[b].units[spikes[b].times >= 5 * DT - 1e-9]
        assert counted.logits[b].tolist() == np.bincount(late, minlength=7).tolist()


def test_a_readout_window_beyond_the_sample_scores_zero():
    network, events = busy()
    result = simulate(network.replace(readout=Readout("out", "v", "max", 500)), events)
    assert not result.logits.any()


def test_operations_count_existing_synapses_of_active_sources():
    weight = np.array([[1.0, 0.0, 2.0], [1.0, 0.0, 0.0]])
    sparse = Sparse.from_triples([0, 1, 1], [0, 0, 1], [0.5, 0.0, 0.1], (2, 2))
    network = Network(
        (Population("a", 2, IF(v_threshold=0.9)), Population("b", 2, LI(), 2)),
        (Projection("in", "a", weight), Projection("a", "b", sparse)),
        (Input("in", 3),),
        None,
        DT,
    )
    events = Events.from_lists([[0.0, 0.0, 0.001, 0.002]], [[0, 0, 1, 2]], n_units=3, duration=0.005)
    operations = simulate(network, events).operations
    # steps 0: unit 0 (twice, one term) 2 synapses; 1: unit 1, none; 2: unit 2, one. a fires 0 and 1, then 0.
    assert operations.spikes == {"in": 4, "a": 3}
    assert operations.synaptic_operations == 2 + 0 + 1 + (1 + 1 + 1)
    assert operations.dense == 5 * (6 + 4)
    assert operations.neuron_updates == 5 * 2 + 3 * 2
    assert operations.per_sample()["spikes.in"] == 4


def test_footprint_and_accuracy():
    network, _ = busy()
    size = footprint(network)
    assert size.neurons == 15
    assert size.synapses == sum(int(np.count_nonzero(item.weight)) for item in network.projections)
    assert size.weights == sum(item.weight.size for item in network.projections)
    assert 0 < size.connection_sparsity < 1
    assert size.max_delay_steps == 8
    assert accuracy([1, 2, 0], [1, 0, -1]) == 0.5
    with pytest.raises(InputError, match="no sample has a label"):
        accuracy([1], [-1])
    with pytest.raises(InputError, match="one of each a sample"):
        accuracy([1], [1, 2])


def test_steps_belong_to_samples_and_late_events_are_counted_as_dropped():
    network = Network((Population("n", 1, LI()),), (Projection("in", "n", [[1.0]]),), (Input("in", 1),), None, DT)
    events = Events.from_lists([[0.001], [0.002, 0.004]], [[0], [0, 0]], n_units=1, duration=[0.003, 0.0045])
    result = simulate(network, events, record="n.v")
    assert result.n_steps.tolist() == [3, 5]
    assert [item.shape[0] for item in result.records["n.v"]] == [3, 5]
    assert result.dropped.tolist() == [0, 0]
    short = simulate(network, events, n_steps=[2, 3], tail_steps=1)
    assert short.n_steps.tolist() == [3, 4]
    assert short.dropped.tolist() == [0, 1]


def test_spikes_keep_what_belongs_to_the_samples():
    network, events = busy()
    named = Events.from_lists(
        [item.times for item in events],
        [item.units for item in events],
        6,
        labels=np.arange(7) % 2,
        duration=0.05,
        class_names=("no", "yes"),
        sample_ids=np.arange(7) * 10,
    )
    spikes = simulate(network, named).spikes["a"]
    assert spikes.labels.tolist() == named.labels.tolist()
    assert spikes.sample_ids.tolist() == named.sample_ids.tolist()
    assert spikes.class_names == ("no", "yes")
    assert spikes.n_steps(DT).tolist() == [50] * 7


def test_another_dt_is_for_continuous_time_networks_only():
    network, events = busy()
    network = network.replace(readout=None)
    assert simulate(network, events, dt=0.0005).n_steps.tolist() == [100] * 7
    stepped = Network((Population("n", 1, LIF.from_step(dt=DT, beta=0.9)),), (), (), None, DT)
    assert simulate(stepped, None, n_steps=3, dt=DT).n_steps.tolist() == [3]
    with pytest.raises(InputError, match="only run at its own dt"):
        simulate(stepped, None, n_steps=3, dt=0.002)
    started = network.replace(populations=(Population("a", 7, LIF(), 2), *network.populations[1:]))
    with pytest.raises(InputError, match="start or stop at given steps"):
        simulate(started, events, dt=0.002)
    with pytest.raises(InputError, match="skips a number of steps"):
        simulate(network.replace(readout=Readout("out", skip_steps=2)), events, dt=0.002)
