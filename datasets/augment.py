"""Random changes of training samples, drawn from (seed, epoch, sample id) and from nothing else.

The changes act on events, before binning, so they do not depend on the time step or on the place in a batch.
Sources: time mask, channel mask and CutMix from Hammouamri, Khalfaoui-Hassani and Masquelier, 2024 (there on
frames, the partner being the next sample of the batch; here any sample of the set); channel shift and blend of two
samples of one class from Nowotny, Turner and Knight, 2025.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events, sort_events
from snnsim.grid import GRID_TOLERANCE
from snnsim.kernels.philox import Stream, normal, uniform

__all__ = ["Augment", "Mixed", "augment_batch", "augment_events"]

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How samples may change; zero switches a change off. They act in this order.

    Attributes:
        blend: Probability of mixing with another sample of the same class: its events are moved so that both
            have the same mean time and mean unit, then each event of both is kept with probability 1/2.
        cutmix: Probability of replacing a stretch of time by that of any other sample; the stretch is a uniform
            part of the sample, and the target becomes a mixture of the two classes in that proportion.
        drop: Probability that an event is left out.
        time_jitter: Standard deviation of the normal change of each event's time, seconds.
        channel_jitter: Standard deviation of the normal change of each event's unit, rounded.
        time_stretch: Largest change of the speed of a sample: times and duration are multiplied by a factor uniform in
            1 - time_stretch .. 1 + time_stretch.
        time_shift: Largest shift of a whole sample in time, seconds, uniform in both directions.
        channel_shift: Largest shift of a whole sample over units, uniform in both directions.
        time_mask: Longest masked stretch of time, as part of the sample; its length is uniform.
        channel_mask: Widest masked band of units, as part of all units; its width is uniform.
        mask_probability: Probability that a mask is applied, for each of the two masks.
        keep_duration: Leave the duration alone when times are stretched, for samples that must all have the same.

    Events that leave the sample in time or the units are dropped; only ``time_stretch`` changes the duration.
    """

    blend: float = 0.0
    cutmix: float = 0.0
    drop: float = 0.0
    time_jitter: float = 0.0
    channel_jitter: float = 0.0
    time_stretch: float = 0.0
    time_shift: float = 0.0
    channel_shift: int = 0
    time_mask: float = 0.0
    channel_mask: float = 0.0
    mask_probability: float = 1.0
    keep_duration: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name == "keep_duration":
                continue
            value = getattr(self, item.name)
            top = np.inf if item.name.endswith(("jitter", "shift")) else 1.0
            if not 0 <= value <= top or not np.isfinite(value):
                raise InputError(f"Augment.{item.name}: expected a number from 0 to {top:g}, got {value!r}")

    @property
    def active(self) -> bool:
        """Whether anything can change."""
        neutral = ("mask_probability", "keep_duration")
        return any(getattr(self, item.name) > 0 for item in fields(self) if item.name not in neutral)


@dataclass(frozen=True)
class Mixed:
    """The second class of each sample of a batch.

    Attributes:
        labels: int64, shape (batch,).
        weight: Its part in the target, float32, shape (batch,), in [0, 1].
    """

    labels: Int64
    weight: npt.NDArray[np.float32]


def augment_events(events: Events, augment: Augment, *, seed: int, epoch: int, dt: float = 1e-3) -> Events:
    """Return all samples changed as in training (times in order, labels kept; partners from ``events``).

    Args:
        events: Samples.
        augment: What may change.
        seed: Seed of the run.
        epoch: Epoch.
        dt: Step; only used to keep events off the very end of a sample.
    """
    changed, _ = augment_batch(events, np.arange(len(events)), augment, seed, epoch, dt)
    parts = [sort_events(part.times, part.units) for part in changed]
    return Events.from_lists(
        [part[0] for part in parts],
        [part[1] for part in parts],
        events.n_units,
        events.labels,
        changed.duration,
        speakers=events.speakers,
        class_names=events.class_names,
        sample_ids=events.sample_ids,
        recordings=events.recordings,
    )


