"""What training moved: every learned quantity before and after, in its own unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from snnsim.errors import InputError
from snnsim.nn.parameters import NeuronModule
from snnsim.nn.trained import TrainedModel

__all__ = ["HEAD", "Moved", "format_moved", "what_moved"]

Floats = npt.NDArray[np.float64]
NAMES = {"weight": "weight", "recurrent_weight": "recurrent weight", "bias": "bias", "gain": "gain"}
HEAD = ("layer", "learned", "numbers", "before: mean (sd)", "after: mean (sd)", "mean change", "largest")
"""Headings of :func:`format_moved`."""

NORM = {"weight": "norm gain", "bias": "norm shift"}


@dataclass(frozen=True)
class Moved:
    """One learned quantity of one layer.

    Attributes:
        layer: ``layer1``, ... and ``readout``; in a convolutional network the module's own name.
        quantity: ``weight``, ``delay``, ``tau_mem``, ...
        unit: ``s`` for times, else empty.
        count: How many numbers there are.
        mean_before: Their mean before training.
        std_before: Their standard deviation then.
        mean_after: Their mean afterwards.
        std_after: Their standard deviation then.
        mean_change: Mean of the absolute changes.
        largest_change: Largest absolute change.
    """

    layer: str
    quantity: str
    unit: str
    count: int
    mean_before: float
    std_before: float
    mean_after: float
    std_after: float
    mean_change: float
    largest_change: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def what_moved(before: TrainedModel, after: TrainedModel) -> list[Moved]:
    """Compare what is learned in two models of one recipe.

    Args:
        before: The model before training; what it lets learn is listed.
        after: The model afterwards.

    Returns:
        One entry for each layer and quantity, in the order of the layers.

    Raises:
        InputError: The models have other layers or sizes.
    """
    pairs = zip(_learned(before, before), _learned(before, after), strict=True)
    found = []
    for (layer, quantity, unit, old), (*_, new) in pairs:
        if old.shape != new.shape:
            raise InputError(f"{layer} {quantity}: expected models of one recipe, got shapes {old.shape}, {new.shape}")
        change = np.abs(new - old)
        numbers = (old.mean(), old.std(), new.mean(), new.std(), change.mean(), change.max())
        found.append(Moved(layer, quantity, unit, old.size, *(float(number) for number in numbers)))
    return found


def _learned(model: TrainedModel, source: TrainedModel) -> Iterator[tuple[str, str, str, Floats]]:
    """Yield layer, quantity, unit and the values in ``source`` of all that ``model`` learns."""
    others = dict(source.named_modules())
    for path, module in model.named_modules():
        other = others.get(path)
        if other is None or type(other) is not type(module):
            raise InputError(f"{path}: expected models of one recipe, the other has no {type(module).__name__} there")
        yield from _of_module(_layer(path), path, module, other, float(model.dt))


def _of_module(
    layer: str, path: str, module: nn.Module, other: nn.Module, dt: float
) -> Iterator[tuple[str, str, str, Floats]]:
    if isinstance(module, NeuronModule) and isinstance(other, NeuronModule):
        values = other.learned_values()
        for name in module.learned_values():
            yield layer, name, "s" if name.startswith("tau") else "", values[name]
        return
    for name, parameter in module.named_parameters(recurse=False):
        if not parameter.requires_grad or not parameter.numel():
            continue
        value = np.asarray(getattr(other, name).detach().cpu(), dtype=np.float64)
        if name == "position":
            middle = int(module.n_delays) // 2  # type: ignore[arg-type]
            yield layer, "delay", "s", (middle - value) * dt
        else:
            yield layer, (NORM if ".norm" in path else NAMES).get(name, name), "", value


def _layer(path: str) -> str:
    parts = path.split(".")
    if parts[0] == "blocks" and len(parts) > 1 and parts[1].isdigit():
        return f"layer{int(parts[1]) + 1}"
    return "readout" if parts[0] == "readout" else path


def format_moved(moved: Sequence[Moved]) -> list[list[str]]:
    """Return rows of text: layer, quantity, how many, before, after, mean and largest change; times in ms."""
    rows = []
    for item in moved:
        scale, unit = (1000.0, " ms") if item.unit == "s" else (1.0, "")
        numbers = [
            f"{scale * mean:.4g} ({scale * std if std > 1e-12 * abs(mean) else 0:.3g}){unit}"
            for mean, std in ((item.mean_before, item.std_before), (item.mean_after, item.std_after))
        ]
        changes = [f"{scale * value:.3g}{unit}" for value in (item.mean_change, item.largest_change)]
        rows.append([item.layer, item.quantity, f"{item.count:,}", *numbers, *changes])
    return rows
