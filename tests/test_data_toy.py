"""The parametric toy, whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from snnsim.datasets.toy import detect_by_delays, make_toy, toy_delays
from snnsim.errors import InputError
from snnsim.events import bin_events


def test_toy_delays_are_permutations_that_agree_nowhere() -> None:
    delays = toy_delays(10, 10, 0.02)
    for row in delays:
        assert np.allclose(np.sort(row), np.arange(10) * 0.02)
    for a in range(10):
        for b in range(a):
            assert (np.abs(delays[a] - delays[b]) > 0.01).all()
    with pytest.raises(InputError, match="one less than a prime"):
        toy_delays(2, 8, 0.01)
    with pytest.raises(InputError, match="n_classes: expected 2 to 4"):
        toy_delays(5, 4, 0.01)


def test_the_toy_is_solved_by_its_delays_and_by_nothing_simpler() -> None:
    data = make_toy(n_train=40, n_test=160)
    assert data.test is not None
    test = data.test
    delays = np.array(data.notes["delays"])
    assert (detect_by_delays(test, delays) == test.labels).mean() == 1.0
    assert (detect_by_delays(test, delays * 0) == test.labels).mean() < 0.35
    counts = np.stack([np.bincount(one.units, minlength=test.n_units) for one in test])
    activity = bin_events(test, 0.005).sum(axis=2)
    for c in range(4):
        mine = test.labels == c
        assert np.abs(counts[mine].mean(0) - counts[~mine].mean(0)).max() < 0.6
        assert np.abs(activity[:, mine].mean(1) - activity[:, ~mine].mean(1)).max() < 4


def test_the_toy_is_a_function_of_its_parameters() -> None:
    a, b = make_toy(n_train=8, n_test=4), make_toy(n_train=8, n_test=4)
    assert a.train == b.train
    assert a.digest == b.digest
    assert make_toy(n_train=8, n_test=4, seed=1).train != a.train
    assert make_toy(n_train=12, n_test=4).train.subset(np.arange(8)) == a.train
    with pytest.raises(InputError, match="burst: expected at least 1"):
        make_toy(burst=0)
