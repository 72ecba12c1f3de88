"""EventProp: exact gradients of a spiking network in continuous time, by adjoint events.

Spikes have the times at which membranes reach the threshold, delays are not rounded, and nothing is smoothed: what is
computed is the derivative of the loss itself, as long as no spike appears or disappears. Work and memory go with
events, not with steps, and a batch needs the memory of one sample for every thread.

Wunderlich & Pehle 2021; delays: Meszaros, Knight & Nowotny 2025; weighting by time: Nowotny, Turner & Knight 2025.
``docs/eventprop.md`` has the equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels.eventprop import layer_forward
from snnsim.kernels.eventprop_adjoint import layer_backward
from snnsim.kernels.eventprop_layers import LayerGradients
from snnsim.kernels.eventprop_readout import mean_backward, mean_forward, trace_backward, trace_forward
from snnsim.kernels.eventprop_trains import Arrivals, Train, arrivals, train_of_counts
from snnsim.kernels.lanes import run_ranges
from snnsim.learning.eventprop_system import System, system_of
from snnsim.learning.losses import Loss
from snnsim.learning.protocol import Outcome, Stream
from snnsim.nn.model import Output, SpikingModel
from snnsim.nn.readouts import reduce_trace

__all__ = ["EventProp", "continuous_output", "continuous_trains"]

Floats = npt.NDArray[np.float64]
Shaping = Literal["none", "exp"]

BLOCKS = 16
"""Sums of gradients a batch, at most: what the bits depend on, so it depends on nothing else."""

MESSAGES = (
    "a neuron fires twice at one instant of float64",
    "a sample has more than ten million spikes in one layer",
)


@dataclass
class _Sample:
    """One sample on its way: trains of input and layers, arrivals at every layer, mean and trace of the readout."""

    trains: list[Train]
    into: list[Arrivals]
    factors: list[Floats | None]
    mean: Floats
    trace: Floats
    stop: float


@dataclass
class _Batch:
    """What all samples share, and where their results go."""

    system: System
    counts: npt.NDArray[Any]
    steps: npt.NDArray[np.int64]
    factors: list[Floats | None]
    begin: float
    shaping: Shaping
    spikes: npt.NDArray[np.int64] = field(init=False)  # (batch, layers)
    fired: list[npt.NDArray[np.bool_]] = field(init=False)
    logits: Floats = field(init=False)
    losses: Floats = field(init=False)

    def __post_init__(self) -> None:
        batch, hidden = self.counts.shape[1], self.system.layers[:-1]
        self.spikes = np.zeros((batch, len(hidden)), np.int64)
        self.fired = [np.zeros((batch, layer.size), bool) for layer in hidden]
        self.logits = np.zeros((batch, self.system.layers[-1].size))
        self.losses = np.zeros(batch)

    def rate(self, stop: float) -> float:
        """Return the rate of the weight of a sample's mean: it falls by e from begin to end, or not at all."""
        return 1.0 / (stop - self.begin) if self.shaping == "exp" else 0.0

    def run(self, b: int) -> _Sample:
        """Run one sample forward."""
        system, n_steps = self.system, int(self.steps[b])
        stop = n_steps * system.dt
        if not self.begin < stop:
            raise InputError(f"eventprop: sample {b}: expected steps after the first skip_steps, it has {n_steps}")
        trains, into = [train_of_counts(self.counts[:n_steps, b], system.dt)], []
        factors = [None if f is None else f[b] for f in self.factors]
        for index, layer in enumerate(system.layers[:-1]):
            into.append(arrivals(trains[-1], layer.delay, stop))
            spikes, code = layer_forward(layer, trains[-1], into[-1], stop)
            if code:
                raise InputError(
                    f"eventprop: hidden{index + 1}, sample {b}: {MESSAGES[code - 1]}; try smaller weights or a lower lr"
                )
            self.spikes[b, index] = spikes.n_events
            self.fired[index][b] = spikes.offsets[1:] > spikes.offsets[:-1]
            factor = factors[index]
            trains.append(spikes if factor is None else replace(spikes, counts=factor[spikes.units]))
        readout = system.layers[-1]
        into.append(arrivals(trains[-1], readout.delay, stop))
        mean = mean_forward(readout, trains[-1], self.rate(stop), self.begin, stop)
        trace = trace_forward(readout, trains[-1], into[-1], system.dt, n_steps)
        return _Sample(trains, into, factors, mean, trace, stop)


def _counts(x: Tensor) -> npt.NDArray[Any]:
    counts = x.detach().cpu().numpy()
    if not np.all(np.isfinite(counts)):
        raise InputError("eventprop: expected finite counts of input events, got nan or infinity")
    return counts


def _steps(mask: Tensor | None, n_steps: int, batch: int) -> npt.NDArray[np.int64]:
    if mask is None:
        return np.full(batch, n_steps, np.int64)
    valid = mask.cpu().numpy()
    steps: npt.NDArray[np.int64] = valid.sum(axis=0).astype(np.int64)
    if not np.array_equal(valid, np.arange(n_steps)[:, None] < steps[None, :]):
        raise InputError("eventprop: expected the valid steps of a sample to come first, without gaps")
    return steps