def augment_batch(
    events: Events, indices: Int64, augment: Augment, seed: int, epoch: int, dt: float
) -> tuple[Events, Mixed | None]:
    """Return the chosen samples changed, and the second classes if CutMix is on.

    The events of a sample are not in order of time (binning does not need it).

    Args:
        events: The training set.
        indices: Positions of the samples, int64, shape (batch,).
        augment: What may change.
        seed: Seed of the run.
        epoch: Epoch.
        dt: Step in seconds.
    """
    ids = events.sample_ids[indices]
    draws = {
        stream: uniform(seed, stream, ids[:, None], epoch, np.arange(4)[None, :])
        for stream in (
            Stream.BLEND,
            Stream.CUTMIX,
            Stream.TIME_STRETCH,
            Stream.TIME_SHIFT,
            Stream.CHANNEL_SHIFT,
            Stream.TIME_MASK,
            Stream.CHANNEL_MASK,
        )
    }
    labels = np.array(events.labels[indices])
    weight = np.zeros(indices.size, dtype=np.float32)
    duration = np.array(events.duration[indices])
    times: list[Float64] = []
    units: list[Int32] = []
    for row, index in enumerate(indices):
        length = float(events.duration[index])
        own = {stream: values[row] for stream, values in draws.items()}
        t, u = _events_of(events, int(index))
        if own[Stream.BLEND][0] < augment.blend:
            t, u = _blend(events, int(index), t, u, own[Stream.BLEND][1], seed, epoch)
        if own[Stream.CUTMIX][0] < augment.cutmix:
            _, choice, part, place = own[Stream.CUTMIX]
            other = int(choice * len(events))
            start = place * (1.0 - part) * length
            t, u = _cut(events, other, t, u, start, start + part * length)
            labels[row], weight[row] = events.labels[other], part
        speed = 1.0 + augment.time_stretch * (2.0 * own[Stream.TIME_STRETCH][0] - 1.0)
        t, u = _move(t, u, augment, own, speed, int(ids[row]), seed, epoch)
        if augment.time_stretch > 0 and not augment.keep_duration:
            length = duration[row] = length * speed
        keep = (t >= 0) & (t < length - 2 * GRID_TOLERANCE * dt) & (u >= 0) & (u < events.n_units)
        keep &= _unmasked(t, u, augment, own, length, events.n_units)
        times.append(t[keep])
        units.append(u[keep])
    offsets = np.zeros(indices.size + 1, dtype=np.int64)
    np.cumsum([part.size for part in times], out=offsets[1:])
    changed = Events._trusted(
        np.concatenate([*times, np.zeros(0)]),
        np.concatenate([*units, np.zeros(0, dtype=np.int32)]),
        offsets,
        events.labels[indices],
        events.n_units,
        duration,
        None if events.speakers is None else events.speakers[indices],
        events.class_names,
        ids,
    )
    return changed, Mixed(labels, weight) if augment.cutmix > 0 else None


def _events_of(events: Events, index: int) -> tuple[Float64, Int32]:
    part = slice(int(events.offsets[index]), int(events.offsets[index + 1]))
    return events.times[part], events.units[part]


def _blend(
    events: Events, index: int, t: Float64, u: Int32, choice: float, seed: int, epoch: int
) -> tuple[Float64, Int32]:
    same = np.flatnonzero(events.labels == events.labels[index])
    other_t, other_u = _events_of(events, int(same[int(choice * same.size)]))
    if t.size and other_t.size:
        other_t = other_t + (t.mean() - other_t.mean())
        other_u = (other_u + np.rint(u.mean() - other_u.mean())).astype(np.int32)
    t, u = np.concatenate([t, other_t]), np.concatenate([u, other_u])
    coin = uniform(seed, Stream.BLEND, int(events.sample_ids[index]), epoch, np.arange(t.size), 1)
    return t[coin < 0.5], u[coin < 0.5]


def _cut(events: Events, other: int, t: Float64, u: Int32, start: float, stop: float) -> tuple[Float64, Int32]:
    other_t, other_u = _events_of(events, other)
    outside = (t < start) | (t >= stop)
    inside = (other_t >= start) & (other_t < stop)
    return np.concatenate([t[outside], other_t[inside]]), np.concatenate([u[outside], other_u[inside]])


def _move(
    t: Float64, u: Int32, augment: Augment, own: dict[Stream, Float64], speed: float, sample: int, seed: int, epoch: int
) -> tuple[Float64, Int32]:
    """Drop, jitter, stretch (times ``speed``) and shift events."""
    if augment.drop > 0:
        kept = uniform(seed, Stream.EVENT_DROP, sample, epoch, np.arange(t.size)) >= augment.drop
        t, u = t[kept], u[kept]
    if augment.time_jitter > 0:
        t = t + augment.time_jitter * normal(seed, Stream.JITTER, sample, epoch, np.arange(t.size))
    if augment.channel_jitter > 0:
        noise = normal(seed, Stream.CHANNEL_JITTER, sample, epoch, np.arange(u.size))
        u = (u + np.rint(augment.channel_jitter * noise)).astype(np.int32)
    if augment.time_stretch > 0:
        t = t * speed
    if augment.time_shift > 0:
        t = t + augment.time_shift * (2.0 * own[Stream.TIME_SHIFT][0] - 1.0)
    if augment.channel_shift > 0:
        width = 2 * int(augment.channel_shift) + 1
        u = (u + int(own[Stream.CHANNEL_SHIFT][0] * width) - int(augment.channel_shift)).astype(np.int32)
    return t, u


def _unmasked(
    t: Float64, u: Int32, augment: Augment, own: dict[Stream, Float64], length: float, n_units: int
) -> npt.NDArray[np.bool_]:
    keep = np.ones(t.size, dtype=np.bool_)
    coin, size, place, _ = own[Stream.TIME_MASK]
    if augment.time_mask > 0 and coin < augment.mask_probability:
        span = size * augment.time_mask * length
        start = place * (length - span)
        keep &= (t < start) | (t >= start + span)
    coin, size, place, _ = own[Stream.CHANNEL_MASK]
    if augment.channel_mask > 0 and coin < augment.mask_probability:
        width = int(size * (augment.channel_mask * n_units + 1))
        first = int(place * (n_units - width + 1))
        keep &= (u < first) | (u >= first + width)
    return keep
