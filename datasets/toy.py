"""A parametric toy whose answer is known: classes that differ only in the delays between channels.

Class ``c`` is a pattern of delays: channel group ``g`` fires a short burst at ``start + delay[c, g]``. The delays of
a class are a permutation of one common set, every group fires equally often in every class, and the start is
random. So neither the number of spikes of a channel, nor the total activity over time, nor any single channel tells
the class: only the differences between channels do. A detector that delays each group by ``max - delay[c, g]`` sees
all of them at one instant for its own class and for no other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.files import canonical_json, sha256_bytes
from snnsim.kernels.philox import Stream, normal, uniform

__all__ = ["detect_by_delays", "make_toy", "toy_delays"]

Float64 = npt.NDArray[np.float64]


def toy_delays(n_classes: int, n_groups: int, spacing: float) -> Float64:
    """Return the delay of each channel group in each class, seconds, shape (n_classes, n_groups).

    Class ``c`` orders the groups by ``g -> g * m_c mod p`` on the numbers 1..n_groups, where ``p = n_groups + 1`` is
    prime and the ``m_c`` are spread over 1..p-1 in pairs ``m`` and ``p - m``: permutations of one set of
    delays, in which any two classes agree in no group, and each class has its time reverse beside it.

    Raises:
        InputError: ``n_groups + 1`` is not prime, or there are more classes than multipliers.

    >>> (toy_delays(2, 4, 0.01) * 100).round().astype(int).tolist()
    [[0, 1, 2, 3], [3, 2, 1, 0]]
    """
    p = n_groups + 1
    if p < 3 or any(p % q == 0 for q in range(2, int(p**0.5) + 1)):
        raise InputError(f"n_groups: expected one less than a prime (4, 6, 10, 12, 16, ...), got {n_groups}")
    if not 2 <= n_classes <= n_groups:
        raise InputError(f"n_classes: expected 2 to {n_groups} for {n_groups} channel groups, got {n_classes}")
    multipliers = [m for pair in ((k, p - k) for k in range(1, p // 2 + 1)) for m in pair]
    groups = np.arange(1, p)
    return np.stack([(groups * m % p - 1) * spacing for m in multipliers[:n_classes]])


def make_toy(
    *,
    n_classes: int = 4,
    n_groups: int = 10,
    channels_per_group: int = 4,
    spacing: float = 0.02,
    start: float = 0.1,
    burst: int = 2,
    jitter: float = 0.001,
    noise_rate: float = 1.0,
    n_train: int = 400,
    n_test: int = 200,
    seed: int = 0,
) -> Dataset:
    """Make the toy.

    Args:
        n_classes: Classes.
        n_groups: Groups of neighbouring channels, one less than a prime.
        channels_per_group: Channels a group; they fire together.
        spacing: Step between the delays, seconds; the longest delay is ``(n_groups - 1) * spacing``.
        start: Latest start of the pattern, seconds; uniform from 0.
        burst: Spikes of each channel.
        jitter: Standard deviation of each spike's time, seconds.
        noise_rate: Rate of unrelated spikes of each channel, Hz.
        n_train: Training samples.
        n_test: Test samples.
        seed: Seed.

    Returns:
        Data set "toy"; ``notes["delays"]`` holds :func:`toy_delays`.

    Raises:
        InputError: A parameter out of range.
    """
    delays = toy_delays(n_classes, n_groups, spacing)
    for name, value, low in (
        ("channels_per_group", channels_per_group, 1),
        ("burst", burst, 1),
        ("n_train", n_train, 1),
        ("n_test", n_test, 1),
        ("spacing", spacing, 1e-6),
        ("start", start, 0.0),
        ("jitter", jitter, 0.0),
        ("noise_rate", noise_rate, 0.0),
    ):
        if value < low:
            raise InputError(f"{name}: expected at least {low:g}, got {value}")
    parameters = {
        "n_classes": n_classes,
        "n_groups": n_groups,
        "channels_per_group": channels_per_group,
        "spacing": spacing,
        "start": start,
        "burst": burst,
        "jitter": jitter,
        "noise_rate": noise_rate,
        "n_train": n_train,
        "n_test": n_test,
        "seed": seed,
        "version": 1,
    }
    n_units = n_groups * channels_per_group
    duration = float(np.ceil((start + float(delays.max()) + spacing) * 1e3) / 1e3)
    pattern = np.repeat(delays, channels_per_group, axis=1)  # (class, unit)

    def make(first: int, count: int) -> Events:
        times: list[Float64] = []
        units: list[npt.NDArray[np.int32]] = []
        labels = np.arange(count, dtype=np.int64) % n_classes
        expected = noise_rate * duration * n_units
        for i in range(count):
            sample = first + i
            begin = start * float(uniform(seed, Stream.TOY, sample, 0, 0))
            spread = normal(seed, Stream.TOY, sample, 1, np.arange(n_units)[:, None], np.arange(burst)[None, :])
            t = begin + pattern[labels[i]][:, None] + 0.25 * spacing + jitter * spread
            u = np.broadcast_to(np.arange(n_units, dtype=np.int32)[:, None], t.shape)
            # the number of unrelated spikes is binomial with this mean: each of twice as many may happen
            slots = np.arange(int(np.ceil(2 * expected)))
            happens = uniform(seed, Stream.TOY, sample, 2, slots) * slots.size < expected
            when = uniform(seed, Stream.TOY, sample, 3, slots)[happens] * duration
            where = (uniform(seed, Stream.TOY, sample, 4, slots)[happens] * n_units).astype(np.int32)
            t, u = np.concatenate([t.ravel(), when]), np.concatenate([u.ravel(), where])
            inside = (t >= 0) & (t < duration - 1e-6)
            times.append(t[inside])
            units.append(u[inside])
        names = tuple(f"pattern-{c}" for c in range(n_classes))
        return Events.from_lists(times, units, n_units, labels, duration, class_names=names, sort=True)

    return Dataset(
        name="toy",
        train=make(0, n_train),
        test=make(1 << 24, n_test),
        valid=None,
        digest=sha256_bytes(canonical_json(parameters).encode()),
        source="snnsim.datasets.toy.make_toy",
        notes={"parameters": parameters, "delays": delays.tolist()},
    )


def detect_by_delays(events: Events, delays: Float64, dt: float = 0.005) -> npt.NDArray[np.int64]:
    """Return the class whose delays bring the most spikes together: the known answer, computed.

    Each spike of group ``g`` is moved to ``time - delay[c, g]``; the class with the fullest window of three steps wins.

    Args:
        events: Samples of :func:`make_toy`.
        delays: Seconds, shape (n_classes, n_groups); zeros give what can be known without delays.
        dt: Width of a bin, seconds.

    Returns:
        Classes, int64, shape (n_samples,).
    """
    n_classes, n_groups = delays.shape
    size = events.n_units // n_groups
    answer = np.zeros(len(events), dtype=np.int64)
    for i, sample in enumerate(events):
        best = np.zeros(n_classes)
        for c in range(n_classes):
            moved = np.floor((sample.times - delays[c, sample.units // size]) / dt).astype(np.int64)
            counts = np.bincount(moved - moved.min()) if moved.size else np.zeros(1)
            best[c] = np.convolve(counts, np.ones(3)).max()
        answer[i] = int(np.argmax(best))
    return answer
