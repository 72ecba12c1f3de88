"""Rate-targeted initialisation: scale each layer until it fires, so that a fresh network is never silent.

Layer by layer, from the input on, the gain of what drives the neurons (the batch norm's weight where there is
one, else the weight of the connection) is multiplied by one factor for the layer until the mean rate on a
given batch is close to the target. The rate grows with the gain for all practical inputs, which bisection on
the logarithm of the factor uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.model import Block, SpikingModel

__all__ = ["LayerRate", "initialise_rates"]

Total = Callable[[list[float]], list[float]]


@dataclass(frozen=True)
class LayerRate:
    """What the initialisation did to one hidden layer.

    Attributes:
        before: Mean spikes a valid neuron-step before.
        after: The same afterwards.
        factor: Factor on the gain; 1.0 if the rate was in range already.
    """

    before: float
    after: float
    factor: float


@torch.no_grad()
def initialise_rates(
    model: SpikingModel,
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
    if not 0 < target < 1 or tolerance <= 0 or largest <= 1:
        raise InputError(
            f"initialise_rates: expected target in (0, 1), tolerance > 0 and largest > 1, "
            f"got {target}, {tolerance}, {largest}"
        )
    mask = None if context is None else context.mask
    modes = {module: module.training for module in model.modules()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    results = []
    try:
        for index, block in enumerate(cast(list[Block], list(model.blocks))):
            if block.dropout is not None:
                block.dropout.eval()
            result, x = _scale(block, x, context, mask, target, tolerance, largest, evaluations, nearest, index, total)
            results.append(result)
    finally:
        for module, training in modes.items():
            module.training = training
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return results


def _gain(block: Block) -> nn.Parameter:
    return block.connection.weight if block.norm is None else block.norm.weight


def _rate(spikes: Tensor, mask: Tensor | None, total: Total | None) -> float:
    per_step = spikes.sum(dim=2).double()  # whole numbers: the same sum in any order and over any processes
    steps = per_step.numel() if mask is None else int(mask.sum())
    sums = [float(per_step.sum() if mask is None else (per_step * mask).sum()), float(steps)]
    count, steps_all = sums if total is None else total(sums)
    return count / (max(1.0, steps_all) * spikes.shape[2])


def _scale(
    block: Block,
    x: Tensor,
    context: Context | None,
    mask: Tensor | None,
    target: float,
    tolerance: float,
    largest: float,
    evaluations: int,
    nearest: bool,
    index: int,
    total: Total | None,
) -> tuple[LayerRate, Tensor]:
    gain = _gain(block)
    start = gain.clone()
    connected, _ = block.connection(x, None, context)

    def run(factor: float) -> tuple[float, Tensor]:
        gain.copy_(start * factor)
        bias = 0.0 if block.connection.bias is None else block.connection.bias
        current = (connected - bias) * factor + bias
        if block.norm is not None:
            current, _ = block.norm(connected, None, context)
        spikes, _ = block.neuron(current, None, context)
        y = spikes + x if block.residual else spikes
        return _rate(spikes, mask, total), y

    low_rate, high_rate = target / (1 + tolerance), target * (1 + tolerance)
    before, y = run(1.0)
    if low_rate <= before <= high_rate:
        return LayerRate(before, before, 1.0), y
    below, above = (0.0, math.log(largest)) if before < target else (-math.log(largest), 0.0)
    rate, factor = before, 1.0
    best = (abs(math.log(max(before, 1e-12) / target)), 1.0, before)
    for _ in range(evaluations):
        middle = 0.5 * (below + above)
        factor = math.exp(middle)
        rate, y = run(factor)
        best = min(best, (abs(math.log(max(rate, 1e-12) / target)), factor, rate))
        if low_rate <= rate <= high_rate:
            return LayerRate(before, rate, factor), y
        below, above = (middle, above) if rate < target else (below, middle)
    if nearest:
        rate, y = run(best[1])
        return LayerRate(before, rate, best[1]), y
    gain.copy_(start)
    raise InputError(
        f"initialise_rates: hidden layer {index + 1} does not reach {target:g} spikes a neuron-step: {best[2]:.3g} at "
        f"a factor of {best[1]:.3g}; is its input silent ({float((x != 0).float().mean()):.3g} of it is not zero), "
        "or its threshold out of reach?"
    )
