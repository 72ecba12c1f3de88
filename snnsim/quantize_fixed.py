"""From a float network to integers of the law ``fixed``: scales with headroom, and a list of what changed.

The law is defined in :mod:`snnsim.kernels.reference_integer_fixed` and explained in ``docs/hardware.md``. A weight
``w`` becomes ``round(w * scale)`` in 8 or 16 bits, membranes and thresholds have the scale ``scale * 2^shift``: the
shift gives the membrane fractional bits, so that its decay does not lose what 8 bit weights cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.kernels.reference_integer_fixed import (
    CURRENT_LIMIT,
    DECAY_ONE,
    MEMBRANE_LIMIT,
    fixed_faults,
    fixed_max_count,
    fixed_peak,
)
from snnsim.kernels.reference_integer_scores import SOFTMAX_BITS
from snnsim.network import Network, Population, Projection, Readout
from snnsim.network_checks import check_integer
from snnsim.neuron_base import StepParameters

__all__ = ["FixedOptions", "FixedReport", "arrival_bounds", "max_count", "quantize_fixed"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Scale = Literal["population", "neuron"]

KINDS = {"IF": "lif", "LIF": "lif", "LI": "li", "CubaLIF": "cubalif", "CubaLI": "cubali"}
MAX_SHIFT = 14
MAX_THRESHOLD = 2.0**22
"""Largest threshold in units of the weights."""

LEAST_SHIFT = {8: 6, 16: 0}
"""Fractional bits, by weight_bits, that the membrane keeps even if a worst case could then be clamped."""


@dataclass(frozen=True)
class FixedOptions:
    """How a network is put on integers.

    Attributes:
        weight_bits: 8 or 16.
        scale: One scale for a ``population``, or one for every ``neuron`` with a threshold: each neuron then uses all
            bits of its weights, and its threshold and drive are stored one by one.
        power_of_two: Make scales powers of two, so that numbers with few binary digits stay exact; costs up to one bit.
        max_count: How often one input unit may act in one step; bounds are proven for it.
    """

    weight_bits: int = 8
    scale: Scale = "population"
    power_of_two: bool = False
    max_count: int = 32

    def __post_init__(self) -> None:
        if self.weight_bits not in (8, 16):
            raise InputError(f"weight_bits: expected 8 or 16, got {self.weight_bits!r}")
        if self.scale not in get_args(Scale):
            raise InputError(f"scale: expected one of {list(get_args(Scale))}, got {self.scale!r}")
        object.__setattr__(self, "power_of_two", bool(self.power_of_two))
        object.__setattr__(self, "max_count", check_integer(self.max_count, "max_count", 1, 2**16 - 1))


@dataclass(frozen=True)
class FixedReport:
    """What quantisation did, in numbers.

    Attributes:
        weight_error: By projection, root mean square error of its weights over their root mean square.
        lost_synapses: By projection, synapses whose weight became 0 and that are left out.
        decay_error: By population, the largest error of ``1 - beta`` (and ``1 - alpha``) relative to it.
        shift: By population, the fractional bits of the membrane.
        max_count: How often every input unit may act in one step.
        clamped: Populations whose worst case reaches the limits of the law, where values are clamped.
    """

    weight_error: dict[str, float]
    lost_synapses: dict[str, int]
    decay_error: dict[str, float]
    shift: dict[str, int]
    max_count: int
    clamped: tuple[str, ...]


def quantize_fixed(network: Network, options: FixedOptions | None = None) -> tuple[IntegerNetwork, FixedReport]:
    """Put a network on the integers of the law ``fixed``.

    Args:
        network: Populations of IF, LIF, LI, CubaLIF and CubaLI that run from step 0 to the end.
        options: See :class:`FixedOptions`.

    Returns:
        The integer network, every intermediate of which fits int32, and the report.

    Raises:
        InputError: The law cannot hold the network; the sentence names the population.
    """
    options = options or FixedOptions()
    for item in network.populations:
        _refuse(item)
    if network.readout is not None and network.readout.reduce == "sum_softmax" and network.readout.variable == "spikes":
        raise InputError("readout: the law 'fixed' has no softmax of spikes; read 'count'")
    notes: list[str] = []
    populations: list[IntegerPopulation] = []
    weights: dict[int, Integers] = {}
    scale: dict[str, Floats] = {}
    decay_error: dict[str, float] = {}
    shifts: dict[str, int] = {}
    clamped: list[str] = []
    names = {item.name for item in network.inputs}
    for item in network.populations:
        step = item.neuron.step(item.size, network.dt)
        incoming = [n for n, projection in enumerate(network.projections) if projection.target == item.name]
        gain = step.kappa if step.current else np.ones(item.size)
        unit = _unit(network, item, incoming, gain, options)
        bounds = {True: np.zeros(item.size, np.int64), False: np.zeros(item.size, np.int64)}
        for number in incoming:
            synapses = network.projections[number].synapses(network.dt)
            weights[number] = np.rint(synapses.weight * (gain * unit)[synapses.target]).astype(np.int64)
            np.add.at(bounds[network.projections[number].source in names], synapses.target, np.abs(weights[number]))
        arrivals = bounds[True] * options.max_count + bounds[False]
        least = LEAST_SHIFT[options.weight_bits]
        most = MAX_SHIFT
        if _softmax(network, item):
            most = min(most, SOFTMAX_BITS - int(np.log2(unit[0])))
            if most < 0 or unit[0] < 1:
                raise InputError(
                    f"population {item.name!r}: its weights are too {'small' if most < 0 else 'large'} for the softmax "
                    "in integers; read 'mean' or 'max'"
                )
        shift, parameters, can_clamp = _shifted(item, step, unit, arrivals, least, most)
        populations.append(IntegerPopulation(item.name, item.size, KINDS[item.neuron.kind], parameters))
        scale[item.name] = unit * 2.0**shift
        shifts[item.name] = shift
        decay_error[item.name] = _decay_error(step, parameters)
        if can_clamp:
            clamped.append(item.name)
        notes += _sentences(item, step, unit, shift, decay_error[item.name], can_clamp, options)
    projections, errors, lost = _projections(network, weights, scale, shifts, notes)
    readout = _readout(network, notes)
    result = IntegerNetwork(
        law="fixed",
        populations=tuple(populations),
        projections=projections,
        inputs=network.inputs,
        readout=readout,
        dt=network.dt,
        scale=scale,
        changes=tuple(notes),
        source=network.digest(),
    )
    report = FixedReport(errors, lost, decay_error, shifts, max_count(result), tuple(clamped))
    return result, report


def arrival_bounds(network: IntegerNetwork, population: str) -> tuple[Integers, Integers]:
    """Return the sums of absolute weights from inputs and from populations, int64 ``(size,)`` each."""
    size = network.population(population).size
    names = {item.name for item in network.inputs}
    sums = {True: np.zeros(size, np.int64), False: np.zeros(size, np.int64)}
    for item in network.projections:
        if item.target == population:
            np.add.at(sums[item.source in names], item.unit, np.abs(item.weight.astype(np.int64)))
    return sums[True], sums[False]


def max_count(network: IntegerNetwork) -> int:
    """Return how often every input unit may act in one step without any intermediate leaving int32.

    Raises:
        InputError: An intermediate can leave int32 without any input.
    """
    least = 2**31 - 1
    for item in network.populations:
        inputs, neurons = arrival_bounds(network, item.name)
        faults = fixed_faults(item.kind, item.parameters, neurons)
        if faults:
            neuron, sentence = faults[0]
            raise InputError(f"population {item.name!r}: neuron {neuron}: {sentence}; int32 cannot hold it")
        least = min(least, fixed_max_count(item.kind, item.parameters, inputs, neurons))
    return least


def _refuse(item: Population) -> None:
    what = f"population {item.name!r}"
    if item.neuron.kind not in KINDS:
        raise InputError(
            f"{what}: the law 'fixed' has {', '.join(sorted(KINDS))}, got {item.neuron.kind}; "
            "train or convert to one of these"
        )
    if item.start_step or item.stop_step is not None:
        raise InputError(f"{what}: the law 'fixed' runs from step 0 to the end; it has a start_step or stop_step")


def _unit(network: Network, item: Population, incoming: list[int], gain: Floats, options: FixedOptions) -> Floats:
    """Return integer weight units per float unit, ``(size,)``."""
    largest = np.zeros(item.size)
    for number in incoming:
        synapses = network.projections[number].synapses(network.dt)
        np.maximum.at(largest, synapses.target, np.abs(synapses.weight * gain[synapses.target]))
    top = 2.0 ** (options.weight_bits - 1) - 1
    if options.scale == "population" or not item.neuron.spiking:
        largest = np.full(item.size, largest.max(initial=0.0))
    step = item.neuron.step(item.size, network.dt)
    alone = np.abs(step.v_threshold) if item.neuron.spiking else np.ones(item.size)
    largest = np.where(largest > 0, largest, np.where(alone > 0, alone, 1.0))  # nothing comes in: any scale serves
    unit = np.asarray(top / largest)
    if item.neuron.spiking:  # weights far below the threshold need not use all their bits
        unit = np.minimum(unit, MAX_THRESHOLD / np.where(alone > 0, alone, 1.0))
    if not np.isfinite(unit).all() or unit.max() > 2.0**62:
        raise InputError(f"population {item.name!r}: weights up to {largest.min():.3g} are too small to be scaled")
    if options.power_of_two or _softmax(network, item):
        unit = 2.0 ** np.floor(np.log2(unit))
    return np.asarray(unit)


def _shifted(
    item: Population, step: StepParameters, unit: Floats, arrivals: Integers, least: int, most: int
) -> tuple[int, dict[str, Integers], bool]:
    """Return the most fractional bits that fit, the parameters with them, and whether a worst case is clamped."""
    kind = KINDS[item.neuron.kind]
    fitting: tuple[int, dict[str, Integers], bool] | None = None
    reason = ""
    for shift in range(most, -1, -1):
        parameters = _parameters(item, step, unit, shift)
        if parameters is None:
            reason = "a threshold, reset or drive reaches 2^30"
            continue
        faults = fixed_faults(kind, parameters, arrivals)
        if faults:
            reason = faults[0][1]
            continue
        v, i = fixed_peak(kind, parameters, arrivals)
        free = bool((v <= MEMBRANE_LIMIT).all() and (i <= CURRENT_LIMIT).all())
        if free and (fitting is None or shift >= least):
            return shift, parameters, False
        if fitting is None or shift >= least:
            fitting = (shift, parameters, True)
    if fitting is None:
        raise InputError(
            f"population {item.name!r}: the law 'fixed' cannot hold it: {reason}; use weight_bits=8, a smaller "
            "max_count or fewer synapses a neuron"
        )
    return fitting


def _parameters(item: Population, step: StepParameters, unit: Floats, shift: int) -> dict[str, Integers] | None:
    """Return the parameters of the law, or None if one cannot be held."""
    whole = unit * 2.0**shift
    values: dict[str, Floats] = {
        "beta": np.rint(step.beta * DECAY_ONE),
        "drive": np.rint((step.drive_step + step.drive_syn_to_v) * whole),
        "shift": np.full(item.size, float(shift)),
    }
    if item.neuron.current:
        values["alpha"] = np.rint(step.alpha * DECAY_ONE)
        values["drive_syn"] = np.rint(step.drive_syn_step * step.kappa * whole)
    if item.neuron.spiking:
        zero = np.full(item.size, bool(step.reset_zero))
        values["v_threshold"] = np.rint(step.v_threshold * whole) + float(step.strict)
        values["v_reset"] = np.where(zero, np.rint(step.v_reset * whole), 0.0)
        values["reset_amount"] = np.where(zero, 0.0, np.rint(step.reset_amount * whole))
        values["reset_zero"] = zero.astype(np.float64)
        values["refractory_steps"] = step.refractory_steps.astype(np.float64)
        if bool(step.reset_zero):  # rounding must not lift the reset to the threshold
            values["v_threshold"] = np.maximum(values["v_threshold"], values["v_reset"] + 1)
    for name, array in values.items():
        if np.abs(array).max() >= MEMBRANE_LIMIT and name != "refractory_steps":
            return None
    if "reset_amount" in values and values["reset_amount"].min() < 0:
        raise InputError(f"population {item.name!r}: reset_amount: the law 'fixed' subtracts 0 or more")
    if "refractory_steps" in values and values["refractory_steps"].max() >= 2**16:
        raise InputError(f"population {item.name!r}: the law 'fixed' is refractory for at most 65535 steps")
    return {name: array.astype(np.int64) for name, array in values.items()}


def _decay_error(step: StepParameters, parameters: Mapping[str, Integers]) -> float:
    worst = 0.0
    for name, true in (("beta", step.beta), ("alpha", step.alpha)):
        if name in parameters:
            lost, kept = 1 - true, 1 - parameters[name] / DECAY_ONE
            error = np.abs(kept - lost) / np.where(lost > 0, lost, 1.0)
            worst = max(worst, float(error.max()))
    return worst


def _sentences(
    item: Population,
    step: StepParameters,
    unit: Floats,
    shift: int,
    error: float,
    can_clamp: bool,
    options: FixedOptions,
) -> list[str]:
    low, high = float(unit.min()), float(unit.max())
    units = f"{high:.6g}" if low == high else f"{low:.6g} to {high:.6g} (one a neuron)"
    lines = [
        f"{item.name}: {options.weight_bits} bit weights, {units} units per 1.0, membrane with {shift} more bits; "
        f"1 - decay is off by {error:.2g} of itself at most."
    ]
    if item.neuron.current:
        lines.append(
            f"{item.name}: the gain from current to membrane is part of its weights; a current acts in the step it "
            "arrives, so delays to it are one step longer and every spike comes in the same step as before."
        )
    if item.neuron.spiking and step.strict:
        lines.append(f"{item.name}: 'v > threshold' became 'v >= threshold + 1'.")
    if can_clamp:
        lines.append(
            f"{item.name}: the worst input would take it beyond 2^30 (current: 2^29), where the law clamps it."
        )
    return lines


def _projections(
    network: Network, weights: dict[int, Integers], scale: dict[str, Floats], shifts: dict[str, int], notes: list[str]
) -> tuple[tuple[IntegerProjection, ...], dict[str, float], dict[str, int]]:
    """Return the projections without synapses whose weight became 0, their errors and losses."""
    found: list[IntegerProjection] = []
    errors: dict[str, float] = {}
    lost: dict[str, int] = {}
    for number, item in enumerate(network.projections):
        synapses = item.synapses(network.dt)
        whole = weights[number]
        kept = whole != 0
        label = item.name if item.name not in errors else f"{item.name} ({number})"
        errors[label] = _weight_error(network, item, whole, scale, shifts)
        lost[label] = int(np.count_nonzero(~kept))
        notes.append(
            f"{label}: weights rounded, error {errors[label]:.2%} of their size; "
            f"{lost[label]} of {whole.size} became 0 and are left out."
        )
        indptr = np.concatenate(([0], np.cumsum(kept)))[synapses.indptr]
        wait = int(network.population(item.target).neuron.current)  # here a current acts in the step it arrives
        found.append(
            IntegerProjection(
                *(item.source, item.target, indptr, synapses.target[kept]),
                *(whole[kept].astype(np.int32), (synapses.delay_steps[kept] + wait).astype(np.int32)),
            )
        )
    return tuple(found), errors, lost


def _weight_error(
    network: Network, item: Projection, whole: Integers, scale: dict[str, Floats], shifts: dict[str, int]
) -> float:
    synapses = item.synapses(network.dt)
    target = network.population(item.target)
    step = target.neuron.step(target.size, network.dt)
    gain = step.kappa if step.current else np.ones(target.size)
    true = synapses.weight * gain[synapses.target]
    back = whole * 2.0 ** shifts[item.target] / scale[item.target][synapses.target]
    size = float(np.sqrt(np.mean(true**2))) if true.size else 0.0
    return float(np.sqrt(np.mean((back - true) ** 2))) / size if size else 0.0


def _readout(network: Network, notes: list[str]) -> Readout | None:
    readout = network.readout
    if readout is not None and readout.reduce == "sum_softmax":
        notes.append("readout: the softmax of every step is taken with a table of powers of two, within 1.1% of it.")
    return readout


def _softmax(network: Network, item: Population) -> bool:
    """Return whether the scores of this population are sums of softmax, which need a power of two as scale."""
    readout = network.readout
    return readout is not None and readout.population == item.name and readout.reduce == "sum_softmax"
