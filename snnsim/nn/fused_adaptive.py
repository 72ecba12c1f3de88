"""Autograd function around the fused kernels of adaptive neurons; see :mod:`snnsim.nn.fused`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import neurons as kernels
from snnsim.kernels.neurons_adaptive import adaptive_backward, adaptive_forward
from snnsim.nn.cuda import on_cuda
from snnsim.nn.fused import SpikeRule, lanes, sum_over_batch

__all__ = ["adaptive_lif"]

_PARAMETERS = 8


class _Adaptive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        v: Tensor,
        w: Tensor,
        refractory: Tensor,
        refractory_steps: Tensor,
        rule: SpikeRule,
        save: bool,
        *parameters: Tensor,
    ) -> Any:
        nothing = current.new_empty((0, *current.shape[1:]))
        spikes = torch.empty_like(current)
        saved_v = torch.empty_like(current) if save else nothing
        saved_w = torch.empty_like(current) if save else nothing
        active = torch.empty(current.shape if rule.refractory else nothing.shape, dtype=torch.uint8)
        v_end = v.clone(memory_format=torch.contiguous_format)
        w_end = w.clone(memory_format=torch.contiguous_format)
        wait = refractory.clone(memory_format=torch.contiguous_format)
        kernels.run_lanes(
            adaptive_forward,
            (
                lanes(current),
                lanes(v_end),
                lanes(w_end),
                lanes(wait),
                *(parameter.detach().numpy() for parameter in parameters),
                refractory_steps.numpy(),
                rule.reset_zero,
                lanes(spikes),
                lanes(saved_v),
                lanes(saved_w),
                lanes(active),
            ),
            v.numel(),
            torch.get_num_threads(),
        )
        ctx.mark_non_differentiable(wait)
        ctx.set_materialize_grads(False)
        if save:
            ctx.save_for_backward(saved_v, saved_w, active, v, *parameters)
            ctx.rule = rule
        return spikes, v_end, w_end, wait

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_v: Tensor | None, grad_w: Tensor | None, _: Any) -> Any:
        saved_v, saved_w, active, v, *parameters = ctx.saved_tensors
        rule: SpikeRule = ctx.rule
        up = torch.zeros_like(saved_v) if grad_spikes is None else grad_spikes.contiguous()
        d = torch.zeros_like(v) if grad_v is None else grad_v.clone(memory_format=torch.contiguous_format)
        c = torch.zeros_like(v) if grad_w is None else grad_w.clone(memory_format=torch.contiguous_format)
        grad_current = torch.empty_like(saved_v)
        dtype = grad_current.numpy().dtype
        wanted = ctx.needs_input_grad[7:]
        by_lane = np.empty((_PARAMETERS, v.numel() if any(wanted) else 0), dtype=dtype)
        kernels.run_lanes(
            adaptive_backward,
            (
                lanes(saved_v),
                lanes(saved_w),
                lanes(active),
                lanes(v.contiguous()),
                lanes(up),
                lanes(d),
                lanes(c),
                *(parameter.numpy() for parameter in parameters),
                rule.reset_zero,
                rule.detach_reset,
                rule.surrogate.code,
                kernels.surrogate_numbers(rule.surrogate.code, rule.surrogate.parameters, dtype),
                lanes(grad_current),
                by_lane,
            ),
            v.numel(),
            torch.get_num_threads(),
        )
        size = parameters[0].shape[0]
        grads = [sum_over_batch(by_lane[k], size) if wanted[k] else None for k in range(_PARAMETERS)]
        return grad_current, d, c, None, None, None, None, *grads


def adaptive_lif(
    current: Tensor,
    v: Tensor,
    w: Tensor,
    refractory: Tensor,
    refractory_steps: Tensor,
    rule: SpikeRule,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Advance adaptive neurons over all steps; differentiable in every float argument.

    Args:
        current: Arrivals plus drive, shape (time, batch, unit).
        v: Membrane before the first step, shape (batch, unit).
        w: Adaptation before the first step, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
        refractory_steps: Steps skipped after a spike, int32, shape (unit,).
        rule: Reset, gradient of the reset, surrogate.
        *parameters: beta, rho, adapt_v, adapt_spike, adapt_threshold, threshold, v_reset, reset_amount, all of
            shape (unit,).

    Returns:
        Spikes (time, batch, unit); the last membrane, adaptation and refractory counters (batch, unit).
    """
    if on_cuda(current):
        from snnsim.nn import cuda_neurons

        return cuda_neurons.adaptive_lif(current, v, w, refractory, refractory_steps, rule, *parameters)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in (current, v, w, *parameters))
    out = _Adaptive.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), v, w, refractory, refractory_steps, rule, save, *parameters
    )
    return cast("tuple[Tensor, Tensor, Tensor, Tensor]", out)
