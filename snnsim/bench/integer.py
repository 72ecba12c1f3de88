"""The integer engine beside Lava's fixed-point simulator: the same network, the same events, in turn.

Lava builds its processes for every sample; what it takes for a step alone is the difference between a long and a short
sample, so that starting costs nothing there. Both figures are given, and the spikes of both sides are compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.integer import simulate_integer
from snnsim.events import Events, bin_events
from snnsim.export.chip_judges import LavaJudge
from snnsim.export.lava import write_lava
from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.network import Input, Readout

__all__ = ["IntegerRace", "chain", "format_integer", "measure_integer"]

SIZES = (140, 128, 128, 20)
LONGEST = 63
SHORT, LONG = 100, 300
BATCH = 64
RATE = 0.02


@dataclass(frozen=True)
class IntegerRace:
    """Times of both sides, one entry a round.

    Attributes:
        threads: Of the integer engine.
        steps: Steps of a sample.
        lava_sample: Seconds that Lava takes for a sample from rest, its processes built and stopped.
        lava_step: Seconds that it takes for one more step.
        ours_sample: Seconds of the integer engine for a sample, out of a batch.
        compared: Neuron-steps whose spikes were compared.
        differing: Those that differ.
        spikes: Spikes in them.
        versions: Of Lava and what it runs on.
    """

    threads: int
    steps: int
    lava_sample: tuple[float, ...]
    lava_step: tuple[float, ...]
    ours_sample: tuple[float, ...]
    compared: int
    differing: int
    spikes: int
    versions: tuple[str, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Return Lava's time for a sample over ours, round by round."""
        return tuple(a / b for a, b in zip(self.lava_sample, self.ours_sample, strict=True))

    @property
    def step_ratios(self) -> tuple[float, ...]:
        """Return Lava's time for the steps alone over ours for the whole sample, round by round."""
        return tuple(a * self.steps / b for a, b in zip(self.lava_step, self.ours_sample, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **asdict(self),
            "ratio": statistics.median(self.ratios),
            "step_ratio": statistics.median(self.step_ratios),
        }


def chain(seed: int = 0) -> IntegerNetwork:
    """Return a random chain of LIF layers in Loihi's law with a delay of 1 to 63 steps for every synapse."""
    rng = np.random.default_rng(seed)
    names = ["in", "hidden1", "hidden2", "out"]
    populations, projections = [], []
    for k in range(1, len(SIZES)):
        values = {"v_decay": 400, "i_decay": 4096, "v_threshold": 250, "bias": 0}
        parameters = {name: np.full(SIZES[k], value) for name, value in values.items()}
        populations.append(IntegerPopulation(names[k], SIZES[k], "lif", parameters))
        weight = 2 * rng.integers(-40, 61, (SIZES[k - 1], SIZES[k]))
        row, unit = np.nonzero(weight)
        indptr = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=weight.shape[0]))))
        delay = rng.integers(1, LONGEST + 1, row.size)
        narrow = (np.asarray(value, dtype=np.int32) for value in (unit, weight[row, unit], delay))
        projections.append(IntegerProjection(names[k - 1], names[k], indptr, *narrow))
    readout = Readout("out", variable="spikes", reduce="count")
    return IntegerNetwork(
        "loihi2",
        tuple(populations),
        tuple(projections),
        (Input("in", SIZES[0]),),
        readout,
        0.001,
        {"out": np.full(SIZES[-1], 64.0)},
    )


def _events(counts: npt.NDArray[Any], dt: float) -> Events:
    places = [np.nonzero(sample) for sample in counts]
    times = [step * dt for step, _ in places]
    units = [unit.astype(np.int32) for _, unit in places]
    return Events.from_lists(times, units, counts.shape[2], duration=counts.shape[1] * dt)


def measure_integer(
    threads: int,
    rounds: int,
    pythons: Mapping[str, str],
    network: IntegerNetwork | None = None,
    *,
    steps: tuple[int, int] = (SHORT, LONG),
    batch: int = BATCH,
) -> IntegerRace:
    """Run both sides in turn.

    Args:
        threads: Threads of the integer engine; Lava decides itself.
        rounds: Turns.
        pythons: Interpreter of ``lava``.
        network: A chain in the law ``loihi2``; default :func:`chain`.
        steps: Steps of a short and a long sample.
        batch: Samples that the integer engine runs at a time.

    Raises:
        OracleMissingError: Lava is not installed there.
    """
    network = network or chain()
    rng = np.random.default_rng(1)
    short, long = steps
    counts = (rng.random((batch, long, network.inputs[0].size)) < RATE).astype(np.int64)
    lava_sample, lava_step, ours = [], [], []
    compared = differing = spikes = 0
    events = _events(counts[:, :short], network.dt)
    with TemporaryDirectory(prefix="snnsim-bench-") as folder:
        path = Path(folder) / "chain.net"
        write_lava(network, path)
        judge = LavaJudge(path, pythons)
        simulate_integer(network, events, n_steps=short, extra_steps=0, threads=threads)  # compiled, in the caches
        for turn in range(rounds):
            sample = counts[turn % batch][None]
            found = judge.run(sample[:, :short])
            one = judge.seconds[0]
            judge.run(sample)
            lava_sample.append(one)
            lava_step.append(max(0.0, judge.seconds[0] - one) / (long - short))
            begin = perf_counter()
            result = simulate_integer(network, events, n_steps=short, extra_steps=0, threads=threads)
            ours.append((perf_counter() - begin) / batch)
            for name, value in found.items():
                mine = np.asarray(bin_events(result.spikes[name], network.dt, short))[:, turn % batch]
                compared += mine.size
                differing += int(np.count_nonzero(mine != value[0]))
                spikes += int(mine.sum())
    return IntegerRace(
        *(threads, short, tuple(lava_sample), tuple(lava_step), tuple(ours)),
        *(compared, differing, spikes, tuple(judge.versions)),
    )


def format_integer(race: IntegerRace) -> str:
    """Return the table."""

    def spread(values: tuple[float, ...]) -> str:
        return f"{statistics.median(values):.0f} x ours ({min(values):.0f}-{max(values):.0f})"

    return "\n".join(
        (
            f"a sample of {race.steps} steps, {' -> '.join(map(str, SIZES))}, delays of 1 to {LONGEST} steps",
            f"  integer engine   {1000 * statistics.median(race.ours_sample):10.3f} ms on {race.threads} threads",
            f"  Lava, from rest  {1000 * statistics.median(race.lava_sample):10.1f} ms  {spread(race.ratios)}",
            f"  Lava, steps only {1000 * statistics.median(race.lava_step) * race.steps:10.1f} ms  "
            f"{spread(race.step_ratios)}",
            f"  {race.differing} of {race.compared} neuron-steps differ, {race.spikes} spikes",
            f"  {', '.join(race.versions)}",
        )
    )
