"""Batches for training: counts on the time grid, with masks, in an order that depends on (seed, epoch) only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.datasets.augment import Augment, Mixed, augment_batch
from snnsim.datasets.frames import Frames
from snnsim.datasets.streamed import StreamedCounts
from snnsim.errors import InputError
from snnsim.events import Events, outside_message
from snnsim.grid import check_dt
from snnsim.kernels.binning import bin_samples
from snnsim.kernels.philox import Stream, uniform

__all__ = ["Batch", "BatchStream", "bin_batch", "pool_table"]

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        counts: Input, float32, shape (time, batch, unit): event counts (or frames), zero after a sample's steps; or
            what makes it stretch by stretch.
        labels: int64, shape (batch,).
        n_steps: Steps of each sample, tail included, int64, shape (batch,).
        mask: True at the valid steps, bool, shape (time, batch).
        sample_id: Index of each sample in its data set, int64, shape (batch,).
        other_labels: Class of the second sample where two were mixed (CutMix), int64, shape (batch,), or None.
        other_weight: Part of the second class in the target, float32, shape (batch,), in [0, 1], or None.
    """

    counts: Float32 | StreamedCounts
    labels: Int64
    n_steps: Int64
    mask: npt.NDArray[np.bool_]
    sample_id: Int64
    other_labels: Int64 | None = None
    other_weight: Float32 | None = None

    def __len__(self) -> int:
        return self.labels.size

    @property
    def x(self) -> Float32:
        """The input as one array, (time, batch, unit)."""
        return self.counts if isinstance(self.counts, np.ndarray) else self.counts.chunk(0, self.mask.shape[0])

    def active(self, samples: slice) -> int:
        """Return how many (step, unit) pairs of some samples are not zero."""
        if isinstance(self.counts, np.ndarray):
            return int(np.count_nonzero(self.counts[:, samples]))
        return self.counts.active(samples)

    def targets(self, n_classes: int) -> Float32:
        """Return class probabilities, float32, shape (batch, n_classes): one-hot, or two classes where mixed."""
        out = np.zeros((len(self), n_classes), dtype=np.float32)
        rows = np.arange(len(self))
        out[rows, self.labels] = 1.0
        if self.other_labels is not None and self.other_weight is not None:
            out[rows, self.labels] -= self.other_weight
            out[rows, self.other_labels] += self.other_weight
        return out


