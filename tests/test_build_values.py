"""Weights and delays that are drawn: the moments of their laws, their bounds, their widths."""

import math

import numpy as np
import pytest

from snnsim.connect import Exponential, LogNormal, Normal, Uniform, all_to_all, fixed_total
from snnsim.errors import InputError
from snnsim.kernels.random_laws import cosine_of_word, log_of_word
from snnsim.network import Population
from snnsim.neurons import LIF

A = Population("a", 300, LIF())
B = Population("b", 170, LIF())


def test_logarithm_and_cosine_of_words_are_exact_to_some_last_places():
    words = np.random.default_rng(0).integers(0, 2**32, 20_000)
    words[:8] = [0, 1, 2**32 - 1, 2**32 - 2, 2**31, 2**31 - 1, 2**30, 3 * 2**30]
    x = (words + 0.5) / 2**32
    logarithm = np.array([log_of_word(int(word)) for word in words])
    cosine = np.array([cosine_of_word(int(word)) for word in words])
    assert np.max(np.abs(logarithm / np.log(x) - 1)) < 1e-15
    assert np.max(np.abs(cosine - np.cos(2 * np.pi * x))) < 2e-15


def test_values_are_the_same_on_every_machine():
    made = all_to_all(A, B, weight=Normal(1, 0.5, low=0), delay=Exponential(0.002, high=0.02), dt=1e-4, seed=8)
    assert made.weight.weight[[0, 1, 50_999]].tolist() == GOLDEN_WEIGHTS
    assert made.delay.values[[0, 1, 50_999]].tolist() == GOLDEN_STEPS
    assert float(made.weight.weight.sum(dtype=np.float64)) == GOLDEN_SUM


GOLDEN_WEIGHTS = [0.6879212260246277, 0.8886095285415649, 0.47847485542297363]
GOLDEN_STEPS = [1, 59, 3]
GOLDEN_SUM = 52592.377076470344

LAWS = [
    (Normal(2.0, 0.5), 2.0, 0.5),
    (Normal(-351.2, 35.1, high=0.0), -351.2, 35.1),
    (Normal(0.0, 1.0, low=0.0), math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)),
    (Uniform(-1.0, 3.0), 1.0, 4 / math.sqrt(12)),
    (LogNormal(0.0, 0.5), math.exp(0.125), math.exp(0.125) * math.sqrt(math.expm1(0.25))),
    (LogNormal(0.0, 0.5, scale=-2.0), -2 * math.exp(0.125), 2 * math.exp(0.125) * math.sqrt(math.expm1(0.25))),
    (Exponential(0.3), 0.3, 0.3),
    (Exponential(-0.3), -0.3, 0.3),
    (Normal(1.5, 0.0), 1.5, 0.0),
]


@pytest.mark.parametrize(("law", "mean", "sd"), LAWS, ids=str)
def test_weights_have_the_moments_of_their_law(law, mean, sd):
    made = all_to_all(A, B, weight=law, seed=6, dtype="float64")
    weight = made.weight.weight
    assert abs(weight.mean() - mean) <= 4 * sd / np.sqrt(weight.size)
    assert weight.std() == pytest.approx(sd, rel=0.02)
    low, high = law.law()[3:5]
    assert low <= weight.min() <= weight.max() <= high
    if sd:
        assert abs(np.corrcoef(weight[:-1], weight[1:])[0, 1]) < 4 / np.sqrt(weight.size)
    for dtype in ("float16", "float32"):
        narrow = all_to_all(A, B, weight=law, seed=6, dtype=dtype).weight.weight
        assert np.array_equal(narrow, weight.astype(dtype))


def test_weights_and_delays_are_independent():
    made = all_to_all(A, B, weight=Normal(0, 1), delay=Uniform(0, 0.02), dt=1e-4, seed=6)
    assert abs(np.corrcoef(made.weight.weight, made.delay.values)[0, 1]) < 4 / np.sqrt(made.n_synapses)


def test_weights_do_not_change_when_delays_do():
    law = Normal(0, 1, low=-1)
    made = [all_to_all(A, B, weight=law, dt=1e-4, delay=delay) for delay in (0.001, Normal(1e-3, 1e-3, low=1e-4))]
    assert made[0].weight.weight.tobytes() == made[1].weight.weight.tobytes()


def test_drawn_delays_follow_the_rule_of_the_microcircuit():
    dt, mean, sd = 1e-4, 0.75e-3, 0.375e-3
    made = fixed_total(A, B, 200_000, weight=1.0, delay=Normal(mean, sd, low=dt / 2), dt=dt, seed=1)
    steps = made.delay.values
    cdf = np.vectorize(lambda x: 0.5 * math.erfc(-(x - mean) / sd / math.sqrt(2)))
    edges = (np.arange(1, 25) - 0.5) * dt
    share = np.diff(cdf(edges)) / (1 - cdf(dt / 2))
    found = np.bincount(steps, minlength=25)[1:24] / steps.size
    assert steps.min() == 1
    assert np.abs(found - share).max() < 4 * np.sqrt(0.11 / steps.size)


def test_delays_take_one_byte_where_they_fit_and_two_where_not():
    short = fixed_total(A, B, 5000, weight=1.0, delay=Uniform(0.0, 0.02), dt=1e-4)
    long = fixed_total(A, B, 5000, weight=1.0, delay=Uniform(0.0, 0.06), dt=1e-4)
    assert (short.delay.values.dtype, long.delay.values.dtype) == (np.uint8, np.uint16)
    assert long.delay.values.max() > 590
    assert short.delay.values.min() == 1
    assert (
        fixed_total(A, B, 5000, weight=1.0, delay=Uniform(0, 0.02), dt=1e-4, min_delay_steps=0).delay.values.min() == 0
    )
    with pytest.raises(InputError, match="can be stored; set high, or use a larger dt"):
        fixed_total(A, B, 500, weight=1.0, delay=Exponential(10.0), dt=1e-4)
