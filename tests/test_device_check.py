"""The pretended device refuses what a GPU refuses, allows what it allows, and computes the same numbers."""

import numpy as np
import pytest
import torch
from device_check import DeviceMismatchError, DeviceTensor, pretended_device
from numba import cuda
from torch import nn

from snnsim.kernels.cuda_support import launch
from snnsim.nn.cuda import as_cuda, current_stream, on_cuda, use_device

GPU = torch.device("cuda", 0)


@cuda.jit
def _double(x):
    i = cuda.grid(1)
    if i < x.shape[0]:
        x[i] = x[i] + x[i]


def test_a_tensor_says_where_it_is():
    with pretended_device():
        x = torch.ones(3).to(GPU)
        assert isinstance(x, DeviceTensor)
        assert x.device == GPU
        assert x.is_cuda
        assert on_cuda(x)
        assert (x * 2).device == x.new_zeros(2).device == torch.zeros_like(x).device == GPU
        assert torch.zeros(2).device.type == "cpu"
        assert x.to(GPU).is_cuda
        assert not x.cpu().is_cuda
        assert not on_cuda(x.cpu())
        assert x.double().sum().item() == 3.0


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) * x,
        lambda x: torch.stack([x, torch.ones(3)]),
        lambda x: torch.where(torch.ones(3, dtype=torch.bool), x, 0.0),
        lambda x: torch.mm(torch.ones(2, 3), x.view(3, 1)),
        lambda x: x.masked_fill(torch.ones(3, dtype=torch.bool), 0.0),
        lambda x: torch.ones(3)[x.long()],
        lambda x: x.numpy(),
        lambda x: x.detach().numpy(),
        lambda x: np.asarray(x),
        lambda x: x.pin_memory(),
        lambda x: nn.Linear(3, 2)(x),
        lambda x: x.add_(torch.ones(3)),
    ],
)
def test_what_a_gpu_refuses_is_refused(mistake):
    with pretended_device():
        x = torch.ones(3).to(GPU)
        with pytest.raises(DeviceMismatchError):
            mistake(x)


def test_what_a_gpu_allows_is_allowed():
    with pretended_device() as watch:
        x = torch.ones(3).to(GPU)
        x.copy_(torch.arange(3.0))
        assert (x + torch.tensor(1.0)).tolist() == [1.0, 2.0, 3.0]
        assert x[torch.tensor([2, 0])].tolist() == [2.0, 0.0]
        x[0] = 5.0
        assert x.tolist() == [5.0, 1.0, 2.0]
        assert sum(watch.uploads.values()) == 3


@pytest.mark.parametrize(
    "question",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool((x > 0).any()),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.tolist(),
        lambda x: torch.equal(x, x),
        lambda x: torch.zeros(3).copy_(x),
    ],
)
def test_what_waits_for_the_device_is_counted(question):
    with pretended_device() as watch:
        x = torch.ones(3).to(GPU)
        x.add_(1.0).clamp_(max=1.5)
        assert sum(watch.waits.values()) == 0
        question(x)
        assert sum(watch.waits.values()) == 1


def test_a_module_trains_to_the_same_numbers():
    def train(device):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).to(device)
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(3):
            x = torch.randn(6, 4).to(device)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 0, 1, 0, 1], device=device)).backward()
            optimiser.step()
        assert all(value.device == torch.device(device) for value in model.state_dict().values())
        return [value.cpu() for value in model.state_dict().values()]

    expected = train("cpu")
    with pretended_device():
        found = train(GPU)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_kernels_run_on_the_numbers_of_a_tensor():
    with pretended_device(), use_device("cuda") as device:
        assert device == GPU
        x = torch.arange(5.0, device=device)
        launch(_double, 5, (as_cuda(x),), current_stream(x))
        assert x.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
        with pytest.raises(DeviceMismatchError, match="got a tensor of the CPU"):
            cuda.as_cuda_array(torch.ones(2))


def test_outside_the_block_everything_is_as_before():
    with pretended_device():
        pass
    assert not torch.cuda.is_available()
    with pytest.raises((AssertionError, RuntimeError), match="CUDA"):
        torch.zeros(2, device="cuda")
