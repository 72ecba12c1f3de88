"""Quantisation for the law ``fixed``: a scale for the weights, and fractional bits for membrane and current.

With s the scale of a neuron and f its fractional bits (``shift``), in its law v counts ``s 2^f`` for a float unit::

    weight = s w          (s kappa w into a CubaLIF)
    v_threshold = s 2^f theta       drive = s 2^f drive       beta = round(2^15 beta)

The scale is the largest at which the weights fit 8 or 16 bits. The bits f are as many as leave every intermediate of
the law within int32 for any input of at most ``max_count`` events of a unit in a step; that is proven by
:func:`snnsim.kernels.reference_integer_fixed.fixed_faults`, or the network is refused. Membranes that some input could
take beyond the law's limits, where they would be clamped, give up bits down to a least number first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.integer_network import IntegerNetwork, IntegerPopulation
from snnsim.kernels.reference_integer_fixed import (
    CURRENT_LIMIT,
    DECAY_ONE,
    MEMBRANE_LIMIT,
    fixed_faults,
    fixed_max_count,
    fixed_peak,
)
from snnsim.kernels.reference_integer_scores import SOFTMAX_BITS
from snnsim.network import Network, Population
from snnsim.neuron_base import StepParameters
from snnsim.quantize_report import LayerError
from snnsim.quantize_weights import Incoming, Job, Observed, Quantized, incoming, make_projection, round_weights
from snnsim.target_check import kind_of

__all__ = ["arrival_bounds", "max_count", "quantize_fixed"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_BITS = 14
"""Most fractional bits of a membrane."""

LEAST_BITS = {8: 6, 16: 0}
"""Fractional bits, by the bits of a weight, that a membrane keeps even if a worst case could then be clamped."""

MAX_THRESHOLD = 2.0**22
"""Largest threshold in units of the weights."""


def quantize_fixed(job: Job) -> Quantized:
    """Return the network in integers of the law ``fixed``.

    Raises:
        InputError: The law cannot hold a population; the sentence names it.
    """
    network = job.network
    readout = network.readout
    result = Quantized([], [], {}, [], [])
    if readout is not None and readout.reduce == "sum_softmax":
        if readout.variable == "spikes":
            raise InputError("readout: the law 'fixed' has no softmax of spikes; read 'count'")
        result.changes.append(
            "readout: the softmax of a step is taken with a table of powers of two, within 1.1 % of it."
        )
    weights: dict[int, npt.NDArray[np.int32]] = {}
    for item in network.populations:
        _population(job, item, result, weights)
    result.projections.extend(
        make_projection(network, job.plan, number, weights[number]) for number in range(len(network.projections))
    )
    return result


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


def _population(job: Job, item: Population, result: Quantized, weights: dict[int, npt.NDArray[np.int32]]) -> None:
    network, profile, name = job.network, job.profile, item.name
    step = item.neuron.step(item.size, network.dt)
    kind = kind_of(item)
    kind = "lif" if kind == "if" else kind
    assert kind is not None
    into = incoming(network, name)
    gain = step.kappa if step.current else np.ones(item.size)
    acting = Incoming(into.numbers, into.synapses, into.target, into.weight * gain[into.target], into.size)
    softmax = _softmax(network, item)
    unit = _unit(job, item, step, acting, softmax)
    rounded, saturated = round_weights(
        acting.weight * unit[into.target], profile.weight_low, profile.weight_high, bool(profile.weight_even)
    )
    pieces = into.pieces(rounded)
    arrivals = np.zeros(item.size, np.int64)
    inputs = {entry.name for entry in network.inputs}
    for number, piece, synapses in zip(into.numbers, pieces, into.synapses, strict=True):
        weights[number] = piece
        source = network.projections[number].source
        times = max(job.options.max_count, job.counts.get(source, 1)) if source in inputs else 1
        np.add.at(arrivals, synapses.target, np.abs(piece.astype(np.int64)) * times)
    most = _trained_bits(job, item) if name in job.given else MOST_BITS
    if softmax:
        most = min(most, SOFTMAX_BITS - int(np.log2(unit[0])))
        if most < 0 or unit[0] < 1:
            size = "small" if most < 0 else "large"
            raise InputError(
                f"population {name!r}: its weights are too {size} for the softmax in integers; read 'mean' or 'max'"
            )
    least = LEAST_BITS[profile.weight_bits]
    observed = job.observed.get(name)
    chosen = observed if job.options.headroom == "observed" else None
    parameters = _fitted(item, step, kind, unit, arrivals, (least, most), chosen)
    bits = int(parameters["shift"][0])
    scale = unit * 2.0**bits
    reach = _reach(fixed_peak(kind, parameters, arrivals))
    seen = None if observed is None else _reach(_seen(observed, step, scale))
    result.populations.append(IntegerPopulation(name, item.size, kind, parameters))
    result.scale[name] = scale
    result.changes.append(f"{name}: {bits} fractional bits for its membrane.")
    if step.current:
        result.changes.append(
            f"{name}: the gain from current to membrane is part of its weights; a current acts in the step it arrives, "
            "so delays to it are one step longer and its spikes come in the same steps."
        )
    if reach > 1:
        result.changes.append(f"{name}: some input could take it beyond 2^30 (a current: 2^29), where it is clamped.")
    n = max(1, into.target.size)
    size_of = float(np.sqrt(np.mean(acting.weight**2))) if into.target.size else 0.0
    error = rounded / unit[into.target] - acting.weight
    theta = step.v_threshold if item.neuron.spiking else np.ones(item.size)
    safe = np.where(theta == 0, 1.0, np.abs(theta))
    threshold = parameters.get("v_threshold")
    drive = step.drive_step + step.drive_syn_to_v
    result.errors.append(
        LayerError(
            population=name,
            scale=(float(scale.min()), float(scale.max())),
            threshold=None if threshold is None else (int(threshold.min()), int(threshold.max())),
            weight_error=float(np.sqrt(np.mean(error**2))) / size_of if size_of else 0.0,
            saturated=saturated / n,
            zeroed=float(np.count_nonzero(rounded == 0)) / n,
            threshold_error=0.0 if threshold is None else float(np.max(np.abs(threshold / scale - theta) / safe)),
            bias_error=float(np.max(np.abs(parameters["drive"] / scale - drive) / safe)),
            beta_error=parameters["beta"] / DECAY_ONE - step.beta,
            alpha_error=parameters["alpha"] / DECAY_ONE - step.alpha if step.current else np.zeros(0),
            room=reach if np.isfinite(reach) else None,
            seen=seen,
            clamped=sum(int(job.plan.outside[number].size) for number in into.numbers),
            unit=1.0 / unit,
        )
    )


def _softmax(network: Network, item: Population) -> bool:
    """Return whether the scores of this population are sums of softmax, which need a power of two as scale."""
    readout = network.readout
    return readout is not None and readout.population == item.name and readout.reduce == "sum_softmax"


def _unit(job: Job, item: Population, step: StepParameters, acting: Incoming, softmax: bool) -> Floats:
    """Return integer weight units per float unit, ``(size,)``; for a trained network those it was trained for."""
    if item.name in job.given:
        return 1.0 / _trained_unit(job, item)
    largest = acting.largest(job.profile.weight_low, job.profile.weight_high)
    each = job.options.scale == "neuron" or (job.options.scale == "auto" and job.profile.threshold_per == "neuron")
    if not each or not item.neuron.spiking:  # scores of different neurons are compared as they are
        largest = np.full(item.size, largest.max(initial=0.0))
    high = float(job.profile.weight_high)
    alone = np.abs(step.v_threshold) if item.neuron.spiking else np.ones(item.size)
    alone = np.where(alone > 0, alone, 1.0)
    largest = np.where(largest > 0, largest, alone / high)  # nothing comes in: any scale serves
    unit = np.asarray(job.stretch.get(item.name, 1.0) / largest)
    if item.neuron.spiking:  # weights far below the threshold need not use all their bits
        unit = np.minimum(unit, MAX_THRESHOLD / alone)
    if not np.isfinite(unit).all() or unit.max() > 2.0**62:
        raise InputError(f"population {item.name!r}: weights below {largest.min():.3g} are too small to be scaled")
    if job.options.power_of_two or softmax:
        unit = 2.0 ** np.floor(np.log2(unit))
    return np.asarray(unit)


def _trained_unit(job: Job, item: Population) -> Floats:
    """Return the float value of the integer weight 1 that a population was trained for, ``(size,)``."""
    if item.name not in job.units:
        raise InputError(
            f"quantize: the network's notes on its training do not say what an integer weight of population "
            f"{item.name!r} is worth; train it again for {job.profile.name}"
        )
    return job.units[item.name]


def _trained_bits(job: Job, item: Population) -> int:
    """Return the fractional bits that a population was trained for; fewer are taken where its sums need the room."""
    bits = np.rint(np.log2(job.given[item.name] * _trained_unit(job, item)))
    return int(np.clip(bits.min(), 0, MOST_BITS))


def _reach(peaks: tuple[Floats, Floats]) -> float:
    """Return the largest v and i as a share of the law's limits."""
    v, i = peaks
    return float(max(v.max() / MEMBRANE_LIMIT, i.max() / CURRENT_LIMIT))


