"""Edges of the fast paths: nothing at all, wrong shapes, other dtypes, frozen parts: numbers or a sentence."""

import gc
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels import lanes
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.frequency import frequency_delay
from snnsim.nn.inference import infer
from snnsim.nn.memory import BufferPool
from snnsim.nn.model import Block, build_model
from snnsim.nn.neurons import LIF
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.products import row_product
from snnsim.recipes import load_recipe


@pytest.mark.parametrize("delays", [1, 4, 31])
def test_no_steps_and_no_samples(delays: int) -> None:
    kernel = torch.randn(delays, 3, 5, requires_grad=True)
    for shape in ((0, 2, 5), (10, 0, 5), (0, 0, 5)):
        x = torch.zeros(shape, requires_grad=True)
        y = frequency_delay(x, kernel)
        assert y.shape == (*shape[:2], 3)
        gradient = torch.autograd.grad(y.sum(), kernel, allow_unused=True)[0]
        assert gradient is None or not gradient.any()
    layer = DelayedLinear(20, 20, max_delay_steps=30).train()
    for _ in range(20):
        y, state = layer(torch.zeros(0, 4, 20))
        assert (y.shape, state.shape) == ((0, 4, 20), (30, 4, 20))
    assert row_product(torch.zeros(0, 4), torch.randn(3, 4)).shape == (0, 3)


def test_no_samples_in_evaluation() -> None:
    recipe = load_recipe("shd-lif", ["model.hidden=[8]"])
    model = build_model(recipe.model, 6, 3, recipe.data.dt).eval()
    assert infer(model, torch.zeros(5, 0, 6)).logits.shape == (0, 3)
    assert model(torch.zeros(5, 0, 6)).logits.shape == (0, 3)


def test_shapes_that_do_not_fit_are_sentences() -> None:
    block = Block(Linear(6, 8), LIF(8, dt=0.01)).train()
    x = torch.rand(5, 40, 6)
    state = (None, LIF(8, dt=0.01).initial_state(2))
    with pytest.raises(InputError, match=r"state: expected shape \(40, 8\), got \(2, 8\)"):
        block.run_fused(x, state)
    with pytest.raises(InputError, match=r"mask: expected shape \(5, 40\), got \(4, 40\)"):
        block.run_fused(x, None, Context(torch.ones(4, 40, dtype=torch.bool)))
    with pytest.raises(InputError, match=r"LIF\(4\): expected input of shape"):
        Block(Linear(6, 8), LIF(4, dt=0.01)).train().run_fused(x)


def test_other_dtypes() -> None:
    x = torch.poisson(torch.full((9, 2, 6), 0.5))
    for layer in (Linear(6, 4).train(), DelayedLinear(6, 4, max_delay_steps=3).train()):
        wide, _ = layer(x.double())
        assert wide.dtype == torch.float64
        torch.testing.assert_close(wide.float(), layer(x)[0])
        for kind in (torch.int64, torch.bfloat16):
            with pytest.raises(InputError, match="expected input of float32 or float64"):
                layer(x.to(kind))


def test_a_frozen_batch_norm_stays_as_it_is_in_training() -> None:
    norm = BatchNormTime(8)
    block = Block(Linear(6, 8), LIF(8, dt=0.01), norm=norm).train()
    x = torch.rand(9, 3, 6)
    assert block.fuses(x)
    norm.eval()
    assert not block.fuses(x)
    norm.train()
    handle = block.neuron.register_forward_hook(lambda *_: None)
    assert not block.fuses(x)
    handle.remove()
    assert block.fuses(x)


def test_memory_is_never_lent_twice_when_a_collection_runs_in_between() -> None:
    pool = BufferPool(1 << 20)

    def garbage() -> None:
        cycle: list[object] = [pool.take((50,), torch.float32)]
        cycle.append(cycle)

    gc.collect()
    gc.disable()
    try:
        kept = []
        for k in range(300):
            garbage()
            kept.append(pool.take((k % 7 + 1,), torch.float32).fill_(k))
            if k % 5 == 0:
                gc.collect()
            if k % 3 == 0:
                kept.pop(len(kept) // 2)
    finally:
        gc.enable()
    starts = sorted((tensor.data_ptr(), tensor.nbytes) for tensor in kept)
    assert all(a + size <= b for (a, size), (b, _) in pairwise(starts))
    kept.clear()
    gc.collect()
    assert pool.lent_bytes == 0


class Watched(Iterator[tuple[int, int]]):
    """Ranges that say when nobody will get another one."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.left = iter(ranges)
        self.exhausted = threading.Event()

    def __next__(self) -> tuple[int, int]:
        try:
            return next(self.left)
        except StopIteration:
            self.exhausted.set()
            raise


class Pieces(list[tuple[int, int]]):
    """A list whose iterator is watched."""

    def __iter__(self) -> Watched:
        self.watched = Watched(self[:])
        return self.watched


def test_after_an_error_no_piece_is_begun_and_all_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces([(k, k + 1) for k in range(1000)])
    monkeypatch.setattr(lanes, "lane_ranges", lambda *_: pieces)
    begun: list[int] = []
    ended: list[int] = []
    other = threading.Event()

    def work(start: int, stop: int) -> None:
        begun.append(start)
        if start == 0:
            assert other.wait(30)  # until the second thread is at work
            raise RuntimeError("the first piece fails")
        other.set()
        assert pieces.watched.exhausted.wait(30)  # until nothing is left to begin
        ended.append(start)

    with pytest.raises(RuntimeError, match="first piece"):
        lanes.run_ranges(work, (), 1000, 2, 1)
    assert sorted(begun) == [0, 1]
    assert ended == [1]


def test_samples_and_units_do_not_disturb_each_other() -> None:
    x = torch.zeros(40, 3, 6)
    x[:, 0] = (torch.rand(40, 6) < 0.2).float()
    alone = x.clone()
    x[:, 1] = 1e6
    x[:, 2] = float("nan")
    kernel = torch.randn(5, 4, 6)
    assert torch.equal(frequency_delay(x, kernel)[:, 0], frequency_delay(alone, kernel)[:, 0])
