"""The precision of matrix products in training: float32, or factors of bfloat16 with sums in float32.

bfloat16 has the range of float32 and 8 bits of a number. With ``products("bf16")`` both factors of a product without
delays (forward, and both gradients) are rounded to it, to the nearest, ties to even; the sum of their products is a
float32 number. State, neurons, batch norm, delay kernels, losses, weights and optimisers stay float32, so the weights
that learn are whole ones (mixed precision of Micikevicius et al. 2018; bfloat16 needs no scaling of the loss: Kalamkar
et al. 2019).

On a device the product is that of its tensor cores. On the CPU the factors are rounded and multiplied in float32: the
same law, no faster, so that what it does to accuracy can be measured anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor

from snnsim.errors import InputError

__all__ = ["Precision", "multiply_on_device", "product_dtype", "products", "rounded"]

Precision = Literal["float32", "bf16"]

_dtype: ContextVar[torch.dtype | None] = ContextVar("snnsim_product_dtype", default=None)


def product_dtype() -> torch.dtype | None:
    """Return the type that factors of products are rounded to, or None where they are taken as they are."""
    return _dtype.get()


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Let products without delays have that precision within the block; their gradients keep it.

    Args:
        precision: ``"float32"`` or ``"bf16"``.

    Raises:
        InputError: Another one.

    >>> with products("bf16"):
    ...     product_dtype()
    torch.bfloat16
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision: expected 'float32' or 'bf16', got {precision!r}")
    token = _dtype.set(torch.bfloat16 if precision == "bf16" else None)
    try:
        yield
    finally:
        _dtype.reset(token)


def rounded(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return float32 numbers rounded to a narrower type, as float32; other numbers, or with None, as they are."""
    return x if dtype is None or x.dtype != torch.float32 else x.to(dtype).to(x.dtype)


def multiply_on_device(a: Tensor, b: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the product of two matrices of a device; float32 ones with factors of a narrower type, sums in float32.

    Args:
        a: Shape (m, k).
        b: Shape (k, n).
        dtype: Type of the factors, or None.
    """
    if dtype is None or a.dtype != torch.float32:
        return torch.mm(a, b)
    if a.is_cuda:
        return torch.mm(a.to(dtype), b.to(dtype), out_dtype=torch.float32)
    return torch.mm(rounded(a, dtype), rounded(b, dtype))
