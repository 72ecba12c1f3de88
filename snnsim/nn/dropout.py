"""Dropout with one mask for a whole sequence, keyed by sample and epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform
from snnsim.nn.context import Context
from snnsim.nn.cuda import as_cuda, current_stream, on_cuda

__all__ = ["SequenceDropout"]


class SequenceDropout(nn.Module):
    """Silence units of a sample for the whole sequence, and scale the others by ``1 / (1 - p)``.

    The mask of a (sample, unit) pair is a function of ``(seed, epoch, sample id, layer)`` alone
    (Philox4x32-10): it depends on neither the place in the batch, nor the batch size, nor the process.

    Args:
        p: Probability of silence, in [0, 1).
        layer: Index of this layer in its model; layers with equal indices share masks.
    """

    def __init__(self, p: float, layer: int = 0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise InputError(f"SequenceDropout: expected a probability in [0, 1), got {p!r}")
        if layer < 0:
            raise InputError(f"SequenceDropout: expected a layer index >= 0, got {layer!r}")
        self.p = float(p)
        self.layer = int(layer)

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"p={self.p}, layer={self.layer}"

    def mask(self, context: Context | None, batch: int, size: int) -> Tensor:
        """Return the factors of one batch, 0 or ``1 / (1 - p)``, float64, shape (batch, unit).

        Raises:
            InputError: The context names no samples.
        """
        context, sample_id = _samples(context, batch)
        sample = sample_id.cpu().numpy().astype(np.int64)
        units = np.arange(size, dtype=np.int64)
        numbers = uniform(context.seed, int(Stream.DROPOUT), sample[:, None], context.epoch, units[None, :], self.layer)
        return torch.from_numpy(np.where(numbers >= self.p, 1.0 / (1.0 - self.p), 0.0))

    def forward(self, x: Tensor, state: None = None, context: Context | None = None) -> tuple[Tensor, None]:
        """Return the thinned input (time, batch, unit) and no state; the input itself in evaluation.

        Args:
            x: Input, shape (time, batch, unit).
            state: None; the layer has no state over time.
            context: Seed, epoch and sample ids.
        """
        factors = self.factors(context, x)
        return (x, None) if factors is None else (x * factors, None)

    def factors(self, context: Context | None, x: Tensor) -> Tensor | None:
        """Return what a batch is multiplied by, shape (batch, unit), dtype and device of ``x``; None for nothing."""
        if not self.training or self.p == 0:
            return None
        if on_cuda(x):
            return self._mask_on_device(context, x)
        return self.mask(context, x.shape[1], x.shape[2]).to(dtype=x.dtype, device=x.device)

    def _mask_on_device(self, context: Context | None, x: Tensor) -> Tensor:
        """Return the numbers of :meth:`mask` without a word from the host."""
        from snnsim.kernels.cuda_dropout import dropout_factors
        from snnsim.kernels.cuda_support import launch

        batch, size = x.shape[1:]
        context, sample_id = _samples(context, batch)
        sample = sample_id.to(device=x.device, dtype=torch.int64, non_blocking=True).contiguous()
        out = torch.empty(batch, size, dtype=x.dtype, device=x.device)
        key = (context.seed & 0xFFFFFFFF, int(Stream.DROPOUT), context.epoch, self.layer)
        arguments = (as_cuda(sample), *key, self.p, 1.0 / (1.0 - self.p), as_cuda(out))
        launch(dropout_factors, batch * size, arguments, current_stream(x))
        return out


def _samples(context: Context | None, batch: int) -> tuple[Context, Tensor]:
    """Return the context and its sample ids, shape (batch,)."""
    if context is None or context.sample_id is None:
        raise InputError(
            "SequenceDropout: expected Context(sample_id=...) in training, got none; pass the data-set index "
            "of every sample, or call model.eval()"
        )
    if context.sample_id.shape != (batch,):
        raise InputError(
            f"SequenceDropout: expected sample ids of shape ({batch},), got {tuple(context.sample_id.shape)}"
        )
    return context, context.sample_id
