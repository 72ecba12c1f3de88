"""Augmentation of samples: keyed by sample, of the stated size, refused where it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from test_data_batches import speech

from snnsim.datasets.augment import Augment, augment_events
from snnsim.datasets.batches import BatchStream
from snnsim.datasets.dataset import frame
from snnsim.errors import InputError
from snnsim.events import Events

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
