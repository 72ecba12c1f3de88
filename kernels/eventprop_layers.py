"""A layer as EventProp's kernels see it, and sums of derivatives in the same shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from snnsim.kernels.event_law import GAIN_E, RATE_E, RATE_M

__all__ = ["Layer", "LayerGradients"]

Floats = npt.NDArray[np.float64]

SHORTER = 1.0 - 1e-6  # windows are this much shorter than the delay they must not exceed: room for rounding
FINE = 20.0  # windows of the forward pass for each of the shortest membrane time constant

NO_RECURRENCE = np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class Layer:
    """Neurons of a layer and the synapses into them.

    Attributes:
        laws: One row a neuron, see :mod:`snnsim.kernels.event_law`: one current, no drive, reset to a value.
        weight: Shape (targets, sources).
        delay: Seconds, shape (targets or 1, sources or 1).
        recurrent_weight: Shape (targets, targets); (0, 0) without recurrence.
        recurrent_delay: Seconds, above 0, shape (targets, targets) or (1, 1).
    """

    laws: Floats
    weight: Floats
    delay: Floats
    recurrent_weight: Floats
    recurrent_delay: Floats

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[0])

    @cached_property
    def shared(self) -> bool:
        """Whether an event reaches all neurons at one time and decays in all of them alike."""
        rates = self.laws[:, [RATE_M, RATE_E, GAIN_E]]
        alike = bool(np.all(rates == rates[:1]) and rates[0, 2] != 0.0) if self.size else False
        return alike and self.delay.shape[0] == 1 and self.recurrent_delay.shape[0] == 1

    @cached_property
    def by_source(self) -> tuple[Floats, Floats]:
        """Forward and recurrent weights in order of sources, flat; empty if events are not shared."""
        if not self.shared:
            return np.zeros(0), np.zeros(0)
        return self.weight.T.ravel(), self.recurrent_weight.T.ravel()

    @property
    def window_rate(self) -> float:
        """Windows a second, no longer than recurrent delays allow; 0 stands for one window."""
        return 1.0 / (float(self.recurrent_delay.min()) * SHORTER) if self.recurrent_weight.size else 0.0

    @property
    def fine_rate(self) -> float:
        """Windows a second of the forward pass: so short that most neurons cannot reach the threshold in one."""
        return max(self.window_rate, FINE * float(self.laws[0, RATE_M])) if self.shared else self.window_rate


@dataclass(frozen=True, eq=False)
class LayerGradients:
    """Sums of derivatives, in the shapes of :class:`Layer`; delays by second, one for every synapse.

    Attributes:
        weight: By weights.
        delay: By delays; shape (0, 0) if they are not asked for.
        recurrent_weight: By recurrent weights.
        recurrent_delay: By recurrent delays; shape (0, 0) if they are not asked for.
    """

    weight: Floats
    delay: Floats
    recurrent_weight: Floats
    recurrent_delay: Floats

    @classmethod
    def zeros(cls, layer: Layer, delay: bool, recurrent_delay: bool) -> LayerGradients:
        """Return sums of nothing."""
        return cls(
            np.zeros_like(layer.weight),
            np.zeros_like(layer.weight) if delay else NO_RECURRENCE.copy(),
            np.zeros_like(layer.recurrent_weight),
            np.zeros_like(layer.recurrent_weight) if recurrent_delay else NO_RECURRENCE.copy(),
        )

    def parts(self) -> tuple[Floats, ...]:
        """Return the four arrays."""
        return self.weight, self.delay, self.recurrent_weight, self.recurrent_delay
