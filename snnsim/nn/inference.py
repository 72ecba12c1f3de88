"""Evaluation of a whole model for groups of samples, layer after layer in the caches, without a graph.

A vector of samples runs through all layers before the next one starts (:mod:`snnsim.kernels.interleaved`), so nothing
but the readout's trace is written for the whole batch. float32 only: float64 evaluation sums in the canonical order and
stays with the modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.kernels import dynamics, interleaved
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.simd import vector_lanes
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.memory import buffers
from snnsim.nn.model import Block, Output, SpikingModel
from snnsim.nn.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.readouts import reduce_trace
from snnsim.nn.spiking import SpikingModule, stack_rows

__all__ = ["infer", "infers"]

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Layer:
    """One layer with its delays rounded and its batch norm folded, as the kernel wants it."""

    weight: Floats
    delay: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    silent: int
    neuron: Floats
    dynamics: int
    spiking: bool
    reset_zero: bool

    def place(self, n_steps: int) -> npt.NDArray[np.int64]:
        """Return where the step that arrives at step 0 begins for every synapse."""
        return self.source * (self.silent + n_steps) + self.silent - self.delay


def infers(model: SpikingModel) -> bool:
    """Return whether :func:`infer` knows the model: feed-forward, float32 on the CPU, no refractory periods."""
    if on_cuda(model.readout.connection.weight):
        return False
    blocks = cast(list[Block], list(model.blocks))
    known = all(
        type(block.neuron) in (LIF, IF, CubaLIF, AdaptiveLIF)
        and not block.residual
        and block.connection.bias is None
        and not bool(cast(LIF, block.neuron).refractory_steps.any())
        for block in blocks
    )
    weight = model.readout.connection.weight
    readout = type(model.readout.neuron) in (LI, CubaLI) and model.readout.connection.bias is None
    return known and readout and weight.dtype == torch.float32


def _synapses(connection: Linear | DelayedLinear) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return weights, delays and sources by target, filled up to whole passes."""
    n_out, n_in = connection.weight.shape[:2]
    delay = connection.delay_steps().numpy().reshape(n_out, -1)
    weight = connection.weight.detach().numpy().reshape(n_out, -1)
    source = np.broadcast_to(np.repeat(np.arange(n_in), weight.shape[1] // n_in), weight.shape)
    fill = ((0, 0), (0, -weight.shape[1] % interleaved.PASS))
    return np.pad(weight, fill), np.pad(delay, fill), np.pad(source, fill)


def _layer(block: Any) -> _Layer:
    weight, delay, source = _synapses(block.connection)
    neuron = block.neuron
    rows = np.zeros((dynamics.PARAMETERS + 2, weight.shape[0]), dtype=np.float32)
    rows[-2] = 1
    kind, spiking = neuron.dynamics, isinstance(neuron, SpikingModule)
    if spiking:
        rows[: dynamics.PARAMETERS] = stack_rows(kind, neuron.prepare(torch.float32).vectors).numpy()
    else:
        own = neuron.decays(torch.float32) if isinstance(neuron, CubaLI) else (neuron.beta(),)
        for row, vector in zip(dynamics.ROWS[kind], own, strict=True):
            rows[row] = vector.numpy()
    if spiking and block.norm is not None:
        rows[-2], rows[-1] = (value.numpy() for value in block.norm.affine(torch.float32))
    silent = int(delay.max(initial=0))
    return _Layer(weight, delay, source, silent, rows, kind, spiking, spiking and neuron.reset == "zero")


@torch.no_grad()
def infer(model: SpikingModel, x: Tensor, context: Context | None = None) -> Output:
    """Evaluate a model whose :func:`infers` is true; its dropout is off and its delays are rounded.

    A sample's numbers depend on neither the batch nor the number of threads. They differ in rounding from
    ``model.eval()(x)``, which adds in another order.

    Args:
        model: Model, in any mode.
        x: Counts a step, float32, shape (time, batch, n_inputs).
        context: Mask of valid steps.

    Returns:
        Scores, trace and rates; no recorded spikes and no state.
    """
    layers = [_layer(layer) for layer in model.layers()]
    n_steps, batch, _ = x.shape
    lanes = vector_lanes(np.float32)
    groups = -(-batch // lanes)
    mask = None if context is None else context.mask
    valid = np.zeros((groups * lanes, n_steps), dtype=np.float32)
    valid[:batch] = 1.0 if mask is None else mask.numpy().T
    valid = np.ascontiguousarray(valid.reshape(groups, lanes, n_steps).transpose(0, 2, 1)).reshape(
        groups, n_steps * lanes
    )
    trace = buffers.take((n_steps, batch, model.n_classes), torch.float32)
    counts = np.zeros((len(layers), groups, lanes))
    places = [layer.place(n_steps) for layer in layers]
    source, out = x.contiguous().numpy(), trace.numpy()

    def work(start: int, stop: int) -> None:
        sizes = [model.n_inputs, *(layer.weight.shape[0] for layer in layers)]
        before = [layer.silent for layer in layers] + [0]
        shapes = [(n * (silent + n_steps) * lanes,) for n, silent in zip(sizes, before, strict=True)]
        rows = [buffers.take(shape, torch.float32).numpy() for shape in shapes]  # on cache lines
        for group in range(start, stop):
            interleaved.pack(source, group * lanes, before[0], rows[0])
            for k, layer in enumerate(layers):
                interleaved.layer(
                    *(rows[k], layer.weight, places[k], layer.neuron, layer.dynamics, layer.spiking),
                    *(layer.reset_zero, valid[group], n_steps, before[k + 1], rows[k + 1], counts[k, group]),
                )
            interleaved.unpack(rows[-1], group * lanes, out)

    run_ranges(work, (), groups, torch.get_num_threads(), 1)
    steps = n_steps * batch if mask is None else int(mask.sum())
    rates = [counts[k].sum() / max(1, steps * layer.weight.shape[0]) for k, layer in enumerate(layers[:-1])]
    readout = model.readout
    logits = reduce_trace(trace, readout.reduce, mask=mask, skip_steps=readout.skip_steps)
    return Output(logits, trace, torch.tensor(rates, dtype=torch.float64), [], ())
