"""The counts of a batch, made stretch by stretch from its events: nothing of the size of all steps is held."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.grid import time_to_step

__all__ = ["StreamedCounts"]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class StreamedCounts:
    """Events of a batch in order of their steps.

    Args:
        times: Times of all events, seconds, shape (n_events,).
        units: Units of all events, shape (n_events,).
        starts: First event of every sample, shape (batch,).
        stops: Event after the last of every sample.
        own: Steps of every sample that may hold events.
        dt: Step in seconds.
        columns: Column of every unit, shape (n_units,).
        shape: Steps, samples and columns of the batch.

    Attributes:
        lost: Events outside their sample's steps; they are left out.
    """

    def __init__(
        self,
        times: npt.NDArray[np.float64],
        units: npt.NDArray[np.int32],
        starts: Int64,
        stops: Int64,
        own: Int64,
        dt: float,
        columns: npt.NDArray[np.int32],
        shape: tuple[int, int, int],
    ) -> None:
        self.shape = shape
        steps, places, lost = [], [], 0
        for sample, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            step = time_to_step(times[start:stop], dt)
            inside = (step >= 0) & (step < own[sample])
            lost += step.size - int(inside.sum())
            steps.append(step[inside].astype(np.int32))
            places.append(sample * shape[2] + columns[units[start:stop][inside]].astype(np.int64))
        step = np.concatenate([np.zeros(0, np.int32), *steps])
        order = np.argsort(step, kind="stable")
        self._place = np.concatenate([np.zeros(0, np.int64), *places])[order]
        self._first = np.searchsorted(step[order], np.arange(shape[0] + 1))
        self.lost = lost

    def chunk(self, start: int, stop: int) -> Float32:
        """Return the counts of steps ``start .. stop - 1``, shape (stop - start, batch, column)."""
        size = self.shape[1] * self.shape[2]
        out = np.zeros((stop - start, size), dtype=np.float32)
        for step in range(start, stop):
            np.add.at(out[step - start], self._place[self._first[step] : self._first[step + 1]], np.float32(1))
        return out.reshape(stop - start, *self.shape[1:])

    def active(self, samples: slice) -> int:
        """Return how many (step, column) pairs of some samples hold an event."""
        size = self.shape[1] * self.shape[2]
        step = np.repeat(np.arange(self.shape[0]), np.diff(self._first))
        low, high, _ = samples.indices(self.shape[1])
        mine = (self._place >= low * self.shape[2]) & (self._place < high * self.shape[2])
        keys: npt.NDArray[Any] = step[mine] * size + self._place[mine]
        return int(np.unique(keys).size)
