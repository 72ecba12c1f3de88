"""What every learning rule is given and what it gives back.

A rule gets the model, the stream of inputs and the loss, and fills ``.grad`` of the parameters that are trained. It
never sees an optimiser; a rule that can change weights while the sequence runs is handed a function that does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from snnsim.errors import InputError
from snnsim.nn.context import Context

if TYPE_CHECKING:
    from snnsim.learning.losses import Loss

__all__ = ["Outcome", "Rule", "Stream", "TensorStream", "valid_pairs"]


class Stream(Protocol):
    """The inputs of one batch, stretch by stretch; any stretch may be asked for again.

    Attributes:
        n_steps: Steps of the batch.
        batch: Samples.
        context: Mask of valid steps, sample ids, seed and epoch.
    """

    @property
    def n_steps(self) -> int:
        """Steps of the batch."""

    @property
    def batch(self) -> int:
        """Samples of the batch."""

    @property
    def context(self) -> Context:
        """Mask of valid steps, sample ids, seed and epoch."""

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return the inputs of steps ``start .. stop - 1``, shape (stop - start, batch, ...)."""


def valid_pairs(stream: Stream) -> int:
    """Return how many (step, sample) pairs of a batch are valid."""
    mask = stream.context.mask
    return stream.n_steps * stream.batch if mask is None else int(mask.sum())


EVERYTHING_VALID = Context()


@dataclass(frozen=True)
class TensorStream:
    """A batch that is one tensor already.

    Attributes:
        x: Inputs, shape (time, batch, ...).
        context: Mask of valid steps, sample ids, seed and epoch.
    """

    x: Tensor
    context: Context = EVERYTHING_VALID

    def __post_init__(self) -> None:
        if self.x.dim() < 3:
            raise InputError(f"TensorStream: expected inputs (time, batch, unit), got shape {tuple(self.x.shape)}")
        mask = self.context.mask
        if mask is not None and mask.shape != self.x.shape[:2]:
            raise InputError(
                f"TensorStream: expected a mask of shape {tuple(self.x.shape[:2])}, got {tuple(mask.shape)}"
            )

    @property
    def n_steps(self) -> int:
        """Steps of the batch."""
        return int(self.x.shape[0])

    @property
    def batch(self) -> int:
        """Samples of the batch."""
        return int(self.x.shape[1])

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return the inputs of steps ``start .. stop - 1``: a view."""
        return self.x[start:stop]


@dataclass(frozen=True)
class Outcome:
    """What a rule found while it filled the gradients; nothing in it has a graph.

    Attributes:
        losses: Loss of every sample, shape (batch,).
        logits: Scores, shape (batch, class).
        rates: Mean spikes a valid neuron-step of each hidden layer, float64, shape (layers,).
        facts: Numbers of the rule's own, for the log.
    """

    losses: Tensor
    logits: Tensor
    rates: Tensor
    facts: dict[str, float]


class Rule(Protocol):
    """A learning rule."""

    @property
    def name(self) -> str:
        """The name in recipes."""

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch to ``.grad`` of the parameters.

        Args:
            model: :class:`~snnsim.nn.model.SpikingModel`, or one with its ``forward``, in training mode.
            stream: Its inputs.
            loss: What is minimised.
            update: Applies the gradients and clears them; only for rules that learn while the sequence runs.

        Raises:
            InputError: The rule does not fit the model or the loss; the message says what to change.
        """
