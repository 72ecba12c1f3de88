"""Networks of the law ``fixed`` for tests, and a second, naive program that runs them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import IF, LI, LIF, CubaLI, CubaLIF

DT = 0.001


def naive(network: IntegerNetwork, counts: npt.NDArray[Any]) -> tuple[dict[str, Any], list[int], dict[str, Any]]:
    """Run one sample in Python integers: spikes (time, neuron) by population, scores, and the last membranes."""
    n_steps = counts.shape[0]
    pops = {item.name: item for item in network.populations}
    v = {name: [0] * item.size for name, item in pops.items()}
    i = {name: [0] * item.size for name, item in pops.items()}
    left = {name: [0] * item.size for name, item in pops.items()}
    spikes = {name: np.zeros((n_steps, item.size), bool) for name, item in pops.items() if item.spiking}
    traces = {name: np.zeros((n_steps, item.size), np.int64) for name, item in pops.items()}
    coming: dict[tuple[str, int, int], int] = {}

    def decay(x: int, b: int) -> int:
        return abs(x) * b // 32768 * (1 if x > 0 else -1)

    def send(source: str, unit: int, times: int, k: int) -> None:
        for item in network.projections:
            if item.source == source:
                for s in range(item.indptr[unit], item.indptr[unit + 1]):
                    key = (item.target, int(item.unit[s]), k + int(item.delay[s]))
                    coming[key] = coming.get(key, 0) + int(item.weight[s]) * times

    def clamp(x: int, bits: int) -> int:
        return max(-(2**bits), min(2**bits, x))

    for k in range(n_steps):
        first = 0
        for item in network.inputs:
            for unit in np.flatnonzero(counts[k, first : first + item.size]):
                send(item.name, int(unit), int(counts[k, first + unit]), k)
            first += item.size
        for place in network.order():
            pop = network.populations[place]
            name = pop.name
            p = {key: [int(x) for x in value] for key, value in pop.parameters.items()}
            for j in range(pop.size):
                moved = decay(v[name][j], p["beta"][j]) + p["drive"][j]
                arrived = coming.pop((name, j, k), 0) * 2 ** p["shift"][j]
                if pop.current:
                    acting = clamp(i[name][j] + arrived, 29)
                    moved += acting
                    i[name][j] = clamp(decay(acting, p["alpha"][j]) + p["drive_syn"][j], 29)
                else:
                    moved += arrived
                if left[name][j]:
                    left[name][j] -= 1
                    continue
                v[name][j] = clamp(moved, 30)
                if pop.spiking and v[name][j] >= p["v_threshold"][j]:
                    v[name][j] = p["v_reset"][j] if p["reset_zero"][j] else v[name][j] - p["reset_amount"][j]
                    left[name][j] = p["refractory_steps"][j]
                    spikes[name][k, j] = True
            if pop.spiking:
                for j in np.flatnonzero(spikes[name][k]):
                    send(name, int(j), 1, k)
        for pop in network.populations:
            traces[pop.name][k] = v[pop.name]
    scores: list[int] = []
    readout = network.readout
    if readout is not None:
        x = traces[readout.population] if readout.variable == "v" else spikes[readout.population].astype(np.int64)
        x = x[readout.skip_steps :]
        if len(x):
            reduced = {"max": x.max(axis=0), "last": x[-1]}.get(readout.reduce, x.sum(axis=0))
            if readout.reduce == "sum_softmax":
                reduced = soft(x, int(np.log2(network.scale[readout.population][0])))
            scores = [int(value) for value in reduced]
        else:
            scores = [0] * x.shape[1]
    return spikes, scores, v


def rich_network(seed: int = 0, *, reduce: str = "max") -> Network:
    """Every law, both resets, refractoriness, drives, recurrence, parallel synapses, two inputs, per-neuron numbers."""
    rng = np.random.default_rng(seed)

    def projection(
        source: str, target: str, n: int, m: int, mean: float, spread: float, low: int, high: int
    ) -> Projection:
        weight = rng.normal(mean, spread, (n, m)) * (rng.random((n, m)) < 0.7)
        return Projection(source, target, weight, rng.integers(low, high + 1, (n, m)) * DT)

    lif = LIF(tau_mem=rng.uniform(0.004, 0.02, 14), v_threshold=rng.uniform(0.8, 1.2, 14), t_ref=0.002, drive=4.0)
    cuba = CubaLIF(tau_mem=0.01, tau_syn=rng.uniform(0.002, 0.008, 11), reset="subtract", drive=8.0, drive_syn=900.0)
    return Network(
        populations=(
            Population("out", 5, CubaLI(tau_mem=0.03, tau_syn=0.004)),
            Population("late 1", 9, IF(reset="subtract", v_threshold=1.0)),
            Population("cuba", 11, cuba),
            Population("first", 14, lif),
            Population("trace", 3, LI(tau_mem=0.02)),
        ),
        projections=(
            projection("in", "first", 14, 12, 0.1, 0.3, 0, 9),
            projection("other", "first", 14, 4, 0.1, 0.3, 3, 3),
            projection("first", "first", 14, 14, -0.05, 0.1, 1, 4),
            projection("first", "cuba", 11, 14, 0.5, 2.0, 0, 6),
            projection("first", "cuba", 11, 14, 0.2, 1.0, 2, 2),
            projection("cuba", "cuba", 11, 11, -0.3, 1.0, 0, 3),
            projection("first", "late 1", 9, 14, 0.05, 0.2, 0, 0),
            projection("cuba", "late 1", 9, 11, 0.05, 0.2, 0, 12),
            projection("cuba", "out", 5, 11, 0.0, 1.0, 0, 5),
            projection("late 1", "out", 5, 9, 0.0, 1.0, 1, 1),
            projection("late 1", "trace", 3, 9, 0.1, 1.0, 0, 2),
        ),
        inputs=(Input("in", 12), Input("other", 4)),
        readout=Readout("late 1", "spikes", "count") if reduce == "count" else Readout("out", "v", reduce, 5),  # type: ignore[arg-type]
        dt=DT,
    )


def soft(rows: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Sum the softmax of every row, in Python integers."""
    powers = [round(2 ** (15 - (k + 0.5) / 64)) for k in range(64)]
    total = [0] * rows.shape[1]
    for row in rows.tolist():
        terms = []
        for value in row:
            apart = max(row) - value
            y = (apart * 1024 // 2**bits) * 1477 // 1024
            terms.append(powers[y % 1024 // 16] // 2 ** (y // 1024) if apart < 11 * 2**bits else 0)
        total = [a + term * 32768 // sum(terms) for a, term in zip(total, terms, strict=True)]
    return np.array(total)


def any_network(seed: int) -> IntegerNetwork:
    """Draw a network in integers: sizes from 1 to beyond 256, any delays, kinds, shifts, and readouts or none."""
    rng = np.random.default_rng(seed)

    def some(low: int, high: int, size: int) -> Any:
        return np.full(size, rng.integers(low, high)) if rng.random() < 0.4 else rng.integers(low, high, size)

    sizes = [int(rng.choice([1, 2, 7, 20])) for _ in range(int(rng.integers(1, 5)))]
    sizes[0] = 300 if seed % 7 == 0 else sizes[0]
    inputs = [Input(f"in{k}", int(rng.choice([1, 3, 9]))) for k in range(int(rng.integers(1, 4)))]
    populations = []
    for k, size in enumerate(sizes):
        kind = str(rng.choice(["lif", "cubalif"] if k < len(sizes) - 1 else ["lif", "cubalif", "li", "cubali"]))
        p = {"beta": some(0, 32769, size), "drive": some(-40, 60, size), "shift": some(0, 5, size)}
        if kind.startswith("cuba"):
            p |= {"alpha": some(0, 32769, size), "drive_syn": some(-20, 20, size)}
        if kind.endswith("lif"):
            zero = some(0, 2, size)
            p |= {"v_threshold": some(20, 400, size), "v_reset": some(-50, 20, size), "reset_zero": zero}
            p |= {"reset_amount": some(0, 300, size), "refractory_steps": some(0, int(rng.choice([1, 4, 300])), size)}
        populations.append(IntegerPopulation(f"p{k}", size, kind, p))
    projections = []
    sources: list[tuple[str, int, int]] = [(item.name, item.size, -1) for item in inputs]
    sources += [(item.name, item.size, k) for k, item in enumerate(populations) if item.spiking]
    for name, n_source, place in sources:
        for k, item in enumerate(populations):
            for _ in range(int(rng.integers(0, 3))):
                n = int(rng.integers(0, n_source * item.size + 1)) if n_source * item.size < 2000 else 900
                row = np.sort(rng.integers(0, n_source, n))
                low, high = (0 if place < k else 1), int(rng.choice([2, 9, 40, 300]))
                delay = np.full(n, rng.integers(low, high)) if rng.random() < 0.4 else rng.integers(low, high, n)
                top = int(rng.choice([3, 127, 30000]))
                indptr = np.searchsorted(row, np.arange(n_source + 1))
                columns = (rng.integers(0, item.size, n), rng.integers(-top, top + 1, n), delay)
                projections.append(IntegerProjection(name, item.name, indptr, *columns))
    last = populations[-1]
    choice = [("v", "max"), ("v", "mean"), ("v", "last"), ("v", "sum_softmax")]
    choice += [("spikes", "count"), ("spikes", "last")] if last.spiking else []
    readout = None
    if rng.random() < 0.8:
        variable, reduce = choice[int(rng.integers(len(choice)))]
        readout = Readout(last.name, variable, reduce, int(rng.choice([0, 5])))  # type: ignore[arg-type]
    order = rng.permutation(len(populations))
    return IntegerNetwork(
        law="fixed",
        populations=tuple(populations[k] for k in order),
        projections=tuple(projections),
        inputs=tuple(inputs),
        readout=readout,
        dt=DT,
        scale={last.name: 2.0 ** int(rng.choice([0, 3, 10, 14]))},
    )
