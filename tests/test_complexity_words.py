"""Lempel-Ziv word counts: the card's values, the plain definition, invariances, cost, threads."""

import time

import numpy as np
import pytest

from snnsim.complexity import lz76, lz78, lz_complexity
from snnsim.errors import InputError
from snnsim.kernels import complexity as kernel
from snnsim.kernels.complexity_automaton import automaton_words, binary_automaton_words, previous_matches
from snnsim.kernels.reference_complexity import longest_previous, lz76_words, lz78_words


def bits(text: str) -> list[int]:
    return [int(symbol) for symbol in text]


@pytest.mark.parametrize(
    ("text", "by76", "by78"),
    [
        ("0001101001000101", 6, 7),
        ("0" * 20, 2, 6),
        ("01" * 10, 3, 8),
        ("1", 1, 1),
        ("0110" * 5, 4, 10),
        ("1001111011000010", 6, 8),
        ("", 0, 0),
    ],
)
def test_known_values(text: str, by76: int, by78: int) -> None:
    string = np.array(bits(text), dtype=np.int64)
    assert (int(lz76(string)), int(lz78(string))) == (by76, by78)
    assert (len(lz76_words(bits(text))), len(lz78_words(bits(text)))) == (by76, by78)


def test_the_words_are_those_of_the_paper() -> None:
    shown = ["".join(map(str, word)) for word in lz76_words(bits("0001101001000101"))]
    assert shown == ["0", "001", "10", "100", "1000", "101"]


@pytest.mark.parametrize("chance", [0.5, 0.2, 0.05, 0.005])
def test_binary_counts_equal_the_definition(chance: float) -> None:
    draw = np.random.default_rng(int(1000 * chance))
    for n in [1, 2, 63, 64, 65, 66, 127, 128, 129, 200, 300]:
        string = (draw.random(n) < chance).astype(np.uint16)
        periodic = np.tile(string[: 1 + n // 5], 6)[:n]
        for one in (string, periodic):
            words = len(lz76_words(one.tolist()))
            assert int(lz76(one)) == words == binary_automaton_words(one) == automaton_words(one)
            assert int(lz78(one)) == len(lz78_words(one.tolist()))


@pytest.mark.parametrize("alphabet", [3, 7, 65_536])
def test_other_alphabets_equal_the_definition(alphabet: int) -> None:
    draw = np.random.default_rng(alphabet)
    for n in (1, 5, 60, 150):
        for string in (draw.integers(0, alphabet, n), draw.choice(draw.integers(0, alphabet, 4), n)):
            assert int(lz76(string, alphabet=alphabet)) == len(lz76_words(string.tolist()))
            assert int(lz78(string, alphabet=alphabet)) == len(lz78_words(string.tolist()))


def test_previous_matches_equal_the_definition() -> None:
    draw = np.random.default_rng(3)
    for chance in (0.5, 0.1):
        string = (draw.random(120) < chance).astype(np.uint16)
        found = np.zeros(120, np.int64)
        previous_matches(string, found)
        assert found.tolist() == longest_previous(string.tolist())


def test_sorted_places_and_automaton_agree_on_long_strings() -> None:
    draw = np.random.default_rng(4)
    for string in (draw.random(70_001) < 0.5, draw.random(30_000) < 0.3, np.tile(draw.random(977) < 0.5, 40)):
        one = string.astype(np.uint16)
        by_places = kernel._binary_lz76(one)
        assert by_places in (-1, binary_automaton_words(one))
    fair = (draw.random(50_000) < 0.5).astype(np.uint16)
    assert kernel._binary_lz76(fair) > 0, "fair coins stay within the budget"
    rare = (draw.random(50_000) < 0.02).astype(np.uint16)
    assert kernel._binary_lz76(rare) == -1, "rare spikes do not"
    assert int(lz76(rare)) == binary_automaton_words(rare)


def test_counts_are_the_same_on_any_number_of_threads_and_in_any_batch() -> None:
    draw = np.random.default_rng(5)
    strings = (draw.random((40, 700)) < draw.random((40, 1))).astype(int)
    one = lz76(strings)
    assert one.shape == (40,)
    assert np.array_equal(one, lz76(strings, threads=3))
    assert one.tolist() == [int(lz76(string)) for string in strings]
    assert np.array_equal(lz76([string[: 100 + i] for i, string in enumerate(strings)])[:1], lz76(strings[:1, :100]))


def test_complement_concatenation_and_growth() -> None:
    draw = np.random.default_rng(6)
    for trial in range(60):
        x, y = (draw.random(int(draw.integers(1, 400))) < draw.random() for _ in range(2))
        assert lz76(x) == lz76(~x)
        assert lz78(x) == lz78(~x)
        assert lz76(np.concatenate([x, y])) <= lz76(x) + lz76(y) + 1
        if trial < 10:
            for count in (lz76, lz78):
                steps = np.diff([int(count(x[:n])) for n in range(len(x) + 1)])
                assert set(steps.tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("chance", "n", "mean", "one"),
    [
        (0.5, 1000, 1.0625, 1.076),
        (0.5, 10_000, 1.0283, 1.033),
        (0.2, 1000, 0.7532, 0.777),
        (0.2, 10_000, 0.7261, 0.732),
        (0.05, 1000, 0.2970, 0.299),
        (0.05, 10_000, 0.2754, 0.287),
    ],
)
def test_normalised_complexity_of_bernoulli_strings(chance: float, n: int, mean: float, one: float) -> None:
    """Means of 1000 (n = 1000) and 200 strings drawn with another seed, and values of single strings made elsewhere."""
    strings = np.random.default_rng(7).random((60, n)) < chance
    found = lz_complexity(strings, alphabet=2)
    assert abs(found.mean() - mean) < 4 * found.std() / 60**0.5
    assert abs(one - mean) < 2 * found.std()


def test_complexity_is_words_times_logarithm_over_length() -> None:
    string = bits("0001101001000101")
    assert float(lz_complexity(string)) == pytest.approx(6 * 4 / 16)
    assert float(lz_complexity(string, alphabet=4)) == pytest.approx(6 * 2 / 16)
    assert float(lz_complexity(string, "lz78", normalised=False)) == 7


def test_no_string_takes_quadratic_time() -> None:
    """The hard cases for a search along candidates: runs, rare ones, blocks repeated with one change."""
    n = 200_000
    draw = np.random.default_rng(8)
    block = draw.random(500) < 0.5
    changed = np.concatenate([np.where(np.arange(500) == i % 500, ~block, block) for i in range(n // 500)])
    runs = np.concatenate([np.r_[np.zeros(k), 1] for k in range(1, 640)])[:n]
    lz76(block)
    for string in (changed, runs, draw.random(n) < 0.001, np.zeros(n)):
        begin = time.thread_time()
        lz76(string.astype(np.uint16), alphabet=2)
        assert time.thread_time() - begin < 1.0  # a quadratic scan takes several seconds or minutes


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: lz76([0.5, 1.0]), "expected whole numbers"),
        (lambda: lz76([0, -1]), "expected 0 to"),
        (lambda: lz76([0, 2], alphabet=2), "expected 0 to 1"),
        (lambda: lz76([70_000]), "number your symbols from 0 on"),
        (lambda: lz76(np.zeros((2, 2, 2), int)), "expected shape"),
        (lambda: lz_complexity([0, 1], "lz77"), "expected 'lz76' or 'lz78'"),  # type: ignore[arg-type]
        (lambda: lz76([0, 1], threads=0), "expected at least 1"),
    ],
)
def test_refusals(call: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()  # type: ignore[operator]
