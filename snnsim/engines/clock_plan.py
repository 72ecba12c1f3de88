"""From a network to what the clock kernel walks along: laws, paths of synapses, shares of the threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype
from snnsim.engines.clock_paths import DrawnPath, Path, path_table, paths_of
from snnsim.engines.stochastic import plain, releases
from snnsim.kernels import clock_laws, clock_models, clock_rows, clock_tables, stochastic
from snnsim.kernels.clock_sleep import DEEPEST
from snnsim.network import Network
from snnsim.neurons import Neuron

__all__ = ["Layout", "make_layout"]

MAX_RISE = 100_000  # steps in which a postsynaptic potential must have its peak
MAX_WINDOW = 64  # steps; longer windows gain nothing and their rings leave the cache
SHARE = 16  # neurons; threads own whole cache lines
Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_ELSEWHERE = {
    "alpha": ("alpha_exc", "alpha"),
    "kappa": ("kappa_exc", "kappa"),
    "alpha_inh": ("alpha_inh", "alpha"),
    "kappa_inh": ("kappa_inh", "kappa"),
}

_MODELS = {
    "AlphaCurrentLIF": clock_models.ALPHA_CURRENT,
    "ConductanceLIF": clock_models.CONDUCTANCE,
    "AdEx": clock_models.ADEX,
    "Izhikevich": clock_models.IZHIKEVICH,
    "MetaDynamicNeuron": clock_models.META_DYNAMIC,
}


def _law(neuron: Neuron) -> int:
    """Return the law of a neuron without one of its own."""
    if hasattr(neuron, "tau_adapt"):
        return clock_laws.ADAPTIVE
    if getattr(neuron, "noisy", False):
        return stochastic.FIRES
    if neuron.receptors:
        return clock_laws.TWO_CURRENTS
    return clock_laws.CURRENT if neuron.current else clock_laws.MEMBRANE


def _peak(beta: Array, alpha: Array, kappa: Array) -> Array:
    """Return the most that a unit current adds to the membrane in any later step, by the recursion itself."""
    v, i, best = np.zeros_like(beta), np.ones_like(beta), np.zeros_like(beta)
    for _ in range(MAX_RISE):
        v, i = beta * v + kappa * i, alpha * i
        if np.all(v <= best):
            break
        best = np.maximum(best, v)
    else:
        best[:] = np.inf  # still rising: never calm
    return best * (1 + 1e-4)


def _sleep(numbers: dict[str, Array], kind: np.dtype[Any]) -> None:
    """Add what :func:`snnsim.kernels.clock_sleep.fall_asleep` needs, for neurons whose thresholds are above rest."""
    beta, theta, alpha = numbers["beta"], numbers["v_threshold"], numbers["alpha"]
    slow = np.maximum(beta, np.maximum(alpha, numbers["alpha_inh"]))
    peak = _peak(beta, alpha, numbers["kappa"])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rest = np.where(alpha < 1, numbers["drive_syn_step"] / (1 - alpha), 0.0)
        end = numbers["drive_step"] + numbers["drive_syn_to_v"] + numbers["kappa"] * rest
        end = np.where(end == 0, 0.0, end / (1 - beta))
        margin = 16 * np.finfo(kind).eps * DEEPEST / (1 - slow) + 1e-6
        calm = theta * (1 - margin)
        room = calm - np.maximum(end, 0)
        sane = (theta > 0) & np.isfinite(theta) & (margin < 0.5) & (room > 0) & (np.abs(end) < DEEPEST * calm)
        sane &= (numbers["kappa"] >= 0) & (numbers["kappa_inh"] >= 0) & (np.abs(rest) * peak < DEEPEST * calm)
    numbers["calm"] = np.where(sane, calm, -np.inf)
    numbers["room"] = np.where(sane, room, -np.inf)
    numbers["peak"] = peak
    numbers["peak_inh"] = _peak(beta, numbers["alpha_inh"], numbers["kappa_inh"])
    numbers["i_rest"] = np.asarray(rest)


def _populations(network: Network, dtype: Dtype, awake: frozenset[str] | None) -> dict[str, Any]:
    """Return the table of populations without their receptors, and their numbers per step."""
    kind = np.dtype(dtype)
    table = np.zeros((len(network.populations), clock_tables.POPULATION_COLUMNS), np.int64)
    one = np.zeros((len(network.populations), len(clock_tables.NUMBERS)), kind)
    each = [np.zeros((len(clock_tables.NUMBERS), 0), kind)]
    refractory = [np.zeros(0, np.int64)]
    first = first_own = 0
    for row, numbers, item in zip(table, one, network.populations, strict=True):
        adaptive = hasattr(item.neuron, "tau_adapt")
        own = adaptive or item.neuron.size() is not None
        step = item.neuron.step(item.size if own else 1, network.dt)
        law = _MODELS.get(item.neuron.kind, _law(item.neuron))
        rows = clock_models.MODEL_NUMBERS.get(law, clock_tables.NUMBERS[: clock_tables.CALM])
        rows = stochastic.FIRES_NUMBERS if law == stochastic.FIRES else rows
        found: dict[str, Array] = {}
        for name in rows:
            names = _ELSEWHERE.get(name, (name,))
            known = [key for key in names if key in step.extra]
            found[name] = np.asarray(step.extra[known[0]] if known else getattr(step, names[-1]), np.float64)
        simple = law in (clock_laws.MEMBRANE, clock_laws.CURRENT, clock_laws.TWO_CURRENTS)
        sleepy = awake is not None and item.name not in awake and simple
        sleepy = sleepy and not item.start_step and item.stop_step is None
        if sleepy:
            _sleep(found, kind)
        values = np.zeros((len(clock_tables.NUMBERS), step.beta.shape[0]), kind)
        for place, number in enumerate(found.values()):
            values[place] = number
        if step.strict and not adaptive:
            theta = rows.index("v_threshold")
            values[theta] = np.nextafter(values[theta], np.array(np.inf, kind))
        row[clock_tables.OFFSET], row[clock_tables.SIZE], row[clock_tables.EACH] = first, item.size, first_own
        row[clock_tables.LAW] = law
        row[clock_tables.FLAGS] = (
            clock_tables.RESET_ZERO * step.reset_zero
            + clock_tables.STRICT * step.strict
            + clock_tables.REFRACTORY * bool(step.refractory_steps.any() and not adaptive)
            + clock_tables.OWN * own
            + clock_tables.SLEEPY * sleepy
        )
        row[clock_tables.START] = item.start_step
        row[clock_tables.STOP] = 2**62 if item.stop_step is None else item.stop_step
        row[clock_tables.REFRACTORY_STEPS] = step.refractory_steps[0]
        numbers[:] = values[:, 0]
        if own:
            each.append(values)
            refractory.append(step.refractory_steps)
            first_own += item.size
        first += item.size
    return {
        "populations": table,
        "one": one,
        "each": np.ascontiguousarray(np.concatenate(each, axis=1)),
        "refractory": np.concatenate(refractory),
    }


@dataclass(frozen=True, eq=False)
class Layout:
    """A network laid out; :meth:`plan` shares it out among threads.

    Attributes:
        sizes: Neurons of each population.
        ports: Receptors of each population.
        paths: Keeps the arrays alive whose addresses a plan holds.
        common: Fields of the plan that do not depend on the number of threads.
        divisible: Whether one sample can run on several threads (no population acts on another at once).
    """

    sizes: Integers
    paths: list[Path]
    common: dict[str, Any]
    divisible: bool

    @property
    def n_neurons(self) -> int:
        """Neurons of all populations."""
        return int(self.sizes.sum())

    @property
    def ring_length(self) -> int:
        """Numbers in the rings of a sample."""
        ports = self.common["ports"]
        return int((ports[:, clock_rows.SLOTS] * ports[:, clock_rows.PORT_SIZE]).sum())

    @property
    def slots(self) -> int:
        """Slots of all rings if somebody may sleep, else 0."""
        sleepy = (self.common["populations"][:, clock_tables.FLAGS] & clock_tables.SLEEPY).any()
        return int(self.common["ports"][:, clock_rows.SLOTS].sum()) if sleepy else 0

    @property
    def longest(self) -> int:
        """The longest delay in steps."""
        return int(self.common["ports"][:, clock_rows.LIVE].max())

    @property
    def random(self) -> bool:
        """Whether numbers are drawn within the network: synapses that release at random, or noisy thresholds."""
        laws = self.common["populations"][:, clock_tables.LAW]
        return any(isinstance(path, DrawnPath) for path in self.paths) or bool((laws == stochastic.FIRES).any())

    @property
    def window(self) -> int:
        """Most steps in which no neuron feels another's spike."""
        return int(self.common["window"])

    def plan(
        self, threads: int, noise: tuple[Integers, list[Array]] | None = None, seed: int = 0
    ) -> tuple[clock_tables.Plan, list[Array]]:
        """Return the network for so many threads a sample, and arrays to keep as long as it is used.

        ``seed`` is that of all numbers drawn within the network.
        """
        shares = np.minimum(-(-self.sizes // threads // SHARE) * SHARE, self.sizes) if threads > 1 else self.sizes
        own_edge = np.minimum(shares[:, None] * np.arange(threads + 1), self.sizes[:, None])
        own_edge[:, -1] = self.sizes
        paths = self.common["paths"].copy()
        kept: list[Array] = []
        for row, path in zip(paths, self.paths, strict=True):
            edges = np.zeros((path.row_delay.shape[0], threads + 1), np.int64)
            if path.indptr is not None and path.target is not None:
                edges[:, 0], edges[:, -1] = path.indptr[:-1], path.indptr[1:]
                if threads > 1:
                    clock_rows.divide(path.indptr, path.target, own_edge[path.owner], edges)
            row[clock_rows.EDGES], row[clock_rows.ROW_EDGE] = threads + 1, edges.ctypes.data
            kept.append(edges)
            if isinstance(path, DrawnPath):
                drawn, parts = path.address(seed)
                row[clock_rows.DRAWN] = drawn.ctypes.data
                kept += [drawn, *parts]
        table, more = noise or (np.zeros((0, clock_tables.NOISE_COLUMNS), np.int64), [])
        fields = {
            **self.common,
            "paths": paths,
            "own_edge": np.ascontiguousarray(own_edge),
            "noise": table,
            "seed": seed if self.random else None,
        }
        return clock_tables.Plan(**fields), kept + more


def make_layout(network: Network, dtype: Dtype, awake: frozenset[str] | None = None) -> Layout:
    """Lay a network out as flat arrays for :func:`snnsim.kernels.clock.run_steps`.

    Args:
        network: The network.
        dtype: Of the run.
        awake: Names of the populations that are moved on in every step; the others may sleep. None: nobody sleeps.

    Raises:
        InputError: A delay is too long.
    """
    kind = np.dtype(dtype)
    network = plain(network)
    drawn = releases(network)
    populations, n_inputs = network.populations, len(network.inputs)
    place = {item.name: number for number, item in enumerate(populations)}
    order = np.array([place[item.name] for item in network.order()], np.int64)
    source_place = {item.name: number for number, item in enumerate(network.inputs)}
    source_place.update({populations[p].name: n_inputs + rank for rank, p in enumerate(order)})
    sizes = np.array([item.size for item in populations], np.int64)
    n_ports = np.array([max(1, len(item.neuron.receptors)) for item in populations], np.int64)
    first_port = np.concatenate(([0], np.cumsum(n_ports))).astype(np.int64)
    tables = _populations(network, dtype, awake)
    populations_table = tables["populations"]
    populations_table[:, clock_tables.FIRST_PORT], populations_table[:, clock_tables.LAST_PORT] = (
        first_port[:-1],
        first_port[1:],
    )
    paths: list[Path] = []
    divisible = True
    for number, projection in enumerate(network.projections):
        owner = place[projection.target]
        receptors = populations[owner].neuron.receptors
        port = int(first_port[owner]) + (receptors.index(projection.receptor) if receptors else 0)
        ends = {"source": source_place[projection.source], "owner": owner, "port": port}
        for path in paths_of(projection, network.dt, kind, ends, drawn.get(number)):
            paths.append(path)
            if path.now and path.source >= n_inputs:
                divisible = False
                if populations[owner].neuron.current:
                    populations_table[owner, clock_tables.FLAGS] |= clock_tables.LATE
                    populations_table[owner, clock_tables.FLAGS] &= ~clock_tables.SLEEPY
    window = min([MAX_WINDOW, *(path.shortest for path in paths if not path.now)])
    port_size = np.repeat(sizes, n_ports)
    live = np.zeros(port_size.shape[0], np.int64)
    for path in paths:
        live[path.port] = max(live[path.port], path.longest)
    slots = live + window
    ports = np.empty((port_size.shape[0], clock_rows.PORT_COLUMNS), np.int64)
    ports[:, clock_rows.PORT_SIZE], ports[:, clock_rows.SLOTS], ports[:, clock_rows.LIVE] = port_size, slots, live
    ports[:, clock_rows.DIRTY] = np.cumsum(slots) - slots
    ports[:, clock_rows.RING] = np.cumsum(slots * port_size) - slots * port_size
    into = [[q for q, path in enumerate(paths) if path.owner == p] for p in range(len(populations))]
    common = {
        **tables,
        "order": order,
        "ports": ports,
        "paths": path_table(paths),
        "into": np.array([q for part in into for q in part], np.int64),
        "into_start": np.concatenate(([0], np.cumsum([len(part) for part in into]))).astype(np.int64),
        "window": window,
    }
    return Layout(sizes, paths, common, divisible)
