"""Opening, framing, splitting and batching."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from snnsim.datasets import dataset as dataset_module
from snnsim.datasets import open_dataset
from snnsim.datasets.batches import BatchStream
from snnsim.datasets.dataset import Dataset, frame
from snnsim.datasets.heidelberg import write_heidelberg
from snnsim.datasets.splits import split_validation, validation_events
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events, bin_events


def speech(seed: int = 0, n: int = 60, n_units: int = 40, speakers: int = 4, shift: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.uniform(0.1, rng.uniform(0.3, 0.6), 50)) for _ in range(n)]
    units = [rng.integers(0, n_units, 50) for _ in range(n)]
    index = np.arange(n)
    return Events.from_lists(
        times,
        units,
        n_units,
        index % 3,
        speakers=(index // 3) % speakers + shift,
        recordings=index // (3 * speakers),
        class_names=("a", "b", "c"),
    )


def dataset(train: Events, test: Events | None = None, valid: Events | None = None) -> Dataset:
    return Dataset("x", train, test, valid, "0" * 64)


# --- opening -------------------------------------------------------------------------------------------------


def test_a_folder_opens_as_train_test_and_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    for split, seed in (("train", 0), ("test", 1), ("valid", 2)):
        write_heidelberg(folder / f"words_{split}.h5", speech(seed))
    data = open_dataset(folder)
    assert data.name == "words"
    assert data.train == speech(0)
    assert data.test == speech(1)
    assert data.valid == speech(2)
    assert (data.n_units, data.n_classes, data.class_names) == (40, 3, ("a", "b", "c"))
    single = open_dataset(folder / "words_test.h5")
    assert single.train == speech(1)
    assert single.test is None
    assert single.digest != data.digest
    assert open_dataset(folder).digest == data.digest


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SnnsimFileError, match=r"no file named \*_train.h5"):
        open_dataset(tmp_path)
    with pytest.raises(SnnsimFileError, match="is not there"):
        open_dataset(tmp_path / "nothing" / "x.h5")
    with pytest.raises(InputError, match="'spokn' is not known; known names: spoken-digits, digits, sequential-digits"):
        open_dataset("spokn")
    write_heidelberg(tmp_path / "a_train.h5", speech(0))
    write_heidelberg(tmp_path / "b_train.h5", speech(1))
    with pytest.raises(SnnsimFileError, match=r"has 2 files named \*_train.h5"):
        open_dataset(tmp_path)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    write_heidelberg(tmp_path / "a_train.h5", speech(0))
    write_heidelberg(tmp_path / "a_test.h5", speech(1, n_units=200))
    with pytest.raises(SnnsimFileError, match="reaches unit 199, but the training file only 39"):
        open_dataset(tmp_path)
    write_heidelberg(tmp_path / "a_test.h5", Events.from_lists([[0.1]], [[0]], 40, [0], class_names=("z",)))
    with pytest.raises(SnnsimFileError, match="names other classes"):
        open_dataset(tmp_path)


def test_a_part_whose_last_channels_are_silent_gets_the_width_of_the_other() -> None:
    with pytest.raises(InputError, match="expected 40 units in every part, got 39"):
        dataset(speech(0), speech(1, n_units=39))
    assert dataset(speech(0), speech(1, n_units=39).widen(40)).n_units == 40


def test_the_built_in_set_opens_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    data = open_dataset("spoken-digits")
    assert data.test is not None
    assert data.name == "spoken-digits"
    assert (data.n_units, data.n_classes, len(data.class_names)) == (700, 20, 20)
    assert len(data.unseen_speakers) >= 2
    for part in data.parts.values():
        assert (np.bincount(part.labels, minlength=20) > 0).all()
        Events(**{name: getattr(part, name) for name in Events.__dataclass_fields__})
    held = validation_events(data)
    assert held.how == "speaker"
    assert set(held.valid.labels) == set(range(20))


# --- framing -------------------------------------------------------------------------------------------------


def test_framing_counts_time_from_the_first_spike_and_drops_nothing() -> None:
    events = speech()
    framed = frame(events, "first-spike", dt=0.01)
    for before, after in zip(events, framed, strict=True):
        span = before.times[-1] - before.times[0]
        assert after.n_steps(0.01)[0] == int(np.ceil(span / 0.01))
        assert after.times[0] == 0
    assert bin_events(framed, 0.01).sum() == events.n_events


def test_framing_puts_the_last_event_of_whole_steps_into_the_last_step() -> None:
    framed = frame(Events.from_lists([[0.5, 0.53, 0.53], [0.2], []], [[0, 1, 2], [0], []], 3), dt=0.01)
    assert framed.n_steps(0.01).tolist() == [3, 1, 1]
    assert bin_events(framed, 0.01)[2, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("block", [1, 60, 1000, 10**6])
def test_framing_is_the_same_in_blocks_and_in_a_file(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    events = Events.concatenate(
        [speech(), Events.from_lists([[], [0.2, 0.23], []], [[], [0, 1], []], 40, class_names="abc")]
    )
    expected = frame(events, dt=0.01)
    monkeypatch.setattr(dataset_module, "BLOCK_EVENTS", block)
    monkeypatch.setattr(dataset_module, "LARGE", 10)
    framed = frame(events, dt=0.01)
    assert framed == expected
    assert list((tmp_path / "cache").iterdir()) == []

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SnnsimFileError, match="has no room for"):
        frame(events, dt=0.01)


def test_framing_from_zero_keeps_times() -> None:
    events = speech()
    framed = frame(events, "zero", dt=0.01)
    assert np.array_equal(framed.times, events.times)
    assert framed.n_steps(0.01).tolist() == events.n_steps(0.01).tolist()
    with pytest.raises(InputError, match="'first-spike' or 'zero'"):
        frame(events, "last", dt=0.01)  # type: ignore[arg-type]


# --- splits --------------------------------------------------------------------------------------------------


def test_auto_takes_the_official_part_if_there_is_one() -> None:
    held = validation_events(dataset(speech(0), speech(1), speech(2)))
    assert held.how == "official"
    assert held.train == speech(0)
    assert held.valid == speech(2)
    train, valid, sentence = split_validation(dataset(speech(0), None, speech(2)))
    assert (train.size, valid.size) == (60, 0)
    assert "official" in sentence


def test_auto_holds_out_whole_speakers_where_test_speakers_are_unseen() -> None:
    data = dataset(speech(0), speech(1, shift=2))
    assert data.unseen_speakers == (4, 5)
    for seed in range(10):
        held = validation_events(data, seed=seed, fraction=0.25)
        assert held.how == "speaker"
        assert held.train.speakers is not None
        assert held.valid.speakers is not None
        assert not set(held.train.speakers) & set(held.valid.speakers)
        assert len(held.valid) == 15
        assert set(held.valid.labels) == set(held.train.labels) == {0, 1, 2}


def test_held_out_speakers_cover_all_classes_if_each_class_has_several() -> None:
    index = np.arange(80)
    labels, speakers = index % 4, (index // 8) % 5 + 5 * (index % 4 // 2)  # speakers 0-4 say a, b; 5-9 say c, d
    train = Events.from_lists([[0.1]] * 80, [[0]] * 80, 1, labels, speakers=speakers)
    test = Events.from_lists([[0.1]], [[0]], 1, [0], speakers=[99])
    for seed in range(10):
        held = validation_events(dataset(train, test), seed=seed)
        assert set(held.valid.labels) == set(held.train.labels) == {0, 1, 2, 3}
        assert 8 <= len(held.valid) <= 24


def test_auto_stratifies_by_class_and_recording_where_all_speakers_are_known() -> None:
    train = speech(0)
    for seed in range(5):
        kept, out, sentence = split_validation(dataset(train, speech(1)), seed=seed)
        assert "stratified by class, speaker and recording" in sentence
        assert sorted([*kept, *out]) == list(range(60))
        assert np.bincount(train.labels[out]).tolist() == [4, 4, 4]
        assert train.recordings is not None
        assert train.speakers is not None
        groups = [
            {(int(train.labels[i]), int(train.speakers[i]), int(train.recordings[i])) for i in part}
            for part in (kept, out)
        ]
        assert not groups[0] & groups[1]
    again = split_validation(dataset(train, speech(1)), seed=4)
    assert np.array_equal(out, again[1])
    assert not np.array_equal(out, split_validation(dataset(train, speech(1)), seed=5)[1])


def test_takes_of_one_recording_stay_together() -> None:
    labels = np.repeat(np.arange(2), 20)
    recordings = np.tile(np.repeat(np.arange(5), 4), 2)
    train = Events.from_lists([[0.1]] * 40, [[0]] * 40, 1, labels, recordings=recordings)
    _, out, _ = split_validation(dataset(train), fraction=0.4)
    for label in (0, 1):
        chosen = recordings[out][labels[out] == label]
        assert sorted(np.bincount(chosen, minlength=5).tolist()) == [0, 0, 0, 4, 4]


def test_splits_that_do_not_exist_are_refused() -> None:
    plain = Events.from_lists([[0.1]] * 4, [[0]] * 4, 1, [0, 1, 0, 1])
    for how, sentence in (("official", "no official"), ("speaker", "does not say who speaks"), ("x", "expected auto")):
        with pytest.raises(InputError, match=sentence):
            split_validation(dataset(plain), how=how)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="between 0 and 1"):
        split_validation(dataset(plain), fraction=1.0)
    with pytest.raises(InputError, match="leaves one side empty"):
        split_validation(dataset(plain), fraction=0.1)


# --- batches -------------------------------------------------------------------------------------------------


def test_batches_hold_every_sample_once_with_its_counts_and_mask() -> None:
    events = frame(speech(), dt=0.01)
    stream = BatchStream(events, 0.01, 16, pool=5, tail_steps=4, seed=3)
    assert len(stream) == 4
    assert stream.n_units == 8
    seen: list[int] = []
    for batch in stream.epoch(2):
        assert batch.x.dtype == np.float32
        assert batch.x.shape == (int(batch.n_steps.max()), len(batch), 8)
        for b, i in enumerate(batch.sample_id):
            steps = int(batch.n_steps[b])
            assert steps == int(events.n_steps(0.01)[i]) + 4
            assert np.array_equal(batch.x[: steps - 4, b], bin_events(events[int(i)], 0.01, pool=5)[:, 0])
            assert not batch.x[steps - 4 :, b].any()
            assert batch.mask[:, b].tolist() == [True] * steps + [False] * (batch.mask.shape[0] - steps)
            assert batch.labels[b] == events.labels[i]
        seen += batch.sample_id.tolist()
    assert sorted(seen) == list(range(60))
    assert seen != sorted(seen)


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    events = frame(speech(), dt=0.01)

    def order(seed: int, epoch: int, **more: int) -> list[int]:
        stream = BatchStream(events, 0.01, 16, seed=seed, **more)  # type: ignore[arg-type]
        list(stream.epoch(0))
        return [int(i) for batch in stream.epoch(epoch) for i in batch.sample_id]

    assert order(0, 1) == order(0, 1) == order(0, 1, pool=5, tail_steps=2)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    late = [batch.sample_id.tolist() for batch in BatchStream(events, 0.01, 16).epoch(5, start=2)]
    assert late == [batch.sample_id.tolist() for batch in BatchStream(events, 0.01, 16).epoch(5)][2:]


def test_batch_options() -> None:
    events = frame(speech(), dt=0.01)
    plain = BatchStream(events, 0.01, 16, shuffle=False)
    assert [int(i) for batch in plain.epoch(3) for i in batch.sample_id] == list(range(60))
    assert len(BatchStream(events, 0.01, 16, drop_last=True)) == 3
    padded = BatchStream(events, 0.01, 16, pad_to=77)
    assert {batch.x.shape[0] for batch in padded.epoch(0)} == {77}
    reused = BatchStream(events, 0.01, 16, shuffle=False, reuse=True)
    for a, b in zip(plain.epoch(0), reused.epoch(0), strict=True):
        assert np.array_equal(a.x, b.x)
    for arguments, sentence in (
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"pad_to": 5}, "the longest sample has"),
        ({"pool": 0}, "pool: expected"),
        ({"outside": "keep"}, "outside: expected"),
    ):
        with pytest.raises(InputError, match=sentence):
            BatchStream(events, 0.01, **{"batch_size": 4, **arguments})  # type: ignore[arg-type]


def test_events_outside_their_sample_are_refused_or_dropped() -> None:
    events = Events.from_lists([[0.0, 0.5]], [[0, 0]], 1, [0], 0.3)
    with pytest.raises(InputError, match="lie at or after"):
        list(BatchStream(events, 0.01, 1).epoch(0))
    (batch,) = BatchStream(events, 0.01, 1, outside="drop").epoch(0)
    assert batch.x.sum() == 1
