"""Convolutions and pools of NIR files, unrolled into one weight a synapse.

A :class:`~snnsim.network.Network` knows no feature maps: the shared weights of a convolution become one number a
synapse. Units of a map are numbered ``(channel * height + y) * width + x``, as flattening does.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.export.nir_signals import Matrix

__all__ = ["MAX_UNROLLED", "convolution", "flattened", "pool"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MAX_UNROLLED = 10_000_000
"""Synapses of the largest convolution that is read."""


def convolution(
    weight: Floats,
    shape: tuple[int, ...],
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...],
    groups: int,
) -> tuple[Matrix, tuple[int, ...]]:
    """Return a convolution as a matrix, and the shape of its output.

    ``y[o, p] = sum_{c, k} weight[o, c, k] x[c, stride p + dilation k - padding]``

    Args:
        weight: (out channels, in channels / groups, kernel...), one or two dimensions of space.
        shape: Shape of the input, (channels, space...).
        stride, dilation: One number a dimension of space.
        padding: Zeros on either side, one number a dimension, or ``"same"`` (stride 1) or ``"valid"``.
        groups: Groups of channels that do not mix.

    Raises:
        InputError: Sizes do not fit, or the matrix would have more than :data:`MAX_UNROLLED` entries.
    """
    out_channels, per_group, *kernel = weight.shape
    channels, *space = shape
    if groups < 1 or out_channels % groups or channels != per_group * groups or len(space) != len(kernel):
        raise InputError(
            f"a convolution with weights {weight.shape} and {groups} groups does not fit an input of shape {shape}"
        )
    if min(*stride, *dilation) < 1:
        raise InputError(f"stride and dilation: expected positive numbers, got {stride} and {dilation}")
    reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    if isinstance(padding, str):
        if padding not in ("same", "valid") or (padding == "same" and max(stride) > 1):
            raise InputError(f"padding: expected numbers, 'valid', or 'same' with stride 1, got {padding!r}")
        before = [size // 2 if padding == "same" else 0 for size in reach]
        total = reach if padding == "same" else [0] * len(reach)
    else:
        before, total = list(padding), [2 * size for size in padding]
    if min(before) < 0:
        raise InputError(f"padding: expected no negative numbers, got {padding}")
    out = [
        (size + pad - far - 1) // step + 1 if size + pad > far else 0
        for size, pad, far, step in zip(space, total, reach, stride, strict=True)
    ]
    if min(out) < 1:
        raise InputError(f"a kernel of {tuple(kernel)} is larger than its input of {tuple(space)}")
    if (needed := out_channels * per_group * prod(kernel) * prod(out)) > MAX_UNROLLED:
        raise InputError(
            f"a convolution is read as one weight a synapse: this one would have {needed}, the limit is {MAX_UNROLLED}"
        )
    source = np.arange(channels * prod(space)).reshape(channels, *space)
    target = np.arange(out_channels * prod(out)).reshape(out_channels, *out)
    rows: list[Integers] = []
    columns: list[Integers] = []
    values: list[Floats] = []
    for tap in np.ndindex(*kernel):
        keep: list[Integers] = []
        take: list[Integers] = []
        for axis, k in enumerate(tap):
            place = np.arange(out[axis]) * stride[axis] + k * dilation[axis] - before[axis]
            inside = (place >= 0) & (place < space[axis])
            keep.append(np.flatnonzero(inside))
            take.append(place[inside])
        here = target[np.ix_(np.arange(out_channels), *keep)].reshape(out_channels, -1)
        there = source[np.ix_(np.arange(channels), *take)].reshape(channels, -1)
        for group in range(groups):
            o = slice(group * out_channels // groups, (group + 1) * out_channels // groups)
            c = slice(group * per_group, (group + 1) * per_group)
            every = (o.stop - o.start, per_group, here.shape[1])
            rows.append(np.broadcast_to(here[o, None, :], every).reshape(-1))
            columns.append(np.broadcast_to(there[None, c, :], every).reshape(-1))
            values.append(np.broadcast_to(weight[(o, slice(None), *tap)][:, :, None], every).reshape(-1))
    return _matrix(rows, columns, values, target.size, source.size), (out_channels, *out)


def pool(
    shape: tuple[int, ...],
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    average: bool,
) -> tuple[Matrix, tuple[int, ...]]:
    """Return a sum over windows, or their average (empty pixels counted), as a matrix, and the shape of its output.

    Raises:
        InputError: As :func:`convolution`.
    """
    if len(shape) != len(kernel) + 1 or min(kernel) < 1:
        raise InputError(f"a pool of {kernel} does not fit an input of shape {shape}")
    if prod(kernel) > MAX_UNROLLED:
        raise InputError(f"a pool of {kernel} is too large to be read")
    weight = np.full((shape[0], 1, *kernel), 1 / prod(kernel) if average else 1.0)
    ones = (1,) * len(kernel)
    return convolution(weight, shape, stride=stride, padding=padding, dilation=ones, groups=shape[0])


def flattened(shape: tuple[int, ...], start: int, end: int) -> tuple[int, ...]:
    """Return a shape with the dimensions ``start`` to ``end`` made one."""
    first, last = (place + len(shape) if place < 0 else place for place in (start, end))
    if not 0 <= first <= last < len(shape):
        return (prod(shape),)
    return (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :])


def _matrix(rows: list[Integers], columns: list[Integers], values: list[Floats], n_rows: int, n_columns: int) -> Matrix:
    row, column, value = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
    order = np.lexsort((row, column))
    order = order[value[order] != 0]
    return Matrix(row[order], column[order], value[order], n_rows, n_columns)
