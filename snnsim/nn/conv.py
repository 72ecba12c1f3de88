"""Connections between feature maps: convolution (plain or with standardised weights), pooling.

They have no state: every step is one image of the batch, so all steps are computed as one batch of images.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.convolution import convolve
from snnsim.nn.maps import MapConnection, MapShape, Watch, check_maps, to_maps, to_rows, to_units
from snnsim.nn.reductions import add_bias

__all__ = ["Conv2d", "GlobalAverage", "Pool2d", "StandardisedConv2d"]

STANDARD_EPS = 1e-4
"""Added to fan_in times the variance of standardised weights."""


class Conv2d(MapConnection):
    """Convolution of every step: ``y[t] = x[t] * W + b``.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        kernel: Height and width of the kernel.
        stride: Step between its places.
        padding: Empty pixels around the input; default ``kernel // 2``.
        bias: Whether a drive per channel is learned.
        generator: torch generator for the initial weights: normal, variance ``2 / (n_out kernel^2)`` (He et al. 2015,
            fan out), as in the published networks.

    Attributes:
        weight: Parameter, shape (n_out, n_in, kernel, kernel).
        bias: Parameter, shape (n_out,), or None.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        if min(n_in, n_out, kernel, stride) < 1 or not 0 <= padding < kernel:
            raise InputError(
                f"{type(self).__name__}: expected channels, kernel and stride >= 1 and a padding below the kernel, got "
                f"n_in={n_in}, n_out={n_out}, kernel={kernel}, stride={stride}, padding={padding}"
            )
        self.n_in, self.n_out = n_in, n_out
        self.kernel, self.stride, self.padding = kernel, stride, padding
        deviation = math.sqrt(2.0 / (n_out * kernel * kernel))
        self.weight = nn.Parameter(
            torch.empty(n_out, n_in, kernel, kernel).normal_(0.0, deviation, generator=generator)
        )
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return (
            f"{self.n_in} -> {self.n_out}, kernel={self.kernel}, stride={self.stride}, padding={self.padding}, "
            f"bias={self.bias is not None}"
        )

    def kernel_weight(self, factor: Tensor | None = None) -> Tensor:
        """Return the weights that the input is convolved with, times ``factor``: (n_out, n_in, kernel, kernel)."""
        return self.weight if factor is None else self.weight * factor

    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, None]:
        """Map (time, batch, n_in, height, width) to (time, batch, n_out, height', width'); there is no state."""
        return self.scaled(x), None

    def scaled(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        """Return the output times a number, shape (); its gradient goes by way of the weights, not of all values."""
        check_maps(type(self).__name__, x, self.n_in)
        y = convolve(to_rows(x), self.kernel_weight(factor), self.stride, self.padding)
        maps = y.reshape(x.shape[0], x.shape[1], *y.shape[1:])
        if self.bias is None:
            return maps
        bias = self.bias if factor is None else self.bias * factor
        shape = (self.n_out, y.shape[2], y.shape[3])
        rows = to_units(maps).reshape(x.shape[0], -1, self.n_out)
        return to_maps(add_bias(rows, bias).reshape(x.shape[0], x.shape[1], -1), shape)

    def out_shape(self, shape: MapShape) -> MapShape:
        """Return (n_out, height', width')."""
        channels, *sides = shape
        if channels != self.n_in:
            raise InputError(f"{type(self).__name__}: expected maps with {self.n_in} channels, got {channels}")
        height, width = (_places(type(self).__name__, side, self.kernel, self.stride, self.padding) for side in sides)
        return self.n_out, height, width

    def targets(self, shape: MapShape) -> float:
        """Return the synapses of a value of the input, mean over its places."""
        along = [_mean_uses(side, self.kernel, self.stride, self.padding) for side in shape[1:]]
        return self.n_out * along[0] * along[1]


class StandardisedConv2d(Conv2d):
    """Convolution with scaled weight standardisation, for networks without batch norm.

    ``W = gain (w - mean) / sqrt(fan_in var + 1e-4)``, mean and (unbiased) variance over the weights of an output
    channel, so that an input of unit mean square gives an output of about unit variance (Brock et al. 2021).

    Args:
        n_in: As in :class:`Conv2d`, like the following.
        n_out: Channels of the output.
        kernel: Height and width of the kernel.
        stride: Step between its places.
        padding: Empty pixels around the input.
        bias: Whether a drive per channel is learned.
        generator: torch generator for the initial weights.

    Attributes:
        gain: Parameter, shape (n_out,), at first 1.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_in, n_out, kernel, stride=stride, padding=padding, bias=bias, generator=generator)
        if n_in * kernel * kernel < 2:
            raise InputError("StandardisedConv2d: one weight a channel has no variance; use a larger kernel or Conv2d")
        self.gain = nn.Parameter(torch.ones(n_out))

    def kernel_weight(self, factor: Tensor | None = None) -> Tensor:
        """Return the standardised weights times ``factor``, differentiable, (n_out, n_in, kernel, kernel)."""
        gain = self.gain if factor is None else self.gain * factor
        rows = self.weight.flatten(1)
        centred = rows - rows.mean(dim=1, keepdim=True)
        scale = gain * torch.rsqrt(rows.var(dim=1) * rows.shape[1] + STANDARD_EPS)
        return (centred * scale.unsqueeze(1)).view_as(self.weight)


class Pool2d(MapConnection):
    """Pooling of every step, over windows of a map.

    Args:
        kind: ``average`` (empty pixels around the map count) or ``max``.
        kernel: Height and width of the window.
        stride: Step between windows; default ``kernel``.
        padding: Pixels around the map.
    """

    def __init__(
        self,
        kind: Literal["average", "max"] = "average",
        kernel: int = 2,
        *,
        stride: int | None = None,
        padding: int = 0,
    ) -> None:
        super().__init__()
        stride = kernel if stride is None else stride
        if kind not in ("average", "max") or kernel < 1 or stride < 1 or not 0 <= 2 * padding <= kernel:
            raise InputError(
                "Pool2d: expected kind 'average' or 'max', kernel and stride >= 1 and a padding of at most half the "
                f"kernel, got kind={kind!r}, kernel={kernel}, stride={stride}, padding={padding}"
            )
        self.kind, self.kernel, self.stride, self.padding = kind, kernel, stride, padding

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"{self.kind}, kernel={self.kernel}, stride={self.stride}, padding={self.padding}"

    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, None]:
        """Pool (time, batch, channel, height, width); there is no state."""
        check_maps("Pool2d", x, x.shape[2] if x.dim() > 2 else 1)
        pool = functional.avg_pool2d if self.kind == "average" else functional.max_pool2d
        y = pool(to_rows(x), self.kernel, self.stride, self.padding)
        return y.reshape(x.shape[0], x.shape[1], *y.shape[1:]), None

    def out_shape(self, shape: MapShape) -> MapShape:
        """Return (channels, height', width')."""
        height, width = (_places("Pool2d", side, self.kernel, self.stride, self.padding) for side in shape[1:])
        return shape[0], height, width

    def targets(self, shape: MapShape) -> float:
        """Return the windows that hold a pixel, mean over pixels."""
        along = [_mean_uses(side, self.kernel, self.stride, self.padding) for side in shape[1:]]
        return along[0] * along[1]


class GlobalAverage(MapConnection):
    """Mean over the pixels of every map: a map of one pixel."""

    def forward(
        self, x: Tensor, state: Any = None, context: Context | None = None, watch: Watch | None = None
    ) -> tuple[Tensor, None]:
        """Map (time, batch, channel, height, width) to (time, batch, channel, 1, 1); there is no state."""
        return x.mean(dim=(3, 4), keepdim=True), None

    def out_shape(self, shape: MapShape) -> MapShape:
        """Return (channels, 1, 1)."""
        return shape[0], 1, 1

    def targets(self, shape: MapShape) -> float:
        """Return 1: a pixel reaches the mean of its map."""
        return 1.0


def _places(name: str, side: int, kernel: int, stride: int, padding: int) -> int:
    if side + 2 * padding < kernel:
        raise InputError(f"{name}: a kernel of {kernel} does not fit maps of {side} pixels; use fewer stages")
    return (side + 2 * padding - kernel) // stride + 1


def _mean_uses(side: int, kernel: int, stride: int, padding: int) -> float:
    """Return in how many places of a kernel a pixel lies along one axis, mean over the pixels."""
    starts = torch.arange(_places("kernel", side, kernel, stride, padding)) * stride - padding
    covered = (starts + kernel).clamp(max=side) - starts.clamp(min=0)
    return float(covered.sum()) / side
