"""From still images to the events of a camera that looks at them with small eye movements, in N-MNIST's layout.

As N-MNIST was recorded (Orchard et al. 2015), with the camera simulated: an image moves along the three sides of a
triangle, 100 ms each. Every pixel compares the logarithm of its brightness with that at its last event; at a change by
the threshold it sends an ON (polarity 1) or an OFF event (polarity 0), several of them in a row if the change is
larger, at the times at which the line between two instants crosses the levels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snnsim.datasets.event_files import NMNIST, PixelEvents, write_nmnist
from snnsim.errors import InputError, SnnsimFileError

__all__ = ["Saccades", "write_digit_events"]

Float64 = npt.NDArray[np.float64]
CORNERS = ((-3.0, -3.0), (0.0, 3.0), (3.0, -3.0), (-3.0, -3.0))
"""Where the image's middle is at the start and after each saccade: pixels (x, y) from the camera's middle."""
BLOCK = 100
"""Images that are moved together."""


@dataclass(frozen=True)
class Saccades:
    """How images are looked at.

    Attributes:
        size: Side of the image on the camera, pixels, at most 28.
        seconds: Duration of one saccade.
        instants: Instants at which a saccade is computed.
        threshold: Change of log brightness that makes an event.
        dark: Brightness of black, beside 1 for white: it bounds the logarithm.

    Raises:
        InputError: A value out of range.
    """

    size: int = 28
    seconds: float = 0.1
    instants: int = 50
    threshold: float = 0.4
    dark: float = 0.1

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 28:
            raise InputError(f"saccades: expected a size of 2 to 28 pixels, got {self.size}")
        if not 0 < self.seconds <= 2 or self.instants < 2:
            raise InputError(
                f"saccades: expected 0 to 2 seconds and at least 2 instants, got {self.seconds} and {self.instants}"
            )
        if self.threshold < 0.01 or not 0 < self.dark < 1:
            raise InputError(
                f"saccades: expected a threshold of at least 0.01 and dark in (0, 1), got {self.threshold}, {self.dark}"
            )

    def brightness(self, images: Float64, step: int) -> Float64:
        """Return what the camera sees at an instant: log brightness, shape (sample, 34, 34).

        Args:
            images: Values in [0, 1], shape (sample, height, width).
            step: Instant, 0 .. 3 instants.
        """
        side, part = divmod(step, self.instants)
        begin, end = np.array(CORNERS[min(side, 2)]), np.array(CORNERS[min(side, 2) + 1])
        x, y = begin + (end - begin) * (part / self.instants if side < 3 else 1.0)
        middle = (NMNIST.width - 1) / 2
        columns = self._along(np.arange(NMNIST.width) - middle - x, images.shape[2])
        rows = self._along(np.arange(NMNIST.height) - middle - y, images.shape[1])
        seen = rows @ images @ columns.T
        out: Float64 = np.log(self.dark + (1 - self.dark) * seen)
        return out

    def _along(self, place: Float64, pixels: int) -> Float64:
        """Return the weights of linear interpolation along one axis, shape (camera's pixels, image's pixels)."""
        where = place * (pixels / self.size) + (pixels - 1) / 2
        return np.maximum(0.0, 1.0 - np.abs(where[:, None] - np.arange(pixels)))

    def record(self, images: npt.NDArray[np.floating]) -> list[PixelEvents]:
        """Return the events of every image, in order of time.

        Args:
            images: Values in [0, 1], shape (sample, height, width).
        """
        values = np.asarray(images, dtype=np.float64)
        if values.ndim != 3 or not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1:
            raise InputError(
                f"saccades: expected images with values in [0, 1], shape (sample, height, width), got {values.shape}"
            )
        return [one for start in range(0, len(values), BLOCK) for one in self._block(values[start : start + BLOCK])]

    def _block(self, images: Float64) -> list[PixelEvents]:
        before = self.brightness(images, 0)
        level = before.copy()  # log brightness at a pixel's last event
        found: list[npt.NDArray[np.int64]] = []
        apart = self.seconds / self.instants * 1e6
        for step in range(1, 3 * self.instants + 1):
            now = self.brightness(images, step)
            crossings = np.trunc((now - level) / self.threshold).astype(np.int64)
            sample, y, x = np.nonzero(crossings)
            number = crossings[sample, y, x]
            for k in range(1, int(np.abs(number).max(initial=0)) + 1):
                more = np.abs(number) >= k
                s, py, px, sign = sample[more], y[more], x[more], np.sign(number[more])
                start, end = before[s, py, px], now[s, py, px]
                reached = level[s, py, px] + sign * k * self.threshold
                share = np.clip((reached - start) / np.where(end == start, 1.0, end - start), 0.0, 1.0)
                time = np.floor((step - 1 + share) * apart)
                time = np.minimum(time, np.ceil(step * apart) - 1).astype(np.int64)  # before the instant, not on it
                found.append(np.stack([s, time, px, py, (sign > 0).astype(np.int64)]))
            level += crossings * self.threshold
            before = now
        rows = np.concatenate(found, axis=1) if found else np.zeros((5, 0), dtype=np.int64)
        rows = rows[:, np.lexsort((rows[4], rows[2], rows[3], rows[1], rows[0]))]
        edges = np.searchsorted(rows[0], np.arange(len(images) + 1))
        parts = (rows[1:, a:b] for a, b in pairwise(edges))
        return [PixelEvents(part[0], part[1], part[2], part[3]) for part in parts]


def write_digit_events(
    out: str | Path,
    saccades: Saccades | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write events of the handwritten digits as a folder ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``.

    The folder appears when it is complete. File names are sample numbers of the data set "digits".

    Args:
        out: Folder to write; it must not exist.
        saccades: How the digits are looked at.
        limit: Only so many samples of each part.
        progress: Called with done and total files.

    Returns:
        Numbers of ``train`` and ``test`` samples and of ``events``.

    Raises:
        InputError: scikit-learn is not installed, or a value is out of range.
        SnnsimFileError: The folder exists or cannot be written.
    """
    from snnsim.datasets.digits import held_out, load_images

    out = Path(out)
    if out.exists():
        raise SnnsimFileError(out, "", "exists already; remove it or choose another folder")
    if limit is not None and limit < 1:
        raise InputError(f"limit: expected at least one sample of each part, got {limit}")
    saccades = saccades or Saccades()
    images, labels = load_images()
    test = held_out(labels)
    chosen = {"Train": np.flatnonzero(~test)[:limit], "Test": np.flatnonzero(test)[:limit]}
    total = sum(part.size for part in chosen.values())
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    done = events = 0
    try:
        for name, part in chosen.items():
            for start in range(0, part.size, BLOCK):
                some = part[start : start + BLOCK]
                for sample, one in zip(some, saccades.record(images[some]), strict=True):
                    folder = unfinished / name / str(labels[sample])
                    folder.mkdir(parents=True, exist_ok=True)
                    write_nmnist(folder / f"{sample:05d}.bin", one)
                    done, events = done + 1, events + one.t.size
                if progress is not None:
                    progress(done, total)
        unfinished.rename(out)
    except OSError as error:
        raise SnnsimFileError(out, "", f"cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {"train": chosen["Train"].size, "test": chosen["Test"].size, "events": events}
