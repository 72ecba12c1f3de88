"""What a recipe may say about training for a target's numbers: which target, and from when on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from snnsim.recipes.spec import Spec

__all__ = ["QuantizeSpec"]


class QuantizeSpec(Spec):
    """Training on the grid of a target, see ``docs/hardware.md``.

    Attributes:
        profile: Limits profile with a law: a built-in name such as ``loihi2``, or the path of a JSON file.
        start: Part of the epochs after which weights are on the grid; 0 is for a run that starts from another one.
        scale: Whose weights share a scale, as in :class:`snnsim.quantize.QuantizeOptions`.
        samples: Training samples that choose the scales.
        fan_in: Most synapses into a neuron (a tap is one); the smallest beyond are removed when the grid begins. None:
            the profile's own limit, if it has one.
    """

    profile: str
    start: float = Field(default=0.0, ge=0, lt=1)
    scale: Literal["auto", "layer", "neuron"] = "auto"
    samples: int = Field(default=64, ge=1)
    fan_in: int | None = Field(default=None, ge=1)

    def first_epoch(self, epochs: int) -> int:
        """Return the epoch, counted from 0, at whose beginning the grid begins."""
        return int(epochs * self.start)
