"""Spikes kept as bits for the backward pass: which arrays qualify; they come back; gradients are the same."""

import numpy as np
import pytest
import torch

from snnsim.kernels.spike_bits import pack_spikes, unpack_spikes
from snnsim.nn.products import product, row_product


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "one"), [(0, 1.0), (1, 1.0), (63, 1.25), (64, -2.0), (200_003, 1.0), (640, 1e-30)])
def test_bits_are_those_of_numpy_and_come_back(n: int, one: float, dtype: type) -> None:
    one = float(dtype(one))
    x = (np.random.default_rng(n).random(n) < 0.3).astype(dtype) * dtype(one)
    wanted = np.zeros(-(-n // 64) * 8, dtype=np.uint8)
    wanted[: -(-n // 8)] = np.packbits(x != 0, bitorder="little")
    for threads in (1, 3):
        words = pack_spikes(x, one, threads)
        assert words is not None
        assert np.array_equal(words, wanted.view("<u8"))
        back = np.full(n, np.nan, dtype=dtype)
        unpack_spikes(words, one, back, threads)
        assert np.array_equal(back, x)


@pytest.mark.parametrize("other", [0.5, -1.0, 2.0, np.nan, np.inf, np.nextafter(1.0, 2.0)])
@pytest.mark.parametrize("place", [0, 5, 63, 64, 99_999, 100_000])
def test_other_numbers_do_not_qualify(other: float, place: int) -> None:
    x = np.zeros(100_001)
    x[::3] = 1.0
    x[place] = other
    assert pack_spikes(x, 1.0, 2) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["spikes", "dropped", "silent", "counts", "potentials", "strided"])
def test_gradients_are_those_of_the_numbers(kind: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(77, 50, generator=generator) < 0.2).to(dtype)
    if kind == "dropped":
        x = x / 0.7
    elif kind == "silent":
        x = torch.zeros_like(x)
    elif kind == "counts":
        x[3, 4] = 2.0
    elif kind == "potentials":
        x = torch.randn(77, 50, generator=generator, dtype=dtype)
    elif kind == "strided":
        x = x.t().contiguous().t()
    x.requires_grad_()
    weight = torch.randn(30, 50, generator=generator, dtype=dtype).requires_grad_()
    upstream = torch.randn(77, 30, generator=generator, dtype=dtype)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = row_product(x, weight)
    sizes = [tensor.numel() * tensor.element_size() for tensor in kept if tensor is not weight]
    bits = -(-x.numel() // 64) * 8
    assert (bits in sizes) == (kind in ("spikes", "dropped", "silent"))
    dx, dweight = torch.autograd.grad(y, (x, weight), upstream)
    assert torch.equal(dx, product(upstream, weight.detach()))
    assert torch.equal(dweight, product(upstream.T, x.detach()))


def test_one_gradient_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(20, 10, generator=generator) < 0.3).float()
    weight, upstream = torch.randn(5, 10, generator=generator), torch.randn(20, 5, generator=generator)
    (dweight,) = torch.autograd.grad(row_product(x, weight.requires_grad_()), weight, upstream)
    assert torch.equal(dweight, product(upstream.T, x))
    (dx,) = torch.autograd.grad(row_product(x.requires_grad_(), weight.detach()), x, upstream)
    assert torch.equal(dx, product(upstream, weight.detach()))
