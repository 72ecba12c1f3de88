"""Backpropagation through time: the exact gradient of the surrogate network, with the memory of all its steps.

The forward pass keeps what the surrogate gradients need, ``loss.backward()`` walks it in reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snnsim.errors import InputError
from snnsim.learning.losses import Loss
from snnsim.learning.protocol import Outcome, Stream

__all__ = ["BPTT"]


@dataclass(frozen=True)
class BPTT:
    """Backpropagation through time.

    Attributes:
        checkpoint_steps: Steps of a stretch that the backward pass computes again instead of keeping it, or None.
    """

    checkpoint_steps: int | None = None
    name = "bptt"

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch; see :class:`~snnsim.learning.protocol.Rule`."""
        if update is not None:
            raise InputError("bptt: the gradient is known at the end of the sequence; it cannot update within it")
        context = stream.context
        x = stream.chunk(0, stream.n_steps)
        record = loss.penalises_rates
        output = model(x, None, context, record=record, checkpoint_steps=self.checkpoint_steps)
        total, losses = loss.of(output, context.mask, model.readout.skip_steps)
        total.backward()  # type: ignore[no-untyped-call]
        return Outcome(losses, output.logits.detach(), output.rates.double(), {})
