"""Philox4x32-10 against the published known answers and against its NumPy definition."""

import numpy as np
import pytest

from snnsim.kernels.philox import Stream, normal, philox4x32, uniform
from snnsim.kernels.reference_philox import philox_reference, uniform_reference

# Known answers of the generator's authors (Random123, kat_vectors, philox4x32 10).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    assert philox4x32(counter, key) == words
    assert tuple(int(word) for word in philox_reference(counter, key)) == words


def test_kernel_equals_reference_on_broadcast_arrays():
    sample = np.arange(5)[:, None, None]
    step = np.arange(7)[None, :, None]
    unit = np.array([0, 1, 2**31, 2**32 - 1])
    ours = uniform(11, Stream.NOISE, sample, step, unit, 3)
    assert ours.shape == (5, 7, 4)
    assert np.array_equal(ours, uniform_reference(11, int(Stream.NOISE), sample, step, unit, 3))
    assert ours[3, 2, 1] == uniform(11, Stream.NOISE, 3, 2, 1, 3)


def test_every_word_of_key_and_counter_matters():
    first = uniform(1, 2, 3, 4, 5, 6)
    for place in range(6):
        words = [1, 2, 3, 4, 5, 6]
        words[place] += 1
        assert uniform(*words) != first


def test_uniform_fills_the_unit_interval():
    draws = uniform(5, Stream.TOY, unit=np.arange(200_000))
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 10_000).max() < 500
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.01


def test_normal_has_the_moments_of_a_standard_normal():
    draws = normal(5, Stream.NOISE, unit=np.arange(200_000))
    assert abs(draws.mean()) < 0.01
    assert abs(draws.std() - 1) < 0.01
    assert abs((draws**4).mean() - 3) < 0.1


def test_streams_have_distinct_numbers():
    assert len({int(stream) for stream in Stream}) == len(list(Stream))


def test_negative_words_count_modulo_two_to_the_32():
    assert uniform(-1, 0, -2) == uniform(2**32 - 1, 0, 2**32 - 2)


def test_floats_are_refused():
    with pytest.raises(TypeError, match="expected integers"):
        uniform(1, 2, 0.5)
