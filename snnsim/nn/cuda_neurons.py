"""Autograd functions around the neuron kernels of a CUDA device; each does what its namesake for the CPU does.

Kept for the backward pass are the layer's current and the states at every 32nd step; all else is computed again from
them (:mod:`snnsim.kernels.cuda_neurons_backward`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import dynamics
from snnsim.kernels.cuda_neurons import THREADS, forward_kernel, stretches_of
from snnsim.kernels.cuda_neurons_backward import backward_kernel
from snnsim.kernels.cuda_support import launch
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.cuda import as_cuda, current_stream
from snnsim.nn.cuda_norm import DeviceStatistics, current_gradient, flat, sum_over_middle
from snnsim.nn.fused import SpikeRule
from snnsim.nn.spiking import vector_rows
from snnsim.nn.surrogates import ATan

__all__ = ["adaptive_lif", "coefficients", "cubali", "cubalif", "dtype_name", "li", "lif", "norm_neurons", "table_of"]

_NO_RULE = SpikeRule(reset_zero=True, detach_reset=True, refractory=False, surrogate=ATan())
_CONSTANTS = 9
"""Arguments before the neurons' vectors."""


@dataclass(frozen=True)
class _Job:
    """What a call is, but for what may have a gradient.

    Attributes:
        kind: Kind of neuron.
        fires: Whether there is a threshold.
        rule: Reset and surrogate.
        save: Whether a backward pass may follow.
        counted: Whether spikes are counted.
        mask: Valid steps, bool, contiguous, shape (time, batch), or None.
        statistics: Batch norm's moments, or None.
    """

    kind: int
    fires: bool
    rule: SpikeRule
    save: bool
    counted: bool = False
    mask: Tensor | None = None
    statistics: DeviceStatistics | None = None

    @property
    def waits(self) -> bool:
        """Whether a neuron may be refractory."""
        return self.fires and self.rule.refractory


def table_of(kind: int, vectors: tuple[Tensor, ...]) -> Tensor:
    """Return the parameters as kernels take them, shape (9, unit); see :func:`snnsim.nn.spiking.stack_rows`."""
    zero = torch.zeros_like(vectors[0])
    rows = [zero] * dynamics.PARAMETERS
    for row, vector in zip(vector_rows(kind), vectors, strict=True):
        rows[row] = vector.detach()
    if kind == dynamics.ADAPTIVE:
        rows[5] = (rows[8] <= 0).to(zero.dtype)
    return torch.stack(rows)


def dtype_name(x: Tensor) -> str:
    """Return the name of a tensor's dtype, as kernels are asked for."""
    return str(x.dtype).removeprefix("torch.")


