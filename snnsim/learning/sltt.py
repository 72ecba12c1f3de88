"""Spatial learning through time: the gradient of every step on its own, with memory that does not grow with time.

Meng, Xiao, Yan, Wang, Lin & Luo, "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
Networks", ICCV 2023. The forward pass is the ordinary one. Backwards, every state that is carried from a step to the
next counts as a constant, so the errors of a step go down through the layers of that step only::

    e_l[t] = (W_{l+1}^T e_{l+1}[t]) g(h_l[t] - threshold)          dL/dW_l = sum_t e_l[t] y_{l-1}[t]^T

A synapse with delay d connects the spike of step t - d with the membrane of step t, so its error goes to the layer
below at t - d: the errors of the last ``max_delay_steps`` steps are kept until they are complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream as Streams
from snnsim.kernels.philox import uniform
from snnsim.learning.fused_stages import fits
from snnsim.learning.losses import Loss
from snnsim.learning.norms import NormMode
from snnsim.learning.protocol import Outcome, Stream, valid_pairs
from snnsim.learning.runs import FusedRun, ModelRun, Run, StageRun
from snnsim.learning.trace_loss import TraceLoss
from snnsim.nn.cuda import on_cuda
from snnsim.nn.model import SpikingModel

__all__ = ["SLTT", "SLTTK"]


@dataclass(frozen=True)
class SLTT:
    """Spatial learning through time.

    Attributes:
        two_pass: Run a sequence twice where the loss couples its steps.
        chunk_steps: Steps that are computed together, or None for a choice by sizes; the gradient stays the same.
        norm: How batch norm finds its statistics, see :class:`~snnsim.learning.norms.StreamedNorm`.
    """

    two_pass: bool = False
    chunk_steps: int | None = None
    norm: NormMode = "step"
    name = "sltt"

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch; see :class:`~snnsim.learning.protocol.Rule`."""
        return _learn(self, model, stream, loss, update, None, 1.0)


@dataclass(frozen=True)
class SLTTK:
    """Spatial learning through time at K steps of a sequence, drawn anew for every batch without replacement.

    The loss of a step stays divided by all steps, so the gradient is K / T of that of :class:`SLTT` on average;
    ``rescale`` multiplies it by T / K.

    Attributes:
        steps: K.
        rescale: Whether the gradient is multiplied by T / K.
        two_pass: As in :class:`SLTT`.
        chunk_steps: As in :class:`SLTT`.
        norm: As in :class:`SLTT`.
    """

    steps: int
    rescale: bool = False
    two_pass: bool = False
    chunk_steps: int | None = None
    norm: NormMode = "step"
    name = "sltt-k"

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch; see :class:`~snnsim.learning.protocol.Rule`."""
        n = stream.n_steps
        if not 1 <= self.steps <= n:
            raise InputError(f"sltt-k: expected 1 to {n} steps that learn, which the sequence has, got {self.steps}")
        chosen = chosen_steps(self.steps, n, stream)
        return _learn(self, model, stream, loss, update, chosen, n / self.steps if self.rescale else 1.0)


def chosen_steps(steps: int, n_steps: int, stream: Stream) -> list[int]:
    """Return the steps of a batch that learn, ascending: a function of seed, epoch and the batch's place in it."""
    context = stream.context
    draws = uniform(context.seed, int(Streams.SLTT_STEPS), context.batch, context.epoch, np.arange(n_steps))
    return sorted(np.argsort(draws, kind="stable")[:steps].tolist())


def _stretches(n_steps: int, size: int, chosen: list[int] | None) -> Iterator[tuple[int, int, bool]]:
    """Yield first step, step after the last, and whether it learns; a chosen step is a stretch of its own."""
    start, stops = 0, [*(chosen or []), n_steps]
    for stop in stops:
        while start < stop:
            end = min(start + size, stop)
            yield start, end, chosen is None
            start = end
        if stop < n_steps:
            yield stop, stop + 1, True
            start = stop + 1


def _learn(
    rule: SLTT | SLTTK,
    model: Any,
    stream: Stream,
    loss: Loss,
    update: Callable[[], None] | None,
    chosen: list[int] | None,
    factor: float,
) -> Outcome:
    if update is not None:
        raise InputError(f"{rule.name}: it updates once a batch; use train.rule.update 'sequence'")
    running = TraceLoss(loss, model.readout.reduce, model.readout.skip_steps, stream.n_steps, stream.context.mask)
    twice = running.couples or loss.penalises_rates
    if twice and not rule.two_pass:
        what = "cross-entropy of scores that are reduced over time" if running.couples else "penalty on mean rates"
        raise InputError(
            f"{rule.name}: a {what} couples the steps, while this rule goes back step by step; use train.loss "
            "'per_step' without train.rate, or train.rule.two_pass = true (two forward passes)"
        )
    run: Run
    if not isinstance(model, SpikingModel):
        if loss.penalises_rates:
            raise InputError(
                f"{rule.name}: a penalty on rates is known here for networks of blocks, not for "
                f"{type(model).__name__}; set train.rate.strength to 0"
            )
        run = ModelRun(model, stream, rule.name, rule.chunk_steps, rule.norm)
    elif fits(model) and not loss.penalises_rates and not on_cuda(loss.target):
        run = FusedRun(model, stream, rule.name, rule.chunk_steps)
    else:
        run = StageRun(model, stream, rule.name, rule.chunk_steps, rule.norm)
    if twice:
        with torch.no_grad():
            run.begin()
            for start, stop, _ in _stretches(stream.n_steps, run.chunk_steps, None):
                running.watch(run.forward(start, stop, False), start)
        if running.couples:
            running.turn()
    by_spike = []
    if loss.penalises_rates and isinstance(run, StageRun):
        by_spike = loss.penalty_gradients(run.counts(), valid_pairs(stream))
    run.learn(by_spike)
    for start, stop, learns in _stretches(stream.n_steps, run.chunk_steps, chosen):
        keep = learns or run.history > 0 or bool(by_spike)
        trace = run.forward(start, stop, keep)
        if not learns:
            if not running.couples:
                running.gradient(trace, start)
            error = torch.zeros_like(trace) if keep else None
        else:
            error = running.gradient(trace, start)
            error = error if factor == 1.0 else error * factor
        if error is not None:
            run.backward(error, start, stop)
    run.finish()
    return Outcome(running.losses.detach(), running.logits.detach(), run.rates(), {})
