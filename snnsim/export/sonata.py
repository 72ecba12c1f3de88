"""Write a network as a SONATA folder that NEST runs, with the weight and the delay of every synapse.

SONATA (Dai et al., PLoS Computational Biology 2020) holds a circuit as tables: nodes and edges in HDF5, types in CSV,
configurations in JSON. Populations become NEST's neurons, whose laws are ours in other words::

    LIF, IF, LI      iaf_psc_delta   tau_m = -h / ln(beta), C_m = tau_m, I_e = drive_step / (1 - beta)
    CubaLIF, CubaLI  iaf_psc_exp     the same, tau_syn_ex = tau_syn_in = -h / ln(alpha)

with ``h`` the time step in ms, potentials in mV counted from ``E_L = 0``, and a threshold out of reach for a neuron
without one. With ``C_m = tau_m`` a weight of ``w`` pA moves a current neuron as our ``w`` does; a record whose
``kappa`` is not that of its time constants has its weights scaled by the ratio.

NEST knows no delay of zero steps. A population that needs one is moved: it lives ``L`` steps later, and a delay ``d``
becomes ``d + L_target - L_source``. A constant current into the synapse, which NEST lacks, is written as its final
value on the membrane and a first spike ``i_start`` that takes away what is not there yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.export import ExportReport
from snnsim.export.sonata_folder import Edges, Folder, Nodes, Spikes, write_folder
from snnsim.export.sonata_read import read_sonata
from snnsim.grid import kappa

if TYPE_CHECKING:
    from snnsim.events import Events
    from snnsim.network import Network, Population
    from snnsim.neurons import StepParameters

__all__ = ["plan_latency", "read_sonata", "write_sonata"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NO_THRESHOLD = 1e300
"""Threshold of a neuron that never fires, mV."""

NO_LEAK = 1e300
"""Time constant of a membrane that keeps everything, ms."""

AT_ONCE = 1e-300
"""Time constant of a membrane that keeps nothing, ms."""

SAME_GAIN = 1e-12
"""A gain from current to membrane this close to that of the time constants is the same."""

INPUT_RATE = 0.05
"""Events a step and channel of the input that is written if none is given."""


def write_sonata(
    network: Network, path: str | Path, *, events: Events | None = None, n_steps: int | None = None, seed: int = 0
) -> ExportReport:
    """Write ``network`` as a SONATA folder with a script that runs it in NEST.

    Args:
        network: Populations of IF, LIF, LI, CubaLIF or CubaLI neurons that are reset to a value.
        path: Folder to write; a SONATA folder of snnsim in its place is replaced.
        events: Its first sample becomes the folder's input spikes; default: random spikes.
        n_steps: Steps of the run that the folder describes; default: the sample's, or 100 and twice the longest
            delay, and the tail in the network's notes.
        seed: Seed of the random spikes.

    Returns:
        The list of changes, and the latency: minus L for a population that lives L steps later in NEST.

    Raises:
        InputError: NEST cannot run the network; the message names the population or projection.
        SnnsimFileError: The folder cannot be written, or something else lies there.
    """
    step, changes = _milliseconds(network.dt)
    parameters = {item.name: item.neuron.step(item.size, network.dt) for item in network.populations}
    for population in network.populations:
        _check(population, parameters[population.name])
    latency = plan_latency(network, parameters)
    names = _names([*(item.name for item in network.inputs), *(item.name for item in network.populations)])
    nodes = [Nodes(names[source.name], source.name, source.size) for source in network.inputs]
    gains: dict[str, Floats] = {}
    for population in network.populations:
        written = _population(population, parameters[population.name], step)
        gains[population.name] = written.gain
        changes += written.changes
        late = latency[population.name]
        nodes.append(
            Nodes(
                names[population.name],
                population.name,
                population.size,
                model="iaf_psc_exp" if parameters[population.name].current else "iaf_psc_delta",
                dynamics=written.dynamics,
                attributes=written.attributes,
                latency=late,
                spiking=population.neuron.spiking,
            )
        )
        if late:
            changes.append(
                f"Population {population.name!r} lives {late} steps later in NEST, which has no delay of 0 steps; "
                "run_nest.py takes them off its results."
            )
    edges = _edges(network, latency, gains, names, step)
    spikes, steps = _spikes(network, events, n_steps, seed, names, step)
    readout = network.readout
    about = {
        "schema": 1,
        "producer": "snnsim",
        "digest": network.digest(),
        "dt": network.dt,
        "readout": None
        if readout is None
        else {
            "population": names[readout.population],
            "variable": readout.variable,
            "reduce": readout.reduce,
            "skip_steps": readout.skip_steps,
        },
        "notes": {
            key: network.notes[key] for key in ("tail_steps", "n_steps") if isinstance(network.notes.get(key), int)
        },
        "changes": changes,
        "latency_steps": {names[name]: value for name, value in latency.items()},
    }
    write_folder(path, Folder(nodes, edges, spikes, step, steps, about))
    return ExportReport("sonata", Path(path), tuple(changes), {name: -value for name, value in latency.items()})


def plan_latency(network: Network, parameters: dict[str, StepParameters]) -> dict[str, int]:
    """Return the steps by which each population must live later so that every delay is at least one step.

    Raises:
        InputError: A loop has too few steps of delay for that.
    """
    latency = {item.name: 0 for item in network.inputs}
    for name, p in parameters.items():
        latency[name] = 2 if np.any(p.drive_syn_step) else 0  # its first spike must arrive before its first step
    shortest = []
    for projection in network.projections:
        steps = projection.synapses(network.dt).delay_steps
        if steps.size:
            shortest.append((projection, int(steps.min())))
    for _ in range(len(parameters) + 1):
        late = ""
        for projection, delay in shortest:
            needed = latency[projection.source] + 1 - delay
            if latency[projection.target] < needed:
                latency[projection.target], late = needed, projection.name
        if not late:
            return {item.name: latency[item.name] for item in network.populations}
    raise InputError(
        f"projection {late!r}: lies on a loop with fewer steps of delay than connections; NEST needs at least "
        "one step in each, so lengthen the loop's delays"
    )


def _milliseconds(dt: float) -> tuple[float, list[str]]:
    """Return the step in ms: the network's own if it lies on NEST's grid of 1 us, else 1 ms."""
    micro = dt * 1e6
    if round(micro) >= 1 and abs(micro - round(micro)) < 1e-6 * micro:
        return round(micro) / 1000, []
    return 1.0, [f"The step of {dt:g} s is not a whole number of microseconds as NEST's must be; 1 ms stands for it."]


def _names(names: list[str]) -> dict[str, str]:
    """Return names of letters, digits, hyphens and underscores, each once."""
    result: dict[str, str] = {}
    for name in names:
        plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_" for letter in name)
        unique, number = plain, 1
        while unique in result.values():
            number += 1
            unique = f"{plain}_{number}"
        result[name] = unique
    return result


def _check(population: Population, p: StepParameters) -> None:
    what = f"population {population.name!r}"
    kind = population.neuron.kind
    if kind not in ("IF", "LIF", "LI", "CubaLIF", "CubaLI"):
        raise InputError(
            f"{what}: the SONATA export knows no {kind} neuron; use IF, LIF, LI, CubaLIF or CubaLI populations"
        )
    if p.spiking and not p.reset_zero:
        raise InputError(
            f"{what}: NEST's {'iaf_psc_exp' if p.current else 'iaf_psc_delta'} has no reset by subtraction; "
            "train with reset='zero'"
        )
    for word, step in (("start_step", population.start_step), ("stop_step", population.stop_step)):
        if step:
            raise InputError(f"{what}: NEST cannot say its {word} = {step}; leave it out")
    if p.current:
        for word, value in (("beta", p.beta), ("alpha", p.alpha)):
            if np.any(value <= 0) or np.any(value >= 1):
                raise InputError(
                    f"{what}: {word} = {value[(value <= 0) | (value >= 1)][0]:g} is no time constant that NEST's "
                    "iaf_psc_exp can have; expected a decay between 0 and 1"
                )
    elif np.any((p.beta >= 1) & (p.drive_step != 0)):
        raise InputError(
            f"{what}: NEST has no drive on a membrane without leak; use a LIF population with a long tau_mem"
        )


@dataclass(frozen=True)
class _Written:
    """What a population becomes; ``gain`` multiplies the weights into it, ``(size,)``."""

    dynamics: dict[str, Floats]
    attributes: dict[str, Floats]
    gain: Floats
    changes: list[str]


def _time_constant(decay: Floats, step: float) -> Floats:
    """Return the time constants (ms) whose decay over ``step``, as computed, is nearest to ``decay``."""
    inside = np.clip(decay, 1e-300, np.nextafter(1, 0))
    first = -step / np.log(inside)
    best, error = first, np.abs(np.exp(-step / first) - decay)
    for ulps in (1, -1, 2, -2, 3, -3, 4, -4):
        other = first * (1 + ulps * np.finfo(float).eps)
        off = np.abs(np.exp(-step / other) - decay)
        best, error = np.where(off < error, other, best), np.minimum(error, off)
    return np.where(decay <= 0, AT_ONCE, np.where(decay >= 1, NO_LEAK, best))


def _population(population: Population, p: StepParameters, step: float) -> _Written:
    size, what = population.size, f"Population {population.name!r}"
    changes: list[str] = []
    tau = _time_constant(p.beta, step)
    leak = np.where(p.beta >= 1, 1.0, 1 - p.beta)
    threshold = np.nextafter(p.v_threshold, np.inf) if p.strict else p.v_threshold
    if p.strict:
        changes.append(f"{what} fires above its threshold, NEST at it: the next larger number is written.")
    dynamics: dict[str, Any] = {
        "tau_m": tau,
        "C_m": np.where(p.beta >= 1, 1.0, tau),
        "E_L": np.zeros(size),
        "V_th": threshold if p.spiking else np.full(size, NO_THRESHOLD),
        "V_reset": p.v_reset,
        "t_ref": p.refractory_steps * step,
    }
    attributes: dict[str, Any] = {"beta": p.beta, "drive_step": p.drive_step}
    drive, gain = p.drive_step, np.ones(size)
    if p.current:
        synaptic = _time_constant(p.alpha, step)
        dynamics |= {"tau_syn_ex": synaptic, "tau_syn_in": synaptic}
        attributes |= {"alpha": p.alpha, "kappa": p.kappa}
        attributes |= {"drive_syn_step": p.drive_syn_step, "drive_syn_to_v": p.drive_syn_to_v}
        ratio = p.kappa / kappa(tau, synaptic, step)
        gain = np.where(np.abs(ratio - 1) < SAME_GAIN, 1.0, ratio)
        if np.any(gain != 1):
            changes.append(f"{what}: its kappa is not that of its time constants; weights into it are scaled.")
        final = p.drive_syn_step / (1 - p.alpha)
        drive = p.drive_step + p.drive_syn_to_v + p.kappa * final
        if np.any(final):
            attributes["i_start"] = -final * gain
            changes.append(
                f"{what}: its drive on the current is I_e and a first spike of weight i_start, one step before step 0."
            )
    dynamics["I_e"] = drive / leak
    off = np.abs(np.exp(-step / np.where(p.beta <= 0, 1.0, tau)) - p.beta)[(p.beta > 0) & (p.beta < 1)]
    if off.size and off.max() > 0:
        changes.append(
            f"{what}: {np.count_nonzero(off)} of {size} decays come out of their time constants with another last "
            f"digit (at most {off.max():.1e} off)."
        )
    return _Written(dynamics, attributes, gain, changes)


def _edges(
    network: Network, latency: dict[str, int], gains: dict[str, Floats], names: dict[str, str], step: float
) -> list[Edges]:
    """Return all synapses, one table for each pair of source and target."""
    parts: dict[tuple[str, str], list[tuple[Integers, Integers, Floats, Integers]]] = {}
    for projection in network.projections:
        s = projection.synapses(network.dt)
        source = np.repeat(np.arange(projection.shape[1]), np.diff(s.indptr))
        later = latency[projection.target] - latency.get(projection.source, 0)
        target = s.target.astype(np.int64)
        weight = s.weight * gains[projection.target][target]
        part = (source, target, weight, s.delay_steps + later)
        parts.setdefault((projection.source, projection.target), []).append(part)
    result = []
    for (first, second), many in parts.items():
        source, target, weight, delay = (np.concatenate([part[place] for part in many]) for place in range(4))
        result.append(Edges(names[first], names[second], source, target, weight, delay * step))
    return result


def _spikes(
    network: Network, events: Events | None, n_steps: int | None, seed: int, names: dict[str, str], step: float
) -> tuple[list[Spikes], int]:
    """Return the input spikes of every input, and the steps of the run."""
    tail = network.noted_steps("tail_steps")
    if events is not None:
        if len(network.inputs) != 1 or events.n_units != network.inputs[0].size:
            raise InputError(
                f"events: have {events.n_units} channels, expected those of the network's one input "
                f"({', '.join(f'{item.name!r}: {item.size}' for item in network.inputs)})"
            )
        from snnsim.grid import time_to_step

        first = events.subset(np.arange(min(1, len(events))))
        steps = time_to_step(first.times, network.dt)
        total = n_steps or int(first.n_steps(network.dt).max(initial=1)) + tail
        keep = steps < total
        units = first.units.astype(np.int64)
        return [Spikes(names[network.inputs[0].name], steps[keep] * step, units[keep])], total
    count = network.noted_steps("n_steps") or 100 + 2 * network.max_delay_steps()
    rng = np.random.default_rng(seed)
    result = []
    for item in network.inputs:
        when, unit = np.nonzero(rng.random((count, item.size)) < INPUT_RATE)
        result.append(Spikes(names[item.name], when * step, unit.astype(np.int64)))
    return result, n_steps or count + tail


def input_spikes(name: str, counts: npt.NDArray[Any], step: float) -> Spikes:
    """Return the spikes of one sample of counts, ``(time, unit)``; an event that counts k times is there k times."""
    when, unit = np.nonzero(counts)
    repeat = counts[when, unit].astype(np.int64)
    return Spikes(name, np.repeat(when, repeat) * step, np.repeat(unit, repeat).astype(np.int64))
