"""Random numbers on a CUDA device, in Numba's simulator: the words, counts and masks of the CPU."""

import numpy as np
import pytest
import torch
from numba import cuda

from snnsim.kernels.cuda_dropout import dropout_factors
from snnsim.kernels.cuda_poisson import draw_counts
from snnsim.kernels.cuda_support import SIMULATED, device_array, launch
from snnsim.kernels.philox import Stream, philox4x32, philox_words, uniform, uniform_scalar
from snnsim.kernels.poisson import poisson_counts, thresholds
from snnsim.nn.context import Context
from snnsim.nn.cuda import simulated_device
from snnsim.nn.dropout import SequenceDropout

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")


@cuda.jit
def _words(counter, key, out):
    i = cuda.grid(1)
    if i < out.shape[0]:
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = philox_words(
            counter[i, 0], counter[i, 1], counter[i, 2], counter[i, 3], key[i, 0], key[i, 1]
        )


@cuda.jit
def _numbers(seed, steps, units, flat):
    i = cuda.grid(1)
    if i < flat.shape[0]:
        flat[i] = uniform_scalar(seed, 40, 7, steps[i], units[i], 3)


def test_known_answers():
    """The vectors that come with the generator's source, and the CPU's words for counters at random."""
    every = 0xFFFFFFFF
    counters = [[0] * 4, [every] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]]
    keys = [[0, 0], [every, every], [0xA4093822, 0x299F31D0]]
    expected = [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]
    rng = np.random.default_rng(3)
    some = rng.integers(0, 2**32, (20, 6))
    counters += [*some[:, :4].tolist(), [2**32 + 5, -1, 2**40, 7]]
    keys += [*some[:, 4:].tolist(), [-3, 2**33 + 1]]
    expected += [list(philox4x32(tuple(c), tuple(k))) for c, k in zip(counters[3:], keys[3:], strict=True)]
    out = device_array(np.zeros((len(keys), 4), np.uint64))
    launch(_words, len(keys), (device_array(np.array(counters)), device_array(np.array(keys)), out))
    assert out.copy_to_host().tolist() == expected


def test_uniform_numbers_are_those_of_the_cpu():
    rng = np.random.default_rng(4)
    steps, units = rng.integers(0, 2**31, (2, 30))
    flat = device_array(np.zeros(30))
    launch(_numbers, 30, (11, device_array(steps), device_array(units), flat))
    assert np.array_equal(flat.copy_to_host(), uniform(11, 40, 7, steps, units, 3))


def drawn_counts(n_rows, means, row, begun=0):
    """Return what the kernel draws for sample 5, stimulus 2 and seed 6, from step ``begun`` on."""
    table = thresholds(means)
    out = device_array(np.zeros(n_rows * row.size, np.uint8))
    some = [device_array(np.array([value], np.int64)) for value in (5, 0)]
    numbers = (device_array(table.reshape(-1)), table.shape[1], device_array(row.astype(np.int32)), 6, 43, 2)
    launch(
        draw_counts,
        (n_rows // 4 + 2) * row.size,
        (out, 0, row.size, *numbers, *some, begun, n_rows, 1, False),
    )
    return out.copy_to_host().reshape(n_rows, row.size)


@pytest.mark.parametrize("begun", [0, 3])
def test_poisson_counts_are_those_of_the_cpu(begun):
    means, row = np.array([0.0, 0.3, 4.0]), np.array([0, 1, 2, 2, 1])
    counts = drawn_counts(9, means, row, begun)
    assert np.array_equal(counts, poisson_counts(6, 43, 5, 9 + begun, 2, 5, means[row])[begun:])
    assert counts.max() > 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_masks_are_those_of_the_cpu(dtype):
    layer = SequenceDropout(0.37, layer=2)
    context = Context(sample_id=torch.tensor([5, 70_000, 2]), seed=9, epoch=4)
    x = torch.ones(2, 3, 11, dtype=dtype)
    expected, _ = layer(x, None, context)
    with simulated_device():
        factors = layer.factors(context, x)
        found, _ = layer(x, None, context)
        masks = layer.mask(context, 3, 11)
    assert factors.dtype == dtype
    assert torch.equal(found, expected)
    assert torch.equal(factors, masks.to(dtype))
    assert 0 < int((factors == 0).sum()) < factors.numel()
    with simulated_device():
        layer.p = 0.0
        assert layer.factors(context, x) is None


def test_the_stream_of_dropout_separates_it_from_others():
    sample = torch.arange(8)
    out = np.zeros((8, 4))
    one, other = device_array(out), device_array(out)
    for stream, there in ((Stream.DROPOUT, one), (Stream.NOISE, other)):
        arguments = (sample.numpy(), 0, int(stream), 0, 0, 0.5, 2.0, there)
        launch(dropout_factors, 32, arguments)
    assert not np.array_equal(one.copy_to_host(), other.copy_to_host())
