"""Calibration: the scale of every population at which the integer network differs least from the float one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Result, grid_inputs, simulate
from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import time_to_step
from snnsim.integer_network import IntegerNetwork
from snnsim.network import Network
from snnsim.quantize_report import Calibration
from snnsim.quantize_weights import Job, Observed, Quantized

__all__ = ["STRETCHES", "calibrate", "differences"]

Integers = npt.NDArray[np.int64]

STRETCHES = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2)
"""Factors on a population's scale that are tried."""

Make = Callable[[Job], tuple[IntegerNetwork, Quantized]]


def calibrate(job: Job, given: Network, events: Events, tail_steps: int, make: Make) -> tuple[Job, Calibration]:
    """Choose the stretch of every population, in their order of updating.

    Args:
        job: Without a stretch.
        given: The float network, with its own decays.
        events: Calibration samples; the first ``options.calibration_samples`` are run.
        tail_steps: Empty steps added to every sample.
        make: Builds the integer network of a job.

    Returns:
        The job with the chosen stretches and the observed maxima, and what was found.
    """
    if len(given.inputs) != 1:
        raise InputError(f"quantize: calibration needs a network with one input, got {len(given.inputs)}")
    count = min(len(events), job.options.calibration_samples)
    if not count:
        raise InputError("quantize: calibration: expected at least one sample, got none")
    chosen = events.subset(np.arange(count))
    record = [f"{item.name}.{variable}" for item in given.populations for variable in item.neuron.variables]
    wanted = simulate(given, chosen, record=record, tail_steps=tail_steps)
    observed = {}
    for item in given.populations:
        peaks = {
            variable: np.max(
                [np.abs(part).max(axis=0, initial=0.0) for part in wanted.records[f"{item.name}.{variable}"]], axis=0
            )
            for variable in item.neuron.variables
        }
        observed[item.name] = Observed(peaks["v"], peaks.get("i", np.zeros(item.size)))
    name = given.inputs[0].name
    count_of = grid_inputs(given, chosen, tail_steps=tail_steps).count[0]
    counts = {name: 1 if job.profile.graded_input is False else int(count_of.max(initial=1))}
    job = replace(job, observed=observed, counts=counts)

    binary = job.profile.graded_input is False

    def run(trial: Job) -> dict[str, float]:
        integer, _ = make(trial)
        return differences(given, wanted, integer, _run(integer, chosen, tail_steps, binary))

    plain = run(job)
    stretch = {item.name: 1.0 for item in given.populations}
    for population in given.order():
        name = population.name
        best = None
        for factor in STRETCHES:
            try:
                found = (
                    plain
                    if all(x == 1 for x in (*stretch.values(), factor))
                    else run(replace(job, stretch={**stretch, name: factor}))
                )
            except InputError:
                continue
            if best is None or found[name] < best[0]:
                best = (found[name], factor)
        stretch[name] = 1.0 if best is None else best[1]
    job = replace(job, stretch=stretch)
    integer, _ = make(job)
    result = _run(integer, chosen, tail_steps, binary)
    same = None
    if wanted.logits is not None and result.logits is not None:
        same = float(np.mean(wanted.predictions == result.predictions))
    found = differences(given, wanted, integer, result)
    return job, Calibration(count, stretch, found, plain, same, dict(result.notes["overflow"]))


def _run(integer: IntegerNetwork, events: Events, tail_steps: int, binary: bool) -> Result:
    record = [f"{item.name}.v" for item in integer.populations if not item.spiking]
    return simulate_integer(integer, events, record=record, tail_steps=tail_steps, binary_inputs=binary)


def _keys(events: Events, dt: float, later: int, n_steps: Integers) -> Integers:
    """Return a number for every spike that stands for its sample, step and unit; steps are moved back by ``later``."""
    step = time_to_step(events.times, dt) - later
    sample = np.repeat(np.arange(len(events)), np.diff(events.offsets))
    inside = (step >= 0) & (step < n_steps[sample])
    longest = int(n_steps.max(initial=1))
    return (sample[inside] * longest + step[inside]) * events.n_units + events.units[inside].astype(np.int64)


def differences(network: Network, wanted: Result, integer: IntegerNetwork, got: Result) -> dict[str, float]:
    """Return by population how much an integer run differs from a float run, see :class:`Calibration`.

    Args:
        network: Float network.
        wanted: Its result, with records of v of the populations without a threshold.
        integer: Integer network.
        got: Its result, with the same records.
    """
    found: dict[str, float] = {}
    for item in network.populations:
        later = integer.latency[item.name]
        if item.neuron.spiking:
            ours = _keys(wanted.spikes[item.name], network.dt, 0, wanted.n_steps)
            theirs = _keys(got.spikes[item.name], network.dt, later, wanted.n_steps)
            found[item.name] = _differing(ours, theirs) / max(1, ours.size)
            continue
        name, error, size = f"{item.name}.v", 0.0, 0.0
        for mine, other in zip(wanted.records[name], got.records[name], strict=True):
            scaled: Any = other[max(later, 0) : max(later, 0) + mine.shape[0]] / integer.scale[item.name]
            mine = mine[max(-later, 0) :][: scaled.shape[0]]
            error += float(np.sum((scaled[: mine.shape[0]] - mine) ** 2))
            size += float(np.sum(mine**2))
        found[item.name] = float(np.sqrt(error / size)) if size else 0.0
    return found


def _differing(ours: Integers, theirs: Integers) -> int:
    """Return how many spikes only one side has, multiplicity counted."""
    keys, where = np.unique(np.concatenate((ours, theirs)), return_inverse=True)
    balance = np.bincount(where[: ours.size], minlength=keys.size) - np.bincount(
        where[ours.size :], minlength=keys.size
    )
    return int(np.abs(balance).sum())