def _seen(observed: Observed, step: StepParameters, scale: Floats) -> tuple[Floats, Floats]:
    """Return the largest v and i of calibration in integers."""
    return observed.v * scale, observed.i * step.kappa * scale if step.current else np.zeros_like(scale)


def _fitted(
    item: Population,
    step: StepParameters,
    kind: str,
    unit: Floats,
    arrivals: Integers,
    bits: tuple[int, int],
    observed: Observed | None,
) -> dict[str, Integers]:
    """Return the parameters with the most fractional bits that fit."""
    least, most = bits
    fitting: dict[str, Integers] | None = None
    reason = "a threshold, reset or drive reaches 2^30"
    for shift in range(most, -1, -1):
        parameters = _parameters(item, step, unit, shift)
        if parameters is None:
            continue
        faults = fixed_faults(kind, parameters, arrivals)
        if faults:
            reason = faults[0][1]
            continue
        if observed is not None:
            reach = 2 * _reach(_seen(observed, step, unit * 2.0**shift))
        else:
            reach = _reach(fixed_peak(kind, parameters, arrivals))
        if reach <= 1 and (fitting is None or shift >= least):
            return parameters
        if fitting is None or shift >= least:
            fitting = parameters
    if fitting is None:
        raise InputError(
            f"population {item.name!r}: the law 'fixed' cannot hold it: {reason}; use 8 bit weights, a smaller "
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
        if values["reset_amount"].min() < 0:
            raise InputError(f"population {item.name!r}: reset_amount: the law 'fixed' subtracts 0 or more")
        if values["refractory_steps"].max() >= 2**16:
            raise InputError(f"population {item.name!r}: the law 'fixed' is refractory for at most 65535 steps")
    if any(np.abs(array).max() >= MEMBRANE_LIMIT for array in values.values()):
        return None
    return {name: array.astype(np.int64) for name, array in values.items()}
