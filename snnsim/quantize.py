"""From a float network to the integer network of a target: checked, calibrated, with an error report.

network, report = quantize(Network.load("first.snn.h5"), "loihi2")
print(*report.sentences(), sep="\\n")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.integer_network import IntegerNetwork
from snnsim.limits import Profile, load_profile
from snnsim.network import Network, Population
from snnsim.quantize_delays import plan_delays
from snnsim.quantize_report import Calibration, LayerError, QuantizeOptions, QuantizeReport
from snnsim.quantize_weights import Job, Quantized
from snnsim.target_check import Finding, TargetCheck, check, delay_range

__all__ = [
    "QUANTIZERS",
    "Calibration",
    "Finding",
    "LayerError",
    "QuantizeOptions",
    "QuantizeReport",
    "TargetCheck",
    "check",
    "quantize",
]

QUANTIZERS = {
    "loihi2": "snnsim.quantize_loihi:quantize_loihi",
    "xylo": "snnsim.quantize_xylo:quantize_xylo",
    "fixed": "snnsim.quantize_fixed:quantize_fixed",
}
"""Where the function of every law is: it takes a :class:`Job` and returns :class:`Quantized`."""


def quantize(
    network: Network,
    profile: Profile | str | Path,
    *,
    options: QuantizeOptions | None = None,
    calibration: Events | None = None,
    tail_steps: int = 0,
) -> tuple[IntegerNetwork, QuantizeReport]:
    """Return the integer network that a target computes for a float network, and what changed.

    With ``calibration`` the scale of every population is chosen, one after the other, so that its spikes (or the
    membranes of integrators) differ least from those of the float network; without, the largest weight just fits. A
    network that was trained for this target (``notes["quantize"]``) keeps the scales it was trained for.

    Args:
        network: A frozen network.
        profile: A profile with a law, the name of a built-in one, or the path of a JSON file.
        options: Choices.
        calibration: Events of the only input, from training data: a test set must stay unseen.
        tail_steps: Empty steps added to every calibration sample.

    Raises:
        InputError: The target cannot hold the network (every reason is named, with what to change), the profile has no
            law, or the calibration events do not fit.
    """
    profile = load_profile(profile)
    options = options or QuantizeOptions()
    if not isinstance(network, Network):
        raise InputError(f"quantize: expected a Network, got {type(network).__name__}")
    if profile.law is None:
        raise InputError(
            f"quantize: profile {profile.name!r} has no integer law here, so it can only be checked; with one: "
            "loihi2, loihi, xylo-audio2, fixed"
        )
    given = network
    extra: list[str] = []
    if options.decays == "mean" and profile.decay_per == "population":
        network, extra = _one_decay(network)
    found = check(network, profile)
    refused = [item for item in found.violations if not (item.subject == "max_delay" and options.delays == "clamp")]
    if refused:
        listed = " ".join(item.sentence() for item in refused[:8])
        more = f" And {len(refused) - 8} more." if len(refused) > 8 else ""
        raise InputError(f"quantize: {profile.name} cannot hold this network. {listed}{more}")
    trained, units = (_trained(network, profile, key) for key in ("scales", "units"))
    job = Job(network, profile, options, plan_delays(network, delay_range(profile)), given=trained, units=units)
    if options.headroom == "observed" and calibration is None:
        raise InputError("quantize: headroom = 'observed' needs calibration events")
    changes = [*extra, *(item.sentence() for item in found.changes)]
    clamped = sum(int(places.size) for places in job.plan.outside)
    if clamped:
        changes.append(f"{clamped} delays were clamped to what the target holds.")
    if trained:
        changes.append("The scales are those that the network was trained for.")
    result: Calibration | None = None
    if calibration is not None and not trained:
        from snnsim.quantize_calibration import calibrate

        job, result = calibrate(job, given, calibration, tail_steps, make)
    integer, quantized = make(job)
    changes += quantized.changes
    report = QuantizeReport(
        profile=profile.name,
        law=profile.law,
        layers=tuple(quantized.errors),
        latency=dict(job.plan.latency),
        cores=found.cores,
        changes=tuple(changes),
        calibration=result,
    )
    return integer.replace(changes=tuple(report.sentences()), source=given.digest()), report


def _trained(network: Network, profile: Profile, key: str) -> dict[str, npt.NDArray[np.float64]]:
    """Return what training for this profile left in the network's notes; none if it was not so trained.

    Args:
        network: Frozen network.
        profile: Target.
        key: ``"scales"``, or ``"units"``, which older networks do not have.
    """
    note = network.notes.get("quantize")
    if not isinstance(note, dict) or note.get("profile") != profile.name:
        return {}
    scales = note.get(key, {} if key == "units" else None)
    if not isinstance(scales, dict):
        raise InputError(f"quantize: the network's notes on its training are damaged: expected {key} by population")
    if key == "units" and not scales:
        return {}
    found = {}
    for item in network.populations:
        values = np.asarray(scales.get(item.name, ()), dtype=np.float64)
        if values.shape != (item.size,) or not (np.isfinite(values).all() and (values > 0).all()):
            raise InputError(
                f"quantize: the network's notes on its training do not fit population {item.name!r}: expected "
                f"{item.size} positive {key}, got {values.size}"
            )
        found[item.name] = values
    return found


def make(job: Job) -> tuple[IntegerNetwork, Quantized]:
    """Return the integer network of a job, by the quantiser of its law."""
    law = str(job.profile.law)
    module, _, name = QUANTIZERS[law].partition(":")
    function: Callable[[Job], Quantized] = getattr(import_module(module), name)
    quantized = function(job)
    network = job.network
    integer = IntegerNetwork(
        law=law,
        populations=tuple(quantized.populations),
        projections=tuple(quantized.projections),
        inputs=network.inputs,
        readout=network.readout,
        dt=network.dt,
        scale=quantized.scale,
        latency=job.plan.latency,
    )
    return integer, quantized


def _one_decay(network: Network) -> tuple[Network, list[str]]:
    """Return the network with one decay a population, the mean of its neurons' decays, and what moved."""
    populations: list[Population] = []
    changes: list[str] = []
    for item in network.populations:
        step = item.neuron.step(item.size, network.dt)
        names = [name for name in ("beta", "alpha") if name == "beta" or step.current]
        uneven = [name for name in names if np.ptp(getattr(step, name)) > 0]
        if not uneven or not hasattr(item.neuron, "from_step"):
            populations.append(item)
            continue
        values: dict[str, Any] = {"beta": step.beta, "drive_step": step.drive_step}
        if step.current:
            values |= {"alpha": step.alpha, "kappa": step.kappa, "drive_syn_step": step.drive_syn_step}
            values["drive_syn_to_v"] = step.drive_syn_to_v
        for name in uneven:
            mean = float(np.mean(values[name]))
            worst = float(np.abs(values[name] - mean).max())
            values[name] = mean
            changes.append(f"{item.name}: one {name} of {mean:.5g} for all neurons; it moved by up to {worst:.2g}.")
        kept = item.neuron.parameters()
        for name in ("v_threshold", "v_reset", "reset", "reset_amount", "t_ref", "strict"):
            if name in kept:
                values[name] = kept[name]
        neuron = type(item.neuron).from_step(dt=network.dt, **values)
        populations.append(replace(item, neuron=neuron))
    return network.replace(populations=tuple(populations)), changes
