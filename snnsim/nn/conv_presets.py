"""Convolutional networks by name: VGG, pre-activation residual networks, residual networks without normalisation.

Sources: Meng et al. 2023 (SLTT: VGG-11 with batch norm, pre-activation ResNet-18, normalisation-free ResNet-34), He et
al. 2016 (pre-activation), Brock et al. 2021 (networks without normalisation). Differences from the published code:
convolutions before a batch norm have no bias (it would be subtracted again), and VGG's last maps are not copied to
7 x 7 pixels before the readout.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from snnsim.errors import InputError
from snnsim.nn.cells import SPIKE_GAIN, Cell, Chain, ResidualBlock, ScaledResidualBlock
from snnsim.nn.conv import Conv2d, GlobalAverage, Pool2d, StandardisedConv2d
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.delays import Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.map_norm import BatchNormMaps
from snnsim.nn.maps import MapLayer, MapShape
from snnsim.nn.model import build_neuron, build_readout

if TYPE_CHECKING:
    from snnsim.recipes.schema import ModelSpec

__all__ = ["build_conv_model"]

VGG: dict[str, list[list[int]]] = {
    "vgg11": [[64], [128], [256, 256], [512, 512], [512, 512]],
    "vgg-small": [[32], [64, 64]],
}
"""Channels of every convolution, by stage; a stage ends with pooling by two."""

RESNET: dict[str, list[tuple[int, int]]] = {
    "resnet18": [(64, 2), (128, 2), (256, 2), (512, 2)],
    "resnet34": [(64, 3), (128, 4), (256, 6), (512, 3)],
    "nf-resnet34": [(64, 3), (128, 4), (256, 6), (512, 3)],
    "resnet-small": [(32, 1), (64, 1)],
}
"""Channels and blocks, by stage."""

ALPHA = 0.2
"""Factor of a residual branch without normalisation."""


def build_conv_model(spec: ModelSpec, n_inputs: int, n_classes: int, dt: float, seed: int = 0) -> ConvSpikingModel:
    """Build the network of a recipe's ``[model.conv]`` table.

    Args:
        spec: The ``[model]`` table, with ``conv``.
        n_inputs: Values of one input step (after pooling of channels).
        n_classes: Classes.
        dt: Time step, seconds.
        seed: Seed of the initial weights and heterogeneous parameters.

    Returns:
        A float32 model in training mode.

    Raises:
        InputError: The data do not have the maps that the table states, or the maps become too small.
    """
    conv = spec.conv
    if conv is None:
        raise InputError("build_conv_model: expected a table [model.conv], got none")
    shape = conv.input_shape
    if math.prod(shape) != n_inputs:
        raise InputError(
            f"model.conv.input: maps of {' x '.join(map(str, shape))} have {math.prod(shape)} values a step, the data "
            f"have {n_inputs}; state channels, height and width of the data, and data.channels that pools none of them"
        )
    maker = _Maker(spec, dt, seed)
    body = maker.residual(shape) if conv.residual else maker.vgg(shape)
    channels, height, width = body.out_shape(shape)
    sources = channels * height * width
    connection = Linear(sources, n_classes, bias=True, generator=maker.generator)
    if conv.residual and maker.standardised:
        torch.nn.init.zeros_(connection.weight)  # as published; the values behind it are not spikes but large sums
    return ConvSpikingModel(
        body,
        build_readout(spec.readout, connection, dt),
        input_shape=shape,
        dt=dt,
        dropout=maker.dropout() if conv.residual else None,
        tail_steps=spec.tail(dt),
    )


class _Maker:
    """Makes layers one after the other, so that weights depend on the seed alone."""

    def __init__(self, spec: ModelSpec, dt: float, seed: int) -> None:
        assert spec.conv is not None
        self.spec, self.conv, self.dt, self.seed = spec, spec.conv, dt, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.cells = 0
        self.dropouts = 0

    @property
    def standardised(self) -> bool:
        return self.conv.normalisation == "weight"

    def channels(self, published: int) -> int:
        return max(1, round(published * self.conv.width))

    def convolution(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> Conv2d:
        kind = StandardisedConv2d if self.standardised else Conv2d
        return kind(n_in, n_out, kernel, stride=stride, bias=self.standardised, generator=self.generator)

    def dropout(self) -> SequenceDropout | None:
        if self.spec.dropout == 0:
            return None
        self.dropouts += 1
        return SequenceDropout(self.spec.dropout, layer=self.dropouts - 1)

    def cell(self, shape: MapShape, *, dropout: bool) -> Cell:
        neuron = build_neuron(self.spec.neuron, math.prod(shape), self.dt, self.seed + self.cells)
        self.cells += 1
        over = self.conv.normalisation
        return Cell(
            shape,
            neuron,
            norm=None if over == "weight" else BatchNormMaps(shape[0], over=over),
            dropout=self.dropout() if dropout else None,
            gain=SPIKE_GAIN if self.standardised else 1.0,
        )

    def vgg(self, shape: MapShape) -> Chain:
        layers: list[MapLayer] = []
        for stage in VGG[self.conv.preset][: self.conv.n_stages]:
            for published in stage:
                layers.append(self.convolution(shape[0], self.channels(published)))
                shape = layers[-1].out_shape(shape)
                layers.append(self.cell(shape, dropout=True))
            layers.append(Pool2d(self.conv.pool))
            shape = layers[-1].out_shape(shape)
        return Chain(layers)

    def residual(self, shape: MapShape) -> Chain:
        stages = RESNET[self.conv.preset][: self.conv.n_stages]
        width = self.channels(stages[0][0])
        stem = self.convolution(shape[0], width, 7 if self.conv.large_stem else 3, 2 if self.conv.large_stem else 1)
        layers: list[MapLayer] = [stem]
        if self.conv.large_stem:
            layers.append(Pool2d("average", 3, stride=2, padding=1))
        for layer in layers:
            shape = layer.out_shape(shape)
        variance = 1.0
        for index, (published, blocks) in enumerate(stages):
            for number in range(blocks):
                stride = 2 if index > 0 and number == 0 else 1
                block, changes = self.block(shape, self.channels(published), stride, math.sqrt(variance))
                layers.append(block)
                shape = block.out_shape(shape)
                variance = (1.0 if changes else variance) + ALPHA**2
        if not self.standardised:
            layers.append(self.cell(shape, dropout=False))
        return Chain([*layers, GlobalAverage()])

    def block(self, shape: MapShape, width: int, stride: int, beta: float) -> tuple[MapLayer, bool]:
        """Return a residual block and whether its shortcut is a convolution."""
        first = self.cell(shape, dropout=False)
        conv1 = self.convolution(shape[0], width, 3, stride)
        second = self.cell(conv1.out_shape(shape), dropout=True)
        conv2 = self.convolution(width, width)
        changes = stride != 1 or shape[0] != width
        shortcut = self.convolution(shape[0], width, 1, stride) if changes else None
        if self.standardised:
            return ScaledResidualBlock(first, conv1, second, conv2, shortcut, alpha=ALPHA, beta=beta), changes
        return ResidualBlock(first, conv1, second, conv2, shortcut), changes