class BatchStream:
    """Batches of one group of samples, epoch by epoch.

    The order of the samples is a function of (seed, epoch, sample ids), every random change of a sample one of
    (seed, epoch, sample id): the same epoch gives the same batches whenever and wherever it is asked for.

    Args:
        events: Samples, already framed (see :func:`snnsim.datasets.frame`); or
            :class:`~snnsim.datasets.frames.Frames`, whose values are passed on as they are (``dt`` and ``pool`` must
            be theirs and 1, and they are not augmented).
        dt: Step in seconds.
        batch_size: Samples a batch; the last one may be smaller.
        pool: Neighbouring units summed into one.
        tail_steps: Empty steps added after each sample's own.
        seed: Seed of order and augmentation.
        shuffle: New order each epoch; else the order of ``events``.
        augment: Random changes of the samples, or None.
        drop_last: Leave out a last batch that is not full.
        pad_to: Time steps of every batch; default the longest sample of the batch. A sample that a change makes
            longer is cut there.
        reuse: Fill one buffer again and again: a batch is valid until the next one is taken.
        outside: ``"refuse"`` or ``"drop"`` events at or after their sample's steps.
        streamed: Batches hold their events and make counts when a stretch is asked for; frames stay as they are.

    Raises:
        InputError: A wrong argument, or an event outside its sample's steps.
    """

    def __init__(
        self,
        events: Events,
        dt: float,
        batch_size: int,
        *,
        pool: int = 1,
        tail_steps: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
        drop_last: bool = False,
        pad_to: int | None = None,
        reuse: bool = False,
        outside: str = "refuse",
        streamed: bool = False,
    ) -> None:
        for name, value, low in (("batch_size", batch_size, 1), ("pool", pool, 1), ("tail_steps", tail_steps, 0)):
            if value < low:
                raise InputError(f"{name}: expected at least {low}, got {value}")
        if outside not in ("refuse", "drop"):
            raise InputError(f"outside: expected 'refuse' or 'drop', got {outside!r}")
        if isinstance(events, Frames):
            _check_frames(events, dt, pool, augment)
        self.events = events
        self.dt = check_dt(dt)
        self.batch_size = batch_size
        self.pool = pool
        self.tail_steps = tail_steps
        self.seed = seed
        self.shuffle = shuffle
        self.augment = augment
        self.drop_last = drop_last
        self.pad_to = pad_to
        self.outside = outside
        self.n_steps: Int64 = events.n_steps(dt) + tail_steps
        self._pooled = pool_table(events.n_units, pool)
        self._reuse = reuse
        self._streamed = streamed
        self._buffer: Float32 | None = None
        longest = int(self.n_steps.max()) if len(events) else 0
        if pad_to is not None and pad_to < longest:
            raise InputError(f"pad_to: the longest sample has {longest} steps, tail included; got {pad_to}")

    @property
    def n_units(self) -> int:
        """Number of input columns after pooling."""
        return -(-self.events.n_units // self.pool)

    def __len__(self) -> int:
        full, rest = divmod(len(self.events), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def order(self, epoch: int) -> Int64:
        """Return the positions of the samples in the order of ``epoch``, int64, shape (n_samples,)."""
        n = len(self.events)
        if not self.shuffle:
            return np.arange(n, dtype=np.int64)
        draws = uniform(self.seed, Stream.ORDER, 0, epoch, np.arange(n))
        return np.argsort(draws, kind="stable").astype(np.int64)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch``, from batch ``start`` on (to resume within an epoch)."""
        order = self.order(epoch)
        for i in range(start, len(self)):
            yield self.batch(order[i * self.batch_size : (i + 1) * self.batch_size], epoch)

    def batch(self, indices: Int64, epoch: int = 0) -> Batch:
        """Return one batch of the samples at ``indices``, augmented as in ``epoch``."""
        events, source, mixed = self.events, self.events, None
        n_steps = self.n_steps[indices]
        if isinstance(events, Frames):
            x = self._array(self._time(n_steps), indices.size)
            frames = events.values.shape[1]
            x[frames * events.repeat :] = 0.0
            for shown in range(events.repeat):
                for b, i in enumerate(indices):
                    x[frames * shown : frames * (shown + 1), b] = events.values[i]
            return self._batch(x, indices, n_steps, None)
        if self.augment is not None and self.augment.active:
            source, mixed = augment_batch(events, indices, self.augment, self.seed, epoch, self.dt)
            starts, stops = source.offsets[:-1].copy(), source.offsets[1:].copy()
            n_steps = np.minimum(source.n_steps(self.dt) + self.tail_steps, self.pad_to or np.iinfo(np.int64).max)
        else:
            starts, stops = source.offsets[indices], source.offsets[indices + 1]
        own = n_steps - self.tail_steps
        counts: Float32 | StreamedCounts
        if self._streamed:
            shape = (self._time(n_steps), int(indices.size), self.n_units)
            counts = StreamedCounts(source.times, source.units, starts, stops, own, self.dt, self._pooled, shape)
            lost = counts.lost
        else:
            counts = self._array(self._time(n_steps), indices.size)
            lost = bin_samples(source.times, source.units, starts, stops, own, self.dt, self._pooled, counts)
        if lost and self.outside == "refuse" and source is events:
            raise InputError(outside_message(lost))
        return self._batch(counts, indices, n_steps, mixed)

    def _time(self, n_steps: Int64) -> int:
        return int(n_steps.max()) if self.pad_to is None else self.pad_to

    def _batch(self, counts: Float32 | StreamedCounts, indices: Int64, n_steps: Int64, mixed: Mixed | None) -> Batch:
        return Batch(
            counts=counts,
            labels=np.array(self.events.labels[indices]),
            n_steps=n_steps,
            mask=np.arange(counts.shape[0])[:, None] < n_steps[None, :],
            sample_id=np.array(self.events.sample_ids[indices]),
            other_labels=None if mixed is None else mixed.labels,
            other_weight=None if mixed is None else mixed.weight,
        )

    def _array(self, time: int, batch: int) -> Float32:
        size = time * batch * self.n_units
        if not self._reuse:
            return np.empty((time, batch, self.n_units), dtype=np.float32)
        if self._buffer is None or self._buffer.size < size:
            self._buffer = np.empty(size, dtype=np.float32)
        return self._buffer[:size].reshape(time, batch, self.n_units)


def _check_frames(frames: Frames, dt: float, pool: int, augment: Augment | None) -> None:
    if abs(dt - frames.dt) > 1e-9:
        raise InputError(f"dt: these samples are frames of {frames.dt} s; got dt {dt}; set data.dt to {frames.dt}")
    if pool != 1:
        raise InputError(
            f"pool: frames of {frames.n_units} bands are not pooled; got {pool}; set data.channels to none"
        )
    if augment is not None and augment.active:
        raise InputError("augment: random changes act on events, not on frames; switch them off for this data set")


@lru_cache(maxsize=64)
def pool_table(n_units: int, pool: int) -> npt.NDArray[np.int32]:
    """Return the column of each unit when ``pool`` neighbours share one, int32, shape (n_units,)."""
    return (np.arange(n_units, dtype=np.int32) // pool).astype(np.int32)


def bin_batch(
    events: Events, dt: float, n_steps: Any = None, pool: int = 1, out: Float32 | None = None, outside: str = "refuse"
) -> Float32:
    """Do what :func:`snnsim.events.bin_events` does, with the compiled kernel."""
    n = len(events)
    steps = events.n_steps(dt) if n_steps is None else np.broadcast_to(np.asarray(n_steps, dtype=np.int64), (n,))
    steps = np.array(steps)  # an own array: one compiled version of the kernel serves all callers
    width = -(-events.n_units // pool)
    longest = int(steps.max()) if n else 0
    if out is None:
        out = np.empty((longest, n, width), dtype=np.float32)
    elif out.dtype != np.float32 or out.shape[1:] != (n, width) or out.shape[0] < longest:
        raise InputError(f"out: expected float32, shape (>= {longest}, {n}, {width}), got {out.dtype}, {out.shape}")
    table = pool_table(events.n_units, pool)
    starts, stops = events.offsets[:-1].copy(), events.offsets[1:].copy()
    lost = bin_samples(events.times, events.units, starts, stops, steps, check_dt(dt), table, out)
    if lost and outside == "refuse":
        raise InputError(outside_message(lost))
    return out
