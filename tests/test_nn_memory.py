"""Memory for large tensors: no two tensors share it, and it comes back when nothing refers to it."""

import gc
import random

import torch

from snnsim.nn.memory import BufferPool


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    pool = BufferPool(1 << 20)
    first = pool.take((10, 10), torch.float32)
    address = first.data_ptr()
    view = first[3:].reshape(-1)
    del first
    assert pool.lent_bytes == 448
    assert pool.take((10, 10), torch.float32).data_ptr() != address
    array = view.numpy()
    del view
    array[:] = 1
    assert pool.lent_bytes == 448
    del array
    assert pool.lent_bytes == 0
    assert pool.take((3, 5), torch.float64).data_ptr() == address


def test_tensors_never_overlap_and_neighbours_grow_together() -> None:
    pool = BufferPool(1 << 16)
    draw = random.Random(0)
    alive: dict[int, torch.Tensor] = {}
    for k in range(3000):
        if alive and draw.random() < 0.5:
            value, tensor = alive.popitem() if draw.random() < 0.5 else next(iter(alive.items()))
            alive.pop(value, None)
            assert (tensor == value).all()
            del tensor
        else:
            alive[k] = pool.take((draw.randrange(0, 3000),), torch.float32).fill_(k)  # some do not fit in
    assert all(bool((tensor == value).all()) for value, tensor in alive.items())
    alive.clear()
    tensor = torch.empty(0)
    gc.collect()
    assert pool.lent_bytes == 0
    whole = pool.take((1 << 16,), torch.uint8)
    assert pool.lent_bytes == 1 << 16
    assert pool.take((4,), torch.float32).fill_(1).sum() == 4
    assert whole.shape == (1 << 16,)


def test_a_pool_without_room_gives_ordinary_tensors() -> None:
    pool = BufferPool(0)
    assert pool.take((5, 2), torch.float32).shape == (5, 2)
    assert pool.lent_bytes == 0


def test_graphs_hold_their_memory() -> None:
    pool = BufferPool(1 << 20)
    x = pool.take((100,), torch.float32).fill_(2).requires_grad_()
    y = (x * x).sum()
    del x
    assert pool.lent_bytes > 0
    del y
    gc.collect()
    assert pool.lent_bytes == 0
