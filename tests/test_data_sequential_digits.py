"""Digits in order: nothing of an image is lost, the split is that of the images, the events lie on the grid."""

import sys

import numpy as np
import pytest

from snnsim.datasets import frame, open_dataset, sequential_digits
from snnsim.datasets.batches import BatchStream
from snnsim.datasets.frames import Frames
from snnsim.errors import InputError

pytest.importorskip("sklearn")


@pytest.mark.parametrize(
    ("name", "dt", "steps"), [("sequential-digits", 0.016, 8), ("sequential-digits-pixels", 0.004, 64)]
)
def test_counts_at_the_items_own_step_are_the_images(name: str, dt: float, steps: int) -> None:
    images, data = open_dataset("digits"), open_dataset(name)
    for part, still in ((data.train, images.train), (data.test, images.test)):
        assert part is not None
        assert isinstance(still, Frames)
        assert np.array_equal(part.sample_ids, still.sample_ids)
        assert np.array_equal(part.labels, still.labels)
        few = frame(part.subset(np.arange(40)), "zero", dt=dt)
        (batch,) = BatchStream(few, dt, 40, shuffle=False).epoch(0)
        assert batch.x.shape[:2] == (steps, 40)
        values = np.rint(still.values[:40, 0] * 16)
        seen = batch.x.transpose(1, 0, 2)
        assert np.array_equal(seen.reshape(40, 64) if steps == 8 else seen.sum(axis=2), values)
    assert (data.n_classes, data.train.n_units) == (10, 8 if steps == 8 else 16)


def test_a_pixel_of_a_row_fires_evenly() -> None:
    sample = open_dataset("sequential-digits").train[0]
    slots = np.rint(np.asarray(sample.times) / 0.001 - 0.5).astype(int)
    for row in range(8):
        for column in range(8):
            here = slots[(slots // 16 == row) & (sample.units == column)] % 16
            assert here.tolist() == [k * 16 // here.size for k in range(here.size)]


def test_the_same_bits_again_and_another_digest_for_the_other_order() -> None:
    one, two = open_dataset("sequential-digits"), open_dataset("sequential-digits")
    assert one.digest == two.digest
    assert np.array_equal(one.train.times, two.train.times)
    assert one.digest != open_dataset("sequential-digits-pixels").digest


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"install the extra: pip install 'snnsim\[vision\]'"):
        open_dataset("sequential-digits")


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(InputError, match="expected 'rows' or 'pixels', got 'columns'"):
        sequential_digits.open_sequential_digits("columns")  # type: ignore[arg-type]
