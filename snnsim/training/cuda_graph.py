"""Forward and backward pass of a batch as one graph of the device, captured once an epoch and replayed.

A training step starts many short kernels; a graph starts all of them with one call. What it records are kernels and
addresses, so a captured step has its own input tensors, which every batch is copied into, and it writes losses, scores
and gradients to the same places again and again. Numbers that the host knows (the epoch that keys dropout, which
formulation a layer has) are recorded as they were: graphs are forgotten at the beginning of every epoch.

Only whole batches of one length are captured, so recipes need ``train.padding = "counted"``; the last batch of an epoch
may be smaller and is computed as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from snnsim.device import simulated
from snnsim.errors import InputError
from snnsim.learning import Loss, Outcome, TensorStream
from snnsim.learning.bptt import BPTT
from snnsim.nn.trained import TrainedModel
from snnsim.recipes import Recipe

__all__ = ["StepGraph", "capture", "check_graph"]

WARM_UPS = 3
"""Runs before a capture, in which libraries and kernels are loaded and memory is found."""

Run = Callable[[], Outcome]
Recorded = tuple[Outcome, Callable[[], None]]


def check_graph(recipe: Recipe, device: str, processes: int = 1) -> None:
    """Refuse a run whose steps cannot be captured.

    Args:
        recipe: Recipe of the run.
        device: ``cpu`` or ``cuda``.
        processes: Processes that train together.

    Raises:
        InputError: With what to change.
    """
    spec = recipe.train
    if device != "cuda" or simulated():
        where = "Numba's simulator" if device == "cuda" else "the CPU"
        raise InputError(f"cuda_graph: {where} has no graphs; use device 'cuda' on a GPU, or leave it out")
    if processes > 1:
        raise InputError(f"cuda_graph: expected one process, got {processes}; leave it out")
    if spec.learning != "bptt" or spec.checkpoint_steps is not None or spec.gradient_cosine:
        raise InputError(
            "cuda_graph: expected train.learning 'bptt' without checkpoint_steps and gradient_cosine; leave it out"
        )
    if spec.padding != "counted":
        raise InputError(
            "cuda_graph: expected batches of one length, which train.padding = 'counted' gives; set it, or leave "
            "cuda_graph out"
        )
    if recipe.prune is not None and recipe.prune.method in ("rigl", "deep-r"):
        raise InputError(
            f"cuda_graph: prune.method {recipe.prune.method!r} changes synapses between two steps; leave it out"
        )


def capture(run: Run) -> Recorded:
    """Capture what a function starts on the device.

    Args:
        run: Does one step and returns what it found; run before, so that nothing is loaded for the first time.

    Returns:
        The tensors that a replay fills, and the replay.
    """
    graph = torch.cuda.CUDAGraph()
    # other threads make the next batch meanwhile: only this one must leave the device alone
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outcome = run()
    return outcome, graph.replay


@dataclass(frozen=True)
class _Step:
    """A captured step.

    Attributes:
        given: Tensors that a batch is copied into.
        outcome: Tensors that a replay fills.
        gradients: Parameters with the gradients that a replay fills.
        replay: Does the step.
    """

    given: dict[str, Tensor]
    outcome: Outcome
    gradients: list[tuple[torch.nn.Parameter, Tensor | None]]
    replay: Callable[[], None]


class StepGraph:
    """The captured steps of a model that learns by backpropagation through time.

    Args:
        model: Model in training.
        record: Captures a step; :func:`capture` on a device.
    """

    def __init__(self, model: TrainedModel, record: Callable[[Run], Recorded] = capture) -> None:
        self.model = model
        self.record = record
        self.steps: dict[tuple[Any, ...], _Step] = {}

    def forget(self) -> None:
        """Let go of all captured steps; the next batch is captured anew."""
        self.steps.clear()

    def gradients(self, stream: TensorStream, loss: Loss) -> Outcome:
        """Fill the gradients of one batch, as :meth:`snnsim.learning.bptt.BPTT.gradients` does for fresh ones.

        Args:
            stream: The batch.
            loss: What is minimised.

        Returns:
            What was found; the next call overwrites it.
        """
        given = _tensors(stream, loss)
        key = tuple((name, tuple(item.shape), item.dtype) for name, item in given.items())
        step = self.steps.get(key)
        if step is None:
            step = self.steps[key] = self._capture(stream, loss, given)
        for name, item in given.items():
            step.given[name].copy_(item, non_blocking=True)
        step.replay()
        for parameter, gradient in step.gradients:
            parameter.grad = gradient
        return step.outcome

    def _capture(self, stream: TensorStream, loss: Loss, given: dict[str, Tensor]) -> _Step:
        own = {name: item.clone() for name, item in given.items()}
        context = replace(stream.context, mask=own.get("mask"), sample_id=own.get("sample_id"))
        inputs, target = TensorStream(own["x"], context), replace(loss, target=own["target"])

        def run() -> Outcome:
            return BPTT().gradients(self.model, inputs, target)

        kept = {name: value.clone() for name, value in self.model.named_buffers()}
        with _beside(own["x"].device):
            for _ in range(WARM_UPS):
                self.model.zero_grad(set_to_none=True)
                run()
        self.model.zero_grad(set_to_none=True)  # so that the captured pass makes gradients of its own
        outcome, replay = self.record(run)
        with torch.no_grad():  # running averages have seen the batch too often
            for name, value in self.model.named_buffers():
                value.copy_(kept[name])
        gradients = [(parameter, parameter.grad) for parameter in self.model.parameters() if parameter.requires_grad]
        return _Step(own, outcome, gradients, replay)


def _tensors(stream: TensorStream, loss: Loss) -> dict[str, Tensor]:
    """Return what changes from batch to batch, by name."""
    found = {"x": stream.x, "mask": stream.context.mask, "sample_id": stream.context.sample_id, "target": loss.target}
    return {name: item for name, item in found.items() if item is not None}


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Work on another stream of the device within the block, in order with the current one; nothing on the CPU."""
    if device.type != "cuda":
        yield
        return
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
