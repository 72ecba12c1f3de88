"""Handwritten digits and what a camera sees of them in saccades: split, repeated images, events, files, refusals."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from snnsim.cli.main import run
from snnsim.datasets import BatchStream, frame, open_dataset
from snnsim.datasets.digits import held_out
from snnsim.datasets.event_files import PixelEvents, read_nmnist, write_nmnist
from snnsim.datasets.frames import Frames
from snnsim.datasets.saccades import Saccades, write_digit_events
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.float64]:
    """Stand-ins for the images, in the place of scikit-learn: vertical bars, one place a digit."""
    labels = np.arange(1797) % 10
    images = np.zeros((1797, 8, 8))
    images[np.arange(1797), :, labels % 8] = 16.0
    images[np.arange(1797), labels // 2] += np.linspace(0, 1, 1797)[:, None] * 4
    images = images.clip(0, 16)
    module = types.ModuleType("sklearn.datasets")
    module.load_digits = lambda: types.SimpleNamespace(images=images, target=labels)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sklearn", types.ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", module)
    return images


def test_the_split_is_fixed_and_even_over_classes(drawn: npt.NDArray[np.float64]) -> None:
    data = open_dataset("digits")
    assert data.test is not None
    assert (len(data.train), len(data.test), data.n_units, data.n_classes) == (1347, 450, 64, 10)
    assert set(np.bincount(data.test.labels)) == {45}
    ids = np.concatenate([data.train.sample_ids, data.test.sample_ids])
    assert np.array_equal(np.sort(ids), np.arange(1797))
    assert isinstance(data.train, Frames)
    first = int(data.train.sample_ids[0])
    assert np.allclose(data.train.values[0, 0], drawn[first].reshape(-1) / 16)
    assert data.digest == open_dataset("digits").digest


def test_the_real_digits_are_there() -> None:
    pytest.importorskip("sklearn")
    data = open_dataset("digits")
    assert isinstance(data.train, Frames)
    assert (len(data.train), float(data.train.values.min()), float(data.train.values.max())) == (1347, 0.0, 1.0)
    assert np.bincount(data.test.labels).tolist() == [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]


def test_a_split_that_does_not_divide_goes_by_the_largest_remainders() -> None:
    labels = np.repeat([0, 1, 2], [5, 6, 9])
    out = held_out(labels, 7)  # shares 1.75, 2.1, 3.15
    assert [int(out[labels == label].sum()) for label in range(3)] == [2, 2, 3]
    assert not np.array_equal(out, held_out(labels, 7, seed=1))


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"comes with scikit-learn, which is not installed; .* 'snnsim\[vision\]'"):
        open_dataset("digits")


def test_an_image_is_shown_for_several_steps_without_copies(drawn: npt.NDArray[np.float64]) -> None:
    train = open_dataset("digits").train
    shown = frame(train, "zero", dt=0.002, repeat_steps=5)
    assert isinstance(shown, Frames)
    assert np.shares_memory(shown.values, train.values)
    assert set(shown.n_steps(0.002)) == {5}
    chosen = shown.subset([3, 1])
    assert chosen.repeat == 5
    batch = next(BatchStream(chosen, 0.002, 2, shuffle=False, tail_steps=1).epoch(0))
    assert batch.x.shape == (6, 2, 64)
    for step in range(5):
        assert np.array_equal(batch.x[step], train.values[[3, 1], 0])
    assert not batch.x[5].any()
    assert shown.digest() != frame(train, "zero", dt=0.002, repeat_steps=4).digest()
    assert "shown 5 times" in repr(shown)


def test_two_frames_shown_again_keep_their_order() -> None:
    values = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    twice = Frames.build(values, [0, 1], 0.01, repeat=2)
    batch = next(BatchStream(twice, 0.01, 2, shuffle=False).epoch(0))
    assert np.array_equal(batch.x[:, 1], np.concatenate([values[1], values[1]]))


def test_what_is_no_still_image_is_not_shown_again() -> None:
    with pytest.raises(InputError, match="these samples have 2 frames each"):
        frame(Frames.build(np.zeros((1, 2, 3), np.float32), [0], 0.01), dt=0.01, repeat_steps=3)
    with pytest.raises(InputError, match="these samples are events; remove it"):
        frame(Events.from_lists([[0.0]], [[0]], 1), dt=0.01, repeat_steps=3)
    with pytest.raises(InputError, match="at least once, got repeat 0"):
        Frames.build(np.zeros((1, 1, 3), np.float32), [0], 0.01, repeat=0)


def test_events_follow_the_brightness_within_one_threshold() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((3, 8, 8))
    eyes = Saccades(threshold=0.3)
    for image, one in zip(images, eyes.record(images), strict=True):
        assert np.all(np.diff(one.t) >= 0)
        assert one.t.min() >= 0
        assert one.t.max() < 300_000
        change = np.zeros((34, 34))
        np.add.at(change, (one.y, one.x), np.where(one.p == 1, 0.3, -0.3))
        before, after = eyes.brightness(image[None], 0)[0], eyes.brightness(image[None], 150)[0]
        assert np.abs(change - (after - before)).max() < 0.3 + 1e-9
        early = one.t < 100_000  # the end of the first saccade
        change = np.zeros((34, 34))
        np.add.at(change, (one.y[early], one.x[early]), np.where(one.p[early] == 1, 0.3, -0.3))
        assert np.abs(change - (eyes.brightness(image[None], 50)[0] - before)).max() < 0.3 + 1e-9
        assert early.sum() > 100
    assert [one.t.size for one in eyes.record(np.zeros((2, 8, 8)))] == [0, 0]


def test_a_block_of_images_has_the_events_of_each_alone() -> None:
    images = np.random.default_rng(1).random((3, 8, 8))
    together = Saccades().record(images)
    alone = Saccades().record(images[2:])[0]
    assert all(np.array_equal(getattr(together[2], name), getattr(alone, name)) for name in ("t", "x", "y", "p"))


def test_the_image_moves_along_the_saccades() -> None:
    image = np.ones((1, 2, 2))
    eyes = Saccades(size=10)
    for step, (x, y) in ((0, (-3, -3)), (50, (0, 3)), (100, (3, -3)), (150, (-3, -3)), (25, (-1.5, 0))):
        seen = np.exp(eyes.brightness(image, step)[0]) - eyes.dark
        rows, columns = np.indices(seen.shape)
        assert np.average(columns - 16.5, weights=seen) == pytest.approx(x, abs=0.05)
        assert np.average(rows - 16.5, weights=seen) == pytest.approx(y, abs=0.05)


def test_recordings_survive_the_nmnist_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    events = PixelEvents(
        np.sort(rng.integers(0, 1 << 23, 200)),
        rng.integers(0, 34, 200),
        rng.integers(0, 34, 200),
        rng.integers(0, 2, 200),
    )
    write_nmnist(tmp_path / "one.bin", events)
    assert (tmp_path / "one.bin").stat().st_size == 1000
    back = read_nmnist(tmp_path / "one.bin")
    for name in ("t", "x", "y", "p"):
        assert np.array_equal(getattr(back, name), getattr(events, name))


@pytest.mark.parametrize(
    ("t", "y", "message"),
    [
        ([1 << 23], [0], "t: expected whole numbers from 0 to 8388607, got 8388608"),
        ([0], [240], "y: expected whole numbers from 0 to 239, got 240"),
        ([5, 4], [0, 0], "expected ascending times"),
    ],
)
def test_what_the_format_does_not_hold_is_refused(tmp_path: Path, t: list[int], y: list[int], message: str) -> None:
    zeros = np.zeros(len(t), dtype=np.int64)
    with pytest.raises(InputError, match=message):
        write_nmnist(tmp_path / "one.bin", PixelEvents(np.array(t), zeros, np.array(y), zeros))


def test_command_writes_a_folder_that_opens_as_nmnist(
    drawn: npt.NDArray[np.float64], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "saccades", "--out", "seen", "--limit", "12", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["train"], said["test"], said["n_samples"]) == (12, 12, 24)
    data = open_dataset(tmp_path / "seen")
    assert data.test is not None
    assert (len(data.train), len(data.test), data.n_units) == (12, 12, 34 * 34 * 2)
    assert data.notes["sensor"] == [34, 34, 2]
    assert data.train.n_events + data.test.n_events == said["events"]
    path = sorted((tmp_path / "seen" / "Train").glob("*/*.bin"))[0]
    assert int(path.stem) % 10 == int(path.parent.name)
    alone = Saccades().record(drawn[int(path.stem)][None] / 16)[0]
    assert np.array_equal(read_nmnist(path).t, alone.t)
    assert set(frame(data.train, "zero", dt=0.03).n_steps(0.03)) == {10}
    assert [item.name for item in tmp_path.iterdir() if item.name.endswith(".part")] == []
    with pytest.raises(SnnsimFileError, match="exists already"):
        write_digit_events(tmp_path / "seen")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Saccades(size=29), "a size of 2 to 28 pixels, got 29"),
        (lambda: Saccades(instants=1), "at least 2 instants"),
        (lambda: Saccades(threshold=0), "a threshold of at least 0.01"),
        (lambda: Saccades().record(np.full((1, 8, 8), 2.0)), r"values in \[0, 1\]"),
        (lambda: write_digit_events("new", limit=0), "at least one sample of each part, got 0"),
    ],
)
def test_bad_saccades_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
