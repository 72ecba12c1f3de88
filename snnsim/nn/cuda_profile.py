"""The dense kernel of a delay layer on a CUDA device, with its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels.reference_delays import VERSIONS, WIDTH_OFFSET
from snnsim.nn.cuda import as_cuda, current_stream

__all__ = ["device_delay_kernel"]


class _DeviceDelayKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, position: Tensor, sigma: Tensor, version: str, n_delays: int) -> Tensor:
        from snnsim.kernels.cuda_profile import profile_forward
        from snnsim.kernels.cuda_support import launch

        ctx.save_for_backward(weight, position, sigma)
        ctx.version = version
        n_out, n_in, _ = weight.shape
        kernel = torch.empty(n_delays, n_out, n_in, dtype=weight.dtype, device=weight.device)
        arguments = (*_numbers(weight, position, sigma, version), as_cuda(kernel))
        launch(profile_forward, n_out * n_in, arguments, current_stream(weight))
        return kernel

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        from snnsim.kernels.cuda_profile import profile_backward
        from snnsim.kernels.cuda_support import launch

        weight, position, sigma = ctx.saved_tensors
        n_out, n_in, _ = weight.shape
        dweight = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
        dposition = torch.empty_like(dweight)
        wanted = bool(ctx.needs_input_grad[2])
        dsigma = torch.empty_like(dweight) if wanted else dweight.new_empty(1, 1, 1)
        arguments = (
            *_numbers(weight, position, sigma, ctx.version),
            *(as_cuda(gradients[0].contiguous()), as_cuda(dweight), as_cuda(dposition), wanted, as_cuda(dsigma)),
        )
        launch(profile_backward, n_out * n_in, arguments, current_stream(weight))
        for axis in (0, 1):
            if position.shape[axis] == 1 and weight.shape[axis] > 1:
                dposition = dposition.sum(dim=axis, keepdim=True)
        by_sigma = dsigma.sum(dtype=torch.float64).to(sigma.dtype) if wanted else None
        return dweight, dposition, by_sigma, None, None


def _numbers(weight: Tensor, position: Tensor, sigma: Tensor, version: str) -> tuple[Any, ...]:
    width = sigma.detach().to(device=weight.device, dtype=weight.dtype).reshape(1).contiguous()
    arrays = (as_cuda(tensor.detach().contiguous()) for tensor in (weight, position.to(weight.dtype), width))
    return *arrays, float(WIDTH_OFFSET[version]), VERSIONS.index(version)


def device_delay_kernel(weight: Tensor, position: Tensor, sigma: Tensor, version: str, n_delays: int) -> Tensor:
    """Return :func:`snnsim.nn.delays.delay_kernel` on a device, within rounding; sigma is not read back.

    Args:
        weight: Shape (n_out, n_in, taps).
        position: Shape (n_out | 1, n_in | 1, taps).
        sigma: Stored width, shape ().
        version: Interpolation kernel.
        n_delays: Delay slots.

    Returns:
        Shape (n_delays, n_out, n_in), differentiable in weight, position and sigma.
    """
    kernel: Tensor = _DeviceDelayKernel.apply(weight, position, sigma, version, n_delays)  # type: ignore[no-untyped-call]
    return kernel
