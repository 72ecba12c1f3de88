"""A feed-forward LIF network in SLTT without graphs: three kernel calls a stretch, see :mod:`snnsim.kernels.sltt`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snnsim.kernels import sltt as kernels
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.context import Context
from snnsim.nn.delays import Linear
from snnsim.nn.memory import buffers
from snnsim.nn.model import Block, SpikingModel
from snnsim.nn.neurons import IF, LI, LIF

__all__ = ["FusedStages", "fits"]


def fits(model: SpikingModel) -> bool:
    """Return whether the kernels know the network: Linear, LIF or IF without learned numbers, LI, and few input events.

    What is asked for are kinds and settings of layers, never the data of a batch.
    """
    blocks: list[Any] = list(model.blocks)
    layers = [*blocks, model.readout]
    return (
        bool(blocks)
        and all(type(layer.connection) is Linear and layer.connection.bias is None for layer in layers)
        and blocks[0].connection.formulation == "events"
        and all(type(block) is Block and block.norm is None and not block.residual for block in blocks)
        and all(type(block.neuron) in (LIF, IF) for block in blocks)
        and not any(bool(block.neuron.refractory_steps.any()) for block in blocks)
        and type(model.readout.neuron) is LI
        and all(layer.connection.n_in <= kernels.WIDEST for layer in layers)
        and not any(parameter.requires_grad for layer in layers for parameter in layer.neuron.parameters())
    )


class FusedStages:
    """One pass of a network over the stretches of a batch.

    Args:
        model: A network that :func:`fits`.
        context: Mask, sample ids, seed and epoch.
        batch: Samples.
        dtype: Type of the run.
        steps: Longest stretch.
        learn: Whether gradients are wanted.
    """

    def __init__(
        self, model: SpikingModel, context: Context, batch: int, dtype: torch.dtype, steps: int, learn: bool
    ) -> None:
        blocks: list[Any] = list(model.blocks)
        layers: list[Any] = [*blocks, model.readout]
        self.layers, self.batch, self.learn = layers, batch, learn
        self.mask = context.mask
        self.fired = np.zeros(len(blocks) * batch, dtype=np.int64)
        self._kept: list[npt.NDArray[Any]] = []  # what the table's addresses point to
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        self.table = np.zeros((len(layers), kernels.FIELDS), dtype=np.int64)
        self.scales = np.ones(len(layers), dtype=kind)
        self.numbers = np.zeros((len(layers), 6), dtype=kind)
        self.gradients: list[Tensor] = []
        rows = batch * steps
        for index, layer in enumerate(layers):
            connection, neuron, row = layer.connection, layer.neuron, self.table[index]
            n_in, n_out = connection.n_in, connection.n_out
            row[[kernels.N_IN, kernels.N_OUT]] = n_in, n_out
            weight = connection.weight.detach().to(dtype).contiguous()
            self._point(index, kernels.WEIGHT, weight.numpy())
            by_source = buffers.take((n_in, n_out), dtype)
            self._point(index, kernels.BY_SOURCE, by_source.copy_(weight.t()).numpy())
            self._point(index, kernels.V, np.zeros((batch, n_out), dtype=kind))
            self._point(index, kernels.COLUMN, buffers.take((rows, n_in), torch.int16).numpy())  # read as unsigned
            self._point(index, kernels.MANY, np.empty(rows, dtype=np.int32))
            self.gradients.append(torch.zeros(n_in, n_out, dtype=dtype) if learn else torch.zeros(0, dtype=dtype))
            self._point(index, kernels.GRADIENT, self.gradients[-1].numpy())
            if index == len(blocks):
                self._point(index, kernels.BETA, neuron._vector(neuron.beta(), dtype).detach().numpy())
                continue
            prepared = neuron.prepare(dtype)
            for field, vector in zip(range(kernels.BETA, kernels.RESET_AMOUNT + 1), prepared.vectors, strict=True):
                self._point(index, field, vector.detach().numpy())
            row[kernels.RESET_ZERO] = prepared.rule.reset_zero
            row[kernels.SURROGATE] = prepared.rule.surrogate.code
            self.numbers[index] = surrogate_numbers(row[kernels.SURROGATE], prepared.rule.surrogate.parameters, kind)
            self._point(index, kernels.SLOPE, buffers.take((rows if learn else 0, n_out), dtype).numpy())
            factors = None
            if layer.dropout is not None:
                factors = layer.dropout.factors(context, torch.empty(1, batch, n_out, dtype=dtype))
            if factors is not None:
                self._point(index, kernels.KEPT, (factors > 0).to(torch.uint8).numpy())
                self.scales[index + 1] = 1.0 / (1.0 - layer.dropout.p)
        self._pieces = int(sum(-(-row[kernels.N_OUT] // kernels.COLUMNS) for row in self.table))
        self._x: npt.NDArray[Any] = np.empty(0, dtype=kind)

    def _point(self, layer: int, field: int, array: npt.NDArray[Any]) -> None:
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        self.table[layer, field] = array.ctypes.data

    def forward(self, x: Tensor, start: int, learn: bool) -> Tensor:
        """Return the readout's trace of a stretch, shape (time, batch, class).

        Args:
            x: Inputs, shape (time, batch, unit).
            start: First step.
            learn: Whether :meth:`backward` follows.
        """
        steps = x.shape[0]
        self._x = x.detach().contiguous().numpy().reshape(-1)
        trace = torch.empty(steps, self.batch, int(self.table[-1, kernels.N_OUT]), dtype=x.dtype)
        mask = np.empty(0, dtype=np.uint8)
        if self.mask is not None:
            mask = self.mask[start : start + steps].contiguous().numpy().view(np.uint8).reshape(-1)
        arguments = (
            *(self._x, steps, self.batch, self.table, self.scales, self.numbers, mask, learn),
            *(trace.numpy().reshape(-1), self.fired),
        )
        self._run(kernels.forward, arguments, self.batch)
        return trace

    def backward(self, error: Tensor) -> None:
        """Add the gradients that the last stretch gives; ``error`` has the shape of its trace."""
        steps = error.shape[0]
        rows = error.transpose(0, 1).contiguous().numpy().reshape(-1)
        self._run(kernels.backward, (rows, steps, self.table, self.scales), self.batch)
        arguments = (self._x, rows, steps, self.batch, self.table, self.scales)
        self._run(kernels.accumulate, arguments, self._pieces)

    @staticmethod
    def _run(kernel: Any, arguments: tuple[Any, ...], many: int) -> None:
        threads = torch.get_num_threads()
        run_ranges(kernel, arguments, many, threads, -(-many // threads), pieces=1)

    def finish(self) -> None:
        """Hand the gradients to the parameters."""
        for layer, gradient in zip(self.layers, self.gradients, strict=True):
            weight: nn.Parameter = layer.connection.weight
            if not weight.requires_grad:
                continue
            found = gradient.t().to(weight.dtype)
            weight.grad = found if weight.grad is None else weight.grad + found
        self._kept = []

    def counts(self) -> Tensor:
        """Return the spikes of every hidden layer in valid steps so far, int64."""
        return torch.from_numpy(self.fired.reshape(-1, self.batch).sum(axis=1))