def _prepare(model: SpikingModel, stream: Stream, shaping: Shaping) -> _Batch:
    system = system_of(model)
    counts = _counts(stream.chunk(0, stream.n_steps))
    if counts.ndim != 3 or counts.shape[2] != model.n_inputs:
        raise InputError(
            f"eventprop: expected input (time, batch, {model.n_inputs}), got shape {counts.shape}; does the data set "
            "have the channel count the model was built for?"
        )
    factors: list[Floats | None] = []
    blocks: list[Any] = list(model.blocks)
    for block in blocks:
        drop = block.dropout
        used = drop is not None and drop.training and drop.p > 0
        factors.append(drop.mask(stream.context, stream.batch, block.connection.n_out).numpy() if used else None)
    steps = _steps(stream.context.mask, stream.n_steps, stream.batch)
    return _Batch(system, counts, steps, factors, model.readout.skip_steps * model.dt, shaping)


def _rates(batch: _Batch) -> Tensor:
    steps = max(1, int(batch.steps.sum()))
    sizes = np.array([layer.size for layer in batch.system.layers[:-1]])
    return torch.from_numpy(batch.spikes.sum(axis=0) / (sizes * steps))


def _scores(sample: _Sample, trace: Tensor, mean: Tensor, reduce: Any, skip: int) -> Tensor:
    return mean if reduce == "mean" else reduce_trace(trace, reduce, skip_steps=skip)


@torch.no_grad()
def continuous_output(model: SpikingModel, stream: Stream, *, shaping: Shaping = "exp") -> Output:
    """Return what a model computes in continuous time, with delays that are not rounded.

    Args:
        model: See :func:`~snnsim.learning.eventprop_system.system_of`; in training mode it drops spikes.
        stream: Inputs, counts on the grid: c events of a unit at ``k dt``.
        shaping: How a ``mean`` readout weighs time: ``exp`` (``e^(-t / T)``) or ``none``.

    Returns:
        Logits and trace in float64 (0 after the end of a sample); spikes and state are empty.

    Raises:
        InputError: The model has a part that does not exist in continuous time here.
    """
    batch = _prepare(model, stream, shaping)
    reduce, skip = model.readout.reduce, model.readout.skip_steps
    traces = np.zeros((stream.n_steps, stream.batch, model.n_classes))

    def work(first: int, last: int) -> None:
        for b in range(first, last):
            sample = batch.run(b)
            trace = torch.from_numpy(sample.trace[:, None])
            mean = torch.from_numpy(sample.mean[None])
            batch.logits[b] = _scores(sample, trace, mean, reduce, skip).numpy()[0]
            traces[: sample.trace.shape[0], b] = sample.trace

    if stream.batch:
        run_ranges(work, (), stream.batch, torch.get_num_threads(), 1)
    return Output(torch.from_numpy(batch.logits), torch.from_numpy(traces), _rates(batch), [], ())


def continuous_trains(model: SpikingModel, stream: Stream) -> list[list[Train]]:
    """Return the exact spikes of every sample and hidden layer, with the synaptic current at each.

    Args:
        model: As in :func:`continuous_output`.
        stream: Inputs, counts on the grid.
    """
    batch = _prepare(model, stream, "none")
    return [batch.run(b).trains[1:] for b in range(stream.batch)]


