"""Stimuli: what acts on a population from outside without events: Poisson noise and currents.

They belong to a run, not to a network: ``simulate(network, events, stimuli=(Poisson("n", 16000.0, 0.1),))``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import time_to_step
from snnsim.network_checks import check_finite, check_name

if TYPE_CHECKING:
    from snnsim.network import Network, Population

__all__ = ["Current", "Poisson", "Stimulus", "check_stimuli", "current_steps", "drive_step"]

MAX_MEAN = 50.0
"""Most Poisson events a step on average: engines keep counts in a byte."""

Numbers = float | npt.NDArray[np.float64]


def _numbers(value: Any, what: str) -> Numbers:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: expected a number or one a neuron, got {type(value).__name__}") from None
    if array.ndim > 1:
        raise InputError(f"{what}: expected a number or an array of shape (size,), got shape {array.shape}")
    check_finite(array, what)
    array.setflags(write=False)
    return array if array.ndim else float(array)


@dataclass(frozen=True, eq=False)
class Poisson:
    """Independent Poisson events for every neuron: in each step a neuron receives ``c weight`` with ``c ~ Poisson``.

    The mean of c is ``rate dt``. ``K`` sources of rate ``r`` a neuron are one stimulus of rate ``K r``. The events are
    the last term of the sum of what arrives in a step. They are drawn by inversion from Philox words that depend on the
    seed of the run, the sample's id, the step, the neuron and the stimulus' place in the list, and on nothing else.

    Attributes:
        population: Name of the population.
        rate: Events a second, a number or ``(size,)``.
        weight: Of one event, a number or ``(size,)``.
        receptor: As in :class:`snnsim.network.Projection`.
    """

    population: str
    rate: Numbers
    weight: Numbers
    receptor: str = ""

    def __post_init__(self) -> None:
        check_name(self.population, "stimulus population")
        what = f"Poisson stimulus of {self.population!r}"
        object.__setattr__(self, "rate", _numbers(self.rate, f"{what}: rate"))
        object.__setattr__(self, "weight", _numbers(self.weight, f"{what}: weight"))
        if np.min(self.rate, initial=0.0) < 0:
            raise InputError(f"{what}: rate: expected 0 or more events a second, got {np.min(self.rate)}")


@dataclass(frozen=True, eq=False)
class Current:
    """A current that is added to the drive of every neuron from one time to another.

    Attributes:
        population: Name of the population.
        amplitude: Added to ``drive``, per second, a number or ``(size,)``.
        start: First instant, seconds from the beginning of the run's first step.
        stop: First instant without it; infinity: to the end.
    """

    population: str
    amplitude: Numbers
    start: float = 0.0
    stop: float = float("inf")

    def __post_init__(self) -> None:
        check_name(self.population, "stimulus population")
        what = f"Current stimulus of {self.population!r}"
        object.__setattr__(self, "amplitude", _numbers(self.amplitude, f"{what}: amplitude"))
        for name in ("start", "stop"):
            value = getattr(self, name)
            if not isinstance(value, (int, float, np.integer, np.floating)) or np.isnan(value):
                raise InputError(f"{what}: {name}: expected seconds, got {value!r}")
            object.__setattr__(self, name, float(value))
        if not 0 <= self.start < self.stop:
            raise InputError(f"{what}: expected 0 <= start < stop, got {self.start} and {self.stop} s")


Stimulus = Poisson | Current


def current_steps(item: Current, dt: float) -> tuple[int, int]:
    """Return the first step with a current and the first one without it again."""
    first = int(time_to_step(item.start, dt))
    return first, 2**62 if np.isinf(item.stop) else int(time_to_step(item.stop, dt))


def drive_step(population: Population, dt: float, amplitude: Numbers) -> npt.NDArray[np.float64]:
    """Return what moves the membrane in a step with ``amplitude`` added, float64 ``(size,)`` or ``(1,)``."""
    neuron: Any = population.neuron
    size = population.size if isinstance(amplitude, np.ndarray) or neuron.size() is not None else 1
    if neuron.dt is None:
        moved: npt.NDArray[np.float64] = neuron.replace(drive=neuron.drive + amplitude).step(size, dt).drive_step
        return moved
    step = neuron.step(size, dt)
    span = neuron.tau_mem * (1 - step.beta) if hasattr(neuron, "tau_mem") else dt
    return np.asarray(step.drive_step + amplitude * span, dtype=np.float64)


def check_stimuli(network: Network, stimuli: Iterable[Stimulus] | Stimulus) -> tuple[Stimulus, ...]:
    """Return the stimuli as a tuple after checking that they fit the network.

    Raises:
        InputError: A population or receptor is unknown, an array has another length than the population, or a rate is
            too high for the step.
    """
    listed = (stimuli,) if isinstance(stimuli, (Poisson, Current)) else tuple(stimuli)
    for item in listed:
        if not isinstance(item, (Poisson, Current)):
            raise InputError(f"stimuli: expected Poisson or Current, got {type(item).__name__}")
        what = f"{type(item).__name__} stimulus of {item.population!r}"
        population = network.population(item.population)
        for name in ("rate", "weight", "amplitude"):
            value = getattr(item, name, 0.0)
            if isinstance(value, np.ndarray) and value.shape != (population.size,):
                raise InputError(f"{what}: {name} has shape {value.shape}, expected a number or ({population.size},)")
        if isinstance(item, Current):
            if not hasattr(population.neuron, "drive"):
                raise InputError(f"{what}: {population.neuron.kind} has no drive")
            continue
        if item.receptor not in (population.neuron.receptors or ("",)):
            known = " or ".join(repr(name) for name in population.neuron.receptors) or "one kind of synapse"
            raise InputError(f"{what}: receptor: {population.neuron.kind} has {known}, got {item.receptor!r}")
        if population.neuron.conductances and np.min(item.weight, initial=0.0) < 0:
            raise InputError(
                f"{what}: weight: {population.neuron.kind} has conductances, which are not negative, got "
                f"{np.min(item.weight)}; use receptor 'inh'"
            )
        mean = float(np.max(item.rate, initial=0.0)) * network.dt
        if mean > MAX_MEAN:
            raise InputError(
                f"{what}: a rate of {np.max(item.rate):g} /s is {mean:.3g} events a step of {network.dt} s, at most "
                f"{MAX_MEAN:g} are drawn; use a smaller dt, or a lower rate and a larger weight"
            )
    return listed