class _Neurons(torch.autograd.Function):
    """Outputs spikes or membrane, last states, last counters and counts."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        v: Tensor,
        second: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        factors: Tensor | None,
        waiting: Tensor | None,
        steps: Tensor | None,
        job: _Job,
        *vectors: Tensor,
    ) -> Any:
        n_steps, batch, units = current.shape
        table = table_of(job.kind, vectors)
        affine = None
        if job.statistics is not None and weight is not None and bias is not None:
            affine = job.statistics.affine(weight, bias)
        learns = job.save and any(ctx.needs_input_grad[_CONSTANTS:])
        keeps = job.save and (job.fires or learns)
        v_end = v.clone(memory_format=torch.contiguous_format)
        w_end = None if second is None else second.clone(memory_format=torch.contiguous_format)
        wait_end = waiting.clone(memory_format=torch.contiguous_format) if job.waits and waiting is not None else None
        kept = (stretches_of(n_steps), batch, units)
        kept_v = v.new_empty(kept) if keeps else None
        kept_w = v.new_empty(kept) if keeps and w_end is not None else None
        kept_wait = torch.empty(kept, dtype=torch.int32, device=v.device) if keeps and job.waits else None
        out = torch.empty_like(current)
        counts = torch.zeros(batch, dtype=torch.int64, device=v.device) if job.counted else None
        kernel = forward_kernel(
            *(dtype_name(current), job.kind, job.rule.reset_zero, job.fires, affine is not None, job.mask is not None),
            *(factors is not None, job.counted, job.waits, keeps),
        )
        arguments = (
            *(
                n_steps,
                flat(current, v),
                flat(job.mask, v, torch.uint8),
                as_cuda(table[:3] if affine is None else affine),
                as_cuda(table),
            ),
            *(flat(steps if job.waits else None, v, torch.int32), flat(factors, v), flat(v_end, v), flat(w_end, v)),
            *(flat(wait_end, v, torch.int32), flat(out, v), flat(counts, v, torch.int64)),
            *(flat(kept_v, v), flat(kept_w, v), flat(kept_wait, v, torch.int32)),
        )
        launch(kernel, batch * units, arguments, current_stream(current), THREADS)
        ctx.mark_non_differentiable(*(part for part in (wait_end, counts) if part is not None))
        ctx.set_materialize_grads(False)
        if job.save:
            ctx.save_for_backward(
                current if keeps else None, table, affine, factors, steps, kept_v, kept_w, kept_wait, job.mask
            )
            ctx.job, ctx.learns, ctx.shape = job, learns, (n_steps, batch, units)
        return out, v_end, w_end, wait_end, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_v: Tensor | None, grad_w: Tensor | None, *_: Any) -> Any:
        current, table, affine, factors, steps, kept_v, kept_w, kept_wait, mask = ctx.saved_tensors
        job: _Job = ctx.job
        n_steps, batch, units = shape = ctx.shape
        up = table.new_zeros(shape) if grad_out is None else grad_out.contiguous()
        start = table.new_zeros(batch, units)
        d = start if grad_v is None else grad_v.clone(memory_format=torch.contiguous_format)
        c = None
        if job.kind != dynamics.LIF:
            c = torch.zeros_like(start) if grad_w is None else grad_w.clone(memory_format=torch.contiguous_format)
        grad = torch.empty_like(up)
        normed = affine is not None
        sums = torch.empty(2, batch, units, dtype=torch.float64, device=up.device) if normed else None
        by_lane = table.new_empty(dynamics.PARAMETERS, batch, units) if ctx.learns else None
        rule = job.rule
        numbers = coefficients(rule, table)
        kernel = backward_kernel(
            *(dtype_name(up), job.kind, rule.reset_zero, job.fires, normed, factors is not None, job.waits),
            *(rule.detach_reset, rule.carry, ctx.learns, rule.surrogate.code),
        )
        arguments = (
            *(n_steps, flat(current, up), as_cuda(table[:3] if affine is None else affine), as_cuda(table)),
            *(flat(steps if job.waits else None, up, torch.int32), as_cuda(numbers), flat(factors, up)),
            *(flat(kept_v, up), flat(kept_w, up), flat(kept_wait, up, torch.int32), flat(up, up), flat(d, up)),
            *(flat(c, up), flat(grad, up), flat(sums, up, torch.float64), flat(by_lane, up)),
        )
        launch(kernel, batch * units, arguments, current_stream(up), THREADS)
        by_vector: list[Tensor | None] = [None] * len(ctx.needs_input_grad[_CONSTANTS:])
        if by_lane is not None:
            total = sum_over_middle(by_lane).to(table.dtype)
            wanted = zip(ctx.needs_input_grad[_CONSTANTS:], vector_rows(job.kind), strict=True)
            by_vector = [total[row] if wants else None for wants, row in wanted]
        grad_weight = grad_bias = None
        if sums is not None and job.statistics is not None:
            by_unit = sum_over_middle(sums)
            grad_bias = by_unit[0].to(table.dtype)
            grad_weight = (by_unit[1] / job.statistics.deviation).to(table.dtype)
            if ctx.needs_input_grad[0]:
                current_gradient(current, mask, affine, job.statistics, by_unit, grad, grad)
        return grad, d, c, grad_weight, grad_bias, None, None, None, None, *by_vector


_coefficient_cache: dict[tuple[Any, ...], Tensor] = {}


def coefficients(rule: SpikeRule, like: Tensor) -> Tensor:
    """Return the surrogate's numbers on the device; they are sent once, for sending waits for the device."""
    surrogate = rule.surrogate
    key = (surrogate, like.dtype, like.device)
    if key not in _coefficient_cache:
        numbers = surrogate_numbers(surrogate.code, surrogate.parameters, dtype_name(like))
        _coefficient_cache[key] = torch.from_numpy(numbers).to(like.device)
    return _coefficient_cache[key]


