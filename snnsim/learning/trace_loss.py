"""The loss of a trace that comes in stretches, and its gradient with respect to that trace.

A loss that is a sum of step losses needs one pass. One that couples the steps (cross-entropy of scores that are
reduced over time, a penalty on mean rates) needs two: the first finds the scores and the derivative of the loss with
respect to them, the second passes over the same trace again and gets the gradient stretch by stretch. Memory does not
depend on the number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from snnsim.errors import InputError
from snnsim.learning.losses import Loss, step_losses, valid_steps
from snnsim.nn.readouts import REDUCTIONS, Reduce

__all__ = ["TraceLoss"]


class TraceLoss:
    """Scores, losses and gradients of one batch whose trace is given stretch by stretch.

    One pass: :meth:`gradient` of every stretch, then :attr:`logits` and :attr:`losses`. Two passes, if
    :attr:`couples`: :meth:`watch` every stretch, :meth:`turn`, then :meth:`gradient` of every stretch again.

    Args:
        loss: What is minimised.
        reduce: Reduction of the readout, see :func:`~snnsim.nn.readouts.reduce_trace`. Steps that share the largest
            value share the gradient of ``max``; the second pass must have the bits of the first.
        skip_steps: First steps that the readout leaves out.
        n_steps: Steps of the batch.
        mask: Valid steps, bool, shape (time, batch), or None for all.

    Raises:
        InputError: No step is left, or the reduction is unknown.
    """

    def __init__(self, loss: Loss, reduce: Reduce, skip_steps: int, n_steps: int, mask: Tensor | None) -> None:
        if reduce not in REDUCTIONS:
            raise InputError(f"readout: expected reduce to be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
        if skip_steps >= n_steps:
            raise InputError(f"readout: skip_steps is {skip_steps}, but the sample has only {n_steps} steps")
        self.loss, self.reduce, self.skip_steps = loss, reduce, skip_steps
        self.n_steps, self.mask = n_steps, mask
        batch = int(loss.target.shape[0])
        if mask is None:
            self.count = torch.full((batch,), float(n_steps - skip_steps), device=loss.target.device)
        else:
            self.count = mask[skip_steps:].sum(dim=0).clamp(min=1).float()
        self.couples = loss.kind == "cross_entropy"
        self.passes = 1
        self._total: Tensor | None = None
        self._losses: Tensor | None = None
        self._step: Tensor | None = None  # last: the step of the score; max: how many steps share it
        self._by_score: Tensor | None = None

    def _valid(self, trace: Tensor, start: int) -> Tensor:
        steps, batch = trace.shape[0], trace.shape[1]
        part = None if self.mask is None else self.mask[start : start + steps]
        return valid_steps(steps, batch, part, min(max(0, self.skip_steps - start), steps), trace)

    @torch.no_grad()
    def watch(self, trace: Tensor, start: int) -> None:
        """Add a stretch to the scores.

        Args:
            trace: Potentials of the readout, shape (time, batch, class).
            start: Its first step.
        """
        valid = self._valid(trace, start)
        total = self._total
        if self.reduce in ("mean", "sum_softmax"):
            values = functional.softmax(trace, dim=2) if self.reduce == "sum_softmax" else trace
            added = (values * valid.unsqueeze(2)).sum(dim=0)
            self._total = added if total is None else total + added
            return
        if self.reduce == "max":
            shown = trace.masked_fill(valid.unsqueeze(2) == 0, -torch.inf)
            here = shown.amax(dim=0)
            many = (shown == here).sum(dim=0)
            if total is not None and self._step is not None:
                many = torch.where(here > total, many, self._step + torch.where(here == total, many, 0))
                here = torch.maximum(here, total)
            self._total, self._step = here, many
            return
        steps = torch.arange(start, start + trace.shape[0], device=trace.device)
        last = torch.where(valid > 0, steps.unsqueeze(1), -1).amax(dim=0)
        here = trace[(last - start).clamp(min=0), torch.arange(trace.shape[1], device=trace.device)]
        if total is not None and self._step is not None:
            here = torch.where((last >= 0).unsqueeze(1), here, total)
            last = torch.where(last >= 0, last, self._step)
        self._total, self._step = here, last

    @property
    def logits(self) -> Tensor:
        """Scores of what has been watched so far, shape (batch, class)."""
        if self._total is None:
            raise InputError("TraceLoss: no stretch has been given yet")
        return self._total / self.count.to(self._total.dtype).unsqueeze(1) if self.reduce == "mean" else self._total

    @property
    def losses(self) -> Tensor:
        """Losses of the samples, shape (batch,): of the reduced scores, or what :meth:`gradient` has summed."""
        if self.couples:
            return functional.cross_entropy(
                self.logits, self.loss.target, reduction="none", label_smoothing=self.loss.label_smoothing
            )
        if self._losses is None:
            raise InputError("TraceLoss: no stretch has been given yet")
        return self._losses

    def turn(self) -> None:
        """End the first pass: find the derivative of the loss with respect to the scores."""
        scores = self.logits.detach().requires_grad_()
        with torch.enable_grad():
            losses = functional.cross_entropy(
                scores, self.loss.target, reduction="none", label_smoothing=self.loss.label_smoothing
            )
            (self._by_score,) = torch.autograd.grad(losses.sum() / self.loss.samples, scores)
        self.passes = 2

    def gradient(self, trace: Tensor, start: int) -> Tensor:
        """Return the derivative of the loss with respect to a stretch of the trace, (time, batch, class).

        In a single pass the stretch is watched too.

        Args:
            trace: Potentials of the readout, shape (time, batch, class).
            start: Its first step.
        """
        valid = self._valid(trace, start)
        if self.couples:
            if self._by_score is None:
                raise InputError("TraceLoss: this loss couples the steps; watch() every stretch and turn() first")
            return self._through_scores(trace.detach(), start, valid, self._by_score)
        weight = valid / self.count.to(trace.dtype)
        leaf = trace.detach().requires_grad_()
        with torch.enable_grad():
            weighted = step_losses(leaf, self.loss.target, self.loss) * weight
            (found,) = torch.autograd.grad(weighted.sum() / self.loss.samples, leaf)
        added = weighted.detach().sum(dim=0)
        self._losses = added if self._losses is None else self._losses + added
        if self.passes == 1:
            self.watch(trace, start)
        return found

    def _through_scores(self, trace: Tensor, start: int, valid: Tensor, by_score: Tensor) -> Tensor:
        if self.reduce == "sum_softmax":
            p = functional.softmax(trace, dim=2)
            inside = (p * by_score).sum(dim=2, keepdim=True)
            return p * (by_score - inside) * valid.unsqueeze(2)
        if self.reduce == "mean":
            share = valid / self.count.to(trace.dtype)
            return by_score * share.unsqueeze(2)
        assert self._step is not None
        if self.reduce == "max":
            shown = trace.masked_fill(valid.unsqueeze(2) == 0, -torch.inf)
            assert self._total is not None
            return by_score / self._step * (shown == self._total).to(trace.dtype)
        steps = torch.arange(start, start + trace.shape[0], device=trace.device)
        at = self._step.unsqueeze(0) == steps.unsqueeze(1)
        return by_score * at.unsqueeze(2).to(trace.dtype)
