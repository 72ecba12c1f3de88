"""Counts that are made stretch by stretch are the counts of the whole batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsim.datasets.augment import Augment
from snnsim.datasets.batches import BatchStream
from snnsim.datasets.streamed import StreamedCounts
from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.recipes import load_recipe
from snnsim.training.event_stream import EventStream
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer


@pytest.mark.parametrize("augment", [None, Augment(time_jitter=0.004, blend=0.5, drop=0.2)], ids=["plain", "augmented"])
def test_stretches_are_those_of_the_whole(augment: Augment | None) -> None:
    events = make_toy(n_train=30, n_test=10).train
    settings = {"pool": 2, "tail_steps": 7, "augment": augment, "seed": 3}
    whole = BatchStream(events, 0.003, 8, **settings)  # type: ignore[arg-type]
    streamed = BatchStream(events, 0.003, 8, streamed=True, **settings)  # type: ignore[arg-type]
    for a, b in zip(whole.epoch(2), streamed.epoch(2), strict=True):
        assert isinstance(b.counts, StreamedCounts)
        assert np.array_equal(a.mask, b.mask)
        assert np.array_equal(a.x, b.x)
        assert a.x.max() > 1
        steps = a.mask.shape[0]
        parts = [b.counts.chunk(at, min(at + 5, steps)) for at in range(0, steps, 5)]
        assert np.array_equal(np.concatenate(parts), a.x)
        for part in (slice(0, 8), slice(2, 5)):
            assert a.active(part) == b.active(part)


def test_events_outside_are_refused_as_ever() -> None:
    events = make_toy(n_train=10, n_test=10).train
    short = replace_duration(events)
    with pytest.raises(InputError):
        BatchStream(short, 0.003, 4, streamed=True).batch(np.arange(4))


def replace_duration(events):  # type: ignore[no-untyped-def]
    from snnsim.events import replace_fields

    return replace_fields(events, duration=np.full(len(events), 0.01))


def test_a_run_that_streams_learns_the_bits_of_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = load_recipe(
        "shd-lif",
        [
            *("model.hidden=[20]", "train.batch_size=8", "train.learning='sltt'", "train.rule.two_pass=true"),
            *("train.rule.chunk_steps=3", "model.initial_rate=0.1"),
        ],
    )
    data = prepare(recipe, make_toy(n_train=24, n_test=10), 0)
    states = []
    for streamed in (True, False):
        if not streamed:
            monkeypatch.setattr("snnsim.training.trainer.STREAMED", ())
        trainer = Trainer(recipe, data, 0)
        trainer.initialise()
        trainer.begin_epoch()
        for batch in trainer.batches.epoch(0):
            assert isinstance(trainer.task(batch)[0], EventStream) is streamed
            sums = trainer.train_batch(batch)
        states.append((trainer.model.state_dict(), sums))
    assert all(torch.equal(states[1][0][name], value) for name, value in states[0][0].items())
    assert states[0][1] == states[1][1]
    part = replace(EventStream(trainer_counts(recipe, data), slice(1, 3), trainer.task(batch)[0].context))
    assert part.batch == 2
    assert part.chunk(0, 2).shape[1] == 2


def trainer_counts(recipe, data):  # type: ignore[no-untyped-def]
    from snnsim.training.prepare import stream

    counts = stream(data.train, recipe, data.pool, 0, seed=0, training=True, streamed=True).batch(np.arange(5)).counts
    assert isinstance(counts, StreamedCounts)
    return counts
