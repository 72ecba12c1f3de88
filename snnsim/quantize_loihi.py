"""Quantisation for the law ``loihi2``: weights, threshold and bias share a scale; decays in 4096ths.

With s the scale of a neuron, in its law v counts 64 s for a float unit::

    weight = s w          (s kappa w into a CubaLIF; even numbers where the profile says so)
    v_threshold = s theta       bias = s drive
    v_decay = round(4096 (1 - beta))       i_decay = round(4096 (1 - alpha))

The scale is the largest at which weights, threshold, bias and, for any input of at most one spike a source and step,
the 24 bits of v and u are held. The threshold comes out whole: the scale is rounded down until it is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.integer_network import IntegerPopulation, IntegerProjection
from snnsim.network import Population
from snnsim.neuron_base import StepParameters
from snnsim.quantize_report import LayerError
from snnsim.quantize_weights import (
    Incoming,
    Job,
    Quantized,
    incoming,
    least_scale,
    make_projection,
    round_weights,
)
from snnsim.target_check import kind_of

__all__ = ["quantize_loihi"]

Floats = npt.NDArray[np.float64]

UNITY = 4096
ONE = 64
"""Units of v for a weight of one."""

RANGE = 2**23 - 1
LEAST_THRESHOLD = 8
"""Below it a threshold is too coarse to mean anything."""


def quantize_loihi(job: Job) -> Quantized:
    """Return the network in the integers of Loihi's law.

    Raises:
        InputError: The weights of a population are so large beside its threshold that nothing is left of it.
    """
    network = job.network
    result = Quantized([], [], {}, [], [])
    weights: dict[int, npt.NDArray[np.int32]] = {}
    for item in network.populations:
        _population(job, item, result, weights)
    projections: list[IntegerProjection] = [
        make_projection(network, job.plan, number, weights[number]) for number in range(len(network.projections))
    ]
    result.projections.extend(projections)
    return result


def _drive(step: StepParameters) -> Floats:
    """Return what is added to the membrane every step, once the current that a drive feeds is steady."""
    left = np.where(step.alpha < 1, 1 - step.alpha, 1.0)
    return step.drive_step + step.drive_syn_to_v + step.kappa * step.drive_syn_step / left


def _decays(step: StepParameters, kind: str, bits: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    v_decay = np.clip(np.rint(UNITY * (1 - step.beta)), 0, 2**bits - 1).astype(np.int64)
    if not kind.startswith("cuba"):
        return v_decay, np.full(v_decay.shape, UNITY, np.int64)
    return v_decay, np.clip(np.rint(UNITY * (1 - step.alpha)), 1, UNITY).astype(np.int64)


def _bounds(job: Job, name: str, entering: Floats, step: StepParameters, drive: Floats) -> tuple[Floats, Floats]:
    """Return how large v and the current's part of it can get, in float units; inf where there is no bound."""
    observed = job.observed.get(name)
    if job.options.headroom == "observed" and observed is not None:
        return 2 * observed.v, 2 * observed.i * np.where(step.current, step.kappa, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.where(entering > 0, entering / (1 - step.alpha), 0.0) if step.current else entering
        v = np.where(u + np.abs(drive) > 0, (u + np.abs(drive)) / (1 - step.beta), 0.0)
    return v, u


def _population(job: Job, item: Population, result: Quantized, weights: dict[int, npt.NDArray[np.int32]]) -> None:
    profile, name = job.profile, item.name
    kind = kind_of(item)
    kind = "lif" if kind == "if" else kind
    assert kind is not None
    step = item.neuron.step(item.size, job.network.dt)
    into = incoming(job.network, name)
    gain = step.kappa if step.current else np.ones(item.size)
    acting = Incoming(into.numbers, into.synapses, into.target, into.weight * gain[into.target], into.size)
    drive = _drive(step)
    if np.any(step.drive_syn_step):
        result.changes.append(f"{name}: the drive of its current acts in full from the first step.")
    if np.any(drive) and job.plan.latency.get(name, 0) > 0:
        result.changes.append(
            f"{name}: its drive begins {job.plan.latency[name]} step(s) before what it gets from other neurons."
        )
    theta = step.v_threshold if item.neuron.spiking else np.ones(item.size)
    v_bound, u_bound = _bounds(job, name, acting.total(), step, drive)
    least, most = profile.weight_low, profile.weight_high
    with np.errstate(divide="ignore"):
        limits = [
            theta * job.stretch.get(name, 1.0) / acting.largest(least, most),
            theta * (2.0 ** (profile.bias_bits - 1) - 1) / np.abs(drive),
            theta * RANGE / ONE / np.where(np.isfinite(v_bound), v_bound, 0.0),
            theta * RANGE / ONE / np.where(np.isfinite(u_bound), u_bound, 0.0),
        ]
    if name in job.given:  # weights and bias were trained to fit, the range still bounds the scale
        limits[:2] = [theta * job.given[name] / ONE * (1 + 1e-12 * item.neuron.spiking)]
    each = job.options.scale == "neuron" or (job.options.scale == "auto" and profile.threshold_per == "neuron")
    if item.neuron.spiking:
        limits.append(np.full(item.size, 2.0**profile.threshold_bits - 1))
        whole = least_scale(limits, profile.threshold_per == "population" or not each)
        threshold = np.floor(whole).astype(np.int64)
        if threshold.min() < LEAST_THRESHOLD:
            at = int(np.argmin(threshold))
            raise InputError(
                f"population {name!r}: neuron {at}: its threshold becomes {threshold[at]} beside its largest weight, "
                "bias or range; lower its weights or bias by retraining with weight decay, or quantise with "
                "headroom = 'observed' and calibration events"
            )
        scale = threshold / theta
    else:
        limits = [np.where(np.isfinite(limit), limit, 1.0 * RANGE) for limit in limits]
        scale = least_scale(limits, not each)
        threshold = None
    rounded, saturated = round_weights(acting.weight * scale[into.target], least, most, bool(profile.weight_even))
    for number, piece in zip(into.numbers, into.pieces(rounded), strict=True):
        weights[number] = piece
    bias = np.clip(np.rint(scale * drive), -(2 ** (profile.bias_bits - 1)), 2 ** (profile.bias_bits - 1) - 1)
    v_decay, i_decay = _decays(step, kind, profile.decay_bits)
    parameters = {"v_decay": v_decay, "i_decay": i_decay, "bias": bias.astype(np.int64)}
    if threshold is not None:
        parameters["v_threshold"] = threshold
    result.populations.append(IntegerPopulation(name, item.size, kind, parameters))
    result.scale[name] = ONE * scale
    n = max(1, into.target.size)
    size = float(np.sqrt(np.mean(acting.weight**2))) if into.target.size else 0.0
    error = rounded / scale[into.target] - acting.weight
    reach = ONE * scale * np.maximum(v_bound, u_bound) / RANGE
    result.errors.append(
        LayerError(
            population=name,
            scale=(ONE * float(scale.min()), ONE * float(scale.max())),
            threshold=None if threshold is None else (int(threshold.min()), int(threshold.max())),
            weight_error=float(np.sqrt(np.mean(error**2))) / size if size else 0.0,
            saturated=saturated / n,
            zeroed=float(np.count_nonzero(rounded == 0)) / n,
            threshold_error=0.0,
            bias_error=float(np.max(np.abs(bias / scale - drive) / theta)),
            beta_error=(UNITY - v_decay) / UNITY - step.beta,
            alpha_error=(UNITY - i_decay) / UNITY - step.alpha if kind.startswith("cuba") else np.zeros(0),
            room=float(reach.max()) if np.isfinite(reach).all() else None,
            clamped=sum(int(job.plan.outside[number].size) for number in into.numbers),
            unit=1.0 / scale,
        )
    )
