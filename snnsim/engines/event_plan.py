"""A network laid out for the event engine: neurons by stage, laws in continuous time, rows of synapses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.event_rows import RowForm, row_form
from snnsim.engines.event_spans import Span, find_spans, still_laws
from snnsim.engines.stochastic import plain, refuse_random
from snnsim.errors import InputError
from snnsim.kernels import event_law as law
from snnsim.kernels.event import Plan
from snnsim.network import Network, Population, Projection
from snnsim.neurons import IF, LI, LIF, CubaLI, CubaLIF, ExpCurrentLIF

__all__ = ["Layout", "law_rows", "make_layout", "synapse_delays"]

RECORDS = (IF, LIF, LI, CubaLIF, CubaLI, ExpCurrentLIF)
NEAR = 0.1  # relative distance of two time constants below which the difference of their decays is not used
SHORTER = 1.0 - 1e-6  # windows are this much shorter than the delay they must not exceed: room for rounding
LONGEST_STEPS = 16.0  # windows are at most so many dt long
SOON = 0.125  # membrane time constants for which the bound on a crossing looks at what is left of the currents
MAX_SLOTS = 2**22
LEAST_TAU, MOST_TAU = 1e-200, 1e200

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """A plan and where to find things in it.

    Attributes:
        plan: For the kernels; its ``window`` is 0 if only a queue can run the network.
        laws: Numbers of the neurons, :mod:`snnsim.kernels.event_law`, ``(laws, COLUMNS)``.
        law: Row of ``laws`` of each neuron in the order of stages, int32.
        offset: First neuron of each population, in the order of the network, int64 ``(populations,)``.
        slots: Windows that can have arrivals at the same time.
        fan_out: Synapses of one source through all its projections, at most.
        rows: The form in which whole rows arrive, None if the network has none.
        spans: When populations run that start late or stop early; then ``laws`` are followed by as many for neurons
            that stay as they are.
    """

    plan: Plan
    laws: Floats
    law: npt.NDArray[np.int32]
    offset: Integers
    slots: int
    fan_out: int
    rows: RowForm | None
    spans: tuple[Span, ...] = ()


def _gain(tau_mem: Floats, tau_syn: Floats) -> Floats:
    apart = tau_mem - tau_syn
    near = np.abs(apart) < NEAR * np.maximum(tau_mem, tau_syn)
    return np.where(near, 0.0, tau_syn / np.where(near, 1.0, apart))


def law_rows(population: Population) -> Floats:
    """Return the continuous-time numbers of every neuron, ``(size, COLUMNS)``.

    A record made from numbers per step gives its derived time constants and drive per second; a decay of 1 means
    no leak.

    Raises:
        InputError: The neuron is not one of this engine's, or has no time constant.
    """
    neuron, size = population.neuron, population.size
    what = f"engine 'event': population {population.name!r}"
    if type(neuron) not in RECORDS:
        known = ", ".join(record.kind for record in RECORDS)
        raise InputError(
            f"{what}: {neuron.kind} has no exact continuous-time form here; expected one of {known}; "
            "run it on engine 'clock'"
        )
    p = neuron.parameters()

    def values(name: str, default: float = 0.0) -> Floats:
        given = p.get(name, default)
        return np.broadcast_to(np.asarray(default if given is None else given, dtype=np.float64), (size,)).copy()

    rows = np.zeros((size, law.COLUMNS))
    rows[:, law.RATE_E] = rows[:, law.RATE_I] = 1.0
    drive = values("drive")
    kind = np.full(size, law.LINEAR)
    v_inf = np.zeros(size)
    if "tau_mem" in p:
        tau = values("tau_mem")
        forever = tau >= MOST_TAU
        if neuron.current and forever.any():
            raise InputError(f"{what}: tau_mem: expected at most {MOST_TAU:g} s beside a synaptic current")
        if np.any(tau <= LEAST_TAU):
            raise InputError(
                f"{what}: tau_mem: its decay per step is 0, which has no continuous-time form; use engine 'clock'"
            )
        if neuron.dt is not None:
            drive = np.where(forever, values("drive_step") / neuron.dt, drive)
        kind = np.where(forever, law.LINEAR, law.CURRENT if neuron.current else law.LEAK)
        v_inf = np.where(forever, 0.0, tau * drive)
        rows[:, law.TAU], rows[:, law.RATE_M] = tau, 1.0 / tau
        for name, rate, gain in (
            ("tau_syn", law.RATE_E, law.GAIN_E),
            ("tau_exc", law.RATE_E, law.GAIN_E),
            ("tau_inh", law.RATE_I, law.GAIN_I),
        ):
            if name in p:
                tau_syn = values(name)
                if np.any(tau_syn <= LEAST_TAU) or np.any(tau_syn >= MOST_TAU):
                    raise InputError(
                        f"{what}: {name}: its decay per step is 0 or 1, which has no continuous-time form here; "
                        "use engine 'clock'"
                    )
                rows[:, rate], rows[:, gain] = 1.0 / tau_syn, _gain(tau, tau_syn)
        if "drive_syn" in p:
            rows[:, law.STEADY] = values("drive_syn") * values("tau_syn")
            v_inf = v_inf + rows[:, law.STEADY]
    rows[:, law.SOON] = SOON * rows[:, law.TAU]
    rows[:, law.LEFT_E] = np.exp(-rows[:, law.SOON] * rows[:, law.RATE_E])
    rows[:, law.LEFT_I] = np.exp(-rows[:, law.SOON] * rows[:, law.RATE_I])
    rows[:, law.KIND], rows[:, law.VINF] = kind, v_inf
    rows[:, law.DRIVE] = np.where(kind == law.LINEAR, drive, 0.0)
    if neuron.spiking:
        threshold = values("v_threshold")
        amount = threshold if p["reset_amount"] is None else values("reset_amount")
        rows[:, law.AMOUNT] = amount
        if p["strict"]:
            threshold = np.nextafter(threshold, np.inf)
        rows[:, law.GAP] = threshold - v_inf
        rows[:, law.RESET] = values("v_reset") - v_inf
        rows[:, law.RESET_ZERO] = float(p["reset"] == "zero")
        rows[:, law.T_REF] = values("t_ref")
    else:
        rows[:, law.GAP] = np.inf
    if not np.isfinite(rows[:, [law.VINF, law.STEADY]]).all():
        raise InputError(f"{what}: drive times tau_mem is not a finite number; use a smaller drive")
    return rows


def synapse_delays(projection: Projection, dt: float) -> tuple[Any, Floats]:
    """Return the existing synapses of a projection and the delay of each in seconds, not rounded to the grid."""
    synapses = projection.synapses(dt)
    delay = np.asarray(projection.delay, dtype=np.float64)
    if delay.ndim == 1:
        return synapses, delay[synapses.index]
    source = np.repeat(np.arange(projection.shape[1]), np.diff(synapses.indptr))
    return synapses, np.broadcast_to(delay, projection.shape)[synapses.target, source]


def _levels(n: int, edges: list[tuple[int, int]]) -> list[int] | None:
    """Return the length of the longest path to each node, None if there is a cycle."""
    levels = [0] * n
    for _ in range(n + 1):
        changed = False
        for a, b in edges:
            if levels[b] < levels[a] + 1:
                levels[b] = levels[a] + 1
                changed = True
        if not changed:
            return levels
    return None


def _window(n: int, least: dict[tuple[int, int], float], dt: float) -> tuple[float, list[int]]:
    """Return the longest window in which no spike can come back, 0 if none, and the stage of each population."""
    best = 0.0
    for length in sorted({*least.values(), np.inf}):
        if _levels(n, [edge for edge, delay in least.items() if delay < length]) is None:
            break
        best = length
    window = min(best * SHORTER, LONGEST_STEPS * dt)
    levels = _levels(n, [edge for edge, delay in least.items() if delay < window])
    if window == 0 or levels is None:
        return 0.0, _groups(n, [edge for edge, delay in least.items() if delay == 0])
    return window, levels


def _groups(n: int, edges: list[tuple[int, int]]) -> list[int]:
    """Return the stage of each node; nodes on a common cycle share one, and no edge leads to an earlier stage."""
    reach = np.zeros((n, n), np.bool_)
    for a, b in edges:
        reach[a, b] = True
    for k in range(n):
        reach |= reach[:, [k]] & reach[[k], :]
    together = (reach & reach.T) | np.eye(n, dtype=np.bool_)
    group = together.argmax(axis=1).tolist()
    levels = _levels(n, [(group[a], group[b]) for a, b in edges if group[a] != group[b]])
    assert levels is not None
    order = sorted({levels[group[k]] for k in range(n)})
    return [order.index(levels[group[k]]) for k in range(n)]


def make_layout(network: Network) -> Layout:
    """Lay a network out.

    Raises:
        InputError: A population or the range of delays cannot be run.
    """
    network = plain(network)
    refuse_random(network, "event")
    populations, n_inputs = network.populations, len(network.inputs)
    place = {item.name: k for k, item in enumerate(populations)}
    group_of = {item.name: k for k, item in enumerate(network.inputs)}
    group_of.update({item.name: n_inputs + k for k, item in enumerate(populations)})
    laws = [law_rows(item) for item in populations]
    synapses = [synapse_delays(item, network.dt) for item in network.projections]
    least: dict[tuple[int, int], float] = {}
    longest = 0.0
    for projection, (_, delays) in zip(network.projections, synapses, strict=True):
        if not delays.size:
            continue
        longest = max(longest, float(delays.max()))
        if projection.source in place:
            edge = (place[projection.source], place[projection.target])
            least[edge] = min(least.get(edge, np.inf), float(delays.min()))
    window, stages = _window(len(populations), least, network.dt)
    slots = 1 if window == 0 else int(longest / window) + 3
    if slots > MAX_SLOTS:
        raise InputError(
            f"engine 'event': delays of up to {longest} s beside loops as short as {window:.3g} s need {slots} "
            f"windows, at most {MAX_SLOTS} are kept; lengthen the shortest delay or set it to 0"
        )
    order = sorted(range(len(populations)), key=lambda k: (stages[k], k))
    offset = np.zeros(len(populations), np.int64)
    ends = np.cumsum([populations[k].size for k in order])
    offset[order] = ends - [populations[k].size for k in order]
    stage_start = [0]
    for at, k in enumerate(order):
        if stages[k] == len(stage_start) and at:
            stage_start.append(int(offset[k]))
    stage_start.append(int(ends[-1]))

    rows, which = np.unique(np.concatenate([laws[k] for k in order]), axis=0, return_inverse=True)
    group = np.concatenate([np.full(populations[k].size, n_inputs + k, np.int32) for k in order])
    out: list[list[int]] = [[] for _ in group_of]
    first_row, stage_of, largest = [], [], []
    parts: dict[str, list[npt.NDArray[Any]]] = {key: [] for key in ("end", "row", "own", "target", "weight", "delay")}
    n_rows = n_synapses = n_own = 0
    for q, (projection, (existing, delays)) in enumerate(zip(network.projections, synapses, strict=True)):
        target = place[projection.target]
        receptors = populations[target].neuron.receptors
        receptor = receptors.index(projection.receptor) if receptors else 0
        n_source = projection.shape[1]
        given = np.asarray(projection.delay)
        uniform = given.ndim == 0 or (given.ndim == 2 and given.shape[0] == 1)
        out[group_of[projection.source]].append(q)
        largest.append(int(np.diff(existing.indptr).max(initial=0)))
        first_row.append(n_rows)
        stage_of.append(stages[target])
        parts["end"].append(n_synapses + existing.indptr[1:])
        parts["row"].append(np.broadcast_to(given, (1, n_source))[0] if uniform else np.zeros(n_source))
        parts["own"].append(np.full(n_source, -1, np.int64) if uniform else n_own + existing.indptr[:-1])
        parts["target"].append((2 * (existing.target.astype(np.int64) + offset[target]) + receptor).astype(np.int32))
        parts["weight"].append(existing.weight)
        if not uniform:
            parts["delay"].append(delays)
            n_own += delays.shape[0]
        n_rows += n_source
        n_synapses += existing.weight.shape[0]

    def joined(key: str, kind: Any) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, kind), *parts[key]]).astype(kind)

    plan = Plan(
        group=group,
        first=np.concatenate([np.zeros(n_inputs, np.int64), offset]),
        stage_start=np.array(stage_start, np.int64),
        out_start=np.concatenate(([0], np.cumsum([len(item) for item in out]))).astype(np.int64),
        out=np.array([q for item in out for q in item], np.int64),
        first_row=np.array(first_row, np.int64),
        stage=np.array(stage_of, np.int64),
        row_start=np.concatenate(([0], joined("end", np.int64))).astype(np.int64),
        row_delay=joined("row", np.float64),
        row_own=joined("own", np.int64),
        target=joined("target", np.int32),
        weight=joined("weight", np.float64),
        delay=joined("delay", np.float64),
        window=float(window),
        origin=-float(network.dt),
    )
    fan_out = max((sum(largest[q] for q in item) for item in out), default=0)
    rows, of = np.ascontiguousarray(rows), which.reshape(-1).astype(np.int32)
    spans = find_spans(populations, offset, network.dt)
    if spans:
        return Layout(plan, np.concatenate((rows, still_laws(rows))), of, offset, slots, fan_out, None, spans)
    second = np.concatenate([np.full(populations[k].size, len(populations[k].neuron.receptors) > 1) for k in order])
    return Layout(plan, rows, of, offset, slots, fan_out, row_form(plan, rows, of, second, network.dt))