@dataclass
class EventProp:
    """Exact gradients by adjoint events.

    Attributes:
        shaping: How a ``mean`` readout weighs time: ``exp`` (``e^(-t / T)``, T the duration of the sample) sends
            gradient to early spikes, ``none`` all times alike.
        clip: Largest factor ``1 / (i - v_threshold)`` at a spike; those cut are counted.
        spike_strength: Regularisation: every spike adds ``-spike_strength (n - spike_target) / batch`` to lambda_v of
            its neuron, n being the spikes of the neuron in the sample; per second.
        spike_target: Spikes a neuron and sample.
        wake: Added to all feed-forward weights into a hidden neuron that was silent for a whole epoch, by
            :meth:`end_epoch`.
        fired: Whether each neuron of each hidden layer has fired since the last :meth:`end_epoch`.
    """

    shaping: Shaping = "exp"
    clip: float = 1e3
    spike_strength: float = 0.0
    spike_target: float = 14.0
    wake: float = 0.0
    fired: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    name = "eventprop"

    def __post_init__(self) -> None:
        if self.shaping not in ("none", "exp"):
            raise InputError(f"eventprop: shaping: expected 'none' or 'exp', got {self.shaping!r}")
        for key, low in (("clip", 0.0), ("spike_strength", 0.0), ("spike_target", 0.0), ("wake", 0.0)):
            value = getattr(self, key)
            if not math.isfinite(value) or value < low or (key == "clip" and value == 0):
                raise InputError(f"eventprop: {key}: expected a finite positive number, got {value!r}")

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add the gradients of one batch; see :class:`~snnsim.learning.protocol.Rule`.

        Losses of ``mean`` scores are exact; other scores and ``per_step`` losses are those of the readout at ``k dt``,
        of which the gradients are exact.
        """
        if update is not None:
            raise InputError("eventprop: the gradient is known at the end of the sequence; it cannot update within it")
        if loss.penalises_rates:
            raise InputError(
                "eventprop: counts of spikes have no derivative here; expected train.rate.strength = 0, use "
                "train.rule.spike_strength and train.rule.spike_target"
            )
        if loss.target.shape[0] != stream.batch:
            raise InputError(f"eventprop: expected {stream.batch} targets, got {loss.target.shape[0]}")
        batch = _prepare(model, stream, self.shaping)
        size = -(-max(1, stream.batch) // BLOCKS)
        blocks = -(-stream.batch // size)
        sums: list[list[LayerGradients]] = [[] for _ in range(blocks)]
        clipped = np.zeros(blocks, np.int64)

        def work(first: int, last: int) -> None:
            for block in range(first, last):
                sums[block] = batch.system.zeros()
                for b in range(block * size, min(stream.batch, (block + 1) * size)):
                    clipped[block] += self._sample(batch, b, model.readout, loss, sums[block])

        if blocks:
            run_ranges(work, (), blocks, torch.get_num_threads(), 1)
            total = sums[0]
            for more in sums[1:]:
                for mine, other in zip(total, more, strict=True):
                    for a, part in zip(mine.parts(), other.parts(), strict=True):
                        a += part
            batch.system.give(total)
        self._remember([np.any(fired, axis=0, keepdims=True)[0] for fired in batch.fired])
        facts = {"clipped": float(clipped.sum()), "spikes": float(batch.spikes.sum())}
        return Outcome(torch.from_numpy(batch.losses), torch.from_numpy(batch.logits), _rates(batch), facts)

    def _sample(self, batch: _Batch, b: int, readout: Any, loss: Loss, sums: list[LayerGradients]) -> int:
        """Run one sample forward, find its loss, and run it backward."""
        sample, skip = batch.run(b), readout.skip_steps
        mean = torch.from_numpy(sample.mean[None]).requires_grad_()
        trace = torch.from_numpy(sample.trace[:, None]).requires_grad_()
        one = replace(loss, target=loss.target[b : b + 1])
        with torch.enable_grad():
            logits = _scores(sample, trace, mean, readout.reduce, skip)
            value = one.of_samples(Output(logits, trace, torch.zeros(0), [], ()), None, skip).sum()
            (value / loss.samples).backward()  # type: ignore[no-untyped-call]
        batch.losses[b], batch.logits[b] = value.item(), logits.detach().numpy()[0]
        system = batch.system
        worth = [np.zeros(0), *(np.zeros(train.n_events) for train in sample.trains[1:])]
        if mean.grad is not None:
            by_mean = mean.grad.numpy()[0]
            rate = batch.rate(sample.stop)
            mean_backward(
                *(system.layers[-1], sample.trains[-1], rate, batch.begin, sample.stop, by_mean, sums[-1], worth[-1])
            )
        if trace.grad is not None:
            by_trace = np.ascontiguousarray(trace.grad.numpy()[:, 0])
            trace_backward(
                *(system.layers[-1], sample.trains[-1], sample.into[-1], system.dt, by_trace, sums[-1], worth[-1])
            )
        clipped = 0
        for index in range(len(system.layers) - 2, -1, -1):
            spikes = sample.trains[index + 1]
            push = np.zeros(spikes.n_events)
            if self.spike_strength:
                number = np.diff(spikes.offsets)[spikes.units]
                push = -self.spike_strength * (number - self.spike_target) / loss.samples
            clipped += layer_backward(
                *(system.layers[index], sample.trains[index], sample.into[index], spikes, worth[index + 1], push),
                *(sample.stop, self.clip, sums[index], worth[index]),
            )
        return clipped

    def _remember(self, fired: list[npt.NDArray[np.bool_]]) -> None:
        if [f.shape for f in self.fired] != [f.shape for f in fired]:
            self.fired = fired
        else:
            self.fired = [a | b for a, b in zip(self.fired, fired, strict=True)]

    @torch.no_grad()
    def end_epoch(self, model: Any) -> int:
        """Wake the hidden neurons that were silent since the last call; return their number."""
        silent = 0
        for block, fired in zip(model.blocks, self.fired, strict=False):
            asleep = torch.from_numpy(~fired)
            silent += int(asleep.sum())
            if self.wake:
                block.connection.weight[asleep] += self.wake
        self.fired = []
        return silent

    def state(self) -> list[list[int]]:
        """Return what :meth:`restore` needs within an epoch: the neurons of every layer, 1 if they have fired."""
        return [fired.astype(int).tolist() for fired in self.fired]

    def restore(self, state: list[list[int]]) -> None:
        """Go back to a :meth:`state`."""
        self.fired = [np.asarray(fired, dtype=bool) for fired in state]
