"""Quantisation for the law ``loihi2``: weights, threshold and bias share a scale; decays in 4096ths.

With s the scale of a neuron, in its law v counts 64 s for a float unit::

    weight = s w          (s kappa w into a CubaLIF; even numbers where the profile says so)
    v_threshold = s theta       bias = s drive
    v_decay = round(4096 (1 - beta))       i_decay = round(4096 (1 - alpha))

The scale is the largest at which weights, threshold and bias are held, and v and u stay within 24 bits for any input of
at most one event a source and step (or as many as calibration has). A current must never leave them, it would wrap; a
membrane only saturates. The threshold comes out whole: the scale is rounded down until it is.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """Return both decays in 4096ths; with fewer than 12 bits they are multiples of a power of two."""
    unit = 2 ** max(0, 12 - bits)
    top = UNITY // unit
    v_decay = unit * np.clip(np.rint(top * (1 - step.beta)), 0, top - 1).astype(np.int64)
    if not kind.startswith("cuba"):
        return v_decay, np.full(v_decay.shape, UNITY, np.int64)
    return v_decay, unit * np.clip(np.rint(top * (1 - step.alpha)), 1, top).astype(np.int64)


@dataclass(frozen=True)
class _Reach:
    """How large values can get, in float units, one a neuron: whatever the input, and in calibration (or None).

    Attributes:
        u: The current's part of v.
        above: v before a reset.
        below: -v.
        seen_u: Largest ``u`` in calibration; None also without a current, whose sum in a step is not recorded.
        seen_above: Largest v before a reset.
        seen_v: Largest magnitude of v.
    """

    u: Floats
    above: Floats
    below: Floats
    seen_u: Floats | None
    seen_above: Floats | None
    seen_v: Floats | None

    def limits(self, headroom: str, coarse: Floats, spiking: bool) -> list[Floats]:
        """Return the values that the range must hold.

        Args:
            headroom: As in :class:`QuantizeOptions`.
            coarse: The value above which the range, and not the weights, decides about the scale.
            spiking: Whether the neurons have a threshold.
        """
        pairs = [(self.u, self.seen_u), (self.above, self.seen_above), (self.below, self.seen_v)]
        if headroom == "observed":
            return [bound if seen is None else 2 * seen for bound, seen in pairs]
        if headroom == "bound":
            return [bound for bound, _ in pairs]
        return [
            bound if seen is None else np.where(bound > coarse, np.minimum(bound, np.maximum(2 * seen, coarse)), bound)
            for bound, seen in (pairs[:2] if spiking else pairs)
        ]


def _reach(job: Job, item: Population, acting: Incoming, step: StepParameters, drive: Floats) -> _Reach:
    sources = [job.network.projections[number].source for number in acting.numbers]
    more, less = acting.sides([job.counts.get(source, 1) for source in sources])
    kept = step.beta * step.v_threshold if item.neuron.spiking else np.zeros(item.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        if step.current:
            more, less = (np.where(side > 0, side / (1 - step.alpha), 0.0) for side in (more, less))
        up, down = more + np.maximum(drive, 0), less + np.maximum(-drive, 0)
        below = np.where(down > 0, down / (1 - step.beta), 0.0)
        above = kept + up if item.neuron.spiking else np.where(up > 0, up / (1 - step.beta), 0.0)
    u = np.maximum(more, less)
    observed = job.observed.get(item.name)
    if observed is None:
        return _Reach(u, above, below, None, None, None)
    seen_u = observed.i * step.kappa if step.current else None
    if not item.neuron.spiking:
        return _Reach(u, above, below, seen_u, observed.v, observed.v)
    seen_above = None if seen_u is None else kept + seen_u + np.maximum(drive, 0)
    return _Reach(u, above, below, seen_u, seen_above, observed.v)


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
        early = job.plan.latency[name]
        result.changes.append(f"{name}: its drive begins {early} step{'s' * (early > 1)} before its other input.")
    theta = step.v_threshold if item.neuron.spiking else np.ones(item.size)
    least, most = profile.weight_low, profile.weight_high
    reach = _reach(job, item, acting, step, drive)
    with np.errstate(divide="ignore"):
        limits = [
            theta * job.stretch.get(name, 1.0) / acting.largest(least, most),
            theta * (2.0 ** (profile.bias_bits - 1) - 1) / np.abs(drive),
        ]
    each = job.options.scale == "neuron" or (job.options.scale == "auto" and profile.threshold_per == "neuron")
    together = not each or (item.neuron.spiking and profile.threshold_per == "population")
    with np.errstate(divide="ignore", invalid="ignore"):
        coarse = theta * RANGE / ONE / least_scale(limits, together)
        for value in reach.limits(job.options.headroom, coarse, item.neuron.spiking):
            limits.append(theta * RANGE / ONE / np.where(np.isfinite(value), value, 0.0))
    if item.neuron.spiking:
        limits.append(np.full(item.size, 2.0**profile.threshold_bits - 1))
        whole = least_scale(limits, together)
        threshold = np.floor(whole).astype(np.int64)
        if threshold.min() < LEAST_THRESHOLD:
            at = int(np.argmin(threshold))
            raise InputError(
                f"population {name!r}: neuron {at}: its threshold becomes {threshold[at]} beside its largest weight, "
                "bias or range; lower its weights or bias by retraining with weight decay, or quantise with "
                "calibration events"
            )
        scale = threshold / theta
    else:
        limits = [np.where(np.isfinite(limit), limit, 1.0 * RANGE) for limit in limits]
        scale = least_scale(limits, together)
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
    share = ONE * scale / RANGE
    most_of = share * np.maximum(np.maximum(reach.u, reach.above), reach.below)
    shown = [value for value in (reach.seen_u, reach.seen_above, reach.seen_v) if value is not None]
    seen = float(max((share * value).max() for value in shown)) if shown else None
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
            room=float(most_of.max()) if np.isfinite(most_of).all() else None,
            seen=seen,
            clamped=sum(int(job.plan.outside[number].size) for number in into.numbers),
        )
    )
