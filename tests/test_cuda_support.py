"""What CUDA kernels stand on, in Numba's simulator; and what is said where there is no device."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import cuda

from snnsim.device import check_device, cuda_problem
from snnsim.errors import InputError
from snnsim.kernels.cuda_support import SIMULATED, blocks_of, device_array, launch, times
from snnsim.nn.cuda import as_cuda, full_precision, on_cuda, simulated_device, use_device

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")


@cuda.jit
def _fused_or_not(a, b, c, out):
    i = cuda.grid(1)
    if i < out.shape[0]:
        out[i] = times(a[i], b[i]) + c[i]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_launch_covers_every_item_once(n):
    out = np.full(n + 3, -1.0)
    a = np.arange(n + 3.0)
    there = device_array(out)
    launch(_fused_or_not, n, (device_array(a), device_array(a), device_array(a), there), width=4)
    width = blocks_of(n, 4) * 4 if n else 0
    expected = np.where(np.arange(n + 3) < width, a * a + a, -1.0)
    assert np.array_equal(there.copy_to_host(), expected)


def test_tensors_share_their_memory_with_kernels():
    x = torch.zeros(3, 2)
    as_cuda(x)[1, 1] = 5.0
    assert float(x[1, 1]) == 5.0
    with pytest.raises(InputError, match="contiguous tensor, got strides"):
        as_cuda(x.t())


def test_the_simulator_stands_for_a_device_only_inside_the_block():
    x = torch.zeros(1)
    assert not on_cuda(x)
    with simulated_device():
        assert on_cuda(x)
    with use_device("cuda") as device:
        assert device.type == "cpu"
        assert on_cuda(x)
    with use_device("cpu"):
        assert not on_cuda(x)
    assert not on_cuda(x)


def test_tf32_is_off_only_inside_the_block():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_other_devices_are_refused():
    with pytest.raises(InputError, match="device: expected 'cpu' or 'cuda', got 'tpu'"):
        check_device("tpu")
    assert cuda_problem() is None


SENTENCE = """
from snnsim.device import cuda_problem
problem = cuda_problem()
print("usable" if problem is None else problem)
"""


def test_without_the_simulator_one_sentence_says_why():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run([sys.executable, "-c", SENTENCE], env=environment, capture_output=True, text=True, check=True)
    said = run.stdout.strip()
    assert run.stderr == ""
    assert said != "usable"
    assert said.count("\n") == 0
    assert any(part in said for part in ("NVIDIA driver", "GPU", "NVVM"))
    assert "use the CPU" in said or "update" in said
