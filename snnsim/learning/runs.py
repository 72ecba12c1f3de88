"""Ways to take a model through a batch in stretches, with states that count as constants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning.fused_stages import FusedStages
from snnsim.learning.norms import NormMode
from snnsim.learning.protocol import Stream, valid_pairs
from snnsim.learning.stages import HiddenStage, ReadoutStage, Stage, check_stages, part_of
from snnsim.learning.streamed import Leaves
from snnsim.nn.model import SpikingModel
from snnsim.nn.state import detach_state
from snnsim.nn.trained import TrainedModel

__all__ = ["ROWS", "FusedRun", "ModelRun", "Run", "StageRun"]

ROWS = 512
"""Rows (steps times samples) of a stretch where no delay asks for more: products are efficient, memory is small."""

FUSED_ROWS = 384
"""The same where kernels do it all; 512 take equally long, 256 an eighth longer."""


class Run(ABC):
    """A model on its way through one batch.

    Attributes:
        chunk_steps: Steps of a stretch.
        history: Steps after which the gradient of a step may still come.
    """

    chunk_steps: int
    history: int = 0

    @abstractmethod
    def begin(self) -> None:
        """Go to the first step, for a pass without gradients."""

    @abstractmethod
    def learn(self, by_spike: Sequence[Tensor]) -> None:
        """Go to the first step, for a pass with gradients.

        Args:
            by_spike: Derivative of the loss by any valid spike besides that through the trace, shape (unit,) a hidden
                layer; empty for none.
        """

    @abstractmethod
    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        """Return the readout's trace of a stretch, without graph; ``keep`` says whether its gradient may come."""

    @abstractmethod
    def backward(self, error: Tensor, start: int, stop: int) -> None:
        """Take the gradient of the last stretch's trace."""

    @abstractmethod
    def finish(self) -> None:
        """Hand all gradients to the parameters."""

    @abstractmethod
    def rates(self) -> Tensor:
        """Return the mean spikes a valid neuron-step of every hidden layer, float64."""


