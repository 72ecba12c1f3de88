"""Opening, framing, splitting, augmenting and batching."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from snnsim.datasets import dataset as dataset_module
from snnsim.datasets import open_dataset
from snnsim.datasets.augment import Augment, augment_events
from snnsim.datasets.batches import BatchStream
from snnsim.datasets.dataset import Dataset, frame
from snnsim.datasets.heidelberg import write_heidelberg
from snnsim.datasets.splits import split_validation, validation_events
from snnsim.datasets.toy import detect_by_delays, make_toy, toy_delays
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
    with pytest.raises(InputError, match="'spokn' is not known; known names: spoken-digits, toy"):
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


# --- augmentation --------------------------------------------------------------------------------------------

ALL = Augment(
    blend=0.5,
    cutmix=0.5,
    drop=0.1,
    time_jitter=0.002,
    channel_jitter=0.7,
    time_stretch=0.15,
    time_shift=0.02,
    channel_shift=3,
    time_mask=0.2,
    channel_mask=0.2,
    mask_probability=0.65,
)


def test_a_sample_is_changed_the_same_way_in_any_batch() -> None:
    events = frame(speech(), dt=0.01)

    def by_id(**arguments: object) -> dict[int, np.ndarray]:
        stream = BatchStream(events, 0.01, augment=ALL, seed=1, pad_to=80, **arguments)  # type: ignore[arg-type]
        return {
            int(i): np.append(batch.x[:, b].ravel(), batch.targets(3)[b])
            for batch in stream.epoch(4)
            for b, i in enumerate(batch.sample_id)
        }

    a, b = by_id(batch_size=16), by_id(batch_size=7, shuffle=False)
    assert all(np.array_equal(a[i], b[i]) for i in range(60))
    stream = BatchStream(events, 0.01, 60, augment=ALL, seed=1, shuffle=False)
    first, second = next(iter(stream.epoch(4))), next(iter(stream.epoch(5)))
    assert not np.array_equal(first.x, second.x)
    other = next(iter(BatchStream(events, 0.01, 60, augment=ALL, seed=2, shuffle=False).epoch(4)))
    assert not np.array_equal(first.x, other.x)


def test_augmentation_follows_the_sample_id_through_a_subset() -> None:
    events = frame(speech(), dt=0.01)
    augment = Augment(time_shift=0.05, channel_mask=0.3, drop=0.2)
    whole = augment_events(events, augment, seed=0, epoch=1)
    part = augment_events(events.subset([40, 3]), augment, seed=0, epoch=1)
    assert part[0] == whole[40]
    assert part[1] == whole[3]


def changed(**options: float) -> tuple[Events, Events]:
    events = frame(speech(n=200), dt=0.01)
    return events, augment_events(events, Augment(**options), seed=5, epoch=0)  # type: ignore[arg-type]


def test_nothing_changes_without_a_change() -> None:
    before, after = changed()
    assert not Augment().active
    assert before == after


def test_time_shift_moves_a_sample_as_a_whole() -> None:
    before, after = changed(time_shift=0.03)
    moves = []
    for a, b in zip(before, after, strict=True):
        inside = np.isin(a.units, b.units)
        assert inside.any()
        gaps = {round(float(x), 9) for x in np.diff(a.times)}
        assert all(round(float(x), 9) in gaps for x in np.diff(b.times))
        if b.n_events == a.n_events:
            moves.append(float(b.times[0] - a.times[0]))
    assert max(moves) <= 0.03
    assert before.n_events > after.n_events


@pytest.mark.parametrize("keep_duration", [False, True])
def test_time_stretch_multiplies_all_times_of_a_sample_by_one_factor(keep_duration: bool) -> None:
    before, after = changed(time_stretch=0.25, keep_duration=keep_duration)
    factors = []
    for a, b in zip(before, after, strict=True):
        original, moved = a.times[: b.n_events], b.times  # what leaves the end of the sample is dropped
        factor = float(moved[-1] / original[-1])
        assert np.allclose(moved, factor * original)
        assert b.duration == pytest.approx(a.duration if keep_duration else factor * a.duration)
        factors.append(factor)
    assert 0.75 <= min(factors) < 0.9
    assert 1.1 < max(factors) <= 1.25
    assert (after.n_events < before.n_events) is keep_duration


def test_a_stretched_sample_has_stretched_steps() -> None:
    events = frame(speech(), dt=0.01)
    stretch = Augment(time_stretch=0.25)
    stream = BatchStream(events, 0.01, 60, tail_steps=4, augment=stretch, seed=1, shuffle=False)
    (batch,) = stream.epoch(0)
    own = events.n_steps(0.01)
    assert not np.array_equal(batch.n_steps - 4, own)
    assert np.all(np.abs((batch.n_steps - 4) / own - 1) < 0.25 + 1 / own)
    assert batch.x.shape[0] == batch.n_steps.max()
    assert batch.x.sum() == events.n_events
    (cut,) = BatchStream(events, 0.01, 60, augment=stretch, seed=1, shuffle=False, pad_to=int(own.max())).epoch(0)
    assert cut.x.shape[0] == own.max() >= cut.n_steps.max()


def test_channel_shift_moves_all_units_alike() -> None:
    before, after = changed(channel_shift=4)
    shifts = set()
    for a, b in zip(before, after, strict=True):
        move = {int(x) for x in b.units[np.isin(b.times, a.times)] - a.units[np.isin(a.times, b.times)]}
        assert len(move) == 1
        shifts |= move
    assert shifts == set(range(-4, 5))


def test_masks_empty_one_stretch_and_nothing_else() -> None:
    before, after = changed(time_mask=0.5)
    share = after.n_events / before.n_events
    assert 0.7 < share < 0.8  # a quarter on average
    for a, b in zip(before, after, strict=True):
        gone = ~np.isin(a.times, b.times)
        if gone.any():
            first, last = np.flatnonzero(gone)[[0, -1]]
            assert gone[first : last + 1].all()
    before, after = changed(channel_mask=0.5)
    for a, b in zip(before, after, strict=True):
        lost = np.setdiff1d(a.units, b.units)
        assert not np.isin(b.units, np.arange(lost.min(), lost.max() + 1)).any() if lost.size else True


def test_drop_and_jitter_have_the_stated_size() -> None:
    before, after = changed(drop=0.3)
    assert abs(after.n_events / before.n_events - 0.7) < 0.02
    before, after = changed(time_jitter=0.004)
    wide = Events.from_lists([np.full(5000, 0.5)], [np.arange(5000)], 5000, [0], 1.0)
    moved = augment_events(wide, Augment(time_jitter=0.004), seed=0, epoch=0)
    assert abs(moved.times.std() - 0.004) < 0.0003
    assert abs(moved.times.mean() - 0.5) < 0.0003


def test_cutmix_replaces_a_stretch_and_mixes_the_targets() -> None:
    events = frame(speech(n=200), dt=0.01)
    stream = BatchStream(events, 0.01, 200, augment=Augment(cutmix=1.0), shuffle=False, outside="drop")
    (batch,) = stream.epoch(0)
    assert batch.other_labels is not None
    assert batch.other_weight is not None
    assert 0.4 < batch.other_weight.mean() < 0.6
    targets = batch.targets(3)
    assert np.allclose(targets.sum(axis=1), 1)
    mixed = batch.other_labels != batch.labels
    assert np.allclose(targets[mixed, batch.other_labels[mixed]], batch.other_weight[mixed])
    plain = next(iter(BatchStream(events, 0.01, 200, shuffle=False).epoch(0)))
    same = (batch.x == plain.x).all(axis=2) | ~plain.mask
    assert same.any()
    assert not same.all()


def test_blend_keeps_the_class_and_the_number_of_events() -> None:
    before, after = changed(blend=1.0)
    assert abs(after.n_events / before.n_events - 1) < 0.1
    assert before != after
    assert np.array_equal(before.labels, after.labels)


def test_wrong_augmentations_are_refused() -> None:
    for options, sentence in (({"drop": 1.5}, "Augment.drop"), ({"time_shift": -1.0}, "Augment.time_shift")):
        with pytest.raises(InputError, match=sentence):
            Augment(**options)  # type: ignore[arg-type]


# --- toy -----------------------------------------------------------------------------------------------------


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
