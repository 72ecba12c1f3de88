"""Backpropagation through time: what is minimised, and one step of it.

The forward pass keeps what the surrogate gradients need, ``loss.backward()`` walks it in reverse. This file
holds the losses; the layers hold their gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from snnsim.nn.reductions import sum_first

if TYPE_CHECKING:
    from snnsim.nn.model import Output
    from snnsim.recipes.schema import RateSpec, TrainSpec

__all__ = ["class_loss", "rate_penalty", "training_loss"]


def class_loss(
    output: Output,
    target: Tensor,
    mask: Tensor | None,
    kind: str = "cross_entropy",
    label_smoothing: float = 0.0,
    skip_steps: int = 0,
) -> Tensor:
    """Return the loss of every sample, shape (batch,); summing it is left to the caller.

    ``cross_entropy``: of the reduced scores. With the ``sum_softmax`` readout this applies a second softmax
    to the sum over time of the first (Hammouamri et al. 2024). ``per_step``: mean over the sample's steps of
    the cross-entropy of the readout at that step.

    Args:
        output: What the model returned.
        target: Classes, int64, shape (batch,); or probabilities of classes, shape (batch, class).
        mask: Valid steps, bool, shape (time, batch), or None for all.
        kind: ``cross_entropy`` or ``per_step``.
        label_smoothing: Part of the target spread evenly over all classes.
        skip_steps: First steps left out of ``per_step``.
    """
    if kind == "cross_entropy":
        return functional.cross_entropy(output.logits, target, reduction="none", label_smoothing=label_smoothing)
    trace = output.trace
    steps, batch, classes = trace.shape
    losses = functional.cross_entropy(
        trace.reshape(steps * batch, classes),
        target.repeat(steps, *[1] * (target.dim() - 1)),
        reduction="none",
        label_smoothing=label_smoothing,
    ).view(steps, batch)
    valid = torch.ones_like(losses) if mask is None else mask.to(losses.dtype)
    if skip_steps:
        valid = valid.clone()
        valid[:skip_steps] = 0
    return sum_first(losses * valid) / valid.sum(dim=0).clamp(min=1.0)  # valid: whole numbers, any order will do


def rate_penalty(spikes: list[Tensor], mask: Tensor | None, spec: RateSpec) -> Tensor:
    """Return the penalty on firing rates outside [lower, upper], a scalar.

    For every neuron, with ``r`` its mean spikes a valid step: ``relu(lower - r)^2 + relu(r - upper)^2``, mean
    over neurons, summed over layers, times ``strength``.
    """
    total = spikes[0].new_zeros(())
    for layer in spikes:
        if mask is None:
            rate = layer.sum(dim=0).sum(dim=0) / (layer.shape[0] * layer.shape[1])
        else:
            rate = (layer * mask.unsqueeze(2)).sum(dim=0).sum(dim=0) / mask.sum().clamp(min=1)
        total = (
            total + (functional.relu(spec.lower - rate).square() + functional.relu(rate - spec.upper).square()).mean()
        )
    return total * spec.strength


def training_loss(
    output: Output, target: Tensor, mask: Tensor | None, spec: TrainSpec, total_samples: int, skip_steps: int = 0
) -> tuple[Tensor, Tensor]:
    """Return what to differentiate and the losses of the samples.

    Args:
        output: What the model returned (with spikes recorded if the recipe penalises rates).
        target: Classes of these samples, or their probabilities.
        mask: Valid steps, or None for all.
        spec: The recipe's training table.
        total_samples: Samples of the whole batch over all processes: the loss is the sum over the samples
            here divided by it, so that summed gradients of all processes are those of one.
        skip_steps: First steps that the readout leaves out.

    Returns:
        A scalar with graph, and the detached losses, shape (batch,).
    """
    losses = class_loss(output, target, mask, spec.loss, spec.label_smoothing, skip_steps)
    loss = sum_first(losses) / total_samples
    if spec.rate.strength > 0:
        share = target.shape[0] / total_samples
        loss = loss + rate_penalty(output.spikes, mask, spec.rate) * share
    return loss, losses.detach()
