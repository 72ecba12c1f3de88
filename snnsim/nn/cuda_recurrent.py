"""Recurrent neurons with one common delay on a CUDA device, as one autograd function over all time steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import cuda_recurrent as kernels
from snnsim.kernels import dynamics
from snnsim.nn.cuda import as_cuda, current_stream
from snnsim.nn.cuda_neurons import coefficients, dtype_name, table_of
from snnsim.nn.cuda_norm import flat, sum_over_middle
from snnsim.nn.fused import SpikeRule
from snnsim.nn.products import product
from snnsim.nn.spiking import vector_rows

__all__ = ["recurrent_spikes"]

_CONSTANTS = 5
"""Arguments before the neurons' vectors."""


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, weight: Tensor, delay: int, kind: int, rule: SpikeRule, *vectors: Tensor
    ) -> Any:
        n_steps, batch, units = current.shape
        learns = any(ctx.needs_input_grad[_CONSTANTS:])
        deep = kind == dynamics.ADAPTIVE or (learns and kind == dynamics.CUBA)
        table = table_of(kind, vectors)
        spikes, membrane = torch.empty_like(current), torch.empty_like(current)
        second = torch.empty_like(current) if deep else None
        v, w = (current.new_empty(batch, units) for _ in range(2))
        by_source = weight.detach().t().contiguous()
        kernel = kernels.recurrent_forward_kernel(dtype_name(current), kind, rule.reset_zero, deep)
        arguments = (
            *(n_steps, delay, flat(current, v), flat(by_source, v), as_cuda(table), flat(membrane, v)),
            *(flat(second, v), flat(spikes, v), flat(v, v), flat(w, v)),
        )
        if batch:
            kernel[batch, units, current_stream(current)](*arguments)
        ctx.save_for_backward(membrane, second, spikes, weight, table)
        ctx.set_materialize_grads(False)
        ctx.numbers = delay, kind, rule, learns
        return spikes, v, w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_v: Tensor | None, grad_w: Tensor | None) -> Any:
        membrane, second, spikes, weight, table = ctx.saved_tensors
        delay, kind, rule, learns = ctx.numbers
        n_steps, batch, units = membrane.shape
        up = torch.zeros_like(membrane) if grad_spikes is None else grad_spikes.contiguous()
        d, c = (membrane.new_zeros(batch, units) if grad is None else grad.contiguous() for grad in (grad_v, grad_w))
        grad = torch.empty_like(membrane)
        by_lane = table.new_zeros(dynamics.PARAMETERS, batch, units) if learns else None
        kernel = kernels.recurrent_backward_kernel(
            dtype_name(up), kind, rule.reset_zero, rule.detach_reset, learns, rule.surrogate.code
        )
        arguments = (
            *(n_steps, delay, flat(membrane, up), flat(second, up), flat(weight.detach().contiguous(), up)),
            *(as_cuda(table), as_cuda(coefficients(rule, table)), flat(up, up), flat(d, up), flat(c, up)),
            *(flat(grad, up), flat(by_lane, up)),
        )
        if batch:
            kernel[batch, units, current_stream(up)](*arguments)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            later, earlier = grad[delay:].flatten(0, 1), spikes[: max(0, n_steps - delay)].flatten(0, 1)
            grad_weight = product(later.t(), earlier)
        by_vector: list[Tensor | None] = [None] * len(ctx.needs_input_grad[_CONSTANTS:])
        if by_lane is not None:
            total = sum_over_middle(by_lane).to(table.dtype)
            wanted = zip(ctx.needs_input_grad[_CONSTANTS:], vector_rows(kind), strict=True)
            by_vector = [total[row] if wants else None for wants, row in wanted]
        return (grad if ctx.needs_input_grad[0] else None), grad_weight, None, None, None, *by_vector


def recurrent_spikes(
    current: Tensor, weight: Tensor, vectors: tuple[Tensor, ...], delay: int, kind: int, rule: SpikeRule
) -> tuple[Tensor, Tensor, Tensor]:
    """Run recurrent neurons; arguments and results as of :func:`snnsim.nn.fused_recurrent.recurrent_spikes`."""
    out: tuple[Tensor, Tensor, Tensor] = _Recurrent.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), weight.to(current.dtype), delay, kind, rule, *vectors
    )
    return out
