"""Poisson stimuli on the device: counts drawn for a chunk of steps, added by the neurons' kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype
from snnsim.engines.cuda_plan import CudaPlan
from snnsim.kernels.cuda_laws import NOISE_COLUMNS
from snnsim.kernels.cuda_poisson import draw_counts
from snnsim.kernels.cuda_support import device_array, launch
from snnsim.kernels.philox import Stream
from snnsim.kernels.poisson import STEPS, thresholds
from snnsim.network import Network
from snnsim.stimuli import Poisson, Stimulus

__all__ = ["Noise", "make_noise"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Noise:
    """Poisson stimuli of a batch.

    Attributes:
        table: As :func:`snnsim.kernels.cuda_laws.advance` reads it.
        n: Stimuli.
        counts: Room for their counts in a chunk.
        weights: Their weights.
        drawn: Per stimulus: where its counts begin, its size, thresholds, thresholds a rate, rate of each neuron, place
            in the list.
        seed: Of the run.
    """

    table: Any
    n: int
    counts: Any
    weights: Any
    drawn: tuple[tuple[int, int, Any, int, Any, int], ...]
    seed: int

    def draw(self, sample_ids: Any, first_step: Any, begun: int, n_rows: int, samples: int, fast: bool) -> None:
        """Draw the counts of a chunk."""
        for first, size, table, levels, row, number in self.drawn:
            arguments = (self.counts, first, size, table, levels, row, self.seed, int(Stream.POISSON), number)
            launch(
                draw_counts,
                (n_rows // STEPS + 2) * size * samples,
                (*arguments, sample_ids, first_step, begun, n_rows, samples, fast),
            )


def make_noise(
    network: Network,
    plan: CudaPlan,
    stimuli: tuple[Stimulus, ...],
    seed: int,
    dtype: Dtype,
    chunk: int,
    samples: int,
) -> Noise:
    """Upload the Poisson stimuli among ``stimuli``."""
    from numba import cuda

    place = {item.name: p for p, item in enumerate(network.populations)}
    rows: list[list[int]] = []
    weights: list[Array] = [np.zeros(1, dtype)]
    drawn: list[tuple[int, int, Any, int, Any, int]] = []
    first, first_weight = 0, 1
    for number, item in enumerate(stimuli):
        if not isinstance(item, Poisson):
            continue
        p = place[item.population]
        population = network.populations[p]
        receptors = population.neuron.receptors
        receptor = receptors.index(item.receptor) if receptors else 0
        low, size = int(plan.neuron_low[p]), population.size
        rates, which = np.unique(np.broadcast_to(np.asarray(item.rate), (size,)), return_inverse=True)
        table = thresholds(rates * network.dt)
        own = np.atleast_1d(np.asarray(item.weight)).astype(dtype)
        rows.append([low, low + size, receptor, first, first_weight, int(own.shape[0] > 1)])
        weights.append(own)
        row = device_array(which.reshape(-1).astype(np.int32))
        drawn.append((first, size, device_array(table.reshape(-1)), table.shape[1], row, number))
        first += chunk * size * samples
        first_weight += own.shape[0]
    return Noise(
        table=device_array(np.array(rows or [[0] * NOISE_COLUMNS], np.int64).reshape(-1)),
        n=len(rows),
        counts=cuda.device_array(max(first, 1), np.uint8),
        weights=device_array(np.concatenate(weights)),
        drawn=tuple(drawn),
        seed=seed,
    )