class StageRun(Run):
    """A network of blocks in stages, with delays.

    Args:
        model: The network.
        stream: The batch.
        rule: Name of the rule, for refusals.
        chunk_steps: Steps of a stretch, or None.
        norm: How batch norm finds its statistics.

    Raises:
        InputError: A layer that cannot learn so, or inputs elsewhere than the model.
    """

    def __init__(self, model: SpikingModel, stream: Stream, rule: str, chunk_steps: int | None, norm: NormMode) -> None:
        check_stages(model, rule)
        self.model, self.stream, self.norm = model, stream, norm
        self.dtype = _input_dtype(model, stream, rule)
        self.history = max((layer.n_delays - 1 for layer in model.delay_layers()), default=0)
        self.chunk_steps = chunk_steps or max(-(-ROWS // stream.batch), self.history // 2)
        self.begin()

    def begin(self) -> None:
        """See the base class."""
        self._start(learning=False)

    def learn(self, by_spike: Sequence[Tensor]) -> None:
        """See the base class."""
        self._start(learning=True)
        self._by_spike += [part.to(self.dtype).view(1, 1, -1) for part in by_spike]

    def _start(self, learning: bool) -> None:
        stream, dtype = self.stream, self.dtype
        self.leaves = Leaves()
        self._by_spike: list[Tensor] = []
        blocks: list[Any] = list(self.model.blocks)
        self.hidden = [
            HiddenStage(block, stream.context, stream.batch, dtype, index > 0, self.leaves, self.norm, learning)
            for index, block in enumerate(blocks)
        ]
        readout = ReadoutStage(self.model.readout, stream.batch, dtype, bool(blocks), self.leaves)
        self.stages: list[Stage] = [*self.hidden, readout]

    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        """See the base class."""
        x = self.stream.chunk(start, stop)
        for stage in self.stages:
            x = stage.forward(x, start, keep)
        return x

    def backward(self, error: Tensor, start: int, stop: int) -> None:
        """See the base class."""
        self.stages[-1].add_error(error, start)
        self._flush(stop)

    def _flush(self, ready: int) -> None:
        """Go back as far as no more gradients can come; a stage with delays leaves the ones below it waiting."""
        for index in range(len(self.stages) - 1, -1, -1):
            stage = self.stages[index]
            extra = self._by_spike[index] if index < len(self._by_spike) else None
            for gradient, first in stage.backward(ready, extra):
                self.stages[index - 1].add_error(gradient, first)
            if ready < self.stream.n_steps:
                oldest = stage.waiting[0].start if stage.waiting else ready
                ready = min(ready, oldest) - stage.history

    def finish(self) -> None:
        """See the base class."""
        self._flush(self.stream.n_steps)
        for stage in self.stages:
            stage.finish()
        self.leaves.finish()

    def counts(self) -> list[Tensor]:
        """Return the spikes of every hidden neuron in valid steps so far, float64, shape (unit,) a layer."""
        return [stage.counts.sum(dim=0) for stage in self.hidden]

    def rates(self) -> Tensor:
        """See the base class."""
        return _rates([counts.sum() for counts in self.counts()], self.model.hidden_sizes(), self.stream)


class FusedRun(Run):
    """A feed-forward LIF network in kernels; arguments as those of :class:`StageRun`."""

    def __init__(self, model: SpikingModel, stream: Stream, rule: str, chunk_steps: int | None) -> None:
        self.model, self.stream = model, stream
        self.dtype = _input_dtype(model, stream, rule)
        self.chunk_steps = min(stream.n_steps, chunk_steps or -(-FUSED_ROWS // stream.batch))
        self._stages: FusedStages | None = None

    @property
    def stages(self) -> FusedStages:
        """The pass that is going on."""
        if self._stages is None:
            self.begin()
        assert self._stages is not None
        return self._stages

    def begin(self) -> None:
        """See the base class."""
        self._start(learning=False)

    def learn(self, by_spike: Sequence[Tensor]) -> None:
        """See the base class."""
        self._start(learning=True)

    def _start(self, learning: bool) -> None:
        self._stages = None  # the memory of a first pass goes before that of the second comes
        stream = self.stream
        self._stages = FusedStages(self.model, stream.context, stream.batch, self.dtype, self.chunk_steps, learning)

    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        """See the base class."""
        return self.stages.forward(self.stream.chunk(start, stop), start, keep)

    def backward(self, error: Tensor, start: int, stop: int) -> None:
        """See the base class."""
        self.stages.backward(error)

    def finish(self) -> None:
        """See the base class."""
        self.stages.finish()

    def rates(self) -> Tensor:
        """See the base class."""
        return _rates(list(self.stages.counts()), self.model.hidden_sizes(), self.stream)


class ModelRun(Run):
    """Any other model, one step at a time; arguments as those of :class:`StageRun`.

    Raises:
        InputError: An option that would do nothing here.
    """

    chunk_steps = 1

    def __init__(self, model: TrainedModel, stream: Stream, rule: str, chunk_steps: int | None, norm: NormMode) -> None:
        kind = type(model).__name__
        if norm != "step":
            raise InputError(
                f"{rule}: norm 'running' is for networks of blocks; the batch norm of {kind} is a matter of its layers "
                "(model.conv.norm), so leave train.rule.norm at 'step'"
            )
        if chunk_steps not in (None, 1):
            raise InputError(
                f"{rule}: {kind} goes one step at a time; expected chunk_steps 1 or none, got {chunk_steps}"
            )
        self.model, self.stream = model, stream
        self.begin()

    def begin(self) -> None:
        """See the base class."""
        self.state: Any = None
        self.trace: Tensor | None = None
        device = self.model.readout.connection.weight.device
        self.fired = torch.zeros(len(self.model.hidden_sizes()), dtype=torch.float64, device=device)

    def learn(self, by_spike: Sequence[Tensor]) -> None:
        """See the base class."""
        self.begin()

    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        """See the base class."""
        context = part_of(self.stream.context, start, stop)
        with torch.set_grad_enabled(keep):
            trace, fired, _, state = self.model.run_stretch(self.stream.chunk(start, stop), self.state, context, False)
        self.state = detach_state(state)
        self.fired = self.fired + fired.detach().double()
        self.trace = trace
        return trace.detach()

    def backward(self, error: Tensor, start: int, stop: int) -> None:
        """See the base class."""
        assert self.trace is not None
        torch.autograd.backward(self.trace, error)
        self.trace = None

    def finish(self) -> None:
        """Do nothing: gradients are with the parameters already."""

    def rates(self) -> Tensor:
        """See the base class."""
        return _rates(list(self.fired), self.model.hidden_sizes(), self.stream)


def _rates(fired: Sequence[Tensor], sizes: list[int], stream: Stream) -> Tensor:
    if fired and fired[0].is_cuda:  # without a number that the host knows
        mask = stream.context.mask
        valid = fired[0].new_full((), stream.n_steps * stream.batch) if mask is None else mask.sum()
        parts = zip(fired, sizes, strict=True)
        return torch.stack([count.double() / (valid * size).clamp(min=1) for count, size in parts])
    pairs = max(1, valid_pairs(stream))
    each = [float(count) / (pairs * size) for count, size in zip(fired, sizes, strict=True)]
    return torch.tensor(each, dtype=torch.float64)


def _input_dtype(model: TrainedModel, stream: Stream, rule: str) -> torch.dtype:
    """Return the type of the inputs; refuse those that are elsewhere than the model."""
    first, where = stream.chunk(0, 1), model.readout.connection.weight.device
    if first.device != where:
        raise InputError(f"{rule}: expected inputs on {where}, where the model is, got {first.device}; move them there")
    return first.dtype
