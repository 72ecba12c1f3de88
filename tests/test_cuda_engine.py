"""Engine "cuda" in Numba's simulator, bit for bit beside the clock engine and the reference.

Networks and events are small because a thread of the device is a thread of Python here; those marked ``gpu`` are the
same comparisons at the size of a device.
"""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from test_engine_cli import make_events, make_network
from test_engine_clock import DT, assert_same, make_neuron, spike_trains

from snnsim.cli.main import run
from snnsim.datasets.heidelberg import write_heidelberg
from snnsim.device import cuda_problem
from snnsim.engines import cuda_batch as batches
from snnsim.engines import grid_inputs, simulate
from snnsim.engines.cuda import CudaEngine
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import LI, LIF, AdEx, CubaLI, CubaLIF, ExpCurrentLIF
from snnsim.stimuli import Current, Poisson

pytestmark = pytest.mark.skipif(cuda_problem() is not None, reason="needs a CUDA device or NUMBA_ENABLE_CUDASIM=1")

SIZES = [pytest.param(1, id="small"), pytest.param(60, id="device", marks=pytest.mark.gpu)]


@dataclass(frozen=True)
class Case:
    """Networks by what is special about them; ``size`` multiplies populations."""

    size: int = 1

    def weights(self, rng, n_target, n_source, gain=1.0, share=0.7):
        scale = gain / np.sqrt(self.size)
        return scale * rng.normal(0.3, 0.6, (n_target, n_source)) * (rng.random((n_target, n_source)) < share)

    def layers(self, rng, kind, reset="zero", refractory=False, strict=False, low=1, high=6):
        """An input, two populations with all four recurrent paths, and a readout."""
        a, b, inputs, gain = 4 * self.size, 3 * self.size, 3 * self.size, 14.0 if kind == "CubaLIF" else 1.4
        ends = [("in", "a", a, inputs), ("a", "b", b, a), ("b", "out", 2, b), ("in", "b", b, inputs)]
        ends += [("a", "a", a, a), ("b", "a", a, b), ("a", "a", a, a)]
        projections = []
        for place, (source, target, n_target, n_source) in enumerate(ends):
            shape = [(n_target, n_source), (1, n_source), (n_target, 1)][place % 3]
            least = low if target == "a" and source != "in" else 0
            delays = rng.integers(least, high, shape) * DT
            projections.append(Projection(source, target, self.weights(rng, n_target, n_source, gain), delays))
        return Network(
            (
                Population("b", b, make_neuron(kind, rng, b, reset, refractory, strict)),
                Population("out", 2, LI(tau_mem=0.01, drive=1.0)),
                Population("a", a, make_neuron(kind, rng, a, reset, refractory, strict)),
            ),
            tuple(projections),
            (Input("in", inputs),),
            Readout("out"),
            DT,
        )

    def two_currents(self, rng, low=1):
        a, b, inputs = 4 * self.size, 3 * self.size, 3 * self.size
        ends = [("in", "a", a, inputs, "exc"), ("in", "b", b, inputs, "inh"), ("a", "b", b, a, "exc")]
        ends += [("b", "a", a, b, "inh"), ("a", "a", a, a, "exc")]
        projections = []
        for source, target, n_target, n_source, receptor in ends:
            n = 3 * n_target
            weights = rng.uniform(0, 40, n) * (-0.2 if receptor == "inh" else 1)
            sparse = Sparse.from_triples(
                rng.integers(0, n_source, n), rng.integers(0, n_target, n), weights, (n_target, n_source)
            )
            projections.append(Projection(source, target, sparse, rng.integers(low, 5, n) * DT, receptor))
        neurons = [
            ExpCurrentLIF(tau_exc=rng.uniform(0.002, 0.01, a), drive=rng.uniform(60, 140, a), t_ref=0.002),
            ExpCurrentLIF(drive=160.0),
        ]
        return Network(
            (Population("a", a, neurons[0]), Population("b", b, neurons[1])),
            tuple(projections),
            (Input("in", inputs),),
            None,
            DT,
        )

    def events(self, rng, n_samples=2, duration=0.012, rate=200.0):
        return spike_trains(rng, n_samples, 3 * self.size, duration=duration, rate=rate)


