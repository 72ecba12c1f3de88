"""Products along existing synapses equal masked dense ones: values, gradients, training, threads."""

import numpy as np
import pytest
import torch

from snnsim.kernels import reference_sparse
from snnsim.kernels.spike_bits import pack_spikes, unpack_spikes
from snnsim.nn.context import Context
from snnsim.nn.delays import Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.model import Block
from snnsim.nn.neurons import LIF
from snnsim.nn.products import row_product
from snnsim.nn.sparse import SynapseOrder, sparse_row_product
from snnsim.nn.surrogates import SuperSpike

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
SIZES = [(1, 1, 1), (40, 7, 5), (300, 70, 90), (129, 64, 16), (0, 4, 3), (1000, 33, 130)]


def problem(rows: int, n_in: int, n_out: int, dtype: torch.dtype, density: float = 0.2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(n_out, n_in, generator=generator) < density
    mask[n_out // 2] = False  # a target without synapses
    x = torch.randn(rows, n_in, generator=generator, dtype=dtype)
    weight = torch.randn(n_out, n_in, generator=generator, dtype=dtype).masked_fill(~mask, 0)
    return [mask, x, weight, torch.randn(rows, n_out, generator=generator, dtype=dtype)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "n_in", "n_out"), SIZES)
@pytest.mark.parametrize("spikes", [False, True])
def test_products_and_gradients_are_those_of_the_masked_matrix(
    rows: int, n_in: int, n_out: int, dtype: torch.dtype, spikes: bool
) -> None:
    mask, x, weight, upstream = problem(rows, n_in, n_out, dtype)
    x = (x > 0.8).to(dtype) if spikes else x
    order = SynapseOrder.of(mask.numpy())
    x.requires_grad_()
    weight.requires_grad_()
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = sparse_row_product(x, weight, order)
            seen.append((y.detach(), *torch.autograd.grad(y, (x, weight), upstream)))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    exact = [value.detach().double() for value in (x, weight, upstream)]
    wanted = (exact[0] @ exact[1].T, exact[2] @ exact[1], (exact[2].T @ exact[0]) * mask)
    for got, value in zip(seen[0], wanted, strict=True):
        assert got.shape == value.shape
        assert float((got - value).norm()) <= TOLERANCE[dtype] * float(value.norm())
    assert not seen[0][2][~mask].any()
    rows_, columns = np.nonzero(mask.numpy())
    defined = reference_sparse.sparse_forward(
        exact[0].numpy(), rows_.astype(np.int32), columns.astype(np.int32), exact[1].numpy()[rows_, columns], n_out
    )
    np.testing.assert_allclose(seen[0][0].numpy(), defined, atol=float(TOLERANCE[dtype]) * 20)
    dx, dweight = reference_sparse.sparse_backward(
        exact[0].numpy(),
        exact[2].numpy(),
        rows_.astype(np.int32),
        columns.astype(np.int32),
        exact[1].numpy()[rows_, columns],
    )
    np.testing.assert_allclose(dx, wanted[1].numpy(), atol=1e-11)
    np.testing.assert_allclose(dweight, wanted[2].numpy()[rows_, columns], atol=1e-10)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "n_in", "n_out"), [(129, 600, 37), (40, 256, 20), (17, 513, 33)])
def test_the_forward_product_has_the_bits_of_the_masked_dense_one(
    dtype: torch.dtype, rows: int, n_in: int, n_out: int
) -> None:
    mask, x, weight, _ = problem(rows, n_in, n_out, dtype, 0.1)
    mask[3, : n_in - 10] = False  # a target whose synapses come late
    weight = weight * mask
    assert torch.equal(sparse_row_product(x, weight, SynapseOrder.of(mask.numpy())), row_product(x, weight))


def test_a_wide_layer_has_the_slopes_of_the_masked_dense_one() -> None:
    generator = torch.Generator().manual_seed(0)
    connection = Linear(600, 64)
    connection.weight.data = torch.randn(64, 600, generator=generator) * 0.5
    connection.set_mask(torch.rand(64, 600, generator=generator) < 0.1)
    block = Block(connection, LIF(64, dt=0.001, tau_mem=0.02)).train()
    x = (torch.rand(60, 16, 600, generator=generator) < 0.1).float().requires_grad_()
    upstream = torch.randn(60, 16, 64, generator=generator)
    seen = {}
    for way in ("dense", "sparse"):
        connection.formulation = way  # type: ignore[assignment]
        y, _, (_, end) = block.run_fused(x)
        seen[way] = (y.detach(), end.v.detach(), *torch.autograd.grad(y, (x, connection.weight), upstream))
    assert torch.equal(seen["dense"][0], seen["sparse"][0])
    assert torch.equal(seen["dense"][1], seen["sparse"][1])
    for got, wanted in zip(seen["sparse"][2:], seen["dense"][2:], strict=True):
        assert float((got - wanted).norm()) <= 5e-7 * float(wanted.norm())


