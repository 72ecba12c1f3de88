"""Rate-targeted initialisation: scale each layer until it fires, so that a fresh network is never silent.

Layer by layer, from the input on, the gain of what drives the neurons (the batch norm's weight where there is
one, else the weight of the connection) is multiplied by one factor for the layer until the mean rate on a
given batch is close to the target. The rate grows with the gain for all practical inputs, which bisection on
the logarithm of the factor uses.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.initialise_maps import scale_cells
from snnsim.nn.model import Block, SpikingModel
from snnsim.nn.neurons_conductance import ReceptorLinear
from snnsim.nn.rate_search import LayerRate, RateSearch, Total
from snnsim.nn.trained import TrainedModel

__all__ = ["LayerRate", "initialise_rates"]


@torch.no_grad()
def initialise_rates(
    model: TrainedModel,
    x: Tensor,
    context: Context | None = None,
    *,
    target: float = 0.05,
    tolerance: float = 0.5,
    largest: float = 1e4,
    evaluations: int = 24,
    nearest: bool = False,
    total: Total | None = None,
) -> list[LayerRate]:
    """Scale the layers of ``model`` so that each fires near ``target`` spikes a neuron-step on one batch.

    A layer whose rate lies within ``target / (1 + tolerance)`` and ``target * (1 + tolerance)`` is left as it
    is. Batch statistics are those of this batch; running averages, dropout, training mode and random numbers
    are the same afterwards.

    Args:
        model: Network; its gains are changed in place.
        x: One batch of input, shape (time, batch, unit).
        context: Mask of valid steps.
        target: Mean spikes a neuron-step, in (0, 1).
        tolerance: Accepted relative deviation, > 0.
        largest: Largest factor (and the inverse of the smallest) to be tried.
        evaluations: Most runs of one layer.
        nearest: Where a layer cannot reach the range, take the factor that came closest instead of raising.
        total: Sums numbers over all processes that hold a part of the batch each; None for one process. All of
            them decide by the whole batch, so that they find the same factors.

    Returns:
        Rates and factor of every hidden layer.

    Raises:
        InputError: A layer cannot reach the range, for example because its input is silent, and ``nearest`` is not
            set.
    """
    mask = None if context is None else context.mask
    search = RateSearch(target, tolerance, largest, evaluations, nearest, mask, total)
    modes = {module: module.training for module in model.modules()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    try:
        if isinstance(model, ConvSpikingModel):
            return scale_cells(model, x, context, search)
        assert isinstance(model, SpikingModel)
        results = []
        for index, block in enumerate(cast(list[Block], list(model.blocks))):
            if block.dropout is not None:
                block.dropout.eval()
            result, x = _scale(block, x, context, search, index)
            results.append(result)
        return results
    finally:
        for module, training in modes.items():
            module.training = training
        for name, value in model.named_buffers():
            value.copy_(buffers[name])


def _scale(
    block: Block, x: Tensor, context: Context | None, search: RateSearch, index: int
) -> tuple[LayerRate, Tensor]:
    if isinstance(block.connection, ReceptorLinear):
        raise InputError(
            f"initial rate: hidden{index + 1} has conductances, which are not scaled; choose the scale "
            "of ReceptorLinear"
        )
    gain: nn.Parameter = block.connection.weight if block.norm is None else block.norm.weight
    start = gain.clone()
    connected, _ = block.connect(x, None, context)

    def run(factor: float) -> tuple[float, Tensor]:
        gain.copy_(start * factor)
        bias = 0.0 if block.connection.bias is None else block.connection.bias
        current = (connected - bias) * factor + bias
        if block.norm is not None:
            current, _ = block.norm(connected, None, context)
        spikes, _ = block.neuron(current, None, context)
        y = spikes + x if block.residual else spikes
        return search.rate(spikes), y

    return search.find(run, index, x)
