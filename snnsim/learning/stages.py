"""A network as a row of stages that a sequence passes through in stretches, with states that count as constants.

A stage is a hidden block or the readout. Its forward pass keeps the graph of one stretch only, inside the stage; the
gradient of its output comes later, when all stages above have said what they depend on. A connection with delays up to
D makes the stage below wait for D more steps, so a stage keeps as many stretches as the delays above it need: memory
goes with the longest delays, never with the length of the sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning.norms import NormMode, StreamedNorm
from snnsim.learning.streamed import Leaves, StreamedConnection
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.fused import lif
from snnsim.nn.model import Block, ReadoutBlock
from snnsim.nn.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.state import detach_state

__all__ = ["HiddenStage", "ReadoutStage", "Stage", "check_stages", "part_of"]


@dataclass
class _Stretch:
    """A stretch whose gradient is still to come.

    Attributes:
        start: First step.
        stop: Step after the last.
        window: Input with the history before it, a leaf.
        output: What the next stage saw, with its graph.
        spikes: Spikes before dropout, with their graph.
        error: Sum of the gradients of the output so far.
        owned: Whether the sum is our own tensor, or still the one that was given.
    """

    start: int
    stop: int
    window: Tensor
    output: Tensor
    spikes: Tensor
    error: Tensor | None = None
    owned: bool = False


class Stage(ABC):
    """What hidden blocks and the readout share: the connection, the input's history, and stretches that wait.

    Args:
        connection: Connection of the block.
        batch: Samples.
        n_in: Sources.
        dtype: Type of the run.
        needs_input: Whether the gradient of the input is wanted.
    """

    def __init__(
        self, connection: StreamedConnection, batch: int, n_in: int, dtype: torch.dtype, needs_input: bool
    ) -> None:
        self.connection = connection
        self.needs_input = needs_input
        self.past = torch.zeros(connection.history, batch, n_in, dtype=dtype, device=connection.device)
        self.waiting: deque[_Stretch] = deque()

    @property
    def history(self) -> int:
        """Steps of input before a stretch that it depends on."""
        return self.connection.history

    def forward(self, x: Tensor, start: int, keep: bool) -> Tensor:
        """Pass a stretch on.

        Args:
            x: Output of the stage below, shape (time, batch, unit), without graph.
            start: Its first step.
            keep: Whether a gradient may come back.

        Returns:
            The stage's output, without graph.
        """
        window = torch.cat([self.past, x]) if self.history else x
        if self.history:
            self.past = window[window.shape[0] - self.history :].clone()
        if not keep:
            with torch.no_grad():
                return self._compute(window, start)[0]
        window = window.detach().requires_grad_(self.needs_input)
        with torch.enable_grad():
            output, spikes = self._compute(window, start)
        self.waiting.append(_Stretch(start, start + x.shape[0], window, output, spikes))
        return output.detach()

    @abstractmethod
    def _compute(self, window: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return output and spikes of a stretch, (time, batch, unit)."""

    def add_error(self, error: Tensor, start: int) -> None:
        """Add gradients of the outputs from step ``start`` on; those of steps that keep nothing are left."""
        stop = start + error.shape[0]
        for item in self.waiting:
            low, high = max(start, item.start), min(stop, item.stop)
            if low >= high:
                continue
            part = error[low - start : high - start]
            if item.error is None and part.shape[0] == item.stop - item.start:
                item.error = part
                continue
            if not item.owned:
                item.error = torch.zeros_like(item.output) if item.error is None else item.error.clone()
                item.owned = True
            assert item.error is not None
            item.error[low - item.start : high - item.start] += part

    def backward(self, ready: int, by_spike: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """Go back through the stretches whose outputs end at or before step ``ready``.

        Args:
            ready: No gradient of an output before this step is still to come.
            by_spike: Derivative of the loss by any valid spike besides that through the output, shape (1, 1, unit); or
                None.

        Returns:
            Gradients of the inputs and their first steps.
        """
        found = []
        while self.waiting and self.waiting[0].stop <= ready:
            item = self.waiting.popleft()
            outputs: list[Tensor] = []
            gradients: list[Tensor] = []
            if item.error is not None and item.output.requires_grad:
                outputs.append(item.output)
                gradients.append(item.error)
            if by_spike is not None and item.spikes.requires_grad:
                outputs.append(item.spikes)
                gradients.append(self._spike_error(by_spike, item))
            if not outputs:
                continue
            torch.autograd.backward(outputs, gradients)
            if self.needs_input and item.window.grad is not None:
                found.append((item.window.grad, item.start - self.history))
        return found

    def _spike_error(self, by_spike: Tensor, item: _Stretch) -> Tensor:
        return by_spike.expand_as(item.spikes)

    def finish(self) -> None:
        """Hand summed gradients to the parameters."""
        self.connection.finish()


class HiddenStage(Stage):
    """A hidden block.

    Args:
        block: The block.
        context: Mask, sample ids, seed and epoch of the batch.
        batch: Samples.
        dtype: Type of the run.
        needs_input: Whether the gradient of the input is wanted.
        leaves: Where gradients of parameters are summed.
        norm: How batch norm finds its statistics: ``step`` or ``running``.
        learning: Whether its running averages move.
    """

    def __init__(
        self,
        block: Block,
        context: Context,
        batch: int,
        dtype: torch.dtype,
        needs_input: bool,
        leaves: Leaves,
        norm: NormMode,
        learning: bool,
    ) -> None:
        connection = StreamedConnection(cast(Linear | DelayedLinear, block.connection), dtype, leaves)
        super().__init__(connection, batch, block.connection.n_in, dtype, needs_input)
        self.block, self.context = block, context
        self.norm = (
            None if block.norm is None else StreamedNorm(block.norm, norm, context.mask, dtype, leaves, learning)
        )
        neuron: Any = block.neuron
        self.neuron = neuron
        self.quick = type(neuron) in (LIF, IF) and not on_cuda(block.connection.weight)
        self.state = neuron.initial_state(batch, dtype)
        if self.quick:
            prepared = neuron.prepare(dtype)
            self.rule = replace(prepared.rule, carry=False)
            self.vectors = tuple(leaves.take(vector) for vector in prepared.vectors)
        self.factors = None
        if block.dropout is not None:
            like = torch.empty(1, batch, neuron.size, dtype=dtype, device=connection.device)
            self.factors = block.dropout.factors(context, like)
        self.counts = torch.zeros(batch, neuron.size, dtype=torch.float64, device=connection.device)

    def _compute(self, window: Tensor, start: int) -> tuple[Tensor, Tensor]:
        current = self.connection.forward(window)
        if self.norm is not None:
            current = self.norm.forward(current, start)
        spikes = self._fire(current)
        self._count(spikes.detach(), start)
        output = spikes if self.factors is None else spikes * self.factors
        if self.block.residual:
            output = output + window[self.history :]
        return output, spikes

    def _fire(self, current: Tensor) -> Tensor:
        if self.quick:
            spikes, *end = lif(current, *self.state, self.neuron.refractory_steps, self.rule, *self.vectors)
            self.state = type(self.state)(*(item.detach() for item in end))
            return spikes
        rows = []
        for t in range(current.shape[0]):
            spikes, state = self.neuron(current[t : t + 1], self.state)
            self.state = detach_state(state)
            rows.append(spikes)
        return torch.cat(rows)

    def _count(self, spikes: Tensor, start: int) -> None:
        mask = self.context.mask
        if mask is None:
            self.counts += spikes.sum(dim=0)
        else:
            self.counts += (spikes * mask[start : start + spikes.shape[0]].unsqueeze(2)).sum(dim=0)

    def _spike_error(self, by_spike: Tensor, item: _Stretch) -> Tensor:
        error = by_spike.expand_as(item.spikes)
        if self.context.mask is None:
            return error
        return error * self.context.mask[item.start : item.stop].unsqueeze(2)

    def finish(self) -> None:
        """Hand summed gradients to the parameters and statistics to the batch norm."""
        super().finish()
        if self.norm is not None:
            self.norm.finish()


class ReadoutStage(Stage):
    """The readout: its trace counts as ``constant + current`` in every step."""

    def __init__(self, block: ReadoutBlock, batch: int, dtype: torch.dtype, needs_input: bool, leaves: Leaves) -> None:
        super().__init__(
            StreamedConnection(cast(Linear | DelayedLinear, block.connection), dtype, leaves),
            batch,
            block.connection.n_in,
            dtype,
            needs_input,
        )
        self.neuron: Any = block.neuron
        self.state = self.neuron.initial_state(batch, dtype)
        self.quick = not any(parameter.requires_grad for parameter in self.neuron.parameters())

    def _compute(self, window: Tensor, start: int) -> tuple[Tensor, Tensor]:
        current = self.connection.forward(window)
        if self.quick:
            with torch.no_grad():
                trace, self.state = self.neuron(current.detach(), self.state)
            if torch.is_grad_enabled():
                trace = trace + (current - current.detach())
            return trace, trace
        rows = []
        for t in range(current.shape[0]):
            value, state = self.neuron(current[t : t + 1], self.state)
            self.state = detach_state(state)
            rows.append(value)
        trace = torch.cat(rows)
        return trace, trace


def check_stages(model: Any, rule: str) -> None:
    """Refuse neurons whose arrivals act a step later: with states as constants they would learn nothing.

    Raises:
        InputError: With the layer and the remedy.
    """
    layers = [*model.blocks, model.readout]
    for index, layer in enumerate(layers):
        neuron = layer.neuron.neuron if isinstance(layer.neuron, Recurrent) else layer.neuron
        name = f"hidden{index + 1}" if index < len(layers) - 1 else "readout"
        if isinstance(neuron, (CubaLIF, CubaLI)):
            raise InputError(
                f"{rule}: {name} has {type(neuron).__name__} neurons, in which an arrival first moves the membrane one "
                "step later: the gradient of a single step is zero; use LIF or AdaptiveLIF with an LI readout, or "
                "train.learning 'bptt' or 'eventprop'"
            )
        if not isinstance(neuron, (LIF, AdaptiveLIF, LI)):
            raise InputError(f"{rule}: {name} has {type(neuron).__name__} neurons, which this rule does not know")


def part_of(context: Context, start: int, stop: int) -> Context:
    """Return the context of a stretch."""
    return context if context.mask is None else replace(context, mask=context.mask[start:stop])
