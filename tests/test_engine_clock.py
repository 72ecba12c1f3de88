"""The clock engine against the definition, bit for bit, over a grid of networks."""

import itertools

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.engines.clock_plan import make_layout
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF

DT = 0.001


def spike_trains(rng, n_samples, n_units, duration=0.05, rate=90.0):
    """Random events on and off the grid, some of them coincident."""
    times, units = [], []
    for _ in range(n_samples):
        n = rng.poisson(rate * duration * n_units)
        time = np.where(rng.random(n) < 0.5, rng.integers(0, int(duration / DT), n) * DT, rng.random(n) * duration)
        time = np.concatenate((time, time[: n // 4]))
        unit = rng.integers(0, n_units, n)
        unit = np.concatenate((unit, unit[: n // 4]))
        order = np.lexsort((unit, time))
        times.append(time[order])
        units.append(unit[order])
    return Events.from_lists(times, units, n_units=n_units, duration=duration)


def make_neuron(kind, rng, size, reset="zero", refractory=False, strict=False):
    shared = {"reset": reset, "strict": strict, "v_threshold": rng.uniform(0.8, 1.2, size)}
    if refractory:
        shared["t_ref"] = rng.integers(0, 4, size) * DT
    drive = rng.uniform(-5, 30, size)
    tau = rng.uniform(0.004, 0.03, size)
    if kind == "IF":
        return IF(drive=drive / 2, **shared)
    if kind == "LIF":
        return LIF(tau_mem=tau, drive=drive, **shared)
    if kind == "CubaLIF":
        return CubaLIF(tau_mem=tau, tau_syn=rng.uniform(0.002, 0.03, size), drive=drive, drive_syn=9.0, **shared)
    if kind == "AdaptiveLIF":
        form = np.where(rng.random(size) < 0.5, 0.0, 0.3)
        return AdaptiveLIF(
            tau_mem=tau, adapt_v=0.02, adapt_spike=0.1, adapt_threshold=form, drive=drive * 1.5, **shared
        )
    raise AssertionError(kind)


def projection(rng, source, target, n_target, n_source, delay, form, gain=1.0):
    weight = gain * rng.normal(0.3, 0.6, (n_target, n_source)) * (rng.random((n_target, n_source)) < 0.7)
    low = 1 if source == target else 0
    per_synapse = rng.integers(low, 9, (n_target, n_source)) * DT
    if form == "csr":
        n = 3 * n_target
        sparse = Sparse.from_triples(
            rng.integers(0, n_source, n),
            rng.integers(0, n_target, n),
            gain * rng.normal(0.3, 0.6, n),
            (n_target, n_source),
        )
        return Projection(source, target, sparse, rng.integers(low, 5, n) * DT if delay == "synapse" else low * DT)
    delays = {
        "none": low * DT,
        "synapse": per_synapse,
        "axon": per_synapse[:1],
        "dendrite": per_synapse[:, :1],
    }
    return Projection(source, target, weight, delays[delay])


def layered(rng, kind, reset="zero", delay="synapse", form="dense", refractory=False, strict=False, recurrent=True):
    first = make_neuron(kind, rng, 7, reset, refractory, strict)
    second = make_neuron(kind, rng, 5, reset, refractory, strict)
    gain = 12.0 if kind == "CubaLIF" else 1.0
    ends = [("in", "a", 7, 6), ("a", "b", 5, 7), ("b", "out", 3, 5), ("in", "b", 5, 6)]
    if recurrent:
        ends += [("a", "a", 7, 7), ("b", "b", 5, 5)]
    projections = [projection(rng, *end, delay, form, gain) for end in ends]
    return Network(
        (Population("a", 7, first), Population("b", 5, second), Population("out", 3, LI(tau_mem=0.01, drive=1.0))),
        tuple(projections),
        (Input("in", 6),),
        Readout("out"),
        DT,
    )


def recordable(network):
    names = []
    for item in network.populations:
        names.append(f"{item.name}.v")
        names += [f"{item.name}.i"] * item.neuron.current + [f"{item.name}.w"] * hasattr(item.neuron, "tau_adapt")
    return names


def assert_same(ours, theirs):
    assert ours.spikes.keys() == theirs.spikes.keys()
    for name, events in ours.spikes.items():
        assert events == theirs.spikes[name], name
    for name, arrays in ours.records.items():
        for one, other in zip(arrays, theirs.records[name], strict=True):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes(), name
    if ours.logits is None:
        assert theirs.logits is None
    else:
        assert ours.logits.tobytes() == theirs.logits.tobytes()
    assert ours.operations == theirs.operations


def compare(network, events, **options):
    record = recordable(network)
    ours = simulate(network, events, record=record, **options)
    assert_same(ours, simulate(network, events, record=record, engine="reference", **options))
    return ours


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF", "AdaptiveLIF"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_equals_the_reference_for_every_law(kind, reset, dtype):
    rng = np.random.default_rng([1, len(kind), len(reset)])
    events = spike_trains(rng, 2, 6)
    for refractory, strict in itertools.product((False, True), repeat=2):
        network = layered(rng, kind, reset, refractory=refractory, strict=strict)
        result = compare(network, events, dtype=dtype, tail_steps=9)
        assert all(len(item.times) > 20 for item in result.spikes.values())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("form", "delay"),
    [
        ("dense", "none"),
        ("dense", "synapse"),
        ("dense", "axon"),
        ("dense", "dendrite"),
        ("csr", "none"),
        ("csr", "synapse"),
    ],
)
def test_equals_the_reference_for_every_form_of_synapses(delay, form, dtype):
    rng = np.random.default_rng([2, len(delay), len(form)])
    for kind, recurrent in (("LIF", True), ("CubaLIF", True), ("LIF", False)):
        network = layered(rng, kind, delay=delay, form=form, recurrent=recurrent)
        result = compare(network, spike_trains(rng, 2, 6), dtype=dtype)
        assert all(len(item.times) > 20 for item in result.spikes.values())


def tangled(rng, shuffle=True):
    """Parallel delay-0 projections between populations declared against their order of updating."""
    sizes = {"c": 6, "b": 6, "a": 6, "cuba": 6}
    kinds = {"c": "LIF", "b": "IF", "a": "AdaptiveLIF", "cuba": "CubaLIF"}
    pairs = [("x", "a"), ("y", "a"), ("x", "b"), ("a", "b"), ("a", "c"), ("b", "c"), ("y", "c"), ("x", "c")]
    pairs += [("c", "cuba"), ("a", "cuba"), ("cuba", "cuba"), ("x", "cuba"), ("cuba", "c"), ("b", "cuba")]
    projections = []
    for source, target in pairs * 2:
        weight = rng.normal(0.02, 0.4, (6, 6)) * (rng.random((6, 6)) < 0.8)
        delay = rng.integers(0, 3, (6, 6)) if rng.random() < 0.5 else rng.integers(0, 3, (1, 6))
        projections.append(Projection(source, target, weight, delay * DT))
    if shuffle:
        projections = [projections[place] for place in rng.permutation(len(projections))]
    populations = [Population(name, size, make_neuron(kinds[name], rng, size)) for name, size in sizes.items()]
    return Network(tuple(populations), tuple(projections), (Input("x", 6), Input("y", 6)), None, DT)


@pytest.mark.parametrize("seed", range(6))
def test_sums_are_canonical_for_shuffled_projections_with_delay_0(seed):
    rng = np.random.default_rng([3, seed])
    network = tangled(rng)
    assert [item.name for item in network.order()] != [item.name for item in network.populations]
    events = {"x": spike_trains(rng, 1, 6, rate=200), "y": spike_trains(rng, 1, 6, rate=200)}
    for dtype in ("float64", "float32"):
        compare(network, events, dtype=dtype)


def test_order_of_projections_reaches_the_last_bit():
    """The comparison above can fail: another order of the same projections gives other bits."""
    rng = np.random.default_rng([3, 0])
    network = tangled(rng)
    events = {"x": spike_trains(rng, 1, 6, rate=200), "y": spike_trains(rng, 1, 6, rate=200)}
    turned = network.replace(projections=network.projections[::-1])
    one = simulate(network, events, record=["a.v"])
    other = simulate(turned, events, record=["a.v"])
    assert one.records["a.v"][0].tobytes() != other.records["a.v"][0].tobytes()


def test_one_sum_does_not_contract_products_into_sums():
    """v = (beta v + drive) + sum with every product rounded: the fused result differs in the last bit."""
    beta, weight = 0.1 + 2**-53, 0.7
    network = Network(
        (Population("n", 4, LI.from_step(dt=DT, beta=beta, drive_step=-0.03)),),
        (Projection("in", "n", np.full((4, 1), weight)),),
        (Input("in", 1),),
        None,
        DT,
    )
    events = Events.from_lists([[0.0, 0.0, 0.0, 0.001, 0.002]], [[0] * 5], n_units=1, duration=0.02)
    v = simulate(network, events, record="n.v").records["n.v"][0][:, 2]
    x, expected = 0.0, []
    for k in range(20):
        x = (beta * x + -0.03) + (0.0 + {0: 3.0, 1: 1.0, 2: 1.0}.get(k, 0.0) * weight)
        expected.append(x)
    assert v.tolist() == expected


@pytest.mark.parametrize(("start", "stop"), [(0, 20), (7, None), (7, 31)])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "AdaptiveLIF"])
def test_start_and_stop_step(kind, start, stop):
    rng = np.random.default_rng([4, start])
    network = layered(rng, kind)
    changed = [
        Population(item.name, item.size, item.neuron, start + place, stop)
        for place, item in enumerate(network.populations)
    ]
    network = network.replace(populations=tuple(changed))
    result = compare(network, spike_trains(rng, 2, 6))
    steps = np.rint(result.spikes["a"].times / DT)
    assert steps.min() >= start
    assert stop is None or steps.max() < stop
    assert not result.records["a.v"][0][:start].any()


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_reference_for_random_networks(seed):
    rng = np.random.default_rng([5, seed])
    names = [f"p{place}" for place in range(rng.integers(1, 5))]
    kinds = ["IF", "LIF", "CubaLIF", "AdaptiveLIF"]
    populations = []
    for name in names:
        size = int(rng.integers(1, 9))
        neuron = make_neuron(
            kinds[rng.integers(4)], rng, size, ["zero", "subtract"][rng.integers(2)], rng.random() < 0.5
        )
        populations.append(Population(name, size, neuron))
    populations.append(Population("li", 2, CubaLI() if rng.random() < 0.5 else LI()))
    projections = []
    for _ in range(12):
        source = ["in", *names][rng.integers(len(names) + 1)]
        target = populations[rng.integers(len(populations))]
        n_source = 4 if source == "in" else populations[names.index(source)].size
        backward = source != "in" and names.index(source) >= populations.index(target)
        delays = rng.integers(int(backward), 40 if rng.random() < 0.2 else 6, (target.size, n_source)) * DT
        weight = rng.normal(0, 0.8, delays.shape)
        projections.append(Projection(source, target.name, weight, delays))
    network = Network(tuple(populations), tuple(projections), (Input("in", 4),), Readout("li"), DT)
    compare(network, spike_trains(rng, 2, 4))


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_a_row_without_synapses_has_no_delay(form):
    """Its delay of 0 makes nobody wait, so the source may be updated after the target."""
    weight = np.array([[0.0, 2.0]]) if form == "dense" else Sparse.from_triples([1], [0], [2.0], (1, 2))
    network = Network(
        (Population("late", 1, LIF()), Population("early", 2, LIF(drive=300.0))),
        (Projection("early", "late", weight, np.array([[0.0, 3.0]]) * DT),),
        (),
        None,
        DT,
    )
    assert [item.name for item in network.order()] == ["late", "early"]
    assert [path.now for path in make_layout(network, "float64").paths] == [False]
    result = compare(network, None, n_steps=20)
    assert len(result.spikes["late"].times) > 2
