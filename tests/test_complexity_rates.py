"""Entropy rates against known truths, features, the classifier, and the claim: complexity sees what rates do not."""

import json
from pathlib import Path

import numpy as np
import pytest

from snnsim.complexity import block_entropy_rate, lz_complexity, lz_entropy_rate, match_entropy_rate
from snnsim.complexity_classifier import LZClassifier, lz_features
from snnsim.datasets.sources import Bernoulli, Markov, make_sources
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events, bin_events


@pytest.mark.parametrize("source", [Bernoulli(0.5), Bernoulli(0.2), Markov(0.05, 0.05)])
def test_estimates_are_near_the_truth(source: Bernoulli | Markov) -> None:
    strings = np.stack([source.steps(3, i, 4000, 1, 0.001)[:, 0] for i in range(6)]).astype(np.uint16)
    truth = source.entropy_rate
    assert abs(lz_entropy_rate(strings, "none", alphabet=2).mean() - truth) < 0.06
    assert abs(lz_entropy_rate(strings, "fair", alphabet=2).mean() - truth) < 0.03
    assert abs(np.mean([match_entropy_rate(one) for one in strings]) - truth) < 0.17
    assert abs(np.mean([block_entropy_rate(one) for one in strings]) - truth) < 0.02


def test_the_correction_removes_the_bias_of_fair_strings() -> None:
    strings = np.random.default_rng(0).integers(0, 2, (30, 500))
    assert lz_entropy_rate(strings, "none").mean() > 1.05
    assert abs(lz_entropy_rate(strings, "fair").mean() - 1.0) < 0.02


def test_millers_correction_raises_the_entropy_of_single_symbols_by_its_formula() -> None:
    string = np.random.default_rng(1).integers(0, 5, 100)
    gained = block_entropy_rate(string, 1) - block_entropy_rate(string, 1, corrected=False)
    assert gained == pytest.approx(4 / (200 * np.log(2)))
    assert match_entropy_rate(np.zeros(50, int)) == 0.0


def test_features_of_events_and_of_arrays_are_the_same() -> None:
    events = Events.from_lists([[0.03, 0.031, 0.0312], [0.0, 0.099]], [[0, 1, 1], [2, 0]], 3, duration=0.1)
    dense = bin_events(events, 0.001)
    for kind in ("rate", "lzc", "both"):
        found, other = lz_features(events, features=kind), lz_features(dense, features=kind)  # type: ignore[arg-type]
        assert np.array_equal(found.values, other.values)
    both = lz_features(events, features="both")
    assert both.values.shape == (2, 6)
    assert both.values[0, :3].tolist() == pytest.approx([10.0, 20.0, 0.0])
    string = np.zeros(100, int)
    string[30] = 1
    assert both.values[0, 3] == float(lz_complexity(string))
    assert both.lzc_seconds > 0
    assert lz_features(events, features="rate").lzc_seconds == 0


def test_steps_after_a_sample_do_not_count() -> None:
    dense = np.random.default_rng(2).random((80, 2, 3)) < 0.3
    found = lz_features(dense, [50, 80], features="both").values
    assert np.array_equal(found[0], lz_features(dense[:50], features="both").values[0])


def test_complexity_tells_apart_what_rates_do_not() -> None:
    data = make_sources("markov-bernoulli", n_train=2000, n_test=2000)
    assert data.test is not None
    by_rate = LZClassifier("rate").fit(data.train).score(data.test)
    by_complexity = LZClassifier("lzc").fit(data.train)
    assert abs(by_rate - 0.5) < 0.03
    assert by_complexity.score(data.test) >= 0.95
    assert by_complexity.lzc_seconds > 0


@pytest.mark.parametrize("rule", ["class-mean", "logistic"])
@pytest.mark.parametrize("features", ["lzc", "both"])
def test_save_and_load_predict_the_same(rule: str, features: str, tmp_path: Path) -> None:
    data = make_sources("structure", n_train=90, n_test=90, n_units=12)
    assert data.test is not None
    made = LZClassifier(features, rule=rule, penalty=0.5).fit(data.train)  # type: ignore[arg-type]
    made.save(tmp_path / "c.json")
    again = LZClassifier.load(tmp_path / "c.json")
    assert np.array_equal(made.predict(data.test), again.predict(data.test))
    assert made.score(data.test) > 0.6
    assert again.penalty == 0.5


def test_rates_find_sources_of_different_rate() -> None:
    data = make_sources("rates", n_train=60, n_test=100, n_units=10)
    assert data.test is not None
    assert LZClassifier("rate").fit(data.train).score(data.test) > 0.95


def test_logistic_regression_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    data = make_sources("structure", n_train=90, n_test=90, n_units=3)
    assert data.test is not None
    ours = LZClassifier("lzc", rule="logistic", penalty=1.0).fit(data.train)
    x, y = lz_features(data.train).values, lz_features(data.test).values
    mean, std = x.mean(axis=0), x.std(axis=0)
    peer = linear.LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit((x - mean) / std, data.train.labels)
    assert np.mean(ours.predict(data.test) == peer.predict((y - mean) / std)) > 0.98
    assert np.allclose(ours._weight, peer.coef_, atol=2e-3)


def test_refusals(tmp_path: Path) -> None:
    dense, labels = np.zeros((5, 4, 2)), [0, 1, 0, 1]
    with pytest.raises(InputError, match="expected labels"):
        LZClassifier().fit(dense)
    with pytest.raises(InputError, match="at least two classes"):
        LZClassifier().fit(dense, [1, 1, 1, 1])
    with pytest.raises(InputError, match="before predict"):
        LZClassifier().predict(dense)
    with pytest.raises(InputError, match="expected 2 features"):
        LZClassifier().fit(dense, labels).predict(np.zeros((5, 1, 3)))
    with pytest.raises(InputError, match="'rate', 'lzc' or 'both'"):
        LZClassifier("all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="class-mean"):
        LZClassifier(rule="nearest")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steps a sample"):
        lz_features(dense, 6)
    with pytest.raises(InputError, match="one string"):
        match_entropy_rate(np.zeros((2, 4), int))
    LZClassifier().fit(dense, labels).save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(SnnsimFileError, match="schema 1"):
        LZClassifier.load(tmp_path / "c.json")
    (tmp_path / "c.json").write_text(json.dumps({**content, "bias": [1.0]}))
    with pytest.raises(SnnsimFileError, match="do not fit"):
        LZClassifier.load(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("no")
    with pytest.raises(SnnsimFileError, match="no saved LZ classifier"):
        LZClassifier.load(tmp_path / "c.json")
