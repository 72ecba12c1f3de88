"""Batch norm of a sequence that comes in stretches: no statistics over all steps are there when a step needs them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, distributed

from snnsim.errors import InputError
from snnsim.learning.streamed import Leaves
from snnsim.nn.norm import BatchNormTime

__all__ = ["NormMode", "StreamedNorm"]

NormMode = Literal["step", "running"]


class StreamedNorm:
    """Batch norm over the stretches of one batch.

    ``step``: mean and variance of every step over its samples (Meng et al. 2023), gradients through them; the running
    averages move at every step. ``running``: the running averages of the batches before, which count as constants, so
    that training normalises as evaluation does; the moments over all valid steps of the batch enter them at its end.
    While few batches have been seen the running averages are their plain mean.

    Args:
        module: The layer's batch norm.
        mode: ``step`` or ``running``.
        mask: Valid steps, bool, shape (time, batch), or None. In ``step`` a step with fewer than two valid samples is
            normalised by the running averages.
        dtype: Type of the run.
        leaves: Where gradients of scale and shift are summed.
        learning: Whether the running averages move; a first pass leaves them alone.
    """

    def __init__(
        self,
        module: BatchNormTime,
        mode: NormMode,
        mask: Tensor | None,
        dtype: torch.dtype,
        leaves: Leaves,
        learning: bool,
    ) -> None:
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise InputError(
                "sltt: batch norm in stretches knows the samples of its own process only; train in one process, or set "
                "model.batch_norm = false"
            )
        self.module, self.mode, self.mask, self.dtype = module, mode, mask, dtype
        self.weight = leaves.take(module.weight.to(dtype))
        self.bias = leaves.take(module.bias.to(dtype))
        self.learning = learning
        self._mean = module.running_mean.double().clone()
        self._variance = module.running_var.double().clone()
        self._count: Any = 0.0  # of a device a tensor: nobody waits for it
        self._total = torch.zeros_like(self._mean)
        self._square = torch.zeros_like(self._mean)

    def _valid(self, x: Tensor, start: int) -> Tensor | None:
        return None if self.mask is None else self.mask[start : start + x.shape[0]].to(x.dtype).unsqueeze(2)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Return the normalised stretch, shape (time, batch, unit), whose first step is ``start``."""
        valid = self._valid(x, start)
        if self.mode == "running":
            self._add(x.detach(), valid)
            mean = self._mean.to(self.dtype)
            scale = ((self._variance + self.module.eps) ** -0.5).to(self.dtype)
            return (x - mean) * scale * self.weight + self.bias
        if valid is None:
            count = x.new_full((x.shape[0], 1), float(x.shape[1]))
            mean = x.mean(dim=1)
            variance = (x - mean.unsqueeze(1)).square().mean(dim=1)
        else:
            count = valid.sum(dim=1)
            mean = (x * valid).sum(dim=1) / count.clamp(min=1)
            variance = ((x - mean.unsqueeze(1)).square() * valid).sum(dim=1) / count.clamp(min=1)
        enough = count >= 2
        with torch.no_grad():
            kept = []
            for t in range(x.shape[0]):
                kept.append((self._mean, self._variance))
                if self.learning and x.is_cuda:
                    self._move_on_device(mean[t].double(), variance[t].double(), count[t].double())
                elif self.learning and bool(enough[t]):
                    self._move(mean[t].double(), variance[t].double(), float(count[t]))
            before_mean = torch.stack([item[0] for item in kept]).to(x.dtype)
            before_variance = torch.stack([item[1] for item in kept]).to(x.dtype)
        mean = torch.where(enough, mean, before_mean)
        variance = torch.where(enough, variance, before_variance)
        scale = (variance + self.module.eps) ** -0.5
        return (x - mean.unsqueeze(1)) * scale.unsqueeze(1) * self.weight + self.bias

    def _add(self, x: Tensor, valid: Tensor | None) -> None:
        apart = x.double() - self._mean
        if valid is None:
            self._count += float(x.shape[0] * x.shape[1])
        else:
            apart = apart * valid
            self._count += valid.sum().double() if x.is_cuda else float(valid.sum())
        self._total += apart.sum(dim=(0, 1))
        self._square += apart.square().sum(dim=(0, 1))

    def _move(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Let the running averages take in one more set of moments."""
        seen = self.module.num_batches_tracked
        share = max(self.module.momentum, 1.0 / (float(seen) + 1.0))
        self._mean = (1 - share) * self._mean + share * mean
        self._variance = (1 - share) * self._variance + share * variance * (count / (count - 1.0))
        seen += 1

    def _move_on_device(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Do what :meth:`_move` does if ``count`` is 2 or more, without asking the device whether it is."""
        seen = self.module.num_batches_tracked
        enough = count.view(()) >= 2
        share = (1.0 / (seen.double() + 1.0)).clamp(min=self.module.momentum)
        self._mean = torch.where(enough, (1 - share) * self._mean + share * mean, self._mean)
        unbiased = variance * (count / (count - 1.0).clamp(min=1.0))
        self._variance = torch.where(enough, (1 - share) * self._variance + share * unbiased, self._variance)
        seen += enough.to(seen.dtype)

    def finish(self) -> None:
        """Write the running averages into the module."""
        if self.mode == "running" and self._mean.is_cuda:
            count = torch.as_tensor(self._count, dtype=torch.float64) if isinstance(self._count, float) else self._count
            apart = self._total / count
            variance = (self._square / count - apart.square()).clamp(min=0)
            self._move_on_device(self._mean + apart, variance, count)
        elif self.mode == "running" and self._count >= 2:
            apart = self._total / self._count
            variance = (self._square / self._count - apart.square()).clamp(min=0)
            self._move(self._mean + apart, variance, self._count)
        self.module.running_mean.copy_(self._mean)
        self.module.running_var.copy_(self._variance)
