"""What a device cannot do, said before a run begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from snnsim.errors import InputError
from snnsim.recipes import Recipe

__all__ = ["Place", "check_evaluation", "check_training"]

ON_DEVICE = ("bptt", "sltt", "sltt-k")
"""Rules that learn on a device."""

WIDE_SUMS = (2, 8)
"""First version of torch that multiplies bfloat16 matrices into a float32 one."""


@dataclass(frozen=True)
class Place:
    """Where a run is trained.

    Attributes:
        name: ``cpu`` or ``cuda``, as the user said.
        device: As torch knows it; the CPU where Numba's simulator stands for a device.
    """

    name: str
    device: torch.device

    def facts(self) -> dict[str, str | None]:
        """Return what the manifest keeps: ``device``, and ``gpu``, the device's own name."""
        gpu = None
        if self.name != "cpu":
            gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "simulator"
        return {"device": self.name, "gpu": gpu}


def check_training(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be trained on a device.

    Raises:
        InputError: With the key and what to do.
    """
    spec = recipe.train
    if spec.learning not in ON_DEVICE:
        raise InputError(
            f"device 'cuda': train.learning {spec.learning!r} runs on the CPU only; train on the CPU, or use "
            "'bptt' or 'sltt'"
        )
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if spec.precision == "bf16" and version < WIDE_SUMS:
        raise InputError(
            f"device 'cuda': train.precision 'bf16' needs torch 2.8 or newer, got {torch.__version__}; update it"
        )


def check_evaluation(recipe: Recipe) -> None:
    """Refuse a model that cannot be evaluated on a device.

    Raises:
        InputError: It learned by ``eventprop`` and runs in continuous time.
    """
    if recipe.train.learning == "eventprop":
        raise InputError(
            "device 'cuda': a model that learned by 'eventprop' runs in continuous time, on the CPU only; evaluate it "
            "there"
        )
