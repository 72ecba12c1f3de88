"""Spatial learning through time: the gradient of every step on its own, with memory that does not grow with time.

Meng, Xiao, Yan, Wang, Lin & Luo, "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
Networks", ICCV 2023. The forward pass is the ordinary one. Backwards, every state that is carried from a step to the
next counts as a constant, so the errors of a step go down through the layers of that step only::

    e_l[t] = (W_{l+1}^T e_{l+1}[t]) g(h_l[t] - threshold)          dL/dW_l = sum_t e_l[t] y_{l-1}[t]^T

A synapse with delay d connects the spike of step t - d with the membrane of step t, so its error goes to the layer
below at t - d: the errors of the last ``max_delay_steps`` steps are kept until they are complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream as Streams
from snnsim.kernels.philox import uniform
from snnsim.learning.fused_stages import FusedStages, fits
from snnsim.learning.losses import Loss
from snnsim.learning.norms import NormMode
from snnsim.learning.protocol import Outcome, Stream
from snnsim.learning.stages import HiddenStage, ReadoutStage, Stage, check_stages, part_of
from snnsim.learning.streamed import Leaves
from snnsim.learning.trace_loss import TraceLoss
from snnsim.nn.model import SpikingModel
from snnsim.nn.state import detach_state

__all__ = ["SLTT", "SLTTK"]

ROWS = 512
"""Rows (steps times samples) of a stretch where no delay asks for more: products are efficient, memory is small."""


@dataclass(frozen=True)
class SLTT:
    """Spatial learning through time.

    Attributes:
        two_pass: Run a sequence twice where the loss couples its steps.
        chunk_steps: Steps that are computed together, or None for a choice by sizes; the gradient stays the same.
        norm: How batch norm finds its statistics, see :class:`~snnsim.learning.norms.StreamedNorm`.
    """

    two_pass: bool = False
    chunk_steps: int | None = None
    norm: NormMode = "step"
    name = "sltt"

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch; see :class:`~snnsim.learning.protocol.Rule`."""
        return _learn(self, model, stream, loss, update, None, 1.0)


@dataclass(frozen=True)
class SLTTK:
    """Spatial learning through time at K steps of a sequence, drawn anew for every batch without replacement.

    The loss of a step stays divided by all steps, so the gradient is K / T of that of :class:`SLTT` on average;
    ``rescale`` multiplies it by T / K.

    Attributes:
        steps: K.
        rescale: Whether the gradient is multiplied by T / K.
        two_pass: As in :class:`SLTT`.
        chunk_steps: As in :class:`SLTT`.
        norm: As in :class:`SLTT`.
    """

    steps: int
    rescale: bool = False
    two_pass: bool = False
    chunk_steps: int | None = None
    norm: NormMode = "step"
    name = "sltt-k"

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch; see :class:`~snnsim.learning.protocol.Rule`."""
        n = stream.n_steps
        if not 1 <= self.steps <= n:
            raise InputError(f"sltt-k: expected 1 to {n} steps that learn, which the sequence has, got {self.steps}")
        chosen = chosen_steps(self.steps, n, stream)
        return _learn(self, model, stream, loss, update, chosen, n / self.steps if self.rescale else 1.0)


def chosen_steps(steps: int, n_steps: int, stream: Stream) -> list[int]:
    """Return the steps of a batch that learn, ascending: a function of seed, epoch and the batch's place in it."""
    context = stream.context
    draws = uniform(context.seed, int(Streams.SLTT_STEPS), context.batch, context.epoch, np.arange(n_steps))
    return sorted(np.argsort(draws, kind="stable")[:steps].tolist())


def _stretches(n_steps: int, size: int, chosen: list[int] | None) -> Iterator[tuple[int, int, bool]]:
    """Yield first step, step after the last, and whether it learns; a chosen step is a stretch of its own."""
    start, stops = 0, [*(chosen or []), n_steps]
    for stop in stops:
        while start < stop:
            end = min(start + size, stop)
            yield start, end, chosen is None
            start = end
        if stop < n_steps:
            yield stop, stop + 1, True
            start = stop + 1


