"""Neurons that draw random numbers: synapses that fail and vary, and a noisy threshold; what they tell of their input.

A record says what a neuron does; which numbers are drawn is a matter of the run (:mod:`snnsim.kernels.stochastic`): a
number depends on the seed, the projection or population, the sample, the step and the place of the synapse or neuron,
and on nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.neuron_base import Array, Neuron, Parameter, Reset, StepParameters, per_second, tau_of, vector

__all__ = [
    "MODES",
    "LevyBaxter",
    "MetaNeuron",
    "Mode",
    "StochasticNeuron",
    "SynapseLaw",
    "binary_entropy",
    "mutual_information",
    "optimal_failure",
]

Mode = Literal["stochastic", "mean"]
MODES: tuple[Mode, ...] = ("stochastic", "mean")


class SynapseLaw(NamedTuple):
    """How the synapses of a population's neurons release, float64 arrays of shape ``(size,)``.

    A term ``c w`` of a sum becomes ``phi (c w) q`` with ``P(phi = 1) = release`` and ``q = low + span u``,
    ``u ~ U[0, 1)``.
    """

    release: Array
    low: Array
    span: Array

    @property
    def certain(self) -> bool:
        """Whether nothing has to be drawn."""
        return bool(np.all(self.release == 1) and np.all(self.low == 1) and np.all(self.span == 0))

    @property
    def gain(self) -> Array:
        """Expectation of ``phi q``, ``(size,)``."""
        return self.release * (self.low + 0.5 * self.span)


@dataclass(frozen=True, eq=False)
class StochasticNeuron(Neuron, ABC):
    """Abstract base of the neurons that draw random numbers."""

    @property
    def noisy(self) -> bool:
        """Whether firing itself is drawn."""
        return False

    @abstractmethod
    def synapse_law(self, size: int) -> SynapseLaw:
        """Return how the synapses of ``size`` neurons release, whatever the mode."""

    def _check_mode(self, mode: object) -> None:
        if mode not in MODES:
            raise InputError(f"{self.kind}.mode: expected one of {', '.join(MODES)}, got {mode!r}")

    def _check_share(self, name: str, least: str) -> None:
        value = np.asarray(getattr(self, name))
        low = np.any(value <= 0) if least == "(0" else np.any(value < 0)
        if low or np.any(value > 1):
            raise InputError(f"{self.kind}.{name}: expected {least}, 1], got {value}")


@dataclass(frozen=True, eq=False)
class MetaNeuron(StochasticNeuron):
    """LIF neuron whose synapses release at random and whose threshold is soft, all of it with numbers to be learned.

    Our own definition, reconstructed after Rudnicka, Szczepanski and Pregowska 2025, who name the idea (a probabilistic
    neuron with learned internal parameters) without equations that we could read. Per step, with ``beta = exp(-dt /
    tau_mem)``, ``drive_step = drive tau_mem (1 - beta)`` and ``c`` coincident events of one source, one draw for all::

        arrivals = sum phi (c w) q        phi ~ Bernoulli(release),  q = 1 - amplitude + 2 amplitude u,  u ~ U[0, 1)
        v <- (beta v + drive_step) + arrivals
        p = 1 / (1 + exp(-(v - v_threshold) / temperature));  spike ~ Bernoulli(p);  temperature 0: v >= v_threshold
        reset (``zero``: to v_reset; ``subtract``: by reset_amount, default v_threshold); t_ref as for LIF

    With ``release = 1``, ``amplitude = 0`` and ``temperature = 0`` it is LIF, bit for bit. ``mode="mean"`` draws
    nothing: a synapse has the weight ``w release`` (the mean of ``w phi q``), and a neuron fires at
    ``v >= v_threshold``, which is ``p >= 1/2``.
    """

    kind: ClassVar[str] = "MetaNeuron"
    tau_mem: Parameter = 0.02
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    reset: Reset = "zero"
    reset_amount: Parameter | None = None
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    release: Parameter = 1.0
    amplitude: Parameter = 0.0
    temperature: Parameter = 0.0
    mode: Mode = "stochastic"
    beta: Parameter | None = None
    drive_step: Parameter | None = None

    def _check(self) -> None:
        super()._check()
        self._check_mode(self.mode)
        self._check_share("release", "(0")
        self._check_share("amplitude", "[0")
        if np.any(np.asarray(self.temperature) < 0):
            raise InputError(f"{self.kind}.temperature: expected 0 or more, got {np.min(self.temperature)}")

    @classmethod
    def from_step(cls, *, dt: float, beta: Parameter, drive_step: Parameter = 0.0, **values: Any) -> Self:
        """Build from the decay and drive per step, which become the authoritative numbers."""
        tau = tau_of(beta, dt)
        drive = per_second(drive_step, tau, beta)
        return cls(tau_mem=tau, drive=drive, beta=beta, drive_step=drive_step, dt=dt, **values)

    @property
    def noisy(self) -> bool:
        """Whether firing itself is drawn."""
        return self.mode == "stochastic" and bool(np.any(np.asarray(self.temperature) > 0))

    def synapse_law(self, size: int) -> SynapseLaw:
        """Return how the synapses of ``size`` neurons release, whatever the mode."""
        amplitude = vector(self.amplitude, size)
        return SynapseLaw(vector(self.release, size), 1.0 - amplitude, 2.0 * amplitude)

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        return {"temperature": vector(self.temperature, size)}


@dataclass(frozen=True, eq=False)
class LevyBaxter(StochasticNeuron):
    """Levy and Baxter's neuron: quantal synapses and a threshold, without memory from step to step.

    Levy and Baxter 2002 (from the general literature, not read again). Per step, with ``c`` coincident events of one
    source, one draw for all::

        v = drive_step + sum phi (c w) q      phi ~ Bernoulli(release),  q ~ U[0, 1)
        spike if v >= v_threshold;  then v = 0

    A synapse gives half its weight on average, unlike that of a :class:`MetaNeuron`: a network that was made for LIF
    needs weights twice as large. ``mode="mean"`` draws nothing and gives a synapse the weight ``w release / 2``.
    ``drive_step`` is ``drive dt``. ``v_threshold`` is positive, since a neuron at rest does not fire.
    """

    kind: ClassVar[str] = "LevyBaxter"
    v_threshold: Parameter = 1.0
    release: Parameter = 1.0
    drive: Parameter = 0.0
    mode: Mode = "stochastic"
    drive_step: Parameter | None = None

    def _check(self) -> None:
        super()._check()
        self._check_mode(self.mode)
        self._check_share("release", "(0")
        if np.any(np.asarray(self.v_threshold) <= 0):
            raise InputError(f"{self.kind}.v_threshold: expected a positive potential, got {np.min(self.v_threshold)}")

    @classmethod
    def from_step(cls, *, dt: float, drive_step: Parameter = 0.0, **values: Any) -> Self:
        """Build from the drive per step, which becomes the authoritative number."""
        return cls(drive=np.asarray(drive_step, dtype=np.float64) / dt, drive_step=drive_step, dt=dt, **values)

    def synapse_law(self, size: int) -> SynapseLaw:
        """Return how the synapses of ``size`` neurons release, whatever the mode."""
        return SynapseLaw(vector(self.release, size), np.zeros(size), np.ones(size))

    def step(self, size: int, dt: float) -> StepParameters:
        """Return the numbers per step; the decay is 0."""
        return replace(super().step(size, dt), beta=np.zeros(size))


def binary_entropy(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the entropy in bits of an event of probability ``p``, any shape.

    >>> binary_entropy([0.0, 0.5]).tolist()
    [0.0, 1.0]
    """
    share = np.asarray(p, dtype=np.float64)
    if np.any(share < 0) or np.any(share > 1):
        raise InputError(f"binary_entropy: expected probabilities within [0, 1], got {share}")
    parts = np.stack((share, 1 - share))
    safe = np.where(parts > 0, parts, 1.0)
    bits: npt.NDArray[np.float64] = np.sum(-parts * np.log2(safe), axis=0) + 0.0
    return bits


