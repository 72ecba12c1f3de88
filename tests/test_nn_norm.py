"""Batch norm over time: torch's semantics, masks, folding, thread count, two processes."""

import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels import reference_neurons as reference
from snnsim.nn.context import Context
from snnsim.nn.norm import BatchNormTime


def layer(size: int, dtype: torch.dtype = torch.float64) -> BatchNormTime:
    module = BatchNormTime(size).to(dtype)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(0.5, 2, size))
        module.bias.copy_(torch.linspace(-1, 1, size))
    return module


def batch(steps: int, samples: int, units: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(steps, samples, units, dtype=dtype, generator=generator) + 2


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)])
def test_equals_torch_over_flattened_rows(dtype: torch.dtype, tolerance: float) -> None:
    ours, theirs = layer(7, dtype), torch.nn.BatchNorm1d(7).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    for seed in range(3):
        x = batch(40, 13, 7, dtype, seed).requires_grad_()
        up = batch(40, 13, 7, dtype, seed + 10)
        y, state = ours(x)
        want = theirs(x.reshape(-1, 7)).reshape(x.shape)
        assert state is None
        torch.testing.assert_close(y, want, rtol=tolerance, atol=tolerance)
        got_grads = torch.autograd.grad(y, [x, ours.weight, ours.bias], up)
        for a, b in zip(got_grads, torch.autograd.grad(want, [x, theirs.weight, theirs.bias], up), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * 10)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=tolerance, atol=1e-6)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x)[0], theirs(x.reshape(-1, 7)).reshape(x.shape), rtol=tolerance, atol=tolerance)


def test_padding_does_not_change_valid_steps() -> None:
    x = batch(12, 5, 3)
    n_steps = torch.tensor([12, 7, 1, 9, 12])
    mask = torch.arange(12)[:, None] < n_steps
    results = []
    for filler, extra in ((0.0, 0), (1e6, 0), (-3.0, 4)):
        module = layer(3)
        padded = torch.where(mask.unsqueeze(2), x, torch.full_like(x, filler))
        padded = torch.cat([padded, torch.full((extra, 5, 3), filler, dtype=x.dtype)]).requires_grad_()
        valid = torch.cat([mask, torch.zeros(extra, 5, dtype=torch.bool)])
        y, _ = module(padded, None, Context(mask=valid))
        (grad,) = torch.autograd.grad((y * valid.unsqueeze(2)).square().mul(batch(1, 5, 3)).sum(), padded)
        results.append((y[valid], grad[valid], module.running_mean, module.running_var))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    y = results[0][0] - torch.linspace(-1, 1, 3)
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-7)


def test_masked_gradients_equal_the_numpy_twin_and_pass_gradcheck() -> None:
    x = batch(5, 4, 3).requires_grad_()
    mask = torch.tensor(np.random.default_rng(0).random((5, 4)) < 0.6)
    module = layer(3)
    y, _ = module(x, None, Context(mask=mask))
    up = batch(5, 4, 3, seed=4)
    grads = torch.autograd.grad(y, [x, module.weight, module.bias], up)
    rows, valid = x.detach().reshape(-1, 3).numpy(), mask.reshape(-1).numpy()
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    want, _, variance = reference.batch_norm_forward(rows, valid, weight, bias, 1e-5)
    np.testing.assert_allclose(y.detach().reshape(-1, 3).numpy(), want, rtol=1e-12)
    back = reference.batch_norm_backward(rows, valid, up.reshape(-1, 3).numpy(), weight, 1e-5)
    for a, b in zip(grads, back, strict=True):
        np.testing.assert_allclose(a.reshape(b.shape).numpy(), b, rtol=1e-9, atol=1e-11)
    n = int(mask.sum())
    np.testing.assert_allclose(module.running_var.numpy(), 0.9 + 0.1 * variance * n / (n - 1), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda *a: module(a[0], None, Context(mask=mask))[0],
                                    (x, module.weight, module.bias))  # fmt: skip


