"""Networks for the tests of the event engine, and the plain definition run on them."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Result, simulate
from snnsim.engines.event_plan import make_layout, synapse_delays
from snnsim.events import Events
from snnsim.kernels.reference_event import ReferenceNeuron, ReferenceSynapse, simulate_event_reference
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import IF, LIF, CubaLI, CubaLIF, ExpCurrentLIF

DT = 2.0**-10


def run(network: Network, events: Any = None, n_steps: int = 200, **options: Any) -> Result:
    return simulate(network, events, engine="event", n_steps=n_steps, **options)


def alone(neuron: Any, size: int = 1, dt: float = DT) -> Network:
    return Network((Population("n", size, neuron),), (), (), None, dt)


def driven(neuron: Any, weights: Any, dt: float = DT, receptor: str = "", delay: Any = 0.0) -> Network:
    weight = np.atleast_2d(weights)
    n_target, n_source = weight.shape
    projection = Projection("in", "n", weight, delay, receptor)
    return Network((Population("n", n_target, neuron),), (projection,), (Input("in", n_source),), None, dt)


def times(result: Result, name: str = "n") -> npt.NDArray[np.float64]:
    """Spike times with those before 0 as they are, in order of time, then unit."""
    events = result.spikes[name]
    found = events.times.copy()
    for sample, population, unit, time in result.notes["early"]:
        assert sample == 0
        if population == name:
            found[np.flatnonzero((events.units == unit) & (found == 0.0))[0]] = time
    return np.sort(found)


def pairs(result: Result) -> list[tuple[str, float, int]]:
    return [
        (name, time, unit)
        for name, events in sorted(result.spikes.items())
        for time, unit in zip(events.times.tolist(), events.units.tolist(), strict=True)
    ]


def inputs(time: Any, unit: Any = None, n_units: int = 1, duration: float = 1.0) -> Events:
    unit = np.zeros(len(time), int) if unit is None else unit
    return Events.from_lists([time], [unit], n_units, duration=duration, sort=True)


def random_network(seed: int, zero_delays: bool = False) -> tuple[Network, Events, dict[str, Any]]:
    """Three populations of different laws, an input, dense and sparse projections, own delays."""
    rng = np.random.default_rng(seed)
    size = 6

    def some(low: float, high: float) -> npt.NDArray[np.float64]:
        return rng.uniform(low, high, size)

    reset: dict[str, Any] = {"reset": "subtract" if seed % 2 else "zero", "t_ref": some(0.0, 0.01) * (seed % 3 > 0)}
    tau = some(0.01, 0.03)
    tau_exc = np.where(rng.random(size) < 0.4, tau, some(0.002, 0.03))
    members = (
        Population("lif", size, LIF(tau_mem=tau, drive=some(-10, 120), v_threshold=some(0.8, 1.2), **reset)),
        Population("cuba", size, CubaLIF(tau_mem=tau, tau_syn=tau_exc, drive=some(0, 60), drive_syn=20.0, **reset)),
        Population(
            "exp",
            size,
            ExpCurrentLIF(tau_mem=tau, tau_exc=tau_exc, tau_inh=some(0.002, 0.03), drive=some(-5, 60), **reset),
        ),
        Population("if", size, IF(drive=some(-10, 40), **reset)),
        Population("out", size, CubaLI(tau_mem=0.02, tau_syn=0.02)),
    )

    def dense(scale: float) -> npt.NDArray[np.float64]:
        return rng.normal(0.1, scale, (size, size)) * (rng.random((size, size)) < 0.6)

    def delay(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        kept = rng.choice([0.0, 0.002, 0.003], shape)
        return kept if zero_delays else np.where(rng.random(shape) < 0.5, rng.uniform(0.001, 0.02, shape), kept + 0.001)

    sparse = Sparse.from_triples(
        rng.integers(0, size, 20), rng.integers(0, size, 20), rng.normal(0, 0.4, 20), (size, size)
    )
    projections = (
        Projection("in", "lif", dense(0.5), 0.0),
        Projection("in", "cuba", dense(2.0), delay((1, size))),
        Projection("in", "exp", dense(2.0), 0.004, "exc"),
        Projection("lif", "cuba", dense(2.0), delay((size, size))),
        Projection("cuba", "exp", dense(2.0), delay((1, size)), "exc"),
        Projection("cuba", "exp", -abs(dense(2.0)), delay((size, 1)), "inh"),
        Projection("exp", "lif", sparse, delay((20,))),
        Projection("lif", "lif", dense(0.3), 0.001 + delay((size, size))),
        Projection("exp", "if", dense(0.3), 0.0),
        Projection("lif", "if", dense(0.3), 0.0),
        Projection("if", "out", dense(0.3), 0.002),
    )
    network = Network(members, projections, (Input("in", size),), Readout("out"), DT / 4)
    time = rng.uniform(0, 0.3, 150)
    time[::3] = np.rint(time[::3] / DT) * DT
    initial = {"lif.v": some(-0.5, 0.9), "cuba.v": some(-0.5, 0.9), "cuba.i": some(-1, 1), "exp.i_inh": some(-1, 0)}
    return network, inputs(time, rng.integers(0, size, 150), size, 0.3), initial


def reference(network: Network, events: Events, initial: dict[str, Any], stop: float) -> list[tuple[str, float, int]]:
    """Run the plain definition on the same network."""
    neurons, names, synapses, fed = plain(network, events, initial)
    return sorted((names[n][0], t, names[n][1]) for t, n in simulate_event_reference(neurons, synapses, fed, stop))


def plain(
    network: Network, events: Events, initial: dict[str, Any]
) -> tuple[list[ReferenceNeuron], list[tuple[str, int]], list[ReferenceSynapse], list[tuple[float, int, int]]]:
    """Return a network with the input 'in' as the plain definition wants it: neurons, names, synapses, inputs."""
    layout = make_layout(network)
    neurons: list[ReferenceNeuron] = []
    first: dict[str, int] = {}
    names: list[tuple[str, int]] = []
    for p, item in enumerate(network.populations):
        first[item.name] = len(neurons)
        values = item.neuron.parameters()
        stage = int(np.searchsorted(layout.plan.stage_start, layout.offset[p], side="right"))
        for k in range(item.size):

            def get(name: str, default: float = 0.0, values: Any = values, k: int = k) -> float:
                value = values.get(name, default)
                return float(value[k] if isinstance(value, np.ndarray) else default if value is None else value)

            taus = [get(name) for name in ("tau_syn", "tau_exc", "tau_inh") if name in values]
            variables = item.neuron.variables[1:]
            start = {
                v: np.broadcast_to(initial.get(f"{item.name}.{v}", 0.0), (item.size,))[k] for v in ("v", *variables)
            }
            threshold = get("v_threshold") if item.neuron.spiking else math.inf
            neurons.append(
                ReferenceNeuron(
                    v_threshold=threshold,
                    tau_mem=get("tau_mem", math.inf),
                    tau_syn=tuple(taus),
                    drive=get("drive"),
                    drive_syn=get("drive_syn"),
                    t_ref=get("t_ref"),
                    v_reset=None if values.get("reset") == "subtract" else get("v_reset"),
                    reset_amount=get("reset_amount", threshold),
                    stage=stage,
                    v=float(start["v"]),
                    i=[float(start[v]) for v in variables],
                    time=-network.dt,
                )
            )
            names.append((item.name, k))
    synapses = []
    for q, projection in enumerate(network.projections):
        existing, delays = synapse_delays(projection, network.dt)
        source = np.repeat(np.arange(projection.shape[1]), np.diff(existing.indptr))
        receptors = network.population(projection.target).neuron.receptors
        for s in range(len(delays)):
            at = -1 - int(source[s]) if projection.source == "in" else first[projection.source] + int(source[s])
            target = first[projection.target] + int(existing.target[s])
            receptor = receptors.index(projection.receptor) if receptors else 0
            synapses.append(ReferenceSynapse(at, target, float(existing.weight[s]), float(delays[s]), q, receptor))
    given, counts = np.unique(np.stack((events.times, events.units)), axis=1, return_counts=True)
    fed = [(float(t), -1 - int(u), int(c)) for t, u, c in zip(*given, counts, strict=True)]
    return neurons, names, synapses, fed


def same(found: Result, wanted: list[tuple[str, float, int]], tolerance: float = 1e-12) -> None:
    got = []
    for name, time, unit in pairs(found):
        got.append((name, unit, time))
    for _, name, unit, time in found.notes["early"]:
        got.remove((name, unit, 0.0))
        got.append((name, unit, time))
    want = sorted((name, unit, time) for name, time, unit in wanted)
    got.sort()
    assert [item[:2] for item in got] == [item[:2] for item in want]
    np.testing.assert_allclose([item[2] for item in got], [item[2] for item in want], rtol=0, atol=tolerance)