def mutual_information(joint: npt.ArrayLike) -> float:
    """Return ``I(X; Z) = H(Z) - H(Z | X)`` in bits from how often each pair occurs.

    Args:
        joint: Counts or probabilities, shape (values of X, values of Z); they are divided by their sum.

    Raises:
        InputError: A number is negative, or all are 0.

    >>> mutual_information([[1, 0], [0, 1]])
    1.0
    """
    table = np.asarray(joint, dtype=np.float64)
    if table.ndim != 2 or np.any(table < 0) or not table.sum() > 0:
        raise InputError(f"mutual_information: expected counts of shape (values of X, values of Z), got {table}")
    table = table / table.sum()
    apart = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True)
    filled = table > 0
    return float(np.sum(table[filled] * np.log2(table[filled] / apart[filled])))


def optimal_failure(entropy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return Levy and Baxter's optimum failure rate ``4^-H``.

    Args:
        entropy: ``H`` in bits of the source's firing, :func:`binary_entropy` of its mean probability; any shape.

    >>> optimal_failure([1.0, 0.5]).tolist()
    [0.25, 0.5]
    """
    bits = np.asarray(entropy, dtype=np.float64)
    if not np.all((bits >= 0) & (bits <= 1)):
        raise InputError(f"optimal_failure: expected entropies of an event within [0, 1] bits, got {bits}")
    return np.asarray(4.0**-bits, dtype=np.float64)
