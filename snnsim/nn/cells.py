"""Spiking layers on feature maps: a cell (batch norm, neurons, dropout), chains, residual blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.conv import Conv2d
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.map_norm import BatchNormMaps
from snnsim.nn.maps import MapLayer, MapShape, Watch, to_maps, to_units

__all__ = ["SPIKE_GAIN", "Cell", "Chain", "ResidualBlock", "ScaledResidualBlock"]

SPIKE_GAIN = 2.74
"""What spikes are multiplied by in networks without normalisation, so that their variance is about 1."""


class Cell(MapLayer):
    """Batch norm, neurons and dropout on a map of input currents.

    Args:
        shape: Channels, height and width.
        neuron: Spiking neurons, one a value of the map, numbered as in :mod:`snnsim.nn.maps`.
        norm: Batch norm of the current, or None.
        dropout: One mask a sequence on the spikes, or None.
        gain: Constant factor of the spikes.

    The state holds that of the neurons and, in training, the dropout mask of the sequence.
    """

    def __init__(
        self,
        shape: MapShape,
        neuron: nn.Module,
        *,
        norm: BatchNormMaps | None = None,
        dropout: SequenceDropout | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        units = shape[0] * shape[1] * shape[2]
        if getattr(neuron, "random_synapses", False):
            raise InputError(
                f"Cell: {type(neuron).__name__} draws its synapses one by one, which a convolution does not have; "
                "use a hidden layer of Linear, or other neurons"
            )
        size = int(cast(Any, neuron).size)
        if size != units:
            raise InputError(f"Cell: maps of {shape[0]} x {shape[1]} x {shape[2]} need {units} neurons, got {size}")
        if norm is not None and norm.size != shape[0]:
            raise InputError(f"Cell: expected a batch norm of {shape[0]} channels, got {norm.size}")
        self.shape = shape
        self.norm = norm
        self.neuron = neuron
        self.dropout = dropout
        self.gain = float(gain)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def current(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Return what reaches the neurons, (time, batch, unit)."""
        if self.norm is not None:
            x, _ = self.norm(x, None, context)
        return to_units(x)

    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, Any]:
        """Return the maps of spikes after dropout, (time, batch, channel, height, width), and the state."""
        if tuple(x.shape[2:]) != self.shape:
            raise InputError(f"Cell: expected maps of shape {self.shape}, got {tuple(x.shape[2:])}")
        if watch is not None and watch.before is not None:
            watch.before(self, x, context)
        neuron_state, factors = (None, None) if state is None else state
        current = self.current(x, context)
        spikes, neuron_state = self.neuron(current, neuron_state, context)
        if watch is not None:
            watch.see(spikes, context)
        y = spikes
        if self.dropout is not None and self.training:
            factors = self.dropout.factors(context, current) if factors is None else factors
            y = y if factors is None else y * factors
        if self.gain != 1.0:
            y = y * self.gain
        return to_maps(y, self.shape), (neuron_state, factors)

    def out_shape(self, shape: MapShape) -> MapShape:
        """Return the shape itself."""
        if shape != self.shape:
            raise InputError(f"Cell: expected maps of shape {self.shape}, got {shape}")
        return shape

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return " x ".join(map(str, self.shape))


