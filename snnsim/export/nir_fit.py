"""Which networks a program's NIR importer runs as they are: everything else is refused, by name.

A file for one program is written in that program's convention (:mod:`snnsim.export.nir_conventions`). What it cannot
hold is found here before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from snnsim.errors import InputError
from snnsim.export.nir_conventions import READERS, Convention
from snnsim.neurons import StepParameters

if TYPE_CHECKING:
    from snnsim.export.nir_timing import Timing
    from snnsim.network import Network, Population

__all__ = ["WRITTEN_FOR", "check_fit", "reader_convention", "without_integrators"]

WRITTEN_FOR = ("norse", "snntorch", "spikingjelly")
"""Programs that files can be written for."""


def reader_convention(reader: str) -> Convention:
    """Return the convention of a program that files can be written for.

    Raises:
        InputError: There is no such program.
    """
    if reader not in WRITTEN_FOR:
        raise InputError(
            f"reader: files can be written for {', '.join(WRITTEN_FOR)}, got {reader!r}; "
            "leave it out for a file in the format's own terms"
        )
    return READERS[reader]


def without_integrators(network: Network) -> tuple[Network, str]:
    """Return the network without its populations that have no threshold, and a sentence about it."""
    gone = [item.name for item in network.populations if not item.neuron.spiking]
    if not gone:
        return network, ""
    if len(gone) == len(network.populations):
        raise InputError("integrators: the network has no spiking population; nothing would be left")
    kept = network.replace(
        populations=tuple(item for item in network.populations if item.name not in gone),
        projections=tuple(item for item in network.projections if item.target not in gone),
        readout=None if network.readout and network.readout.population in gone else network.readout,
    )
    return kept, f"Left out, with the synapses into them: {', '.join(gone)}; the file ends with spikes."


def check_fit(
    network: Network, reader: str, parameters: Mapping[str, StepParameters], timing: Timing, delays: str
) -> list[str]:
    """Refuse what a program's importer cannot run, and return what it runs differently, in sentences.

    Args:
        network: The network.
        reader: One of :data:`WRITTEN_FOR`.
        parameters: Numbers per step by population.
        timing: Latencies and loops, of :func:`snnsim.export.nir_timing.plan_timing`.
        delays: What becomes of delays; ``"drop-with-report"`` lets them pass.

    Raises:
        InputError: The importer cannot hold the network; the message names the population or projection.
    """
    convention = reader_convention(reader)
    program = convention.program
    if len(network.inputs) > 1:
        raise InputError(f"{program} runs files with one input, the network has {len(network.inputs)}")
    for projection in network.projections:
        steps = projection.synapses(network.dt).delay_steps + timing.shift(projection.source, projection.target)
        if np.any(steps) and delays != "drop-with-report":
            raise InputError(
                f"projection {projection.name!r}: {program} has no delays, this one needs up to {steps.max()} steps; "
                "leave the reader out, or pass delays='drop-with-report'"
            )
        if (projection.source, projection.target) in timing.back and not convention.loops:
            raise InputError(
                f"projection {projection.name!r}: {program} {convention.version} runs recurrent connections otherwise: "
                "its importer sends the input through them"
            )
    for population in network.populations:
        _check_population(population, parameters[population.name], reader, convention)
    changes = [
        f"Written for {program} {convention.version}: other readers may make other spikes of this file.",
        *(f"{program}: {remark}." for remark in convention.remarks),
    ]
    if convention.narrow:
        changes.append(
            f"{program} rounds weights, decays and thresholds to float32; read_nir(path, reader={reader!r}) is the "
            "network that it runs."
        )
    if convention.strict and not all(p.strict for p in parameters.values() if p.spiking):
        changes.append(
            f"{program} fires above the threshold, this network at it too: a membrane exactly there differs."
        )
    if convention.dt is not None and convention.dt != network.dt:
        changes.append(
            f"{program} takes dt = {convention.dt} s: time constants are written for that; a step of {network.dt} s is "
            "still a step."
        )
    return changes


def _check_population(population: Population, p: StepParameters, reader: str, convention: Convention) -> None:
    what, program, kind = f"population {population.name!r}", convention.program, population.neuron.kind
    if not p.spiking:
        raise InputError(
            f"{what}: {program}'s importer has no {kind}; pass integrators='drop-with-report' to end with spikes"
        )
    if not p.reset_zero:
        raise InputError(f"{what}: {program}'s importer resets to zero, this population by subtraction")
    if np.any(p.v_reset):
        raise InputError(f"{what}: {program}'s importer starts and resets at the same value, here 0 and v_reset differ")
    if p.current and np.any(p.drive_step + p.drive_syn_to_v):
        raise InputError(f"{what}: {program} has no drive on the membrane of a CubaLIF; use one on its current")
    leaky = kind != "IF" and not np.all(p.beta == 1)
    if reader == "snntorch" and not leaky:
        raise InputError(f"{what}: {program}'s importer makes leaky neurons of IF; give it a leak")
    if reader == "spikingjelly" and leaky and np.any(p.beta <= 0):
        raise InputError(f"{what}: {program}'s importer needs a beta above 0")
    uneven = {"spikingjelly": ("beta", "alpha", "v_threshold"), "snntorch": ("v_threshold",), "norse": ()}[reader]
    for label in uneven:
        values = np.unique(getattr(p, label))
        if values.size > 1:
            raise InputError(
                f"{what}: {program}'s importer needs one {label} a population, here it goes from {values[0]:.6g} to "
                f"{values[-1]:.6g}"
            )