def _learn(
    rule: SLTT | SLTTK,
    model: Any,
    stream: Stream,
    loss: Loss,
    update: Callable[[], None] | None,
    chosen: list[int] | None,
    factor: float,
) -> Outcome:
    if update is not None:
        raise InputError(f"{rule.name}: it updates once a batch; use train.rule.update 'sequence'")
    running = TraceLoss(loss, model.readout.reduce, model.readout.skip_steps, stream.n_steps, stream.context.mask)
    twice = running.couples or loss.penalises_rates
    if twice and not rule.two_pass:
        what = "cross-entropy of scores that are reduced over time" if running.couples else "penalty on mean rates"
        raise InputError(
            f"{rule.name}: a {what} couples the steps, while this rule goes back step by step; use train.loss "
            "'per_step' without train.rate, or train.rule.two_pass = true (two forward passes)"
        )
    run: _Run
    if not isinstance(model, SpikingModel):
        run = _ModelRun(rule, model, stream)
    elif fits(model) and not loss.penalises_rates:
        run = _FusedRun(rule, model, stream)
    else:
        run = _StageRun(rule, model, stream)
    if twice:
        with torch.no_grad():
            run.begin(learning=False)
            for start, stop, _ in _stretches(stream.n_steps, run.chunk_steps, None):
                running.watch(run.forward(start, stop, False), start)
        if running.couples:
            running.turn()
    by_spike = run.penalty(loss) if loss.penalises_rates else []
    run.begin(learning=True)
    for start, stop, learns in _stretches(stream.n_steps, run.chunk_steps, chosen):
        keep = learns or run.history > 0 or bool(by_spike)
        trace = run.forward(start, stop, keep)
        if not learns:
            if not running.couples:
                running.gradient(trace, start)
            error = torch.zeros_like(trace) if keep else None
        else:
            error = running.gradient(trace, start)
            error = error if factor == 1.0 else error * factor
        if error is not None:
            run.backward(error, start, stop, by_spike)
    run.finish()
    return Outcome(running.losses.detach(), running.logits.detach(), run.rates(), run.facts())


def valid_neuron_steps(stream: Stream) -> float:
    """Return how many (step, sample) pairs of a batch are valid."""
    mask = stream.context.mask
    return float(stream.n_steps * stream.batch if mask is None else int(mask.sum()))


def check_device(stream: Stream, rule: str) -> None:
    """Refuse inputs that are not on the CPU."""
    device = stream.chunk(0, 1).device
    if device.type != "cpu":
        raise InputError(f"{rule}: expected inputs on the CPU, got {device}; move model and data there, or use 'bptt'")


class _Run:
    """A model on its way through one batch."""

    chunk_steps: int
    history: int

    def begin(self, learning: bool) -> None:
        """Go to the first step."""
        raise NotImplementedError

    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        """Return the readout's trace of a stretch, without graph."""
        raise NotImplementedError

    def backward(self, error: Tensor, start: int, stop: int, by_spike: list[Tensor]) -> None:
        """Take the gradient of the last stretch's trace."""
        raise NotImplementedError

    def finish(self) -> None:
        """Hand all gradients to the parameters."""
        raise NotImplementedError

    def penalty(self, loss: Loss) -> list[Tensor]:
        """Return the gradient of the penalty on rates by every spike of every layer, (1, 1, unit) each."""
        raise NotImplementedError

    def rates(self) -> Tensor:
        """Return the mean spikes a valid neuron-step of every hidden layer."""
        raise NotImplementedError

    def facts(self) -> dict[str, float]:
        """Return numbers for the log."""
        return {}


