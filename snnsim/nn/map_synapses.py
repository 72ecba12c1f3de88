"""How many synapses a value of a convolutional network has: what a spike costs."""

from __future__ import annotations

from snnsim.errors import InputError
from snnsim.nn.cells import Cell, Chain, ResidualBlock, ScaledResidualBlock
from snnsim.nn.maps import MapConnection, MapLayer, MapShape

__all__ = ["mean_fan_out"]

Reach = dict[int, float]
"""For every source (0: the input, k: cell k) the values that one of its values reaches here, mean over places."""


class _Walk:
    """Follows every source to the next cells."""

    def __init__(self) -> None:
        self.synapses = [0.0]

    def pass_through(self, layer: MapLayer, reach: Reach, shape: MapShape) -> tuple[Reach, MapShape]:
        if isinstance(layer, Chain):
            for part in layer:
                reach, shape = self.pass_through(part, reach, shape)
            return reach, shape
        if isinstance(layer, Cell):
            self.arrive(reach)
            self.synapses.append(0.0)
            return {len(self.synapses) - 1: 1.0}, shape
        if isinstance(layer, ResidualBlock | ScaledResidualBlock):
            spikes, _ = self.pass_through(layer.first, reach, shape)
            inner, inside = self.pass_through(layer.conv1, spikes, shape)
            fired, _ = self.pass_through(layer.second, inner, inside)
            branch, out = self.pass_through(layer.conv2, fired, inside)
            kept = reach if isinstance(layer, ScaledResidualBlock) else spikes
            if layer.shortcut is not None:
                kept, _ = self.pass_through(layer.shortcut, spikes, shape)
            for source, count in kept.items():
                branch[source] = branch.get(source, 0.0) + count
            return branch, out
        if not isinstance(layer, MapConnection):
            raise InputError(f"mean_fan_out: {type(layer).__name__} is a layer that it does not know")
        factor = layer.targets(shape)
        return {source: count * factor for source, count in reach.items()}, layer.out_shape(shape)

    def arrive(self, reach: Reach, targets: float = 1.0) -> None:
        for source, count in reach.items():
            self.synapses[source] += count * targets


def mean_fan_out(body: Chain, shape: MapShape, n_classes: int) -> list[float]:
    """Return the synapses of one value of the input and of one neuron of every cell, mean over their places.

    Paths through a branch and its shortcut count as synapses of their own.

    Args:
        body: Layers.
        shape: Channels, height and width of the input.
        n_classes: Units of the readout, which every value of the last maps reaches.
    """
    if min(shape) < 1 or n_classes < 1:
        raise InputError(f"mean_fan_out: expected positive sizes, got maps of {shape} and {n_classes} classes")
    walk = _Walk()
    reach, _ = walk.pass_through(body, {0: 1.0}, shape)
    walk.arrive(reach, float(n_classes))
    return walk.synapses
