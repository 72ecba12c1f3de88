"""Random numbers on a CUDA device, in Numba's simulator: the words, counts and masks of the CPU."""

import numpy as np
import pytest
import torch
from numba import cuda

from snnsim.kernels.cuda_philox import dropout_factors, normal_scalar, philox_words, poisson_count, uniform_scalar
from snnsim.kernels.cuda_support import SIMULATED, device_array, launch
from snnsim.kernels.philox import Stream, normal, philox4x32, uniform
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
def _numbers(seed, steps, units, flat, gauss):
    i = cuda.grid(1)
    if i < flat.shape[0]:
        flat[i] = uniform_scalar(seed, 40, 7, steps[i], units[i], 3)
        gauss[i] = normal_scalar(seed, 40, 7, steps[i], units[i], 3)


@cuda.jit
def _counts(seed, table, row, out):
    i = cuda.grid(1)
    if i < out.size:
        step, unit = i // out.shape[1], i % out.shape[1]
        out[step, unit] = poisson_count(seed, 43, 5, step, unit, 2, table, row[unit])


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


def test_uniform_numbers_are_those_of_the_cpu_and_normal_ones_up_to_the_last_bits():
    rng = np.random.default_rng(4)
    steps, units = rng.integers(0, 2**31, (2, 30))
    flat, gauss = device_array(np.zeros(30)), device_array(np.zeros(30))
    launch(_numbers, 30, (11, device_array(steps), device_array(units), flat, gauss))
    assert np.array_equal(flat.copy_to_host(), uniform(11, 40, 7, steps, units, 3))
    np.testing.assert_allclose(gauss.copy_to_host(), normal(11, 40, 7, steps, units, 3), rtol=1e-12, atol=1e-14)


def test_poisson_counts_are_those_of_the_cpu():
    means = np.array([0.0, 0.3, 4.0])
    row = np.array([0, 1, 2, 2, 1])
    out = device_array(np.zeros((9, 5), np.int64))
    launch(_counts, 45, (6, device_array(thresholds(means)), device_array(row), out))
    counts = out.copy_to_host()
    assert np.array_equal(counts, poisson_counts(6, 43, 5, 9, 2, 5, means[row]))
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
