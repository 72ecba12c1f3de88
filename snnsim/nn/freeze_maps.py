"""From a convolutional model to a frozen network: every cell a population, everything between cells one sparse matrix.

What reaches a cell is linear in the spikes of the cells before it (convolutions, average pooling, shortcuts, factors)
plus a constant, so it is followed as ``sum over sources of matrix * spikes + constant`` until the next cell. Batch norm
becomes a scale of the rows and a drive. Max pooling is not linear and is refused. The units of a population are
numbered as in :mod:`snnsim.nn.maps`, those of the input as in the data: ``(channel * height + y) * width + x``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from snnsim.errors import InputError
from snnsim.network import Projection, Sparse
from snnsim.nn.cells import Cell, Chain, ResidualBlock, ScaledResidualBlock
from snnsim.nn.conv import Conv2d, GlobalAverage, Pool2d
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.maps import MapLayer, MapShape

__all__ = ["MAX_SYNAPSES", "FrozenMaps", "freeze_maps"]

Floats = npt.NDArray[np.float64]
Matrix = Any  # scipy.sparse's arrays carry no types

MAX_SYNAPSES = 100_000_000
"""Synapses of the largest frozen network: a convolution's shared weights become one number a synapse."""


@dataclass(frozen=True)
class Flow:
    """Values that are linear in spikes.

    Attributes:
        parts: For every source, a matrix (value, unit).
        constant: What is added, shape (value,).
    """

    parts: dict[str, Matrix]
    constant: Floats

    def through(self, matrix: Matrix) -> Flow:
        """Return the values of a linear layer."""
        return Flow({name: matrix @ part for name, part in self.parts.items()}, matrix @ self.constant)

    def scaled(self, factor: Any, shift: Any = 0.0) -> Flow:
        """Return ``factor * values + shift``; each a number or one a value."""
        diagonal = sparse.diags_array(np.broadcast_to(np.asarray(factor, dtype=np.float64), self.constant.shape))
        parts = {name: diagonal @ part for name, part in self.parts.items()}
        return Flow(parts, self.constant * factor + shift)

    def plus(self, other: Flow) -> Flow:
        """Return the sum."""
        parts = dict(self.parts)
        for name, part in other.parts.items():
            parts[name] = parts[name] + part if name in parts else part
        return Flow(parts, self.constant + other.constant)


@dataclass(frozen=True)
class FrozenMaps:
    """The frozen layers of a convolutional model.

    Attributes:
        flows: What reaches every cell, and last what the readout's connection gets, before its weights.
        neurons: The neurons of every cell.
        folded: Batch norms that became scales and drives.
        dropout: Layers whose dropout disappeared.
    """

    flows: list[Flow]
    neurons: list[Any]
    folded: int
    dropout: int

    def projections(self, flow: Flow, target: str) -> list[Projection]:
        """Return the synapses of a flow into a population."""
        made = []
        for source, part in flow.parts.items():
            table = sparse.coo_array(part)
            if table.nnz:
                rows, columns = table.coords
                made.append(Projection(source, target, Sparse.from_triples(columns, rows, table.data, table.shape)))
        return made


def freeze_maps(model: ConvSpikingModel, names: list[str], source: str) -> FrozenMaps:
    """Follow the spikes of a convolutional model from cell to cell, in float64.

    Args:
        model: Model; it is left as it is.
        names: Names of the cells as populations, in order.
        source: Name of the input.

    Raises:
        InputError: A layer that is not linear between cells, or more synapses than :data:`MAX_SYNAPSES`.
    """
    total = sum(
        count * size for count, size in zip(model.fan_out(), (model.n_inputs, *model.hidden_sizes()), strict=True)
    )
    if total > MAX_SYNAPSES:
        raise InputError(
            f"freeze: the network would have {total:.2g} synapses, and at most {MAX_SYNAPSES:.0g} are made of shared "
            "weights; evaluate the model with engine 'torch', or use a smaller model.conv.width"
        )
    return _Walk(names).run(copy.deepcopy(model).double().eval(), source)


