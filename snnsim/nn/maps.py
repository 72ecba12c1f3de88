"""Feature maps: what their layers share, and the views between maps and rows of units.

A sequence of maps is a tensor (time, batch, channel, height, width). In memory the channels of a pixel lie side by side
(torch's ``channels_last``), so that a batch norm sees rows of channels and neurons see rows of units without a copy.
The units of a map are numbered ``(y * width + x) * channels + channel``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.nn.context import Context

if TYPE_CHECKING:
    from snnsim.nn.cells import Cell

__all__ = ["MapConnection", "MapLayer", "MapShape", "Watch", "count_spikes", "to_maps", "to_rows", "to_units"]

MapShape = tuple[int, int, int]
"""Channels, height, width."""


def to_rows(x: Tensor) -> Tensor:
    """Return maps (time, batch, channel, height, width) as images (time * batch, channel, height, width)."""
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def to_units(x: Tensor) -> Tensor:
    """Return maps (time, batch, channel, height, width) as units (time, batch, height * width * channel)."""
    return x.permute(0, 1, 3, 4, 2).reshape(x.shape[0], x.shape[1], -1)


def to_maps(x: Tensor, shape: MapShape) -> Tensor:
    """Return units (time, batch, height * width * channel) as maps (time, batch, channel, height, width), a view."""
    channels, height, width = shape
    return x.reshape(x.shape[0], x.shape[1], height, width, channels).permute(0, 1, 4, 2, 3)


@torch.no_grad()
def count_spikes(spikes: Tensor, mask: Tensor | None) -> Tensor:
    """Return the spikes in valid steps, float64, shape (); spikes are (time, batch, unit)."""
    per_step = spikes.detach().sum(dim=2).double()  # whole numbers: the same sum in any order
    return per_step.sum() if mask is None else (per_step * mask).sum()


@dataclass
class Watch:
    """What is noted while maps pass through the layers, in the order of the cells.

    Attributes:
        record: Whether the spikes of every cell are kept.
        before: Called with a cell, its input and the context before the cell runs, or None.
        counts: Spikes of every cell in valid steps.
        spikes: Spikes of every cell before dropout, (time, batch, unit), if recorded.
    """

    record: bool = False
    before: Callable[[Cell, Tensor, Context | None], None] | None = None
    counts: list[Tensor] = field(default_factory=list)
    spikes: list[Tensor] = field(default_factory=list)

    def see(self, spikes: Tensor, context: Context | None) -> None:
        """Note the spikes of one cell."""
        self.counts.append(count_spikes(spikes, None if context is None else context.mask))
        if self.record:
            self.spikes.append(spikes)


class MapLayer(nn.Module):
    """A layer on feature maps.

    ``forward(x, state, context, watch)`` returns the output and the state that continues the stream; ``state=None`` is
    silence before step 0.
    """

    @abstractmethod
    def out_shape(self, shape: MapShape) -> MapShape:
        """Return channels, height and width of the output for those of the input.

        Raises:
            InputError: The layer does not fit such maps.
        """

    @abstractmethod
    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, Any]:
        """Map (time, batch, channel, height, width) to the same with the shape of :meth:`out_shape`."""


class MapConnection(MapLayer):
    """A layer on feature maps that holds no neurons: a spike goes through it at once."""

    @abstractmethod
    def targets(self, shape: MapShape) -> float:
        """Return how many values of the output one value of the input reaches, mean over the input's places."""


def check_maps(name: str, x: Tensor, channels: int) -> None:
    """Refuse what is no sequence of maps with so many channels."""
    if x.dim() != 5 or x.shape[2] != channels:
        raise InputError(
            f"{name}: expected maps of shape (time, batch, {channels}, height, width), got {tuple(x.shape)}"
        )
