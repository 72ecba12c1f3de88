"""Hair cell, fibres and bushy cell: closed forms, the law of the fibres, kernel against reference."""

import numpy as np
import pytest

from snnsim.kernels import cochlea as kernel
from snnsim.kernels import reference_cochlea as reference

HAIR, REST, BUSHY = kernel.HAIR.vector(), kernel.HAIR_REST, kernel.BUSHY.vector()


def one(value: int) -> np.uint64:
    return np.uint64(value)


def rate_of(counts: np.ndarray, seconds: float) -> float:
    return kernel.bushy_cell(counts, BUSHY)[1].sum() / counts.shape[0] / seconds


def test_mixer_has_the_known_answers_of_splitmix64() -> None:
    gamma = 0x9E3779B97F4A7C15
    found = [int(kernel.mix64(one(k * gamma % 2**64))) for k in (1, 2, 3)]
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_random_numbers_equal_the_reference_and_are_uniform() -> None:
    for seed, unit in ((0, 0), (1, 0), (2**63 + 7, 699)):
        key = kernel.stream_key(one(seed), one(unit))
        found = [kernel.uniform53(key, one(t)) for t in range(50)]
        assert found == reference.random_numbers(seed, unit, 50).tolist()
    many = reference.random_numbers(3, 5, 20_000)
    assert many.mean() == pytest.approx(0.5, abs=0.01)
    assert np.corrcoef(many[1:], many[:-1])[0, 1] == pytest.approx(0, abs=0.03)


def test_rest_is_the_fixed_point() -> None:
    q, c, w = REST
    assert c == pytest.approx(1.295354397e-3, rel=1e-9)
    assert q == pytest.approx(0.358735447, rel=1e-8)
    assert w == pytest.approx(0.1285585511, rel=1e-9)
    p = kernel.hair_cell(np.zeros((3, 20_000), dtype=np.float32), HAIR, REST)
    assert 24_000 * p[0, 0] == pytest.approx(64.767720, rel=1e-7)
    np.testing.assert_allclose(p, kernel.HAIR.h * c / 24_000, rtol=1e-11)


@pytest.mark.parametrize(
    ("velocity", "onset", "at", "after_10_ms", "after_50_ms", "steady"),
    [
        (5.0, 125.72, 10, 103.41, 88.37, 78.642),
        (20.0, 291.01, 8, 146.92, 109.93, 90.241),
        (100.0, 901.77, 6, 150.48, 122.99, 97.549),
        (1000.0, 2306.07, 4, 154.54, 126.70, 99.811),
    ],
)
def test_a_step_of_the_membrane_adapts(
    velocity: float, onset: float, at: int, after_10_ms: float, after_50_ms: float, steady: float
) -> None:
    rate = 24_000 * kernel.hair_cell(np.full((1, 48_000), velocity), HAIR, REST)[0]
    assert int(np.argmax(rate)) == at
    assert rate[at] == pytest.approx(onset, abs=0.006)
    assert rate[240] == pytest.approx(after_10_ms, abs=0.006)
    assert rate[1200] == pytest.approx(after_50_ms, abs=0.006)
    assert rate[-1] == pytest.approx(steady, abs=0.001)
    h = kernel.HAIR
    k = h.g * (velocity + h.a) / (velocity + h.a + h.b)
    assert rate[-1] == pytest.approx(h.h * h.y * k / (h.l * k + h.y * (h.l + h.r)), rel=1e-6)


def test_a_membrane_that_moves_away_releases_nothing() -> None:
    rate = kernel.hair_cell(np.full((1, 2000), -5.0), HAIR, REST)[0]
    assert rate[-1] < 1e-12
    assert (rate >= 0).all()


@pytest.mark.parametrize("n_places", [1, 7, 8, 9, 20])
def test_hair_cell_equals_the_reference(n_places: int) -> None:
    velocity = np.random.default_rng(0).normal(0, 60, (n_places, 500)).astype(np.float32)
    np.testing.assert_allclose(kernel.hair_cell(velocity, HAIR, REST), reference.hair_cell(velocity), rtol=1e-12)


def test_fibres_equal_the_reference() -> None:
    p = np.random.default_rng(1).uniform(0, 0.12, (3, 400))
    units = np.array([0, 5, 699])
    np.testing.assert_array_equal(kernel.fibres(p, one(9), units), reference.fibres(p, 9, units))


def test_fibres_never_fire_more_than_there_are() -> None:
    for p in (0.02, 0.12, 0.9, 1.0):
        counts = kernel.fibres(np.full((2, 3000), p), one(3), np.arange(2))
        windows = np.lib.stride_tricks.sliding_window_view(counts, kernel.DEAD_SAMPLES, axis=1).sum(axis=2)
        assert windows.max() <= kernel.N_FIBRES
    assert counts[0, :49].nonzero()[0].tolist() == [0, 24, 48]  # certain firing: volleys of all fibres
    assert counts[0, 0] == 40