class _Walk:
    def __init__(self, names: list[str]) -> None:
        self.names = iter(names)
        self.flows: list[Flow] = []
        self.neurons: list[Any] = []
        self.folded = self.dropout = 0

    def run(self, model: ConvSpikingModel, source: str) -> FrozenMaps:
        channels, height, width = model.input_shape
        order = np.arange(model.n_inputs).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)
        ones = np.ones(order.size)
        start = sparse.csr_array((ones, (np.arange(order.size), order)), shape=(order.size, order.size))
        flow, _ = self.through(model.body, Flow({source: start}, np.zeros(order.size)), model.input_shape, "body")
        self.flows.append(flow)
        return FrozenMaps(self.flows, self.neurons, self.folded, self.dropout + int(model.dropout is not None))

    def through(self, layer: MapLayer, flow: Flow, shape: MapShape, name: str) -> tuple[Flow, MapShape]:
        if isinstance(layer, Chain):
            for index, part in enumerate(layer):
                flow, shape = self.through(part, flow, shape, f"{name}.layers.{index}")
            return flow, shape
        if isinstance(layer, Cell):
            return self.cell(layer, flow), shape
        if isinstance(layer, ResidualBlock | ScaledResidualBlock):
            return self.block(layer, flow, shape, name), layer.out_shape(shape)
        if isinstance(layer, Conv2d):
            return _convolution(layer, flow, shape), layer.out_shape(shape)
        if isinstance(layer, Pool2d) and layer.kind == "average":
            places = _places(layer.kernel, layer.stride, layer.padding, shape, layer.out_shape(shape))
            matrix = sparse.kron(sum(places.values()) / layer.kernel**2, sparse.eye_array(shape[0]), format="csr")
            return flow.through(matrix), layer.out_shape(shape)
        if isinstance(layer, GlobalAverage):
            pixels = shape[1] * shape[2]
            mean = np.full((1, pixels), 1.0 / pixels)
            return flow.through(sparse.kron(mean, sparse.eye_array(shape[0]), format="csr")), (shape[0], 1, 1)
        what = "Pool2d of kind 'max'" if isinstance(layer, Pool2d) else type(layer).__name__
        raise InputError(
            f"freeze: {name}: {what} is not linear in its spikes, as synapses are; train with model.conv.pool = "
            "'average', or evaluate with engine 'torch'"
        )

    def cell(self, cell: Cell, flow: Flow) -> Flow:
        if cell.norm is not None:
            pixels = cell.shape[1] * cell.shape[2]
            scale, shift = (np.tile(vector, pixels) for vector in cell.norm.fold())
            flow = flow.scaled(scale, shift)
            self.folded += 1
        self.dropout += int(cell.dropout is not None)
        self.flows.append(flow)
        self.neurons.append(cell.neuron)
        return Flow({next(self.names): cell.gain * sparse.eye_array(cell.size, format="csr")}, np.zeros(cell.size))

    def block(self, block: ResidualBlock | ScaledResidualBlock, flow: Flow, shape: MapShape, name: str) -> Flow:
        beta = block.beta if isinstance(block, ScaledResidualBlock) else 1.0
        spikes = self.cell(block.first, flow.scaled(1.0 / beta))
        inner, inside = self.through(block.conv1, spikes, shape, f"{name}.conv1")
        branch, _ = self.through(block.conv2, self.cell(block.second, inner), inside, f"{name}.conv2")
        kept = spikes
        if isinstance(block, ScaledResidualBlock):
            branch = branch.scaled(float(block.skip_gain.detach()) * block.alpha)
            kept = flow
        if block.shortcut is not None:
            kept, _ = self.through(block.shortcut, spikes, shape, f"{name}.shortcut")
        return branch.plus(kept)


def _places(kernel: int, stride: int, padding: int, shape: MapShape, out: MapShape) -> dict[tuple[int, int], Matrix]:
    """Return for every place in the kernel which pixel it sees from every pixel of the output: 0 or 1."""
    along = []
    for side, places in zip(shape[1:], out[1:], strict=True):
        start = np.arange(places) * stride - padding
        ways = []
        for k in range(kernel):
            inside = (start + k >= 0) & (start + k < side)
            where = np.flatnonzero(inside), (start + k)[inside]
            ways.append(sparse.csr_array((np.ones(where[0].size), where), shape=(places, side)))
        along.append(ways)
    pairs = ((i, j) for i in range(kernel) for j in range(kernel))
    return {(i, j): sparse.kron(along[0][i], along[1][j], format="csr") for i, j in pairs}


def _convolution(layer: Conv2d, flow: Flow, shape: MapShape) -> Flow:
    out = layer.out_shape(shape)
    weight = layer.kernel_weight().detach().cpu().numpy()
    places = _places(layer.kernel, layer.stride, layer.padding, shape, out)
    terms = [sparse.kron(place, weight[:, :, i, j], format="csr") for (i, j), place in places.items()]
    after = flow.through(sum(terms[1:], start=terms[0]))
    if layer.bias is None:
        return after
    return Flow(after.parts, after.constant + np.tile(layer.bias.detach().cpu().numpy(), out[1] * out[2]))
