"""What quantisation did to a network, in numbers and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network_checks import check_integer

__all__ = ["Calibration", "LayerError", "QuantizeOptions", "QuantizeReport"]

Floats = npt.NDArray[np.float64]
LISTED = 4096
"""Neurons up to which errors are written one by one."""


@dataclass(frozen=True)
class QuantizeOptions:
    """Choices of a quantisation.

    Attributes:
        scale: Whose weights share a scale: ``layer`` or ``neuron``; ``auto`` is a scale a neuron where the target has a
            threshold a neuron, else a scale a layer.
        delays: Delays beyond the target's are refused, or clamped and counted.
        decays: Time constants that differ inside a population are refused where the target has one a population, or
            replaced by their mean.
        headroom: Range left for membranes and currents. ``bound``: enough for any input. ``observed``: twice the
            largest value in calibration. ``auto``: enough for any input, but where that would make weights coarser,
            twice the largest value in calibration; and a spiking neuron's membrane may saturate far below its
            threshold.
        calibration_samples: Samples of the calibration events that are run.
        power_of_two: Law ``fixed``: scales are powers of two, so that numbers with few binary digits stay exact; costs
            up to one bit.
        max_count: Law ``fixed``: how often one input unit may act in a step; no sum overflows up to it.
    """

    scale: Literal["auto", "layer", "neuron"] = "auto"
    delays: Literal["refuse", "clamp"] = "refuse"
    decays: Literal["refuse", "mean"] = "refuse"
    headroom: Literal["auto", "bound", "observed"] = "auto"
    calibration_samples: int = 64
    power_of_two: bool = False
    max_count: int = 32

    def __post_init__(self) -> None:
        words: dict[str, Sequence[str]] = {
            "scale": ("auto", "layer", "neuron"),
            "delays": ("refuse", "clamp"),
            "decays": ("refuse", "mean"),
            "headroom": ("auto", "bound", "observed"),
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise InputError(f"quantize: {name}: expected one of {list(known)}, got {getattr(self, name)!r}")
        samples = self.calibration_samples
        if isinstance(samples, bool) or not isinstance(samples, (int, np.integer)) or samples < 1:
            raise InputError(f"quantize: calibration_samples: expected a positive integer, got {samples!r}")
        if self.power_of_two not in (True, False):
            raise InputError(f"quantize: power_of_two: expected True or False, got {self.power_of_two!r}")
        check_integer(self.max_count, "quantize: max_count", 1, 2**16 - 1)


@dataclass(frozen=True, eq=False)
class LayerError:
    """Errors of one population and the synapses into it.

    Attributes:
        population: Name.
        scale: Least and greatest scale of its neurons, integer units of v per float unit.
        threshold: Least and greatest integer threshold, None without one.
        weight_error: Root mean square of the weight errors, relative to that of the weights.
        saturated: Share of the synapses whose weight was cut to the largest one.
        zeroed: Share of the synapses whose weight became 0; they are left out.
        threshold_error: Greatest relative error of a threshold.
        bias_error: Greatest error of a bias a step, in thresholds (or float units without one).
        beta_error: Error of every neuron's membrane decay per step, ``(size,)``.
        alpha_error: Error of every neuron's synaptic decay per step, ``(size,)``, empty without a current.
        room: Largest value that v or i can reach, as a share of the range, whatever the input; above 1 it may be left.
            None where there is no bound.
        seen: Largest value in calibration, as a share of the range; None without calibration.
        clamped: Delays that were clamped.
    """

    population: str
    scale: tuple[float, float]
    threshold: tuple[int, int] | None
    weight_error: float
    saturated: float
    zeroed: float
    threshold_error: float
    bias_error: float
    beta_error: Floats
    alpha_error: Floats
    room: float | None
    clamped: int = 0
    seen: float | None = None

    def sentence(self) -> str:
        """Return it as one line."""
        parts = [f"weights off by {100 * self.weight_error:.2g} % (rms)"]
        if self.saturated:
            parts.append(f"{100 * self.saturated:.2g} % of them cut")
        if self.zeroed:
            parts.append(f"{100 * self.zeroed:.2g} % of them became 0")
        parts.append(f"beta off by up to {np.abs(self.beta_error).max(initial=0.0):.2g}")
        if self.alpha_error.size:
            parts.append(f"alpha by up to {np.abs(self.alpha_error).max():.2g}")
        if self.threshold is not None:
            low, high = self.threshold
            shown = f"{low}" if low == high else f"{low} to {high}"
            parts.append(f"threshold {shown}, off by up to {100 * self.threshold_error:.2g} %")
        if self.clamped:
            parts.append(f"{self.clamped} delays clamped")
        if self.room is None:
            parts.append("its values have no bound")
        elif self.room <= 1:
            parts.append(f"no input can use more than {100 * self.room:.3g} % of its range")
        else:
            parts.append(f"extreme input could need {self.room:.3g} times its range")
        if self.seen is not None:
            parts.append(f"calibration used {100 * self.seen:.2g} %")
        return f"{self.population}: {', '.join(parts)}."

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; errors one a neuron up to 4096 neurons."""
        values = dict(vars(self))
        for name in ("beta_error", "alpha_error"):
            errors = values.pop(name)
            values[f"{name}_max"] = float(np.abs(errors).max(initial=0.0))
            values[f"{name}_mean"] = float(np.abs(errors).mean()) if errors.size else 0.0
            values[name] = errors.tolist() if errors.size <= LISTED else None
        return values