def test_the_binomial_shortcut_has_the_law_of_forty_fibres() -> None:
    p = np.full((50, 20_000), 0.02)
    drawn = kernel.fibres(p, one(4), np.arange(50))[:, 100:]
    explicit = reference.fibres_explicit(p[:10, :4000], np.random.default_rng(5))[:, 100:]
    expected = 40 * 0.02 / (1 + 23 * 0.02)  # renewal process with dead time
    assert drawn.mean() == pytest.approx(expected, rel=0.005)
    assert explicit.mean() == pytest.approx(expected, rel=0.02)

    def blocks(counts: np.ndarray) -> np.ndarray:
        n = counts.shape[1] // 24 * 24
        return counts[:, :n].reshape(counts.shape[0], -1, 24).sum(axis=2)

    assert drawn.var() == pytest.approx(explicit.var(), rel=0.04)
    assert blocks(drawn).var() == pytest.approx(blocks(explicit).var(), rel=0.08)
    top = 6
    observed = np.bincount(np.minimum(explicit.ravel(), top), minlength=top + 1)
    share = np.bincount(np.minimum(drawn.ravel(), top), minlength=top + 1) / drawn.size
    chi2 = ((observed - share * explicit.size) ** 2 / (share * explicit.size)).sum()
    assert chi2 < 30  # 6 degrees of freedom; neighbouring counts are a little dependent


def test_one_fibre_spike_raises_the_bushy_cell_by_its_known_amount() -> None:
    counts = np.zeros((1, 200), dtype=np.int64)
    counts[0, 0] = 1
    potential, spikes = reference.bushy_cell(counts)
    assert potential.max() == pytest.approx(0.0864643, abs=1e-7)
    assert int(np.argmax(potential)) == 16
    assert not spikes.any()


@pytest.mark.parametrize(("together", "expected"), [(11, 0), (12, 1), (40, 2)])
def test_twelve_fibres_together_fire_the_bushy_cell(together: int, expected: int) -> None:
    counts = np.zeros((1, 400), dtype=np.int64)
    counts[0, 10] = together
    samples, numbers = kernel.bushy_cell(counts, BUSHY)
    assert numbers.tolist() == [min(expected, len(samples))]
    assert (len(samples) > 0) == (expected > 0)
    assert (np.diff(samples) >= 25).all()


def test_a_threshold_reached_in_the_last_sample_is_no_spike() -> None:
    counts = np.zeros((1, 100), dtype=np.int64)
    counts[0, 10] = 40
    first = int(kernel.bushy_cell(counts, BUSHY)[0][0])
    assert kernel.bushy_cell(counts[:, : first + 1], BUSHY)[0].size == 0
    assert kernel.bushy_cell(counts[:, : first + 2], BUSHY)[0].tolist() == [first]


@pytest.mark.parametrize("mean", [0.05, 0.3, 2.0])
def test_bushy_cell_equals_the_reference(mean: float) -> None:
    counts = np.random.default_rng(6).poisson(mean, (5, 3000))
    place, sample = np.nonzero(reference.bushy_cell(counts)[1])
    samples, numbers = kernel.bushy_cell(counts, BUSHY)
    assert samples.tolist() == sample.tolist()
    assert numbers.tolist() == np.bincount(place, minlength=5).tolist()
    assert samples.size > 0 or mean < 0.1


@pytest.mark.parametrize(
    ("rate", "low", "high"), [(60, 0.1, 0.7), (80, 4.4, 6.4), (100, 25, 29), (150, 162, 170), (200, 304, 312)]
)
def test_output_rate_of_the_bushy_cell(rate: float, low: float, high: float) -> None:
    counts = kernel.fibres(np.full((200, 24_000), rate / 24_000), one(7), np.arange(200))
    assert low < rate_of(counts, 1.0) < high


def test_silence_gives_the_spontaneous_rate() -> None:
    velocity = np.zeros((700, 24_000), dtype=np.float32)
    rates = [
        kernel.cochlea(velocity, 24_000, one(seed), np.arange(700), HAIR, REST, BUSHY)[0].size / 700
        for seed in (0, 1, 2)
    ]
    assert np.mean(rates) == pytest.approx(0.78, abs=0.06)


def test_the_fused_kernel_is_its_stages_and_the_reference() -> None:
    velocity = np.random.default_rng(8).normal(0, 80, (11, 1500)).astype(np.float32)
    units = np.arange(100, 111)
    samples, numbers = kernel.cochlea(velocity, 1400, one(12), units, HAIR, REST, BUSHY)
    stages = kernel.bushy_cell(kernel.fibres(kernel.hair_cell(velocity[:, :1400], HAIR, REST), one(12), units), BUSHY)
    plain = reference.cochlea(velocity, 1400, 12, units)
    assert samples.size > 20
    for other in (stages, plain):
        np.testing.assert_array_equal(samples, other[0])
        np.testing.assert_array_equal(numbers, other[1])