def _apply(
    current: Tensor,
    states: tuple[Tensor, ...],
    vectors: tuple[Tensor, ...],
    kind: int,
    rule: SpikeRule | None,
    waiting: Tensor | None = None,
    steps: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    save = torch.is_grad_enabled() and any(x.requires_grad for x in (current, *states, *vectors))
    job = _Job(kind, rule is not None, rule or _NO_RULE, save)
    v, second = (*states, None)[:2]
    out = _Neurons.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), v, second, None, None, None, waiting, steps, job, *vectors
    )
    return cast("tuple[Tensor, Tensor, Tensor | None, Tensor | None]", out[:4])


def lif(
    current: Tensor, v: Tensor, refractory: Tensor, refractory_steps: Tensor, rule: SpikeRule, *parameters: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Advance LIF neurons; arguments and results as of :func:`snnsim.nn.fused.lif`, on the device."""
    out, v_end, _, wait = _apply(current, (v,), parameters, dynamics.LIF, rule, refractory, refractory_steps)
    return out, v_end, refractory.clone() if wait is None else wait


def li(current: Tensor, v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Advance leaky integrators; arguments and results as of :func:`snnsim.nn.fused.li`, on the device."""
    zero = torch.zeros_like(beta.detach())
    out, v_end, _, _ = _apply(current, (v,), (beta, zero, zero, zero), dynamics.LIF, None)
    return out, v_end


def cubalif(
    current: Tensor,
    v: Tensor,
    i_syn: Tensor,
    refractory: Tensor,
    refractory_steps: Tensor,
    rule: SpikeRule,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Advance CubaLIF neurons; arguments and results as of :func:`snnsim.nn.fused_cuba.cubalif`, on the device."""
    out, v_end, i_end, wait = _apply(current, (v, i_syn), parameters, dynamics.CUBA, rule, refractory, refractory_steps)
    return out, v_end, cast(Tensor, i_end), refractory.clone() if wait is None else wait


def cubali(
    current: Tensor, v: Tensor, i_syn: Tensor, beta: Tensor, alpha: Tensor, kappa: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Advance integrators with a current; arguments and results as of :func:`snnsim.nn.fused_cuba.cubali`."""
    zero = torch.zeros_like(beta.detach())
    vectors = (beta, alpha, kappa, zero, zero, zero)
    out, v_end, i_end, _ = _apply(current, (v, i_syn), vectors, dynamics.CUBA, None)
    return out, v_end, cast(Tensor, i_end)


def adaptive_lif(
    current: Tensor,
    v: Tensor,
    w: Tensor,
    refractory: Tensor,
    refractory_steps: Tensor,
    rule: SpikeRule,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Advance adaptive neurons; arguments and results as of :func:`snnsim.nn.fused_adaptive.adaptive_lif`."""
    out, v_end, w_end, wait = _apply(current, (v, w), parameters, dynamics.ADAPTIVE, rule, refractory, refractory_steps)
    return out, v_end, cast(Tensor, w_end), refractory.clone() if wait is None else wait


def norm_neurons(
    current: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    state: tuple[Tensor, ...],
    vectors: tuple[Tensor, ...],
    factors: Tensor | None,
    kind: int,
    rule: SpikeRule,
    statistics: DeviceStatistics | None,
    mask: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Normalise, fire and thin; arguments and results as of :func:`snnsim.nn.fused_norm.norm_neurons`."""
    states = tuple(part.to(current.dtype) for part in state)
    inputs = (current, weight, bias, *states, *vectors)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    valid = None if mask is None else mask.contiguous()
    job = _Job(kind, True, rule, save, True, valid, statistics)
    v, second = (*states, None)[:2]
    thin = None if factors is None else factors.contiguous()
    out, v_end, w_end, _, counts = _Neurons.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), v, second, weight, bias, thin, None, None, job, *vectors
    )
    return out, (v_end,) if w_end is None else (v_end, w_end), counts
