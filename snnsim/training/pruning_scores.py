"""Scores for pruning that need data: gradients of a batch (SNIP) and firing rates of single neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from snnsim.nn.context import Context
from snnsim.nn.formulation import maskable_layers
from snnsim.training.upload import upload

if TYPE_CHECKING:
    from snnsim.training.trainer import Trainer

__all__ = ["neuron_rates", "snip_scores"]

Floats = npt.NDArray[np.floating[Any]]

BATCHES = 8
"""Training batches over which rates of neurons are counted."""


def snip_scores(trainer: Trainer) -> dict[str, Floats]:
    """Return ``|g w|`` of every weight on the first training batch (Lee et al. 2019), by layer.

    Buffers, gradients and running sums of the trainer are the same afterwards.
    """
    model = trainer.model
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    trainer.forward_backward(next(trainer.batches.epoch(0)))
    scores: dict[str, Floats] = {}
    for name, module in maskable_layers(model).items():
        weight = getattr(module, module.mask_of)
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        scores[name] = (gradient * weight.detach()).abs().cpu().numpy().copy()
    trainer.clear_gradients()
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return scores


@torch.no_grad()
def neuron_rates(trainer: Trainer) -> list[Floats]:
    """Return the spikes of every neuron in valid steps of the first training batches, one array a hidden layer.

    Counted over all processes, in evaluation mode; the model is the same afterwards.
    """
    model = trainer.model
    training = model.training
    model.eval()
    totals = [np.zeros(size) for size in model.hidden_sizes()]
    for place, batch in enumerate(trainer.batches.epoch(0)):
        if place == BATCHES:
            break
        part = trainer.world.part(len(batch))
        counts = np.asarray(batch.x if hasattr(batch, "x") else batch.counts)
        mask = upload(batch.mask[:, part], trainer.device)
        context = Context(mask, upload(batch.sample_id[part], trainer.device), trainer.seed, 0)
        output = model(upload(counts[:, part], trainer.device), context=context, record=True)
        for total, spikes in zip(totals, output.spikes, strict=True):
            total += (spikes * mask.unsqueeze(2)).sum(dim=(0, 1), dtype=torch.float64).cpu().numpy()
    model.train(training)
    return [np.asarray(trainer.world.sum(total.tolist())) for total in totals]
