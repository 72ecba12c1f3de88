"""Arrays of a batch on their way to where the model is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["device_of", "upload"]

CPU = torch.device("cpu")


def upload(array: Any, device: torch.device = CPU) -> Tensor:
    """Return an array as a tensor on a device; of the CPU it shares the array's memory.

    It goes to a device through memory that the device reads by itself, and nobody waits for it: torch keeps that
    memory until the copy is done, and the copy is in the order of the current stream.

    Args:
        array: NumPy array.
        device: Where the tensor is wanted.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters of a model are."""
    return next(model.parameters()).device