class Chain(MapLayer):
    """Layers one after the other.

    Args:
        layers: Layers on maps.
    """

    def __init__(self, layers: list[MapLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def __iter__(self) -> Iterator[MapLayer]:
        """Iterate over the layers."""
        return iter(cast(list[MapLayer], list(self.layers)))

    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, Any]:
        """Run all layers; the state is a tuple of theirs."""
        states = [None] * len(self.layers) if state is None else state
        new = []
        for layer, old in zip(self, states, strict=True):
            x, after = layer(x, old, context, watch)
            new.append(after)
        return x, tuple(new)

    def out_shape(self, shape: MapShape) -> MapShape:
        """Return the shape after the last layer."""
        for layer in self:
            shape = layer.out_shape(shape)
        return shape


class ResidualBlock(MapLayer):
    """Pre-activation residual block: ``s = first(x)``; ``y = conv2(second(conv1(s))) + shortcut(s)``.

    As published with SLTT (Meng et al. 2023): the shortcut takes the spikes of the first cell; without ``shortcut`` it
    adds them as they are.

    Args:
        first: Cell on the input.
        conv1: Its convolution.
        second: Cell on what ``conv1`` gives.
        conv2: Its convolution.
        shortcut: Convolution that brings the spikes to the shape of the output, or None.
    """

    def __init__(self, first: Cell, conv1: Conv2d, second: Cell, conv2: Conv2d, shortcut: Conv2d | None = None) -> None:
        super().__init__()
        self.first, self.conv1, self.second, self.conv2, self.shortcut = first, conv1, second, conv2, shortcut
        _check_branch(self, first.shape, conv1, second, conv2, shortcut)

    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, Any]:
        """Return the sum of branch and shortcut, and the states of the two cells."""
        before, within = (None, None) if state is None else state
        spikes, before = self.first(x, before, context, watch)
        y, within = self.second(self.conv1(spikes)[0], within, context, watch)
        y, _ = self.conv2(y)
        return y + (spikes if self.shortcut is None else self.shortcut(spikes)[0]), (before, within)

    def out_shape(self, shape: MapShape) -> MapShape:
        """Return the shape of the sum."""
        return self.conv2.out_shape(self.conv1.out_shape(self.first.out_shape(shape)))


class ScaledResidualBlock(MapLayer):
    """Residual block of a network without normalisation.

    ``s = gain first(x / beta)``; ``y = alpha skip_gain conv2(gain second(conv1(s))) + (x or shortcut(s))``, with
    ``beta`` the expected deviation of ``x`` and ``skip_gain`` learned from 0 on (Brock et al. 2021; Meng et al. 2023).
    The gain of the spikes belongs to the cells.

    Args:
        first: Cell on the input.
        conv1: Its convolution.
        second: Cell on what ``conv1`` gives.
        conv2: Its convolution.
        shortcut: Convolution from the first cell's spikes to the output, or None to add the input.
        alpha: Factor of the branch.
        beta: Expected deviation of the input.
    """

    def __init__(
        self,
        first: Cell,
        conv1: Conv2d,
        second: Cell,
        conv2: Conv2d,
        shortcut: Conv2d | None = None,
        *,
        alpha: float = 0.2,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        if beta <= 0:
            raise InputError(f"ScaledResidualBlock: expected beta > 0, got {beta}")
        self.first, self.conv1, self.second, self.conv2, self.shortcut = first, conv1, second, conv2, shortcut
        self.alpha, self.beta = float(alpha), float(beta)
        self.skip_gain = nn.Parameter(torch.zeros(()))
        _check_branch(self, first.shape, conv1, second, conv2, shortcut)

    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, Any]:
        """Return the sum of branch and shortcut, and the states of the two cells."""
        before, within = (None, None) if state is None else state
        spikes, before = self.first(x / self.beta, before, context, watch)
        y, within = self.second(self.conv1(spikes)[0], within, context, watch)
        kept = x if self.shortcut is None else self.shortcut(spikes)[0]
        return self.conv2.scaled(y, self.skip_gain * self.alpha) + kept, (before, within)

    def out_shape(self, shape: MapShape) -> MapShape:
        """Return the shape of the sum."""
        return self.conv2.out_shape(self.conv1.out_shape(self.first.out_shape(shape)))

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"alpha={self.alpha}, beta={self.beta:.4g}"


def _check_branch(
    block: MapLayer, shape: MapShape, conv1: Conv2d, second: Cell, conv2: Conv2d, shortcut: Conv2d | None
) -> None:
    """Refuse a branch whose output cannot be added to the shortcut's."""
    name = type(block).__name__
    inner = conv1.out_shape(shape)
    if inner != second.shape:
        raise InputError(f"{name}: the second cell expects maps of {second.shape}, the first convolution gives {inner}")
    branch = conv2.out_shape(inner)
    kept = shape if shortcut is None else shortcut.out_shape(shape)
    if branch != kept:
        raise InputError(f"{name}: cannot add a branch of {branch} to a shortcut of {kept}; give a shortcut that fits")
