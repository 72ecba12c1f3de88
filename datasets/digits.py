"""Handwritten digits of 8 x 8 pixels: the smallest real images, for convolutional networks.

1797 digits of 43 people (the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI
1998), as they come with scikit-learn (extra "vision"). The split is fixed: of every class a quarter is for the test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.frames import Frames
from snnsim.errors import InputError
from snnsim.files import canonical_json, sha256_bytes
from snnsim.kernels.philox import Stream, uniform

__all__ = ["SIDE", "held_out", "load_images", "open_digits"]

SIDE = 8
"""Pixels of a row and of a column."""

BRIGHTEST = 16.0
TEST_SAMPLES = 450
STEP = 1e-3
"""Seconds that an image stands for by itself; a recipe's ``repeat_steps`` shows it again and again at its own step."""

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Int64 = npt.NDArray[np.int64]


def load_images() -> tuple[npt.NDArray[np.float32], Int64]:
    """Return images, float32 in [0, 1], shape (1797, 8, 8), and their digits, int64.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "data set 'digits' comes with scikit-learn, which is not installed; install the extra: "
            "pip install 'snnsim[vision]'"
        ) from error
    bunch: Any = load_digits()
    images = (np.asarray(bunch.images, dtype=np.float64) / BRIGHTEST).astype(np.float32)
    return images, np.asarray(bunch.target, dtype=np.int64)


def held_out(labels: Int64, count: int = TEST_SAMPLES, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Return which samples are for the test: the same share of every class, drawn by sample index.

    What is left over by rounding down goes to the classes with the largest remainders, the first among equals.

    Args:
        labels: Classes, int64, shape (sample,).
        count: Samples for the test.
        seed: Seed of the draw.

    >>> int(held_out(np.arange(40) % 10, 10).sum())
    10
    """
    sizes = np.bincount(labels)
    share = sizes * (count / labels.size)
    numbers = np.floor(share).astype(np.int64)
    remainder = np.argsort(-(share - numbers), kind="stable")
    numbers[remainder[: count - int(numbers.sum())]] += 1
    order = uniform(seed, Stream.SPLIT, np.arange(labels.size))
    out = np.zeros(labels.size, dtype=np.bool_)
    for label, number in enumerate(numbers):
        members = np.flatnonzero(labels == label)
        out[members[np.argsort(order[members], kind="stable")[:number]]] = True
    return out


def open_digits() -> Dataset:
    """Open the digits: images as one frame of 64 values in [0, 1]; 1347 to train, 450 to test.

    Raises:
        InputError: scikit-learn is not installed.
    """
    images, labels = load_images()
    out = held_out(labels)
    rows = images.reshape(len(images), 1, SIDE * SIDE)
    ids = np.arange(len(images))

    def part(chosen: npt.NDArray[np.bool_]) -> Frames:
        return Frames.build(rows[chosen], labels[chosen], STEP, class_names=NAMES, sample_ids=ids[chosen])

    facts = {"name": "digits", "version": 1, "test": TEST_SAMPLES, "labels": labels.tolist()}
    return Dataset(
        name="digits",
        train=part(~out),
        test=part(out),
        valid=None,
        digest=sha256_bytes(canonical_json(facts).encode() + images.tobytes()),
        source="sklearn.datasets.load_digits",
        notes={"maps": [1, SIDE, SIDE]},
    )
