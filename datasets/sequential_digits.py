"""Handwritten digits read in order, as trains of events: a task of sequences that needs no download.

The images are those of :mod:`snnsim.datasets.digits` (8 x 8 pixels, 17 grey levels; extra "vision") with its split.
Nothing is drawn at random and nothing of an image is lost: a pixel of value v gives v events.

- ``sequential-digits``: the eight rows one after the other, 16 ms each; unit x is column x, and a pixel's events lie
  evenly in its row's 16 ms. 8 units, 128 ms.
- ``sequential-digits-pixels``: the 64 pixels one after the other, row by row, 4 ms each; unit c fires once, in the
  middle of the pixel's time, if the pixel is brighter than c (thermometer code). 16 units, 256 ms.

Both codes are ours. Reading images in order as a test of memory is from Le, Jaitly and Hinton (2015), "A simple way to
initialize recurrent networks of rectified linear units".
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.digits import NAMES, SIDE, TEST_SAMPLES, held_out, load_images
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.files import canonical_json, sha256_bytes

__all__ = ["LEVELS", "PIXEL_TIME", "ROW_TIME", "Order", "encode_pixels", "encode_rows", "open_sequential_digits"]

Order = Literal["rows", "pixels"]
Floats = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

LEVELS = 16
"""Greatest value of a pixel."""

ROW_TIME = 0.016
"""Seconds for which a row is shown."""

PIXEL_TIME = 0.004
"""Seconds for which a pixel is shown."""

SLOT = ROW_TIME / LEVELS


def encode_rows(image: Int64) -> tuple[Floats, Int32]:
    """Return the events of an image read row by row.

    Event k of a pixel of value v in row y and column x is of unit x, at ``16 y + floor(16 k / v) + 1/2`` ms.

    Args:
        image: Values from 0 to 16, int64, shape (8, 8).

    Returns:
        Times in seconds, ascending, and units, both of shape (event,).

    >>> image = np.zeros((8, 8), np.int64)
    >>> image[1, 3] = 2
    >>> times, units = encode_rows(image)
    >>> [round(float(t), 4) for t in times], units.tolist()
    ([0.0165, 0.0245], [3, 3])
    """
    row, column = np.nonzero(image)
    values = image[row, column]
    places = np.repeat(np.arange(values.size), values)
    number = np.arange(places.size) - np.repeat(np.cumsum(values) - values, values)
    slots = row[places] * LEVELS + number * LEVELS // values[places]
    order = np.lexsort((column[places], slots))
    return np.asarray((slots[order] + 0.5) * SLOT), column[places][order].astype(np.int32)


def encode_pixels(image: Int64) -> tuple[Floats, Int32]:
    """Return the events of an image read pixel by pixel.

    Unit c has an event at ``4 (8 y + x) + 2`` ms if the pixel in row y and column x exceeds c.

    Args:
        image: Values from 0 to 16, int64, shape (8, 8).

    Returns:
        Times in seconds, ascending, and units, both of shape (event,).

    >>> image = np.zeros((8, 8), np.int64)
    >>> image[1, 3] = 2
    >>> times, units = encode_pixels(image)
    >>> [round(float(t), 4) for t in times], units.tolist()
    ([0.046, 0.046], [0, 1])
    """
    pixel, unit = np.nonzero(image.reshape(-1, 1) > np.arange(LEVELS))
    return np.asarray((pixel + 0.5) * PIXEL_TIME), unit.astype(np.int32)


def open_sequential_digits(order: Order = "rows") -> Dataset:
    """Open the digits as sequences; 1347 to train, 450 to test, the same images as in the data set "digits".

    Args:
        order: ``rows`` or ``pixels``.

    Raises:
        InputError: The order is unknown, or scikit-learn is not installed.
    """
    if order not in get_args(Order):
        raise InputError(f"open_sequential_digits: order: expected 'rows' or 'pixels', got {order!r}")
    images, labels = load_images()
    values = np.rint(images * LEVELS).astype(np.int64)
    out = held_out(labels)
    ids = np.arange(len(values))
    encode, units = (encode_rows, SIDE) if order == "rows" else (encode_pixels, LEVELS)
    duration = SIDE * ROW_TIME if order == "rows" else SIDE * SIDE * PIXEL_TIME
    coded = [encode(image) for image in values]

    def part(chosen: npt.NDArray[np.bool_]) -> Events:
        members = np.flatnonzero(chosen)
        return Events.from_lists(
            [coded[i][0] for i in members],
            [coded[i][1] for i in members],
            units,
            labels[members],
            duration,
            class_names=NAMES,
            sample_ids=ids[members],
        )

    name = "sequential-digits" if order == "rows" else "sequential-digits-pixels"
    facts = {"name": name, "version": 1, "test": TEST_SAMPLES, "labels": labels.tolist(), "duration": duration}
    return Dataset(
        name=name,
        train=part(~out),
        test=part(out),
        valid=None,
        digest=sha256_bytes(canonical_json(facts).encode() + values.tobytes()),
        source="sklearn.datasets.load_digits",
        notes={"order": order, "seconds_per_item": ROW_TIME if order == "rows" else PIXEL_TIME},
    )
