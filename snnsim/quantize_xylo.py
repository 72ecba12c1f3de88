"""Quantisation for the law ``xylo``: weights, threshold and bias share a scale; decays are bit shifts.

The chip's current decays in the step in which a spike arrives, before it acts; ours acts with ``kappa`` one step later.
With s the scale of a neuron and ``alpha = 1 - 2**-dash_syn``::

    weight = s kappa w / alpha         v_threshold = s theta         bias = s drive
    dash_mem = round(-log2(1 - beta))  dash_syn = round(-log2(1 - alpha))

The scale is the largest at which weights, threshold, bias and, for any input of at most one spike a source and step,
the 16 bits of the current are held. The membrane may still saturate, which the law computes as the chip does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.integer_network import IntegerPopulation
from snnsim.network import Population
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

__all__ = ["quantize_xylo"]

Floats = npt.NDArray[np.float64]
RANGE = 2**15 - 1
LEAST_THRESHOLD = 8
MAX_SPIKES = 31
MAX_DASH = 15


def quantize_xylo(job: Job) -> Quantized:
    """Return the network in the integers of Xylo's law.

    Raises:
        InputError: The weights of a population are so large beside its threshold that nothing is left of it.
    """
    result = Quantized([], [], {}, [], [])
    weights: dict[int, npt.NDArray[np.int32]] = {}
    for item in job.network.populations:
        _population(job, item, result, weights)
    result.projections.extend(
        make_projection(job.network, job.plan, number, weights[number])
        for number in range(len(job.network.projections))
    )
    return result


def _dash(factor: Floats, least: int) -> npt.NDArray[np.int64]:
    with np.errstate(divide="ignore"):
        return np.clip(np.rint(-np.log2(1 - factor)), least, MAX_DASH).astype(np.int64)


def _population(job: Job, item: Population, result: Quantized, weights: dict[int, npt.NDArray[np.int32]]) -> None:
    profile, name = job.profile, item.name
    step = item.neuron.step(item.size, job.network.dt)
    dash_mem, dash_syn = _dash(step.beta, 0), _dash(step.alpha, 1)
    beta, alpha = 1 - 2.0**-dash_mem, 1 - 2.0**-dash_syn
    into = incoming(job.network, name)
    gain = step.kappa / alpha
    acting = Incoming(into.numbers, into.synapses, into.target, into.weight * gain[into.target], into.size)
    drive = step.drive_step + step.drive_syn_to_v + step.kappa * step.drive_syn_step / (1 - step.alpha)
    if np.any(step.drive_syn_step):
        result.changes.append(f"{name}: the drive of its current acts in full from the first step.")
    theta = step.v_threshold
    bound = acting.total() / (1 - alpha)
    observed = job.observed.get(name)
    if job.options.headroom == "observed" and observed is not None:
        bound = 2 * observed.i * step.kappa / alpha
    least, most = profile.weight_low, profile.weight_high
    with np.errstate(divide="ignore"):
        limits = [
            theta * job.stretch.get(name, 1.0) / acting.largest(least, most),
            theta * RANGE / np.abs(drive),
            theta * RANGE / bound,
            np.full(item.size, float(RANGE)),
        ]
    threshold = np.floor(least_scale(limits, job.options.scale == "layer")).astype(np.int64)
    if threshold.min() < LEAST_THRESHOLD:
        at = int(np.argmin(threshold))
        raise InputError(
            f"population {name!r}: neuron {at}: its threshold becomes {threshold[at]} beside its largest weight, "
            "bias or range; lower its weights or bias by retraining with weight decay, or quantise with "
            "headroom = 'observed' and calibration events"
        )
    scale = threshold / theta
    rounded, saturated = round_weights(acting.weight * scale[into.target], least, most, False)
    for number, piece in zip(into.numbers, into.pieces(rounded), strict=True):
        weights[number] = piece
    bias = np.clip(np.rint(scale * drive), -RANGE - 1, RANGE)
    ends = {projection.source for projection in job.network.projections}
    parameters = {
        "dash_mem": dash_mem,
        "dash_syn": dash_syn,
        "v_threshold": threshold,
        "bias": bias.astype(np.int64),
        "max_spikes": np.full(item.size, MAX_SPIKES if name in ends else 1, np.int64),
    }
    result.populations.append(IntegerPopulation(name, item.size, "cubalif", parameters))
    result.scale[name] = scale
    n = max(1, into.target.size)
    size = float(np.sqrt(np.mean(acting.weight**2))) if into.target.size else 0.0
    error = rounded / scale[into.target] - acting.weight
    result.errors.append(
        LayerError(
            population=name,
            scale=(float(scale.min()), float(scale.max())),
            threshold=(int(threshold.min()), int(threshold.max())),
            weight_error=float(np.sqrt(np.mean(error**2))) / size if size else 0.0,
            saturated=saturated / n,
            zeroed=float(np.count_nonzero(rounded == 0)) / n,
            threshold_error=0.0,
            bias_error=float(np.max(np.abs(bias / scale - drive) / theta)),
            beta_error=beta - step.beta,
            alpha_error=alpha - step.alpha,
            room=float((scale * bound).max() / RANGE) if np.isfinite(bound).all() else None,
            clamped=0,
        )
    )
