"""Autograd functions of neurons whose state counts as a constant; see :mod:`snnsim.kernels.instant`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels.instant import lif_instant
from snnsim.kernels.lanes import run_lanes
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.fused import SpikeRule, lanes, sum_over_batch

__all__ = ["instant_lif"]


class _InstantLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        v: Tensor,
        refractory: Tensor,
        beta: Tensor,
        threshold: Tensor,
        v_reset: Tensor,
        reset_amount: Tensor,
        refractory_steps: Tensor,
        rule: SpikeRule,
        save: bool,
    ) -> Any:
        current = current.contiguous()
        dtype = current.numpy().dtype
        nothing = current.new_empty((0, *current.shape[1:]))
        spikes = torch.empty_like(current)
        slope = torch.empty_like(current) if save else nothing
        before = torch.empty_like(current) if save and ctx.needs_input_grad[3] else nothing
        v_end = v.clone(memory_format=torch.contiguous_format)
        wait = refractory.clone(memory_format=torch.contiguous_format)
        run_lanes(
            lif_instant,
            (
                lanes(current),
                lanes(v_end),
                lanes(wait),
                beta.detach().numpy(),
                threshold.detach().numpy(),
                v_reset.detach().numpy(),
                reset_amount.detach().numpy(),
                refractory_steps.numpy(),
                rule.reset_zero,
                rule.surrogate.code,
                surrogate_numbers(rule.surrogate.code, rule.surrogate.parameters, dtype),
                lanes(spikes),
                lanes(slope),
                lanes(before),
                rule.refractory,
            ),
            v.numel(),
            torch.get_num_threads(),
        )
        ctx.mark_non_differentiable(v_end, wait)
        if save:
            ctx.save_for_backward(slope, before)
        return spikes, v_end, wait

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor, *_: Any) -> Any:
        slope, before = ctx.saved_tensors
        grad = slope * grad_spikes
        units = grad.shape[2]
        by_beta = by_threshold = None
        if ctx.needs_input_grad[3]:
            by_beta = sum_over_batch((grad * before).numpy().sum(axis=0, dtype=np.float64), units).to(grad.dtype)
        if ctx.needs_input_grad[4]:
            by_threshold = -sum_over_batch(grad.numpy().sum(axis=0, dtype=np.float64), units).to(grad.dtype)
        return grad, None, None, by_beta, by_threshold, None, None, None, None, None


def instant_lif(
    current: Tensor, v: Tensor, refractory: Tensor, refractory_steps: Tensor, rule: SpikeRule, *parameters: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run LIF neurons over all steps of ``current`` with a state that has no gradient.

    ``d spike[t] / d current[t] = g(h[t] - threshold)``, 0 in refractory steps; all other derivatives over time are
    dropped. Gradients reach ``current``, ``beta`` (through ``h[t] = beta v[t-1] + ...`` of the same step) and the
    threshold.

    Args:
        current: Shape (time, batch, unit).
        v: Membrane before the first step, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
        refractory_steps: Steps skipped after a spike, int32, shape (unit,).
        rule: Reset and surrogate.
        parameters: beta, threshold, v_reset, reset_amount, shape (unit,) each, in the dtype of ``current``.

    Returns:
        Spikes (time, batch, unit), last membrane and last counters (batch, unit).
    """
    save = torch.is_grad_enabled() and (current.requires_grad or any(item.requires_grad for item in parameters))
    found = _InstantLIF.apply(  # type: ignore[no-untyped-call]
        current, v, refractory, *parameters, refractory_steps, rule, save
    )
    return cast("tuple[Tensor, Tensor, Tensor]", found)
