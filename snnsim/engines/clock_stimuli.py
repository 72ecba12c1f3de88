"""Stimuli as the clock kernel reads them: a table of Poisson noise, and stretches of constant drive."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype
from snnsim.kernels import clock_tables
from snnsim.kernels.poisson import thresholds
from snnsim.network import Network
from snnsim.stimuli import Current, Poisson, Stimulus, current_steps, drive_step

__all__ = ["drives", "noise_table", "spread"]

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


def noise_table(
    network: Network, stimuli: tuple[Stimulus, ...], seed: int, dtype: Dtype
) -> tuple[Integers, list[Array]]:
    """Return the table of Poisson stimuli and the arrays whose addresses it holds."""
    place = {item.name: number for number, item in enumerate(network.populations)}
    ports = np.cumsum([0, *(max(1, len(item.neuron.receptors)) for item in network.populations)])
    rows: list[list[int]] = []
    kept: list[Array] = []
    for number, item in enumerate(stimuli):
        if not isinstance(item, Poisson):
            continue
        owner = place[item.population]
        receptors = network.populations[owner].neuron.receptors
        rates, which = np.unique(np.atleast_1d(item.rate), return_inverse=True)
        table = thresholds(rates * network.dt)
        units = which.astype(np.int32)
        weights = np.atleast_1d(np.asarray(item.weight)).astype(dtype)
        kept += [table, units, weights]
        port = int(ports[owner]) + (receptors.index(item.receptor) if receptors else 0)
        own = units.ctypes.data if isinstance(item.rate, np.ndarray) else 0
        rows.append(
            [owner, port, number, seed, table.ctypes.data, *table.shape, own, weights.ctypes.data, weights.shape[0]]
        )
    return np.array(rows, np.int64).reshape(len(rows), clock_tables.NOISE_COLUMNS), kept


def spread(network: Network, stimuli: tuple[Stimulus, ...]) -> Network:
    """Return the network with numbers of their own for neurons that get currents of their own."""
    named = {item.population for item in stimuli if isinstance(item, Current) and np.ndim(item.amplitude)}
    if not named:
        return network
    populations = []
    for item in network.populations:
        neuron: Any = item.neuron
        if item.name in named and neuron.size() is None:
            name = "drive" if neuron.dt is None else "drive_step"
            neuron = neuron.replace(**{name: np.full(item.size, getattr(neuron, name))})
        populations.append(type(item)(item.name, item.size, neuron, item.start_step, item.stop_step))
    return network.replace(populations=tuple(populations))


def drives(network: Network, stimuli: tuple[Stimulus, ...], n_steps: int) -> list[tuple[int, dict[int, Array]]]:
    """Return where the drive changes and the drive per step from there on, by population place, float64.

    The first stretch begins at step 0; without currents it is the only one and changes nothing.
    """
    currents = [(*current_steps(item, network.dt), item) for item in stimuli if isinstance(item, Current)]
    edges = sorted({0, *(edge for first, last, _ in currents for edge in (first, last) if edge < n_steps)})
    place = {item.name: number for number, item in enumerate(network.populations)}
    stretches = []
    for edge in edges:
        total: dict[int, Any] = {}
        for first, last, item in currents:
            p = place[item.population]
            active = first <= edge < last
            total[p] = total.get(p, 0.0) + (item.amplitude if active else 0.0 * item.amplitude)
        moved = {p: drive_step(network.populations[p], network.dt, amount) for p, amount in total.items()}
        stretches.append((edge, moved))
    return stretches
