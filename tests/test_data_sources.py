"""Sources of spike trains: rates, intervals, counts, entropy rates, keys of the random numbers, files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from snnsim.cli.main import run
from snnsim.datasets import open_dataset
from snnsim.datasets.sources import SETS, Bernoulli, GammaRenewal, Markov, Poisson, Source, draw, make_sources
from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform

DT = 0.001
SOURCES: list[Source] = [
    Poisson(50.0),
    Poisson(80.0, dead_time=0.005),
    Bernoulli(0.1),
    Markov(0.05, 0.05),
    GammaRenewal(40.0, 4.0),
    GammaRenewal(40.0, 0.5),
]


def counts_of(source: Source, samples: int = 40, n_steps: int = 2000, units: int = 10) -> np.ndarray:
    events = draw(source, samples, n_steps=n_steps, n_units=units, dt=DT, seed=1)
    sample = np.repeat(np.arange(samples), events.counts)
    return np.bincount(sample * units + events.units, minlength=samples * units)


def intervals_of(source: Source) -> np.ndarray:
    events = draw(source, 6, n_steps=20_000, n_units=5, dt=DT, seed=2)
    parts = [np.diff(one.times[one.units == unit]) for one in events for unit in range(5)]
    return np.concatenate(parts)


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_the_rate_is_unbiased(source: Source) -> None:
    counts = counts_of(source)
    error = counts.mean() - 2000 * source.density(DT)
    assert abs(error) < 3 * counts.std() / counts.size**0.5


def test_a_poisson_step_has_the_exact_probability() -> None:
    assert Poisson(50.0).density(DT) == pytest.approx(0.0487706, abs=1e-7)
    assert Poisson(80.0, 0.005).density(DT) == pytest.approx(1 / (5 + 1 / -math.expm1(-0.08)))


def test_intervals_vary_as_they_should() -> None:
    cases: list[tuple[Source, float]] = [
        (Poisson(10.0), (1 - Poisson(10.0).density(DT)) ** 0.5),
        (GammaRenewal(40.0, 4.0), 0.5),
        (GammaRenewal(40.0, 1.0), 1.0),
    ]
    for source, expected in cases:
        intervals = intervals_of(source)
        assert intervals.std() / intervals.mean() == pytest.approx(expected, abs=0.03)
    dead = intervals_of(Poisson(80.0, 0.005))
    assert dead.min() == pytest.approx(0.006)
    assert dead.std() / dead.mean() < 0.75


def test_counts_vary_as_they_should() -> None:
    def fano(source: Source) -> float:
        counts = counts_of(source, 80)
        return float(counts.var() / counts.mean())

    assert fano(Poisson(50.0)) == pytest.approx(1 - Poisson(50.0).density(DT), abs=0.15)
    assert fano(GammaRenewal(40.0, 4.0)) == pytest.approx(0.25, abs=0.06)
    # variance a step of a chain: p q (1 + r) / (1 - r), r = 1 - alpha - beta
    assert fano(Markov(0.05, 0.05)) == pytest.approx(0.5 * 1.9 / 0.1, rel=0.2)


def test_trains_begin_stationary() -> None:
    for source in (Markov(0.02, 0.18), Poisson(80.0, 0.005), GammaRenewal(40.0, 4.0)):
        events = draw(source, 400, n_steps=10, n_units=10, dt=DT, seed=3)
        expected = 4000 * 5 * source.density(DT)
        first = np.count_nonzero(events.times < 0.0049999)
        assert abs(first - expected) < 4 * (5 * expected) ** 0.5
        assert abs(events.n_events - first - expected) < 4 * (5 * expected) ** 0.5


def test_a_rate_may_follow_a_function() -> None:
    source = Poisson(lambda t: 50 * (1 + np.sin(2 * np.pi * t)))
    events = draw(source, 50, n_steps=1000, n_units=10, dt=DT)
    found = np.histogram(events.times + 1e-6, bins=20, range=(0, 1))[0]
    expected = 500 * source.chances(1000, DT).reshape(20, 50).sum(axis=1)
    assert np.all(np.abs(found - expected) < 4.5 * np.sqrt(expected + 1))
    with pytest.raises(InputError, match="constant rate"):
        source.density(DT)
    with pytest.raises(InputError, match="at least 0"):
        draw(Poisson(lambda t: -t), 1)


@pytest.mark.parametrize("source", [Markov(0.05, 0.05), Markov(0.9, 0.7), Markov(0.3, 0.7), Markov(1.0, 0.0)])
def test_a_chain_follows_its_law_step_by_step(source: Markov) -> None:
    u = uniform(3, Stream.SOURCE, 9, np.arange(300)[:, None], np.arange(4)[None, :], 0)
    expected = np.zeros((300, 4), dtype=bool)
    for k in range(300):
        before = expected[k - 1]
        expected[k] = u[k] < (source.density(DT) if k == 0 else np.where(before, 1 - source.beta, source.alpha))
    assert np.array_equal(source.steps(3, 9, 300, 4, DT), expected)


def test_entropy_rates() -> None:
    assert Markov(0.05, 0.05).entropy_rate == pytest.approx(0.2864, abs=1e-4)
    assert Markov(0.3, 0.7).entropy_rate == pytest.approx(Bernoulli(0.3).entropy_rate)
    assert (Bernoulli(0.5).entropy_rate, Bernoulli(0.0).entropy_rate) == (1.0, 0.0)
    chain = Markov(0.1, 0.3).steps(4, 0, 60_000, 1, DT)[:, 0]
    pairs = np.bincount(2 * chain[:-1] + chain[1:], minlength=4) / (chain.size - 1)
    p = np.array([pairs[0] + pairs[1], pairs[2] + pairs[3]])
    measured = -np.sum(pairs * np.log2(pairs)) + np.sum(p * np.log2(p))
    assert measured == pytest.approx(Markov(0.1, 0.3).entropy_rate, abs=0.01)


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_a_sample_depends_on_nothing_but_its_number(source: Source) -> None:
    many = draw(source, 5, n_steps=200, n_units=3, dt=DT, seed=7)
    last = draw(source, 1, n_steps=200, n_units=3, dt=DT, seed=7, first_sample=4)
    assert np.array_equal(many[4].times, last.times)
    assert np.array_equal(many[4].units, last.units)
    narrow = draw(source, 5, n_steps=200, n_units=2, dt=DT, seed=7)
    assert np.array_equal(many[2].times[many[2].units < 2], narrow[2].times)
    other = draw(source, 5, n_steps=200, n_units=3, dt=DT, seed=8)
    assert many.n_events != other.n_events or not np.array_equal(many.times, other.times)


@pytest.mark.parametrize("kind", [name for name in SETS if name != "rates"])
def test_matched_sets_have_equal_densities(kind: str) -> None:
    densities = [source.density(DT) for source in SETS[kind][1](DT).values()]
    assert densities == pytest.approx([densities[0]] * len(densities))
    data = make_sources(kind, n_train=12, n_test=9, n_steps=300)
    assert data.test is not None
    assert data.train.labels.tolist() == [i % len(densities) for i in range(12)]
    assert not set(data.train.sample_ids) & set(data.test.sample_ids)
    assert not np.array_equal(data.train[0].times, data.test[0].times)


def test_files_hold_what_python_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "s")
    words = ["data", "make", "sources", "--out", out, "--set", "structure", "--channels", "3", "--train", "9"]
    assert run([*words, "--test", "6", "--steps", "200", "--seed", "5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["n_samples"], len(result["files"])) == (15, 2)
    made, read = make_sources("structure", n_train=9, n_test=6, n_steps=200, n_units=3, seed=5), open_dataset(out)
    assert made.test is not None
    assert read.test is not None
    for ours, stored in ((made.train, read.train), (made.test, read.test)):
        assert np.array_equal(ours.times, stored.times)
        assert np.array_equal(ours.units, stored.units)
        assert np.array_equal(ours.labels, stored.labels)
        assert np.array_equal(ours.duration, stored.duration)
        assert ours.class_names == stored.class_names
    assert run([*words]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sources", "--size", "small"], "--size: means nothing for sources"),
        (["sources", "--threads", "2"], "--threads: means nothing for sources"),
        (["spoken-digits", "--steps", "5"], "--steps: means nothing for spoken-digits"),
        (["sources", "--set", "all"], "known sets: markov-bernoulli"),
    ],
)
def test_options_that_do_nothing_are_refused(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "make", *words, "--out", str(tmp_path / "x")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_refusals() -> None:
    for call, sentence in (
        (lambda: Bernoulli(1.5), "expected a probability"),
        (lambda: Markov(0.0, 0.0), "above 0"),
        (lambda: Poisson(-1.0), "at least 0"),
        (lambda: Poisson(1.0, -1.0), "at least 0"),
        (lambda: GammaRenewal(0.0), "above 0"),
        (lambda: GammaRenewal(1.0, 0.0), "at least 0.05"),
        (lambda: draw([], 1), "sources: expected at least 1"),
        (lambda: draw(Bernoulli(0.1), 1, n_steps=0), "n_steps: expected at least 1"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()
