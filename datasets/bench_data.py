"""How fast samples come: the flat store against tonic reading the same file, in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snnsim.datasets.batches import BatchStream
from snnsim.datasets.heidelberg import read_heidelberg
from snnsim.errors import MissingLibraryError

__all__ = ["Comparison", "bench_data", "format_comparisons"]


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same thing, timed in turn.

    Attributes:
        what: What was done.
        ours: Median seconds a sample, this package.
        peer: Median seconds a sample, tonic.
        ratio: Median over the rounds of peer / ours.
        low: Smallest ratio of a round.
        high: Largest ratio of a round.
        rounds: Rounds.
        samples: Samples a round.
    """

    what: str
    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    rounds: int
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def bench_data(
    path: str | Path, *, dt: float = 0.01, rounds: int = 5, samples: int = 64, seed: int = 0
) -> list[Comparison]:
    """Time events and frames of single samples against tonic on the same file, alternating, after a warm-up.

    Computing time of this process is compared, not the clock on the wall: a crowded machine would blur the ratio. Both
    sides use one thread and both files are in the page cache.

    Args:
        path: A plain ``.h5`` file in SHD's layout.
        dt: Width of a frame in seconds.
        rounds: Pairs of measurements.
        samples: Samples a measurement, drawn at random.
        seed: Seed of the draw.

    Returns:
        "events" (times, units and class of one sample) and "frames" (dense counts of one sample).

    Raises:
        MissingLibraryError: tonic is not installed.
        SnnsimFileError: The file cannot be read.
    """
    try:
        import tonic
        import tonic.transforms
    except ImportError as error:
        raise MissingLibraryError("tonic", "data", "the comparison with tonic") from error

    events = read_heidelberg(path)
    stream = BatchStream(events, dt, 1, shuffle=False, reuse=True)
    chosen = np.random.default_rng(seed).choice(len(events), size=min(samples, len(events)), replace=False)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "SHD"
        home.mkdir()
        (home / "shd_train.h5").symlink_to(Path(path).resolve())
        (home / "shd_train.h5.zip").touch()  # tonic only looks whether the archive is there
        to_frame = tonic.transforms.ToFrame(sensor_size=tonic.datasets.SHD.sensor_size, time_window=dt * 1e6)
        plain = tonic.datasets.SHD(folder, train=True)
        framed = tonic.datasets.SHD(folder, train=True, transform=to_frame)

        def our_events() -> None:
            for i in chosen:
                one = events[int(i)]
                np.array(one.times), np.array(one.units), int(one.labels[0])

        def our_frames() -> None:
            for i in chosen:
                stream.batch(np.array([i]))

        def their_events() -> None:
            for i in chosen:
                plain[int(i)]

        def their_frames() -> None:
            for i in chosen:
                framed[int(i)]

        return [
            _compare("events", our_events, their_events, rounds, chosen.size),
            _compare("frames", our_frames, their_frames, rounds, chosen.size),
        ]


def _compare(what: str, ours: Callable[[], None], peer: Callable[[], None], rounds: int, samples: int) -> Comparison:
    ours()
    peer()
    a, b = np.zeros(rounds), np.zeros(rounds)
    for i in range(rounds):
        a[i], b[i] = _seconds(ours), _seconds(peer)
    ratio = b / a
    return Comparison(
        what,
        float(np.median(a)) / samples,
        float(np.median(b)) / samples,
        float(np.median(ratio)),
        float(ratio.min()),
        float(ratio.max()),
        rounds,
        samples,
    )


def _seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def format_comparisons(rows: list[Comparison]) -> str:
    """Return the comparisons as a small table of text."""
    lines = [f"{'per sample':<10} {'snnsim':>10} {'tonic':>10} {'ratio':>8}   range"]
    for row in rows:
        lines.append(
            f"{row.what:<10} {row.ours * 1e3:>7.3f} ms {row.peer * 1e3:>7.2f} ms {row.ratio:>7.0f}x   "
            f"{row.low:.0f}-{row.high:.0f}x ({row.rounds} rounds of {row.samples} samples)"
        )
    return "\n".join(lines)
