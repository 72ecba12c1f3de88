"""Optimisers and learning-rate schedules, one for each group of parameters, and the spread of delay taps.

Weights, delay positions and neuron parameters have their own optimiser and their own schedule, and every
schedule says whether it advances by epoch or by batch. The schedulers are torch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from snnsim.errors import InputError
from snnsim.nn.trained import TrainedModel
from snnsim.recipes.schema import ConnectionSpec, GroupSpec, ScheduleSpec, TrainSpec

__all__ = [
    "GroupOptimiser",
    "build_optimisers",
    "build_scheduler",
    "first_fixed_epoch",
    "parameter_groups",
    "sigma_at",
]


def sigma_at(epoch: int, connection: ConnectionSpec, dt: float, epochs: int) -> float:
    """Return the spread SIG of the delay taps during an epoch, in steps.

    ``SIG_0 a^min(epoch, E_f)`` with ``a = (sigma_end / SIG_0)^(1 / E_f)`` and ``E_f = floor(epochs * fraction)``
    (Hammouamri et al. 2024). A start below the end, or ``E_f = 0``, keeps the start.

    Args:
        epoch: Epoch, counted from 0.
        connection: The delay layer's recipe.
        dt: Step in seconds.
        epochs: Epochs of the run.

    >>> round(sigma_at(1, ConnectionSpec(), 0.01, 150) / 12, 6)
    0.898633
    """
    first = connection.first_sigma(dt)
    last_epoch = int(epochs * connection.sigma_epochs_fraction)
    if last_epoch == 0 or first <= connection.sigma_end:
        return first
    if epoch >= last_epoch:
        return connection.sigma_end
    return float(first * (connection.sigma_end / first) ** (epoch / last_epoch))


def first_fixed_epoch(connection: ConnectionSpec, epochs: int) -> int:
    """Return the epoch, counted from 0, from which on the delays are rounded and fixed; ``epochs``: never.

    >>> first_fixed_epoch(ConnectionSpec(fix_epochs_fraction=0.25), 150)
    113
    """
    return epochs - int(epochs * connection.fix_epochs_fraction)


@dataclass(frozen=True)
class GroupOptimiser:
    """Optimiser and schedule of one group of parameters.

    Attributes:
        name: ``weights``, ``positions`` or ``neuron``.
        optimiser: torch optimiser.
        scheduler: torch scheduler of that optimiser.
        unit: What advances the scheduler: ``epoch`` or ``batch``.
        steps: Steps of the scheduler in the whole run.
    """

    name: str
    optimiser: Optimizer
    scheduler: LRScheduler
    unit: str
    steps: int

    def advance(self, unit: str) -> None:
        """Advance the schedule at the end of an ``epoch`` or ``batch``; past its end it stays."""
        if unit == self.unit and self.scheduler.last_epoch < self.steps - 1:
            self.scheduler.step()

    @property
    def lr(self) -> float:
        """Return the learning rate now."""
        return float(self.optimiser.param_groups[0]["lr"])


def parameter_groups(model: TrainedModel) -> dict[str, list[dict[str, Any]]]:
    """Sort trainable parameters into ``weights``, ``positions`` and ``neuron``.

    Within weights, batch norm and biases are a second list without weight decay.

    Returns:
        For each group that is not empty, torch parameter groups with ``params`` and, where it must be zero,
        ``weight_decay``.
    """
    roles = model.parameter_groups()
    groups: dict[str, list[dict[str, Any]]] = {}
    weights: list[dict[str, Any]] = [{"params": roles["weights"]}] if roles["weights"] else []
    if roles["norm"]:
        weights.append({"params": roles["norm"], "weight_decay": 0.0})
    if weights:
        groups["weights"] = weights
    for name in ("positions", "neuron"):
        if roles[name]:
            groups[name] = [{"params": roles[name]}]
    return groups


def build_optimisers(model: TrainedModel, spec: TrainSpec, batches_per_epoch: int) -> list[GroupOptimiser]:
    """Build one optimiser with its schedule for every group of parameters that the model has.

    Args:
        model: Trainable model.
        spec: The recipe's training table.
        batches_per_epoch: Optimiser steps an epoch, for schedules whose unit is a batch.

    Raises:
        InputError: The model has nothing to train.
    """
    groups = parameter_groups(model)
    if not groups:
        raise InputError("model: expected at least one trainable parameter, got none; is everything frozen?")
    result = []
    for name, parameters in groups.items():
        group: GroupSpec = getattr(spec, name)
        optimiser = _build_optimiser(parameters, group)
        steps = spec.epochs * (batches_per_epoch if group.schedule.unit == "batch" else 1)
        scheduler = build_scheduler(optimiser, group.schedule, group.lr, steps)
        result.append(GroupOptimiser(name, optimiser, scheduler, group.schedule.unit, steps))
    return result


def _build_optimiser(parameters: list[dict[str, Any]], group: GroupSpec) -> Optimizer:
    if group.optimiser == "sgd":
        return SGD(parameters, lr=group.lr, momentum=group.momentum, weight_decay=group.weight_decay)
    kind = Adam if group.optimiser == "adam" else AdamW
    return kind(parameters, lr=group.lr, betas=(group.beta1, group.beta2), weight_decay=group.weight_decay)


def build_scheduler(optimiser: Optimizer, spec: ScheduleSpec, lr: float, steps: int) -> LRScheduler:
    """Build torch's scheduler for a schedule of ``steps`` steps whose base rate is ``lr``."""
    if spec.kind == "one-cycle":
        cycles = spec.cycle_momentum and any(
            "betas" in group or group.get("momentum", 0) > 0 for group in optimiser.param_groups
        )
        return OneCycleLR(
            optimiser,
            max_lr=lr * spec.max_factor,
            total_steps=max(2, steps),
            pct_start=spec.peak,
            div_factor=spec.div,
            final_div_factor=spec.final_div,
            cycle_momentum=cycles,
        )
    if spec.kind == "cosine":
        return CosineAnnealingLR(optimiser, T_max=max(1, steps), eta_min=spec.floor)
    return LambdaLR(optimiser, lr_lambda=_constant)


def _constant(step: int) -> float:
    return 1.0


def gradient_norm(model: nn.Module) -> float:
    """Return the Euclidean norm of all gradients, summed in float64 in a fixed order."""
    total = 0.0
    squares = []
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.is_cuda:
            squares.append(parameter.grad.detach().double().square().sum())
        elif parameter.grad is not None:
            values = parameter.grad.detach().numpy().astype(np.float64).reshape(-1)
            total += float(np.sum(values * values))
    if squares:
        return float(torch.stack(squares).sum().sqrt())
    return float(np.sqrt(total))


@torch.no_grad()
def clip_gradients(model: nn.Module, limit: float) -> None:
    """Scale gradients so that their norm is at most ``limit``; on a device without waiting for the norm."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if gradients and gradients[0].is_cuda:
        whole = torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt()
        factor = (limit / whole).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
        return
    norm = gradient_norm(model)
    if norm > limit:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(limit / norm)
