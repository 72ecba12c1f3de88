"""What rules that learn forward in time share: the walk over the steps, the passes, and errors within one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning.eligibility import LayerTraces
from snnsim.learning.losses import Loss
from snnsim.learning.protocol import Outcome, Stream, valid_pairs
from snnsim.learning.step import HiddenLayer, OnlineNet
from snnsim.learning.trace_loss import TraceLoss
from snnsim.nn.context import Context
from snnsim.nn.model import SpikingModel
from snnsim.nn.products import product

__all__ = ["CHUNK", "Errors", "OnlineRule", "back", "spatial_errors"]

CHUNK = 8
"""Steps that are made before their errors and traces follow, where the weights stay the same; results do not change."""

Errors = tuple[Tensor | None, Tensor | None]
"""For a layer: derivatives of the loss by its spikes now, and through the readout's memory, (time, batch, unit)."""


def back(error: Tensor, weight: Tensor) -> Tensor:
    """Return errors of targets (time, batch, target) at their sources, by weights (target, source)."""
    found = product(error.flatten(0, 1), weight.detach().to(error.dtype))
    return found.view(*error.shape[:2], weight.shape[1])


def to_spikes(layer: HiddenLayer, error: Tensor) -> Tensor:
    """Return the derivative by a layer's spikes of that by its output: dropout in between."""
    return error if layer.factors is None else error * layer.factors


def spatial_errors(net: OnlineNet, by_trace: Tensor, penalties: list[Tensor | None]) -> list[Tensor]:
    """Return the derivatives of the loss of every step by the spikes of every hidden layer, in that step alone.

    ``d_s = dropout (W_out^T g)`` for the last layer, ``d_s = dropout (W_above^T (psi_above d_s_above))`` below it,
    plus the penalty on the layer's rate and, over a residual block, the error of its output.

    Args:
        net: The model after some steps.
        by_trace: Derivative of the loss by the readout's potentials, shape (time, batch, class).
        penalties: Derivative of the penalty by a spike of each layer, shape (time, batch, unit), or None.

    Returns:
        One tensor (time, batch, unit) a hidden layer.
    """
    error = back(by_trace, net.readout.connection.weight)
    errors: list[Tensor] = []
    for layer, penalty in zip(reversed(net.hidden), reversed(penalties), strict=True):
        spikes = to_spikes(layer, error)
        if penalty is not None:
            spikes = spikes + penalty
        errors.append(spikes)
        if layer is net.hidden[0]:
            break
        below = back(spikes * layer.psi(), layer.connection.weight)
        error = below + error if layer.residual else below
    return errors[::-1]