def test_statistics_survive_a_large_offset_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 16, 2, generator=generator) + 1000.0
    y, _ = BatchNormTime(2)(x)
    assert y.detach().std(dim=(0, 1)).numpy() == pytest.approx([1.0, 1.0], abs=2e-4)
    assert y.detach().mean(dim=(0, 1)).numpy() == pytest.approx([0.0, 0.0], abs=1e-4)


def test_fold_is_the_affine_map_of_evaluation() -> None:
    module = layer(4)
    module(batch(20, 3, 4))
    module.eval()
    scale, shift = module.fold()
    x = batch(6, 2, 4, seed=8)
    assert scale.dtype == shift.dtype == np.float64
    np.testing.assert_allclose(module(x)[0].detach().numpy(), x.numpy() * scale + shift, rtol=1e-13, atol=1e-14)


def test_evaluation_has_gradients() -> None:
    module = layer(4)
    module(batch(20, 3, 4))
    module.eval()
    x = batch(3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: module(x)[0], (x, module.weight, module.bias))


def test_the_torch_path_of_other_devices_agrees() -> None:
    x = batch(8, 4, 3).requires_grad_()
    mask = torch.arange(8)[:, None] < torch.tensor([8, 5, 2, 7])
    one, two = layer(3), layer(3)
    y, _ = one(x, None, Context(mask=mask))
    z = two._forward_elsewhere(x, mask)
    torch.testing.assert_close(y, z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.running_var, two.running_var, rtol=1e-12, atol=1e-12)


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="expected size >= 1"):
        BatchNormTime(0)
    with pytest.raises(InputError, match=r"shape \(time, batch, 3\)"):
        BatchNormTime(3)(torch.zeros(2, 3, 4))
    with pytest.raises(InputError, match="expected a mask of shape"):
        BatchNormTime(3)(torch.zeros(2, 3, 3), None, Context(mask=torch.ones(3, 2, dtype=torch.bool)))
    with pytest.raises(InputError, match="at least 2 valid steps in a training batch, got 0"):
        BatchNormTime(3)(torch.zeros(2, 3, 3), None, Context(mask=torch.zeros(2, 3, dtype=torch.bool)))


WORKER = """
import sys, torch, torch.distributed as distributed
from snnsim.nn.context import Context
from snnsim.nn.norm import BatchNormTime
rank, out = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=sys.argv[3], rank=rank, world_size=2)
torch.manual_seed(0)
x, up = torch.randn(9, 6, 4, dtype=torch.float64) + 5, torch.randn(9, 6, 4, dtype=torch.float64)
mask = torch.arange(9)[:, None] < torch.tensor([9, 3, 5, 9, 8, 1])
mine = slice(0, 2) if rank == 0 else slice(2, 6)
module = BatchNormTime(4).double()
part = x[:, mine].contiguous().requires_grad_()
y, _ = module(part, None, Context(mask=mask[:, mine]))
y.backward(up[:, mine])
torch.save({"y": y.detach(), "grad": part.grad, "weight": module.weight.grad, "var": module.running_var}, out)
distributed.destroy_process_group()
"""


def test_two_processes_give_the_result_of_one(tmp_path: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / f"{rank}.pt"), f"tcp://127.0.0.1:{port}"],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.manual_seed(0)
    x, up = torch.randn(9, 6, 4, dtype=torch.float64) + 5, torch.randn(9, 6, 4, dtype=torch.float64)
    mask = torch.arange(9)[:, None] < torch.tensor([9, 3, 5, 9, 8, 1])
    module = BatchNormTime(4).double()
    x.requires_grad_()
    y, _ = module(x, None, Context(mask=mask))
    y.backward(up)
    torch.testing.assert_close(torch.cat([part["y"] for part in parts], dim=1), y.detach(), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(torch.cat([part["grad"] for part in parts], dim=1), x.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(parts[0]["weight"] + parts[1]["weight"], module.weight.grad, rtol=1e-11, atol=1e-12)
    assert torch.equal(parts[0]["var"], parts[1]["var"])
    torch.testing.assert_close(parts[0]["var"], module.running_var, rtol=1e-12, atol=1e-12)
