"""Training computes the same bits on any number of threads: products, sums, softmax and whole layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from snnsim.learning import Loss
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.frequency import frequency_delay
from snnsim.nn.model import Output
from snnsim.nn.neurons import LIF
from snnsim.nn.products import product, row_product
from snnsim.nn.readouts import reduce_trace
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.reductions import add_bias, softmax, sum_first

THREADS = (1, 2, 4, 3)

# n_steps, batch, n_in, n_out, n_delays: corners, the sizes of recipes and of small runs, then drawn ones
GIVEN = [
    (20, 1, 3, 3, 2),
    (150, 1, 256, 3, 31),
    (150, 3, 3, 256, 9),
    (60, 16, 70, 12, 9),
    (60, 16, 12, 10, 9),
    (127, 40, 70, 128, 25),
    (127, 64, 256, 256, 25),
    (100, 32, 20, 20, 9),
    (140, 64, 256, 20, 31),
]


def drawn(count: int) -> list[tuple[int, int, int, int, int]]:
    draw = torch.Generator().manual_seed(7)

    def between(low: int, high: int, *, even_in_log: bool = False) -> int:
        u = float(torch.rand((), generator=draw, dtype=torch.float64))
        return int(low * (high / low) ** u if even_in_log else low + u * (high - low)) if u < 0.95 else high

    return [
        (
            between(20, 150),
            between(1, 64, even_in_log=True),
            between(3, 256, even_in_log=True),
            between(3, 256, even_in_log=True),
            between(2, 31),
        )
        for _ in range(count)
    ]


def same_for_all(compute: Callable[[], list[Tensor]]) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            results.append(compute())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for threads, result in zip(THREADS[1:], results[1:], strict=True):
        for index, (a, b) in enumerate(zip(results[0], result, strict=True)):
            assert torch.equal(a, b), f"result {index} with {threads} threads"


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_gradients(f: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [value.clone().requires_grad_() for value in inputs]
    y = f(*leaves)
    upstream = torch.randn(y.shape, generator=source(9), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, upstream)]


@pytest.mark.parametrize("sizes", [*GIVEN, *drawn(24)], ids=lambda sizes: "-".join(map(str, sizes)))
def test_delay_layers(sizes: tuple[int, int, int, int, int]) -> None:
    n_steps, batch, n_in, n_out, n_delays = sizes
    x = (torch.rand(n_steps, batch, n_in, generator=source(1)) < 0.2).float()
    kernel = torch.randn(n_delays, n_out, n_in, generator=source(2))
    same_for_all(lambda: with_gradients(frequency_delay, x, kernel))


@pytest.mark.parametrize("n_delays", range(2, 32))
def test_every_number_of_delay_slots(n_delays: int) -> None:
    x = torch.randn(40, 16, 70, generator=source(1))
    kernel = torch.randn(n_delays, 24, 70, generator=source(2))
    same_for_all(lambda: with_gradients(frequency_delay, x, kernel))


@pytest.mark.parametrize("sizes", [*GIVEN, *drawn(24)], ids=lambda sizes: "-".join(map(str, sizes[:4])))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_layers(sizes: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
    n_steps, batch, n_in, n_out, _ = sizes
    x = torch.randn(n_steps * batch, n_in, generator=source(1), dtype=dtype)
    weight = torch.randn(n_out, n_in, generator=source(2), dtype=dtype)
    same_for_all(lambda: with_gradients(row_product, x, weight))


def test_products_are_products() -> None:
    for rows, n_in, n_out in ((1, 1, 1), (3, 700, 5), (5000, 33, 150), (2049, 20, 300), (100, 300, 900), (0, 3, 4)):
        x = torch.randn(rows, n_in, generator=source(1), dtype=torch.float64)
        weight = torch.randn(n_out, n_in, generator=source(2), dtype=torch.float64)
        upstream = torch.randn(rows, n_out, generator=source(3), dtype=torch.float64)
        torch.testing.assert_close(product(x, weight.T), x @ weight.T, rtol=1e-12, atol=1e-11)
        torch.testing.assert_close(product(upstream.T, x), upstream.T @ x, rtol=1e-12, atol=1e-11)
        y, dx, dweight = with_gradients(row_product, x, weight)
        expected = with_gradients(lambda a, b: a @ b.T, x, weight)
        for ours, theirs in zip((y, dx, dweight), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("shape", [(136, 256, 20), (127, 64, 35), (151, 255, 35), (20, 1, 3), (150, 64, 256)])
def test_reductions(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=source(1))
    bias = torch.randn(shape[2], generator=source(2))
    mask = torch.rand(shape[:2], generator=source(3)) < 0.9

    def compute() -> list[Tensor]:
        return [
            *with_gradients(softmax, x),
            *with_gradients(sum_first, x),
            *with_gradients(add_bias, x, bias),
            *with_gradients(lambda trace: reduce_trace(trace, "sum_softmax", mask=mask), x),
            *with_gradients(lambda trace: reduce_trace(trace, "mean"), x),
        ]

    same_for_all(compute)
    for ours, theirs in ((softmax, lambda a: torch.softmax(a, 2)), (sum_first, lambda a: a.sum(dim=0))):
        for a, b in zip(with_gradients(ours, x.double()), with_gradients(theirs, x.double()), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    expected = with_gradients(lambda a, b: a + b, x.double(), bias.double())
    for a, b in zip(with_gradients(add_bias, x.double(), bias.double()), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("shape", [(136, 256, 20), (151, 255, 35), (150, 64, 10)])
def test_losses(shape: tuple[int, int, int], probabilities: bool) -> None:
    trace = torch.randn(shape, generator=source(1))
    mask = torch.rand(shape[:2], generator=source(2)) < 0.9
    target = torch.randint(0, shape[2], shape[1:2], generator=source(3))
    if probabilities:
        target = torch.softmax(torch.randn(shape[1:], generator=source(3)), dim=1)

    def loss(x: Tensor) -> Tensor:
        output = Output(reduce_trace(x, "mean"), x, torch.zeros(0), [], ())
        each = [Loss(target, kind, 0.1).of_samples(output, mask, 5) for kind in ("per_step", "cross_entropy")]
        return torch.stack(each)

    same_for_all(lambda: with_gradients(loss, trace))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(200, 130, bias=True, generator=source()),
        lambda: DelayedLinear(200, 180, max_delay_steps=8, taps=2, bias=True, generator=source()),
        lambda: DelayedLinear(200, 180, max_delay_steps=8, per="axon", generator=source()),
        lambda: DelayedLinear(200, 180, max_delay_steps=8, per="dendrite", generator=source()),
        lambda: Recurrent(LIF(200, dt=1e-2, tau_mem=3e-2), learn_delay=True, delay_steps=3, generator=source()),
        lambda: Recurrent(LIF(200, dt=1e-2, tau_mem=3e-2), delay_steps=1, generator=source()),
    ],
)
def test_layers_and_their_optimiser(make: Callable[[], torch.nn.Module]) -> None:
    x = (torch.rand(50, 48, 200, generator=source(1)) < 0.3).float()

    def compute() -> list[Tensor]:
        layer = make().train()
        optimiser = Adam(layer.parameters(), lr=1e-2, weight_decay=1e-3)
        for _ in range(2):
            optimiser.zero_grad(set_to_none=True)
            y, _ = layer(x)
            (y * torch.randn(y.shape, generator=source(2))).sum().backward()
            gradients = [p.grad for p in layer.parameters() if p.grad is not None]
            optimiser.step()
        return [y.detach(), *gradients, *(value.detach() for value in layer.state_dict().values())]

    compute()  # compiled before it is compared
    same_for_all(compute)