def recordable(network):
    return [f"{item.name}.{name}" for item in network.populations for name in item.neuron.variables]


def same(network, events, record=None, engine=None, reference=False, **options):
    """Compare with the clock engine, states too, and return the result."""
    record = recordable(network) if record is None else record
    theirs = simulate(network, events, record=record, **options)
    ours = simulate(network, events, record=record, engine="cuda", **options)
    assert ours.engine == "cuda"
    assert_same(ours, theirs)
    for one, other in zip(ours.state.samples, theirs.state.samples, strict=True):
        assert one.step == other.step
        assert one.values.tobytes() == other.values.tobytes()
        for name in ("left", "pending_place", "pending_value"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    if reference:
        assert_same(ours, simulate(network, events, record=record, engine="reference", **options))
    return ours


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF", "AdaptiveLIF"])
@pytest.mark.parametrize(("reset", "refractory", "strict"), [("zero", True, False), ("subtract", False, True)])
def test_laws(kind, reset, refractory, strict, size):
    rng = np.random.default_rng([1, len(kind), len(reset)])
    case = Case(size)
    network = case.layers(rng, kind, reset, refractory, strict)
    result = same(network, case.events(rng), reference=size == 1, dtype="float64" if refractory else "float32")
    assert all(len(item.times) > 5 for item in result.spikes.values())
    assert set(result.notes["arrivals"].values()) == {"gather"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("low", "items"), [(0, 0), (0, 2**18), (1, 0), (3, 2**18)])
def test_two_currents(low, items, size, monkeypatch):
    """With delay 0 everywhere all arrivals come after all populations have fired."""
    monkeypatch.setattr(batches, "CIRCLE_ITEMS", items)
    rng = np.random.default_rng([2, low])
    case = Case(size)
    result = same(case.two_currents(rng, low), case.events(rng), reference=size == 1)
    assert all(len(item.times) > 5 for item in result.spikes.values())


def test_currents_reach_themselves_at_once():
    rng = np.random.default_rng(3)
    result = same(Case().layers(rng, "CubaLIF", low=0, high=2), Case().events(rng), reference=True)
    assert len(result.spikes["a"].times) > 10


@pytest.mark.parametrize("size", SIZES)
def test_parallel_projections_with_delay_0_against_the_order_of_updating(size):
    rng = np.random.default_rng(4)
    n = 4 * size
    kinds = {"c": "LIF", "b": "IF", "a": "AdaptiveLIF", "cuba": "CubaLIF"}
    pairs = [("in", "a"), ("in", "b"), ("a", "b"), ("a", "c"), ("b", "c"), ("c", "cuba"), ("cuba", "cuba")]
    pairs = [*pairs, ("a", "cuba"), ("cuba", "c"), ("a", "b")]
    projections = []
    for source, target in rng.permutation(pairs):
        source_size = 3 * size if source == "in" else n
        weight = Case(size).weights(rng, n, source_size, 0.6)
        projections.append(Projection(str(source), str(target), weight, rng.integers(0, 3, weight.shape) * DT))
    populations = [Population(name, n, make_neuron(kind, rng, n)) for name, kind in kinds.items()]
    network = Network(tuple(populations), tuple(projections), (Input("in", 3 * size),), None, DT)
    assert [item.name for item in network.order()] != list(kinds)
    same(network, Case(size).events(rng), reference=size == 1)


@pytest.mark.parametrize(("chunk", "items", "many"), [(1, 0, 99), (5, 0, 1), (5, 2**18, 99), (None, 2**18, 1)])
def test_chunks_batches_and_places_in_memory_change_no_bit(chunk, items, many, monkeypatch):
    """Samples of different lengths, delays longer than a chunk, samples or units side by side, one launch or many."""
    monkeypatch.setattr(batches, "MANY", many)
    monkeypatch.setattr(batches, "CIRCLE_ITEMS", items)
    rng = np.random.default_rng(5)
    network = Case().layers(rng, "CubaLIF", refractory=True, high=9)
    inputs = grid_inputs(network, Case().events(rng, 3, 0.012), n_steps=np.array([12, 7, 0]), tail_steps=0)
    names = tuple(recordable(network))
    theirs = simulate(network, inputs.first, record=names, n_steps=np.array([12, 7, 0]))
    runner = CudaEngine(chunk).prepare(network, "float64", 1)
    for batch in (None, 2):
        ours = runner.run(inputs, record=names, batch=batch)
        assert_same(ours, theirs)
        for one, other in zip(ours.state.samples, theirs.state.samples, strict=True):
            assert one.values.tobytes() == other.values.tobytes()
            assert np.array_equal(one.left, other.left)
            assert np.array_equal(one.pending_place, other.pending_place)
            assert np.array_equal(one.pending_value, other.pending_value)


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_a_run_split_in_two_equals_one_run(kind):
    """The samples are cut at different steps, so they go on with different step numbers."""
    rng = np.random.default_rng(6)
    network = Case().layers(rng, kind, refractory=True)
    events = Case().events(rng, 2)
    cuts = np.array([4, 7])
    step = np.repeat(np.arange(2), np.diff(events.offsets))
    at = np.floor(events.times / DT + 1e-6).astype(int)
    parts = []
    for first in (True, False):
        keep = (at < cuts[step]) == first
        times = [(at[keep & (step == b)] - (0 if first else cuts[b])) * DT for b in range(2)]
        units = [events.units[keep & (step == b)] for b in range(2)]
        parts.append(Events.from_lists(times, units, n_units=3, duration=0.012))
    noise = {"stimuli": Poisson("a", 900.0, 0.2), "seed": 2}
    whole = simulate(network, events, engine="cuda", record="a.v", n_steps=12, **noise)
    one = simulate(network, parts[0], engine="cuda", record="a.v", n_steps=cuts, **noise)
    two = simulate(network, parts[1], engine="cuda", record="a.v", n_steps=12 - cuts, state=one.state, **noise)
    for b in range(2):
        joined = np.concatenate((one.records["a.v"][b], two.records["a.v"][b]))
        assert joined.tobytes() == whole.records["a.v"][b].tobytes()
    assert two.logits.tobytes() == whole.logits.tobytes()
    with pytest.raises(InputError, match="comes from another network, dtype or engine"):
        simulate(network, parts[1], state=one.state)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stimuli(dtype, size):
    rng = np.random.default_rng(7)
    case = Case(size)
    network = case.two_currents(rng)
    a, b = (item.size for item in network.populations)
    stimuli = (
        Poisson("a", 1500.0, 2.0, "exc"),
        Current("a", rng.uniform(0, 60, a), 0.004, 0.011),
        Poisson("b", rng.integers(0, 4, b) * 800.0, -rng.uniform(0, 3, b), "inh"),
        Current("b", 35.0, 0.007),
        Poisson("b", 9000.0, 0.4, "exc"),
    )
    events = replace(case.events(rng, 2), sample_ids=np.array([7, 3]))
    options = {"stimuli": stimuli, "seed": 5, "record": ["a.v", "b.i_exc", "b.i_inh"], "dtype": dtype}
    ours = same(network, events, reference=size == 1, **options)
    other = simulate(network, events, engine="cuda", **{**options, "seed": 6})
    assert other.records["b.i_exc"][0].tobytes() != ours.records["b.i_exc"][0].tobytes()


def test_noise_is_the_last_term_where_delay_0_arrives_late():
    rng = np.random.default_rng(8)
    network = Case().two_currents(rng, 0)
    same(network, Case().events(rng), record=["a.i_exc"], stimuli=Poisson("a", 2000.0, 0.3, "exc"))


@pytest.mark.parametrize("readout", [("b", "spikes", "count", 3), ("out", "v", "max", 2), ("out", "v", "mean", 0)])
def test_readouts(readout):
    rng = np.random.default_rng(9)
    network = Case().layers(rng, "LIF").replace(readout=Readout(*readout))
    result = same(network, Case().events(rng), record=[])
    assert result.logits.any()


def test_start_and_stop_steps_initial_values_and_progress():
    rng = np.random.default_rng(10)
    network = Case().layers(rng, "CubaLIF", low=0)
    changed = [
        Population(item.name, item.size, item.neuron, 2 + place, 12) for place, item in enumerate(network.populations)
    ]
    network = network.replace(populations=tuple(changed))
    told = []
    ours = simulate(network, Case().events(rng), engine="cuda", n_steps=[14, 9], progress=told.append)
    assert sum(told) == 23
    steps = np.rint(ours.spikes["a"].times / DT)
    assert steps.size
    assert steps.min() >= 4
    assert steps.max() < 12
    start = {"a.v": 0.7, "b.i": rng.uniform(0, 30, 3)}
    same(network, Case().events(rng), initial=start, reference=True)


def test_more_events_at_once_than_a_byte_holds():
    rng = np.random.default_rng(11)
    network = Case().layers(rng, "LIF")
    times = np.sort(np.concatenate((np.zeros(300), np.full(300, 0.003), [0.001])))
    events = Events.from_lists([times], [np.zeros(601, int)], n_units=3, duration=0.006)
    same(network, events)


def test_networks_without_inputs_or_synapses():
    network = Network((Population("n", 3, LIF(drive=200.0)), Population("li", 2, CubaLI())), (), (), None, DT)
    result = same(network, None, n_steps=9, record=["n.v", "li.i"])
    assert len(result.spikes["n"].times) > 2


@pytest.mark.parametrize("size", [1, 5])
def test_every_neuron_fires_in_every_step(size):
    """There are more spikes than places in the list: the trains themselves are fetched."""
    network = Network((Population("n", size, LIF(drive=2000.0)),), (), (), None, DT)
    result = same(network, None, n_steps=12, record=[])
    assert len(result.spikes["n"].times) == 12 * size


def test_refusals():
    events = Events.from_lists([[0.0]], [[0]], n_units=1, duration=0.004)
    network = Network(
        (Population("n", 1, AdEx()),),
        (Projection("in", "n", np.ones((1, 1)), DT, "exc"),),
        (Input("in", 1),),
        None,
        DT,
    )
    with pytest.raises(InputError, match=r"engine 'cuda': population 'n': AdEx has no CUDA kernel.*engine='clock'"):
        simulate(network, events, engine="cuda")
    plain = network.replace(
        populations=(Population("n", 1, CubaLIF()),), projections=(Projection("in", "n", np.ones((1, 1))),)
    )
    with pytest.raises(InputError, match="resolution: expected None with engine 'cuda'"):
        simulate(plain, events, engine="cuda", resolution=DT)


def test_without_a_device_nothing_else_runs_instead(monkeypatch):
    events = Events.from_lists([[0.0]], [[0]], n_units=1, duration=0.004)
    network = Network(
        (Population("n", 1, LIF()),), (Projection("in", "n", np.ones((1, 1))),), (Input("in", 1),), None, DT
    )
    monkeypatch.setattr("snnsim.device.cuda_problem", lambda: "no NVIDIA driver was found; use the CPU")
    with pytest.raises(InputError, match="engine 'cuda': no NVIDIA driver was found"):
        simulate(network, events, engine="cuda")


def test_what_does_not_fit_on_the_device_is_refused(monkeypatch):
    rng = np.random.default_rng(12)
    network = Case().layers(rng, "LIF")
    events = Case().events(rng, 3)
    monkeypatch.setattr("snnsim.engines.cuda_device.free_memory", lambda: 200.0)
    with pytest.raises(InputError, match=r"engine 'cuda': neurons and synapses need .* GiB on the device"):
        simulate(network, events, engine="cuda")
    monkeypatch.undo()
    monkeypatch.setattr("snnsim.engines.cuda.free_memory", lambda: 3000.0)
    assert simulate(network, events, engine="cuda").notes["batch"] == 1
    with pytest.raises(InputError, match=r"engine 'cuda': 3 samples of 9 neurons with delays .* use a smaller batch"):
        simulate(network, events, engine="cuda", batch=3)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_network().save("net.snn.h5")
    write_heidelberg("set.h5", make_events(2))
    words = ["simulate", "net.snn.h5", "--events", "set.h5", "--engine", "cuda", "--compare", "clock", "--json"]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["engine"] == "cuda"
