"""Autograd functions around the fused neuron kernels: one call for all time steps, forward and backward.

Only the membrane before the reset is kept for the backward pass; spikes are recomputed from it. Results do
not depend on the number of threads (``torch.get_num_threads()``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import neurons as kernels
from snnsim.nn.cuda import on_cuda
from snnsim.nn.surrogates import Surrogate

__all__ = ["SpikeRule", "lanes", "li", "lif", "sum_over_batch"]


@dataclass(frozen=True)
class SpikeRule:
    """The parts of a spiking law that are no tensors.

    Attributes:
        reset_zero: Reset to ``v_reset`` instead of subtracting.
        detach_reset: Whether the reset passes no gradient to the spike.
        refractory: Whether any neuron may be refractory.
        surrogate: Stand-in for the derivative of the spike.
        carry: Whether a LIF membrane passes gradient from a step to the one before.
    """

    reset_zero: bool
    detach_reset: bool
    refractory: bool
    surrogate: Surrogate
    carry: bool = True


def lanes(x: Tensor) -> npt.NDArray[Any]:
    """See a contiguous (time, batch, unit) tensor as (time, lanes), or (batch, unit) as (lanes,), uncopied."""
    array: npt.NDArray[Any] = x.detach().numpy()
    return array.reshape(array.shape[0], array.shape[1] * array.shape[2]) if x.dim() == 3 else array.reshape(-1)


def sum_over_batch(lanes: npt.NDArray[Any], n_units: int) -> Tensor:
    """Sum gradients by lane over the batch, in order, in float64."""
    total = lanes.reshape(-1, n_units).sum(axis=0, dtype=np.float64)
    return torch.from_numpy(total.astype(lanes.dtype))


class _LIF(torch.autograd.Function):
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
        spikes = torch.empty_like(current)
        nothing = current.new_empty((0, *current.shape[1:]))
        saved = torch.empty_like(current) if save else nothing
        active = torch.empty(current.shape if rule.refractory else nothing.shape, dtype=torch.uint8)
        v_end = v.clone(memory_format=torch.contiguous_format)
        wait = refractory.clone(memory_format=torch.contiguous_format)
        kernels.run_lanes(
            kernels.lif_forward,
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
                lanes(spikes),
                lanes(saved),
                lanes(active),
            ),
            v.numel(),
            torch.get_num_threads(),
        )
        ctx.mark_non_differentiable(wait)
        ctx.set_materialize_grads(False)
        if save:
            ctx.save_for_backward(saved, active, v, beta, threshold, v_reset, reset_amount)
            ctx.rule = rule
        return spikes, v_end, wait

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_v: Tensor | None, _: Any) -> Any:
        saved, active, v, beta, threshold, v_reset, reset_amount = ctx.saved_tensors
        rule: SpikeRule = ctx.rule
        up = torch.zeros_like(saved) if grad_spikes is None else grad_spikes.contiguous()
        d = torch.zeros_like(v) if grad_v is None else grad_v.clone(memory_format=torch.contiguous_format)
        grad_current = torch.empty_like(saved)
        n_lanes = v.numel()
        learn = any(ctx.needs_input_grad[3:7])
        dtype = saved.numpy().dtype
        by_lane = np.empty((4, n_lanes if learn else 0), dtype=dtype)
        kernels.run_lanes(
            kernels.lif_backward,
            (
                lanes(saved),
                lanes(active),
                lanes(v.contiguous()),
                lanes(up),
                lanes(d),
                beta.numpy(),
                threshold.numpy(),
                v_reset.numpy(),
                reset_amount.numpy(),
                rule.reset_zero,
                rule.detach_reset,
                rule.carry,
                rule.surrogate.code,
                kernels.surrogate_numbers(rule.surrogate.code, rule.surrogate.parameters, dtype),
                lanes(grad_current),
                by_lane,
            ),
            n_lanes,
            torch.get_num_threads(),
        )
        wanted = ctx.needs_input_grad[3:7]
        parameters = [sum_over_batch(by_lane[k], beta.shape[0]) if wanted[k] else None for k in range(4)]
        return grad_current, d, None, *parameters, None, None, None


def lif(
    current: Tensor, v: Tensor, refractory: Tensor, refractory_steps: Tensor, rule: SpikeRule, *parameters: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Advance LIF neurons over all steps; differentiable in every float argument.

    Args:
        current: Arrivals plus drive, shape (time, batch, unit).
        v: Membrane before the first step, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
        refractory_steps: Steps skipped after a spike, int32, shape (unit,).
        rule: Reset, gradient of the reset, surrogate.
        *parameters: beta, threshold, v_reset, reset_amount, all of shape (unit,).

    Returns:
        Spikes (time, batch, unit), the last membrane and the last refractory counters (batch, unit).
    """
    if on_cuda(current):
        from snnsim.nn import cuda_neurons

        return cuda_neurons.lif(current, v, refractory, refractory_steps, rule, *parameters)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in (current, v, *parameters))
    out = _LIF.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), v, refractory, *parameters, refractory_steps, rule, save
    )
    return cast("tuple[Tensor, Tensor, Tensor]", out)


class _LI(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, v: Tensor, beta: Tensor) -> Any:
        trace = torch.empty_like(current)
        v_end = v.clone(memory_format=torch.contiguous_format)
        kernels.run_lanes(
            kernels.li_forward,
            (lanes(current), lanes(v_end), beta.detach().numpy(), lanes(trace)),
            v.numel(),
            torch.get_num_threads(),
        )
        ctx.learn = ctx.needs_input_grad[2]
        ctx.save_for_backward(trace if ctx.learn else current.new_empty((0, *current.shape[1:])), v, beta)
        ctx.set_materialize_grads(False)
        ctx.shape = current.shape
        return trace, v_end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_v: Tensor | None) -> Any:
        trace, v, beta = ctx.saved_tensors
        up = v.new_zeros(ctx.shape) if grad_out is None else grad_out.contiguous()
        d = torch.zeros_like(v) if grad_v is None else grad_v.clone(memory_format=torch.contiguous_format)
        grad_current = torch.empty_like(up)
        by_lane = np.empty(v.numel() if ctx.learn else 0, dtype=up.numpy().dtype)
        kernels.run_lanes(
            kernels.li_backward,
            (
                lanes(trace),
                lanes(v.contiguous()),
                lanes(up),
                lanes(d),
                beta.numpy(),
                lanes(grad_current),
                by_lane,
            ),
            v.numel(),
            torch.get_num_threads(),
        )
        return grad_current, d, sum_over_batch(by_lane, beta.shape[0]) if ctx.learn else None


def li(current: Tensor, v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Advance leaky integrators over all steps; differentiable in every argument.

    Args:
        current: Arrivals plus drive, shape (time, batch, unit).
        v: Membrane before the first step, shape (batch, unit).
        beta: Decay per step, shape (unit,).

    Returns:
        The membrane of every step (time, batch, unit) and the last one (batch, unit).
    """
    if on_cuda(current):
        from snnsim.nn import cuda_neurons

        return cuda_neurons.li(current, v, beta)
    return cast("tuple[Tensor, Tensor]", _LI.apply(current.contiguous(), v, beta))  # type: ignore[no-untyped-call]
