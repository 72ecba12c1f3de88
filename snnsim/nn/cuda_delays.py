"""Connections evaluated on a CUDA device: sums of delayed spikes in the canonical order, the bits of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.nn.cuda import as_cuda, current_stream

__all__ = ["device_delayed_sum"]


@torch.no_grad()
def device_delayed_sum(x: Tensor, weight: Tensor, delay_steps: Tensor | None = None, longest: int = 0) -> Tensor:
    """Return :func:`snnsim.kernels.delays.delayed_sum` of spikes or counts on a device; nothing waits for it.

    Args:
        x: Shape (time, batch, n_in), float32 or float64.
        weight: Shape (n_out, n_in, taps), dtype and device of ``x``.
        delay_steps: int64, the same shape, from 0 to ``longest``; None: no tap is late.
        longest: No delay is longer.

    Returns:
        Shape (time, batch, n_out).

    Raises:
        InputError: More sources and steps of delay than a code of 32 bits holds.
    """
    from snnsim.kernels import cuda_delays as kernels
    from snnsim.kernels.cuda_support import launch

    n_steps, batch, n_in = x.shape
    n_out = weight.shape[0]
    before, windows = -(-longest // kernels.STEPS), -(-n_steps // kernels.STEPS)
    if (before + 1) * n_in * kernels.STEPS >= 1 << 31:
        raise InputError(
            f"delays on a CUDA device: {n_in} sources with delays of up to {longest} steps are more than "
            "a code of 32 bits holds; use the CPU, a larger time step, or fewer sources a connection"
        )
    out = torch.empty(n_steps, batch, n_out, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    x = x.detach().contiguous()
    values, source, late = _by_target(weight, delay_steps)
    code = ((before + torch.div(-late, kernels.STEPS, rounding_mode="floor")) * n_in + source) * kernels.STEPS
    code += -late % kernels.STEPS
    words = torch.empty(batch * (before + windows) * n_in, dtype=torch.int32, device=x.device).view(torch.uint32)
    flag = torch.zeros(1, dtype=torch.int32, device=x.device)
    rows, stream = before + windows, current_stream(x)
    numbers, spikes, shared, taps = as_cuda(x), as_cuda(words), as_cuda(flag), as_cuda(values)
    to = as_cuda(out)
    launch(kernels.pack_time, words.numel(), (numbers, before, as_cuda(words.view(batch, rows, n_in)), shared), stream)
    arguments = (spikes, rows, n_in, taps, as_cuda(code.to(torch.int32)), before, shared, to)
    launch(kernels.delayed_bits, windows * batch * n_out, arguments, stream)
    counts = (numbers, taps, as_cuda(source.to(torch.int32)), as_cuda(late.to(torch.int32)), shared, to)
    launch(kernels.delayed_numbers, out.numel(), counts, stream)
    return out


def _by_target(weight: Tensor, delay_steps: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, sources and delays, (taps of a target, n_out), in the order of summation."""
    n_out, n_in, taps = weight.shape
    flat = weight.detach().reshape(n_out, n_in * taps)
    source = torch.arange(n_in * taps, device=weight.device) // taps
    if delay_steps is None:
        sources = source[:, None].expand(-1, n_out).contiguous()
        return flat.t().contiguous(), sources, torch.zeros_like(sources)
    late, order = torch.sort(delay_steps.reshape(n_out, n_in * taps), dim=1, descending=True, stable=True)
    return flat.gather(1, order).t().contiguous(), source[order].t().contiguous(), late.t().contiguous()
