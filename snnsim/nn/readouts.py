"""From the trace of the output layer to one score a class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.nn.reductions import softmax, sum_first

__all__ = ["REDUCTIONS", "Reduce", "reduce_trace"]

Reduce = Literal["sum_softmax", "mean", "max", "last"]

REDUCTIONS: tuple[Reduce, ...] = ("sum_softmax", "mean", "max", "last")
"""How a trace over time becomes one vector of scores."""


def reduce_trace(trace: Tensor, reduce: Reduce, *, mask: Tensor | None = None, skip_steps: int = 0) -> Tensor:
    """Reduce readout potentials over time.

    ``sum_softmax``: sum over time of the softmax over classes (Bittar & Garner 2022; Hammouamri et al.
    2024); ``mean`` and ``max``: over time; ``last``: at the last valid step.

    Args:
        trace: Potentials, shape (time, batch, class).
        reduce: One of :data:`REDUCTIONS`.
        mask: Valid steps, bool, shape (time, batch); None: all are valid.
        skip_steps: First steps that are left out.

    Returns:
        Scores, shape (batch, class).

    Raises:
        InputError: No step is left, or the reduction is unknown.
    """
    n_steps = trace.shape[0]
    if skip_steps >= n_steps:
        raise InputError(f"readout: skip_steps is {skip_steps}, but the sample has only {n_steps} steps")
    if reduce not in REDUCTIONS:
        raise InputError(f"readout: expected reduce to be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    trace = trace[skip_steps:]
    valid = None if mask is None else mask[skip_steps:]
    if reduce == "last":
        if valid is None:
            return trace[-1]
        steps = torch.arange(trace.shape[0], device=trace.device).unsqueeze(1)
        last = torch.where(valid, steps, -1).amax(dim=0).clamp(min=0)
        return trace[last, torch.arange(trace.shape[1], device=trace.device)]
    if reduce == "max":
        if valid is not None:
            trace = trace.masked_fill(~valid.unsqueeze(2), -torch.inf)
        return trace.amax(dim=0)
    if reduce == "sum_softmax":
        trace = softmax(trace)
    if valid is None:
        total = sum_first(trace)
        return total / trace.shape[0] if reduce == "mean" else total
    total = sum_first(trace * valid.unsqueeze(2))
    if reduce == "mean":
        return total / valid.sum(dim=0).clamp(min=1).unsqueeze(1)
    return total