def test_a_full_mask_is_the_dense_product_and_operations_are_counted() -> None:
    _, x, weight, upstream = problem(200, 40, 50, torch.float64)
    weight = torch.randn_like(weight).requires_grad_()
    order = SynapseOrder.of(np.ones((50, 40), bool))
    y, wanted = sparse_row_product(x, weight, order), row_product(x, weight)
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(value, weight, upstream)[0] for value in (y, wanted)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-11)
    assert order.operations(200) == (2000 * 200, 2 * 2000 * 200)
    few = SynapseOrder.of(np.eye(50, 40, dtype=bool))
    assert few.operations(7) == (40 * 7, 2 * 40 * 7)
    assert few.source.dtype == few.target.dtype == few.by_target.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_come_back_as_spikes(dtype: type) -> None:
    for n in (1, 63, 64, 1000):
        x = (np.random.default_rng(n).random(n) < 0.3).astype(dtype) * dtype(1.25)
        words = pack_spikes(x, 1.25, 2)
        assert words is not None
        back = np.full(n, 7, dtype)
        unpack_spikes(words, 1.25, back, 2)
        assert np.array_equal(back, x)


def layers(dtype: torch.dtype, dropout: float = 0.0, **law: object) -> tuple[Block, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(48, 40, generator=generator) < 0.15
    connection = Linear(40, 48, generator=generator)
    connection.set_mask(mask)
    connection.weight.data *= 3
    thin = SequenceDropout(dropout) if dropout else None
    block = Block(connection, LIF(48, dt=0.001, tau_mem=0.02, **law), dropout=thin).to(dtype).train()
    return block, mask


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "law",
    [
        {},
        {"reset": "subtract"},
        {"detach_reset": False},
        {"reset": "subtract", "detach_reset": False, "surrogate": SuperSpike(10.0)},
    ],
    ids=str,
)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_synapses_and_neurons_together_equal_one_after_the_other(
    dtype: torch.dtype, dropout: float, law: dict[str, object]
) -> None:
    block, _ = layers(dtype, dropout, **law)
    generator = torch.Generator().manual_seed(4)
    long = torch.rand(70, 37, generator=generator) < 0.8
    context = Context(long, torch.arange(37), 5, 1)
    raw = torch.rand(70, 37, 40, generator=generator)
    upstream = torch.randn(70, 37, 48, generator=generator, dtype=dtype)
    start = block.neuron.initial_state(37, dtype)._replace(v=torch.rand(37, 48, generator=generator, dtype=dtype))
    for x in ((raw < 0.2).to(dtype), raw.to(dtype)):  # spikes, kept as bits, and other numbers
        seen = []
        for way in ("dense", "sparse"):
            block.connection.formulation = way  # type: ignore[assignment]
            before = torch.get_num_threads()
            given = x.clone().requires_grad_()
            block.zero_grad()
            try:
                torch.set_num_threads(2 if way == "sparse" else 1)
                y, fired, (_, end) = block.run_fused(given, (None, start), context)
                (y * upstream).sum().backward()
            finally:
                torch.set_num_threads(before)
            seen.append((y.detach(), fired, end.v.detach(), given.grad, block.connection.weight.grad))
        dense, sparse = seen
        assert float(dense[0].mean()) > 0.02
        assert torch.equal(dense[0], sparse[0])
        assert torch.equal(dense[1], sparse[1])
        for got, wanted in zip(sparse[2:], dense[2:], strict=True):
            assert got is not None
            assert wanted is not None
            assert float((got - wanted).norm()) <= TOLERANCE[dtype] * float(wanted.norm())


def test_threads_do_not_change_the_bits_of_a_layer_with_neurons() -> None:
    block, _ = layers(torch.float32)
    block.connection.formulation = "sparse"  # type: ignore[assignment]
    x = (torch.rand(100, 40, 40, generator=torch.Generator().manual_seed(1)) < 0.2).float()
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            given = x.clone().requires_grad_()
            block.zero_grad()
            y, _, _ = block.run_fused(given)
            y.square().sum().backward()
            assert given.grad is not None
            assert isinstance(block.connection.weight.grad, torch.Tensor)
            seen.append((y.detach(), given.grad, block.connection.weight.grad.clone()))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def test_twenty_steps_of_training_end_at_the_same_weights() -> None:
    ends = []
    x = (torch.rand(60, 16, 40, generator=torch.Generator().manual_seed(2)) < 0.2).float()
    target = torch.rand(16, 48, generator=torch.Generator().manual_seed(3))
    for way in ("dense", "sparse"):
        block, mask = layers(torch.float32)
        block.connection.formulation = way  # type: ignore[assignment]
        optimiser = torch.optim.SGD([block.connection.weight], lr=0.02, momentum=0.9)
        first = block.connection.weight.detach().clone()
        for _ in range(20):
            optimiser.zero_grad()
            y, _, _ = block.run_fused(x)
            (y.mean(dim=0) - target).square().sum().backward()
            optimiser.step()
            block.connection.clamp_()  # type: ignore[operator]
        ends.append(block.connection.weight.detach())
        assert not ends[-1][~mask].any()
        assert float((ends[-1] - first).norm()) > 0.1
    assert float((ends[0] - ends[1]).norm()) <= 1e-5 * float(ends[0].norm())
