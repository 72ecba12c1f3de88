"""What a connection on a CUDA device keeps of its input for the backward pass: bits, where it is known to be spikes.

Whether every entry of a tensor is 0 or one number cannot be asked without waiting for the device. It is known by
construction instead: a spiking layer marks its output with the value of its spikes, 1 or the factor of its dropout.
The mark belongs to the tensor object; what is computed from it (a sum with another input, a concatenation) has none,
and is then kept as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from snnsim.nn.cuda import as_cuda, current_stream, on_cuda

if TYPE_CHECKING:
    from snnsim.nn.model import Block

__all__ = ["SpikeForm", "keep_spikes", "mark_output", "mark_spikes", "restore_spikes", "spike_value"]

_MARK = "_snnsim_spike_value"


def mark_spikes(x: Tensor, one: float) -> Tensor:
    """Say that every entry of a tensor is 0 or ``one``, and return the tensor; nothing may write into it afterwards."""
    if not x.is_inference():  # such a tensor has no version, and no gradient that would need it
        setattr(x, _MARK, (float(one), x._version))
    return x


def mark_output(block: Block, x: Tensor) -> None:
    """Mark the output of a block on a device, unless its neurons or a residual connection give other numbers."""
    if not on_cuda(x):
        return
    from snnsim.nn.neurons import IF, LIF, AdaptiveLIF, CubaLIF

    if type(block.neuron) not in (LIF, IF, CubaLIF, AdaptiveLIF) or block.residual:
        return
    dropout = block.dropout
    if any(part is not None and part._forward_hooks for part in (block, block.neuron, dropout)):
        return  # a hook may give other numbers
    mark_spikes(x, 1.0 if dropout is None or not dropout.training else 1.0 / (1.0 - dropout.p))


def spike_value(x: Tensor) -> float | None:
    """Return the value of a spike where :func:`mark_spikes` has named it and the tensor is as it was, else None."""
    mark = getattr(x, _MARK, None)
    if mark is None or x.is_inference() or mark[1] != x._version:
        return None
    return float(mark[0])


@dataclass(frozen=True)
class SpikeForm:
    """How :func:`keep_spikes` keeps a tensor.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
        one: Value of a spike where bits are kept, else None.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    one: float | None


def keep_spikes(x: Tensor, one: float | None) -> tuple[Tensor, SpikeForm]:
    """Return what is kept of a tensor, and how.

    Args:
        x: Contiguous, on a device.
        one: Value of a spike; None keeps ``x`` itself.

    Returns:
        Words, int64, shape (ceil(n / 64),), as :func:`snnsim.kernels.spike_bits.pack_spikes` has them; or ``x``.
    """
    form = SpikeForm(tuple(x.shape), x.dtype, one if x.numel() else None)
    if form.one is None or not on_cuda(x):
        return x, SpikeForm(form.shape, form.dtype, None)
    from snnsim.kernels.cuda_spike_bits import PIECE, WORD, pack_spikes
    from snnsim.kernels.cuda_support import blocks_of, threads_per_block

    words = torch.empty(-(-x.numel() // WORD), dtype=torch.int64, device=x.device)
    arguments: tuple[Any, ...] = as_cuda(x.view(-1)), as_cuda(words.view(torch.uint32))
    pack_spikes[blocks_of(x.numel(), PIECE), threads_per_block(), current_stream(x)](*arguments)
    return words, form


def restore_spikes(data: Tensor, form: SpikeForm) -> Tensor:
    """Return the tensor that :func:`keep_spikes` kept."""
    if form.one is None:
        return data
    from snnsim.kernels.cuda_spike_bits import unpack_spikes
    from snnsim.kernels.cuda_support import launch

    x = torch.empty(form.shape, dtype=form.dtype, device=data.device)
    arguments = as_cuda(data.view(torch.uint32)), form.one, as_cuda(x.view(-1))
    launch(unpack_spikes, x.numel(), arguments, current_stream(x))
    return x
