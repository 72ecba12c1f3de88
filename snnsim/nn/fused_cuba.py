"""Autograd function around the fused kernels of neurons with a synaptic current; see :mod:`snnsim.nn.fused`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import neurons as kernels
from snnsim.kernels.neurons_cuba import cuba_backward, cuba_forward
from snnsim.nn.cuda import on_cuda
from snnsim.nn.fused import SpikeRule, lanes, sum_over_batch

__all__ = ["cubali", "cubalif"]

_PARAMETERS = 6


class _Cuba(torch.autograd.Function):
    """Outputs spikes (or, without a rule, the membrane), last v, last i, last counters."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        v: Tensor,
        i_syn: Tensor,
        refractory: Tensor,
        refractory_steps: Tensor,
        rule: SpikeRule | None,
        save: bool,
        *parameters: Tensor,
    ) -> Any:
        spiking = rule is not None
        skip = rule is not None and rule.refractory
        nothing = current.new_empty((0, *current.shape[1:]))
        learn = save and any(ctx.needs_input_grad[7:])
        out = torch.empty_like(current)
        saved_v = (torch.empty_like(current) if save else nothing) if spiking else out
        saved_i = torch.empty_like(current) if learn else nothing
        active = torch.empty(current.shape if skip else nothing.shape, dtype=torch.uint8)
        v_end = v.clone(memory_format=torch.contiguous_format)
        i_end = i_syn.clone(memory_format=torch.contiguous_format)
        wait = refractory.clone(memory_format=torch.contiguous_format)
        kernels.run_lanes(
            cuba_forward,
            (
                lanes(current),
                lanes(v_end),
                lanes(i_end),
                lanes(wait),
                *(parameter.detach().numpy() for parameter in parameters),
                refractory_steps.numpy(),
                rule is None or rule.reset_zero,
                lanes(out if spiking else nothing),
                lanes(saved_v),
                lanes(saved_i),
                lanes(active),
            ),
            v.numel(),
            torch.get_num_threads(),
        )
        ctx.mark_non_differentiable(wait)
        ctx.set_materialize_grads(False)
        if save:
            kept_v = saved_v if spiking or learn else nothing
            ctx.save_for_backward(kept_v, saved_i, active, v, *parameters)
            ctx.rule, ctx.learn, ctx.shape = rule, learn, current.shape
        return out, v_end, i_end, wait

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_v: Tensor | None, grad_i: Tensor | None, _: Any) -> Any:
        saved_v, saved_i, active, v, *parameters = ctx.saved_tensors
        rule: SpikeRule | None = ctx.rule
        nothing = v.new_empty((0, *ctx.shape[1:]))
        up = nothing if grad_out is None else grad_out.contiguous()
        if rule is not None and grad_out is None:
            up = v.new_zeros(ctx.shape)
        d = torch.zeros_like(v) if grad_v is None else grad_v.clone(memory_format=torch.contiguous_format)
        c = torch.zeros_like(v) if grad_i is None else grad_i.clone(memory_format=torch.contiguous_format)
        grad_current = v.new_empty(ctx.shape)
        dtype = grad_current.numpy().dtype
        by_lane = np.empty((_PARAMETERS, v.numel() if ctx.learn else 0), dtype=dtype)
        code = 0
        numbers: tuple[float, ...] = (1.0,)
        if rule is not None:
            code, numbers = rule.surrogate.code, rule.surrogate.parameters
        kernels.run_lanes(
            cuba_backward,
            (
                lanes(saved_v),
                lanes(saved_i),
                lanes(active),
                lanes(v.contiguous()),
                lanes(up if rule is not None else nothing),
                lanes(nothing if rule is not None else up),
                lanes(d),
                lanes(c),
                *(parameter.numpy() for parameter in parameters),
                rule is None or rule.reset_zero,
                rule is None or rule.detach_reset,
                code,
                kernels.surrogate_numbers(code, numbers, dtype),
                lanes(grad_current),
                by_lane,
            ),
            v.numel(),
            torch.get_num_threads(),
        )
        wanted = ctx.needs_input_grad[7:]
        size = parameters[0].shape[0]
        grads = [sum_over_batch(by_lane[k], size) if wanted[k] else None for k in range(_PARAMETERS)]
        return grad_current, d, c, None, None, None, None, *grads


def _apply(
    current: Tensor,
    v: Tensor,
    i_syn: Tensor,
    refractory: Tensor,
    refractory_steps: Tensor,
    rule: SpikeRule | None,
    parameters: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    save = torch.is_grad_enabled() and any(x.requires_grad for x in (current, v, i_syn, *parameters))
    out = _Cuba.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), v, i_syn, refractory, refractory_steps, rule, save, *parameters
    )
    return cast("tuple[Tensor, Tensor, Tensor, Tensor]", out)


def cubalif(
    current: Tensor,
    v: Tensor,
    i_syn: Tensor,
    refractory: Tensor,
    refractory_steps: Tensor,
    rule: SpikeRule,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Advance CubaLIF neurons over all steps; differentiable in every float argument.

    Args:
        current: Arrivals, shape (time, batch, unit).
        v: Membrane before the first step, shape (batch, unit).
        i_syn: Synaptic current before the first step, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
        refractory_steps: Steps skipped after a spike, int32, shape (unit,).
        rule: Reset, gradient of the reset, surrogate.
        *parameters: beta, alpha, kappa, threshold, v_reset, reset_amount, all of shape (unit,).

    Returns:
        Spikes (time, batch, unit); the last membrane, current and refractory counters (batch, unit).
    """
    if on_cuda(current):
        from snnsim.nn import cuda_neurons

        return cuda_neurons.cubalif(current, v, i_syn, refractory, refractory_steps, rule, *parameters)
    return _apply(current, v, i_syn, refractory, refractory_steps, rule, parameters)


def cubali(
    current: Tensor, v: Tensor, i_syn: Tensor, beta: Tensor, alpha: Tensor, kappa: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Advance leaky integrators with a synaptic current; differentiable in every argument.

    Args:
        current: Arrivals, shape (time, batch, unit).
        v: Membrane before the first step, shape (batch, unit).
        i_syn: Synaptic current before the first step, shape (batch, unit).
        beta: Membrane decay per step, shape (unit,).
        alpha: Synaptic decay per step, shape (unit,).
        kappa: Gain from current to membrane, shape (unit,).

    Returns:
        The membrane of every step (time, batch, unit), the last membrane and current (batch, unit).
    """
    if on_cuda(current):
        from snnsim.nn import cuda_neurons

        return cuda_neurons.cubali(current, v, i_syn, beta, alpha, kappa)
    never = torch.full_like(beta.detach(), torch.inf)
    zero = torch.zeros_like(never)
    wait = torch.zeros(v.shape, dtype=torch.int32)
    steps = torch.zeros(beta.shape, dtype=torch.int32)
    parameters = (beta, alpha, kappa, never, zero, zero)
    trace, v_end, i_end, _ = _apply(current, v, i_syn, wait, steps, None, parameters)
    return trace, v_end, i_end
