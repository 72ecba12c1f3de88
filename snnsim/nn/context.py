"""What a layer may know about the batch besides its input: valid steps, sample identities, seed and epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """Facts about one batch that masks, dropout and augmentation depend on.

    Randomness is keyed by ``(seed, epoch, sample_id)``: a sample meets the same dropout mask wherever it
    stands in whichever batch, on any number of processes, interrupted or not.

    Attributes:
        mask: Valid steps, bool, shape (time, batch); None means that every step is valid.
        sample_id: Index of every sample in its data set, int64, shape (batch,).
        seed: Seed of the run.
        epoch: Epoch, counted from 0.
        batch: Place of the batch in its epoch, counted from 0.
    """

    mask: Tensor | None = None
    sample_id: Tensor | None = None
    seed: int = 0
    epoch: int = 0
    batch: int = 0
