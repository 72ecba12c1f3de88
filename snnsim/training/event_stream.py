"""A batch of events that a learning rule asks for stretch by stretch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnsim.datasets.streamed import StreamedCounts
from snnsim.nn.context import Context
from snnsim.training.upload import CPU, upload

__all__ = ["EventStream"]


@dataclass(frozen=True)
class EventStream:
    """The part of a batch of events that belongs to this process, as a rule asks for it.

    Attributes:
        counts: All samples of the batch.
        part: Which of them.
        context: Mask of valid steps, sample ids, seed and epoch.
        device: Where the counts are wanted.
    """

    counts: StreamedCounts
    part: slice
    context: Context
    device: torch.device = CPU

    @property
    def n_steps(self) -> int:
        """Steps of the batch."""
        return self.counts.shape[0]

    @property
    def batch(self) -> int:
        """Samples of the part."""
        return len(range(*self.part.indices(self.counts.shape[1])))

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return the counts of steps ``start .. stop - 1``, shape (stop - start, batch, unit)."""
        return upload(self.counts.chunk(start, stop)[:, self.part], self.device)