@dataclass(frozen=True)
class Calibration:
    """How the integer network differed from the float one on calibration events.

    Attributes:
        samples: Samples run.
        stretch: By population, the chosen factor on the scale at which the largest weight just fits: above 1 the
            largest weights are cut and all others are finer.
        difference: By population, neuron-steps with differing spikes per spike of the float network; without spikes,
            root mean square of the differences of v relative to that of v.
        plain: The same with no stretch at all.
        same_class: Share of the samples with the same class as in the float network, None without a readout.
        overflow: By population, neuron-steps in which a number left its range.
    """

    samples: int
    stretch: dict[str, float]
    difference: dict[str, float]
    plain: dict[str, float]
    same_class: float | None
    overflow: dict[str, int]


@dataclass(frozen=True, eq=False)
class QuantizeReport:
    """What :func:`snnsim.quantize.quantize` did.

    Attributes:
        profile: Name of the profile.
        law: Integer law.
        layers: Errors by population.
        latency: By population, steps by which its spikes come later.
        cores: Cores needed, None where the profile does not say.
        changes: Sentences: everything that is not as in the float network.
        calibration: What calibration found, None without.
    """

    profile: str
    law: str
    layers: tuple[LayerError, ...]
    latency: dict[str, int]
    cores: int | None
    changes: tuple[str, ...] = ()
    calibration: Calibration | None = field(default=None)

    def sentences(self) -> list[str]:
        """Return everything as text, one line each."""
        lines = [*self.changes, *(item.sentence() for item in self.layers)]
        found = self.calibration
        if found is not None:
            for name, value in found.difference.items():
                factor = found.stretch.get(name, 1.0)
                scaled = (
                    "" if factor == 1 else f" (scale stretched by {factor:g}; without: {100 * found.plain[name]:.3g} %)"
                )
                lines.append(f"{name}: differs by {100 * value:.3g} % from the float network{scaled}.")
            if found.same_class is not None:
                lines.append(
                    f"{100 * found.same_class:.1f} % of {found.samples} calibration samples have the class of the "
                    "float network."
                )
            over = {name: count for name, count in found.overflow.items() if count}
            if over:
                lines.append(f"numbers left their range in calibration: {over} neuron-steps.")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "profile": self.profile,
            "law": self.law,
            "layers": [item.to_json() for item in self.layers],
            "latency": dict(self.latency),
            "cores": self.cores,
            "changes": list(self.changes),
            "calibration": None if self.calibration is None else dict(vars(self.calibration)),
        }