@dataclass(frozen=True)
class OnlineRule(ABC):
    """Abstract base: gradients found forward in time with memory that does not depend on the number of steps.

    Attributes:
        two_pass: Run a sequence twice where the loss couples its steps: the first pass finds the scores.
    """

    two_pass: bool = False
    name: ClassVar[str] = ""

    @abstractmethod
    def check(self, net: OnlineNet) -> None:
        """Refuse models that the rule does not fit."""

    @abstractmethod
    def traces(self, net: OnlineNet, context: Context) -> list[LayerTraces]:
        """Return the traces of the hidden layers, in order."""

    @abstractmethod
    def errors(self, net: OnlineNet, by_trace: Tensor, penalties: list[Tensor | None]) -> list[Errors]:
        """Return what multiplies the traces of every hidden layer in the steps just made.

        Args:
            net: The model after these steps.
            by_trace: Derivative of the loss by the readout's potentials, shape (time, batch, class).
            penalties: Derivative of the penalty on rates by a spike, shape (time, batch, unit), or None.
        """

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch; see :class:`~snnsim.learning.protocol.Rule`.

        With ``update`` the weights change after every step. Traces then hold what older weights made of older inputs:
        the sum of the gradients differs from that at fixed weights by an amount of the order of the learning rate.
        """
        if not isinstance(model, SpikingModel):
            raise InputError(
                f"{self.name}: expected a network of blocks (SpikingModel), got {type(model).__name__}; use "
                "train.learning 'bptt' or 'sltt'"
            )
        context = stream.context
        first = stream.chunk(0, 1)
        if first.device.type != "cpu":
            raise InputError(f"{self.name}: expected inputs on the CPU, got {first.device}; use train.learning 'bptt'")
        net = OnlineNet(model, stream.batch, first.dtype, context)
        self.check(net)
        readout = model.readout
        running = TraceLoss(loss, readout.reduce, readout.skip_steps, stream.n_steps, context.mask)
        penalties: list[Tensor | None] = [None] * len(net.hidden)
        twice = running.couples or loss.penalises_rates
        if twice:
            if not self.two_pass:
                what = "the cross-entropy of reduced scores" if running.couples else "a penalty on mean rates"
                raise InputError(
                    f"{self.name}: {what} couples the steps, its gradient at a step needs the steps to come; set "
                    "train.rule.two_pass = true, or use train.loss = 'per_step' without a penalty on rates"
                )
            penalties = self._first_pass(net, stream, loss, running)
            net.reset()
        return self._second_pass(net, stream, running, penalties, context, update, 2 if twice else 1)

    @torch.no_grad()
    def _first_pass(self, net: OnlineNet, stream: Stream, loss: Loss, running: TraceLoss) -> list[Tensor | None]:
        """Find scores and rates; return the derivative of the penalty by a spike of every layer, (batch, unit)."""
        mask = stream.context.mask
        counts = [torch.zeros(layer.size, dtype=torch.float64) for layer in net.hidden]
        for t in range(0, stream.n_steps, CHUNK):
            trace = net.advance(stream.chunk(t, min(t + CHUNK, stream.n_steps)))
            if running.couples:
                running.watch(trace, t)
            for count, layer in zip(counts, net.hidden, strict=True):
                count += _valid(layer.spikes(), mask, t).sum(dim=(0, 1))
        if running.couples:
            running.turn()
        if not loss.penalises_rates:
            return [None] * len(counts)
        found = loss.penalty_gradients(counts, valid_pairs(stream))
        return [part.to(net.readout.dtype).expand(stream.batch, -1).contiguous() for part in found]

    @torch.no_grad()
    def _second_pass(
        self,
        net: OnlineNet,
        stream: Stream,
        running: TraceLoss,
        by_spike: list[Tensor | None],
        context: Context,
        update: Callable[[], None] | None,
        passes: int,
    ) -> Outcome:
        mask = context.mask
        hidden = self.traces(net, context)
        out = LayerTraces(net.readout)
        counts = torch.zeros(len(hidden), dtype=torch.float64)
        length = CHUNK if update is None else 1
        for t in range(0, stream.n_steps, length):
            trace = net.advance(stream.chunk(t, min(t + length, stream.n_steps)))
            steps = trace.shape[0]
            by_trace = running.gradient(trace, t)
            penalties = [None if part is None else _valid(part.expand(steps, -1, -1), mask, t) for part in by_spike]
            errors = self.errors(net, by_trace, penalties)
            for number, (traces, (direct, filtered)) in enumerate(zip(hidden, errors, strict=True)):
                counts[number] += _valid(net.hidden[number].spikes(), mask, t).sum()
                for k in range(steps):
                    traces.step(k, None if direct is None else direct[k], None if filtered is None else filtered[k])
            for k in range(steps):
                out.step(k, by_trace[k])
            if update is not None:
                _flush([*hidden, out])
                with torch.enable_grad():
                    update()
                net.reload()
        if update is None:
            _flush([*hidden, out])
        sizes = torch.tensor([max(1, valid_pairs(stream) * layer.size) for layer in net.hidden])
        facts = {"passes": float(passes), "trace_bytes": float(sum(traces.bytes for traces in [*hidden, out]))}
        return Outcome(running.losses.detach(), running.logits.detach(), counts / sizes, facts)


def _flush(layers: list[LayerTraces]) -> None:
    for traces in layers:
        traces.flush()


def _valid(values: Tensor, mask: Tensor | None, t: int) -> Tensor:
    """Return values (time, batch, unit) from step ``t`` on with 0 where steps are padding."""
    return values if mask is None else values * mask[t : t + values.shape[0]].unsqueeze(2)