class _StageRun(_Run):
    """A :class:`SpikingModel` in stages, with delays."""

    def __init__(self, rule: SLTT | SLTTK, model: SpikingModel, stream: Stream) -> None:
        check_stages(model, rule.name)
        check_device(stream, rule.name)
        self.rule, self.model, self.stream = rule, model, stream
        self.dtype = stream.chunk(0, 1).dtype
        self.history = max((layer.n_delays - 1 for layer in model.delay_layers()), default=0)
        self.chunk_steps = rule.chunk_steps or max(-(-ROWS // stream.batch), self.history // 2)
        self.stages: list[Stage] = []
        self.leaves = Leaves()

    def begin(self, learning: bool) -> None:
        stream, dtype = self.stream, self.dtype
        self.leaves = Leaves()
        self.by_spike: list[Tensor] = []
        blocks: list[Any] = list(self.model.blocks)
        stages: list[Stage] = []
        for index, block in enumerate(blocks):
            stage = HiddenStage(block, stream.context, stream.batch, dtype, index > 0, self.leaves, self.rule.norm)
            if stage.norm is not None:
                stage.norm.learning = learning
            stages.append(stage)
        stages.append(ReadoutStage(self.model.readout, stream.batch, dtype, bool(blocks), self.leaves))
        self.stages = stages

    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        x = self.stream.chunk(start, stop)
        for stage in self.stages:
            x = stage.forward(x, start, keep)
        return x

    def backward(self, error: Tensor, start: int, stop: int, by_spike: list[Tensor]) -> None:
        self.stages[-1].add_error(error, start)
        self.by_spike = by_spike
        self._flush(stop)

    def _flush(self, ready: int) -> None:
        """Go back as far as no more gradients can come; a stage with delays leaves the ones below it waiting."""
        for index in range(len(self.stages) - 1, -1, -1):
            stage = self.stages[index]
            extra = self.by_spike[index] if index < len(self.by_spike) else None
            for gradient, first in stage.backward(ready, extra):
                self.stages[index - 1].add_error(gradient, first)
            if ready < self.stream.n_steps:
                oldest = stage.waiting[0].start if stage.waiting else ready
                ready = min(ready, oldest) - stage.history

    def finish(self) -> None:
        self._flush(self.stream.n_steps)
        for stage in self.stages:
            stage.finish()
        self.leaves.finish()

    def _hidden(self) -> list[HiddenStage]:
        return [stage for stage in self.stages if isinstance(stage, HiddenStage)]

    def _valid(self) -> float:
        return max(1.0, valid_neuron_steps(self.stream))

    def penalty(self, loss: Loss) -> list[Tensor]:
        share = self.stream.batch / loss.samples
        rates = [(stage.counts.sum(dim=0) / self._valid()).to(self.dtype).requires_grad_() for stage in self._hidden()]
        with torch.enable_grad():
            found = torch.autograd.grad(loss.penalty_of_rates(rates) * share, rates)
        return [(item / self._valid()).view(1, 1, -1) for item in found]

    def rates(self) -> Tensor:
        valid = self._valid()
        each = [stage.counts.sum() / (valid * stage.counts.shape[1]) for stage in self._hidden()]
        return torch.stack(each) if each else torch.zeros(0, dtype=torch.float64)


class _FusedRun(_Run):
    """A feed-forward LIF network in kernels."""

    history = 0

    def __init__(self, rule: SLTT | SLTTK, model: SpikingModel, stream: Stream) -> None:
        check_device(stream, rule.name)
        self.model, self.stream = model, stream
        self.chunk_steps = rule.chunk_steps or min(stream.n_steps, -(-ROWS // stream.batch))
        self.stages: FusedStages | None = None

    def _stages(self) -> FusedStages:
        assert self.stages is not None
        return self.stages

    def begin(self, learning: bool) -> None:
        stream = self.stream
        dtype = stream.chunk(0, 1).dtype
        self.stages = None  # the memory of a first pass goes before that of the second comes
        self.stages = FusedStages(self.model, stream.context, stream.batch, dtype, self.chunk_steps, learning)

    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        return self._stages().forward(self.stream.chunk(start, stop), start, keep)

    def backward(self, error: Tensor, start: int, stop: int, by_spike: list[Tensor]) -> None:
        self._stages().backward(error)

    def finish(self) -> None:
        self._stages().finish()

    def rates(self) -> Tensor:
        return self._stages().rates(valid_neuron_steps(self.stream))


class _ModelRun(_Run):
    """Any other model, one step at a time: whatever state it carries counts as a constant."""

    history = 0
    chunk_steps = 1

    def __init__(self, rule: SLTT | SLTTK, model: Any, stream: Stream) -> None:
        if rule.norm != "step":
            raise InputError(
                f"{rule.name}: norm 'running' is for networks of blocks; the batch norm of {type(model).__name__} "
                "is a matter of its layers (model.conv.norm), so leave train.rule.norm at 'step'"
            )
        if rule.chunk_steps not in (None, 1):
            raise InputError(
                f"{rule.name}: {type(model).__name__} goes one step at a time; expected chunk_steps 1 or none, got "
                f"{rule.chunk_steps}"
            )
        self.model, self.stream, self.name = model, stream, rule.name
        self.state: Any = None
        self.trace: Tensor | None = None
        self.fired = torch.zeros(len(model.hidden_sizes()), dtype=torch.float64)

    def begin(self, learning: bool) -> None:
        self.state, self.fired = None, torch.zeros_like(self.fired)

    def forward(self, start: int, stop: int, keep: bool) -> Tensor:
        context = part_of(self.stream.context, start, stop)
        with torch.set_grad_enabled(keep):
            trace, fired, _, state = self.model.run_stretch(self.stream.chunk(start, stop), self.state, context, False)
        self.state = detach_state(state)
        self.fired = self.fired + fired.detach().double()
        self.trace = trace
        values: Tensor = trace.detach()
        return values

    def backward(self, error: Tensor, start: int, stop: int, by_spike: list[Tensor]) -> None:
        assert self.trace is not None
        torch.autograd.backward(self.trace, error)
        self.trace = None

    def finish(self) -> None:
        return

    def penalty(self, loss: Loss) -> list[Tensor]:
        raise InputError(
            f"{self.name}: a penalty on rates is known here for networks of blocks, not for "
            f"{type(self.model).__name__}; set train.rate.strength to 0"
        )

    def rates(self) -> Tensor:
        steps = max(1.0, valid_neuron_steps(self.stream))
        return self.fired / (steps * torch.tensor(self.model.hidden_sizes(), dtype=torch.float64))
