"""What is minimised: losses of classes and penalties on firing rates, for whole sequences.

:mod:`snnsim.learning.trace_loss` has the same losses for a trace that comes in stretches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from snnsim.errors import InputError
from snnsim.nn.reductions import sum_first

if TYPE_CHECKING:
    from snnsim.nn.model import Output
    from snnsim.recipes.schema import RateSpec

__all__ = ["Loss", "step_losses", "valid_steps"]

Kind = Literal["cross_entropy", "per_step"]


def valid_steps(steps: int, batch: int, mask: Tensor | None, skip_steps: int, like: Tensor) -> Tensor:
    """Return 1 where a step counts and 0 elsewhere, shape (time, batch), of the kind of ``like``."""
    valid = like.new_ones(steps, batch) if mask is None else mask.to(like.dtype)
    if skip_steps:
        valid = valid.clone()
        valid[:skip_steps] = 0
    return valid


def step_losses(trace: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """Return the loss of every step and sample, shape (time, batch).

    ``(1 - mse_share) CE + mse_share MSE``; the target of the squared error is 1 for every class, a regulariser of the
    scores, or the one-hot vector (Meng et al. 2023).

    Args:
        trace: Potentials of the readout, shape (time, batch, class).
        target: Classes, int64, shape (batch,), or their probabilities, shape (batch, class).
        loss: Label smoothing and the share of the squared error.
    """
    steps, batch, classes = trace.shape
    many = functional.cross_entropy(
        trace.reshape(steps * batch, classes),
        target.repeat(steps, *[1] * (target.dim() - 1)),
        reduction="none",
        label_smoothing=loss.label_smoothing,
    ).view(steps, batch)
    if loss.mse_share == 0:
        return many
    wanted = torch.ones_like(trace[0])
    if loss.mse_target == "one-hot":
        wanted = target.to(trace.dtype) if target.dim() == 2 else functional.one_hot(target, classes).to(trace.dtype)
    square = (trace - wanted).square().mean(dim=2)
    return (1 - loss.mse_share) * many + loss.mse_share * square


@dataclass(frozen=True)
class Loss:
    """The loss of one batch.

    ``cross_entropy``: of the reduced scores. With the ``sum_softmax`` readout this applies a second softmax to the sum
    over time of the first (Hammouamri et al. 2024). ``per_step``: mean over the sample's steps of the loss of the
    readout at that step.

    Attributes:
        target: Classes, int64, shape (batch,); or probabilities of classes, shape (batch, class).
        kind: ``cross_entropy`` or ``per_step``.
        label_smoothing: Part of the target spread evenly over all classes.
        mse_share: Share of the squared error in ``per_step``.
        mse_target: ``one`` or ``one-hot``.
        rate: Penalty on firing rates, or None.
        total_samples: Samples of the whole batch over all processes: what is differentiated is the sum over the samples
            here divided by it, so that summed gradients of all processes are those of one. None: the samples here.
    """

    target: Tensor
    kind: Kind = "cross_entropy"
    label_smoothing: float = 0.0
    mse_share: float = 0.0
    mse_target: Literal["one", "one-hot"] = "one"
    rate: RateSpec | None = None
    total_samples: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("cross_entropy", "per_step"):
            raise InputError(f"loss: expected 'cross_entropy' or 'per_step', got {self.kind!r}")
        if self.mse_share and self.kind != "per_step":
            raise InputError("loss: mse_share belongs to kind 'per_step', the loss of single steps")

    @property
    def samples(self) -> int:
        """What the sum over samples is divided by."""
        return int(self.target.shape[0]) if self.total_samples is None else self.total_samples

    @property
    def penalises_rates(self) -> bool:
        """Whether firing rates enter the loss."""
        return self.rate is not None and self.rate.strength > 0

    def of_samples(self, output: Output, mask: Tensor | None, skip_steps: int = 0) -> Tensor:
        """Return the loss of every sample, without the penalty on rates, shape (batch,).

        Args:
            output: What the model returned.
            mask: Valid steps, bool, shape (time, batch), or None for all.
            skip_steps: First steps left out of ``per_step``.
        """
        if self.kind == "cross_entropy":
            return functional.cross_entropy(
                output.logits, self.target, reduction="none", label_smoothing=self.label_smoothing
            )
        losses = step_losses(output.trace, self.target, self)
        valid = valid_steps(losses.shape[0], losses.shape[1], mask, skip_steps, losses)
        return sum_first(losses * valid) / valid.sum(dim=0).clamp(min=1.0)  # valid: whole numbers, in any order

    def rate_penalty(self, spikes: list[Tensor], mask: Tensor | None) -> Tensor:
        """Return the penalty on firing rates outside [lower, upper], a scalar.

        For every neuron, with ``r`` its mean spikes a valid step: ``relu(lower - r)^2 + relu(r - upper)^2``, mean over
        neurons, summed over layers, times ``strength``.
        """
        rates = []
        for layer in spikes:
            if mask is None:
                rates.append(layer.sum(dim=0).sum(dim=0) / (layer.shape[0] * layer.shape[1]))
            else:
                rates.append((layer * mask.unsqueeze(2)).sum(dim=0).sum(dim=0) / mask.sum().clamp(min=1))
        return self.penalty_of_rates(rates)

    def penalty_of_rates(self, rates: list[Tensor]) -> Tensor:
        """Return the penalty of given mean rates, shape (unit,) a layer."""
        spec = self.rate
        if spec is None:
            raise InputError("loss: a penalty on rates needs rate=RateSpec(...)")
        total = rates[0].new_zeros(())
        for rate in rates:
            below, above = functional.relu(spec.lower - rate), functional.relu(rate - spec.upper)
            total = total + (below.square() + above.square()).mean()
        return total * spec.strength

    def penalty_gradients(self, counts: list[Tensor], pairs: int) -> list[Tensor]:
        """Return the derivative of the penalty by any valid spike, float64, shape (unit,) a layer.

        Args:
            counts: Spikes of every neuron in valid steps, shape (unit,) a layer.
            pairs: Valid (step, sample) pairs.
        """
        steps = max(1, pairs)
        rates = [(count.double() / steps).requires_grad_() for count in counts]
        with torch.enable_grad():
            penalty = self.penalty_of_rates(rates) * (self.target.shape[0] / self.samples)
            found = torch.autograd.grad(penalty, rates)
        return [part / steps for part in found]

    def of(self, output: Output, mask: Tensor | None, skip_steps: int = 0) -> tuple[Tensor, Tensor]:
        """Return what to differentiate, a scalar with graph, and the detached losses, shape (batch,).

        Args:
            output: What the model returned, with spikes recorded if rates are penalised.
            mask: Valid steps, or None for all.
            skip_steps: First steps that the readout leaves out.
        """
        losses = self.of_samples(output, mask, skip_steps)
        loss = sum_first(losses) / self.samples
        if self.penalises_rates:
            loss = loss + self.rate_penalty(output.spikes, mask) * (self.target.shape[0] / self.samples)
        return loss, losses.detach()
