"""What a layer of :class:`snnsim.learning.stdp_layer.STDPLayer` learns by: records of rules, as frozen values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from snnsim.errors import InputError
from snnsim.kernels.stdp import RuleNumbers
from snnsim.learning.local import number

__all__ = ["STDP", "Chance", "Homeostasis", "Reward", "Teacher"]

Bound = Literal["additive", "multiplicative"]
Pairing = Literal["all", "nearest"]
Tuned = Literal["v_threshold", "tau_mem", "release"]


@dataclass(frozen=True, kw_only=True)
class STDP:
    """Spike-timing dependent plasticity of pairs, and of triplets where ``a3_plus`` or ``a3_minus`` is not 0.

    Four traces, raised by 1 at a spike: of each source ``r1`` (tau_plus) and ``r2`` (tau_x), of each neuron ``o1``
    (tau_minus) and ``o2`` (tau_y). With ``r2`` and ``o2`` as they are just before the spike::

        source spikes:   w -= o1 (a_minus + a3_minus r2)     times (w - w_min) if multiplicative
        neuron spikes:   w += r1 (a_plus + a3_plus o2)       times (w_max - w) if multiplicative

    So a pair ``t_neuron - t_source = d`` alone changes w by ``a_plus exp(-d / tau_plus)`` for d >= 0 and by
    ``-a_minus exp(d / tau_minus)`` for d < 0: at distance 0 the source counts as the earlier, as in
    :class:`snnsim.plasticity.PairSTDP`. After each change the weight is put into ``w_min .. w_max``. Morrison, Diesmann
    and Gerstner (2008), sections 4.1 and 4.2 (pairs); Pfister and Gerstner (2006), equations 2 and 3 (triplets).

    Attributes:
        a_plus: Potentiation by a pair.
        a_minus: Depression by a pair.
        a3_plus: Potentiation by a triplet neuron, source, neuron.
        a3_minus: Depression by a triplet source, neuron, source.
        w_max: Largest weight.
        w_min: Smallest weight.
        tau_plus: Seconds.
        tau_minus: Seconds.
        tau_x: Seconds.
        tau_y: Seconds.
        bound: ``"additive"`` or ``"multiplicative"``.
        pairing: ``"all"``, or ``"nearest"``: traces are set to 1 instead of raised.

    Raises:
        InputError: A value is out of range; the sentence says which.
    """

    a_plus: float
    a_minus: float
    w_max: float = 1.0
    w_min: float = 0.0
    a3_plus: float = 0.0
    a3_minus: float = 0.0
    tau_plus: float = 0.020
    tau_minus: float = 0.020
    tau_x: float = 0.100
    tau_y: float = 0.125
    bound: Bound = "additive"
    pairing: Pairing = "all"

    def __post_init__(self) -> None:
        for name in ("a_plus", "a_minus", "a3_plus", "a3_minus", "w_max", "w_min"):
            object.__setattr__(self, name, number("STDP", name, getattr(self, name)))
        for name in ("tau_plus", "tau_minus", "tau_x", "tau_y"):
            object.__setattr__(self, name, number("STDP", name, getattr(self, name), 1e-9, 1e9))
        if self.w_min >= self.w_max:
            raise InputError(f"STDP: expected w_min < w_max, got {self.w_min} and {self.w_max}")
        if self.bound not in get_args(Bound):
            raise InputError(f"STDP: bound: expected one of {list(get_args(Bound))}, got {self.bound!r}")
        if self.pairing not in get_args(Pairing):
            raise InputError(f"STDP: pairing: expected one of {list(get_args(Pairing))}, got {self.pairing!r}")
        if self.bound == "multiplicative" and min(self.a_plus, self.a_minus, self.a3_plus, self.a3_minus) < 0:
            raise InputError("STDP: multiplicative bounds need sizes of 0 or more; use bound='additive'")

    def numbers(self, dt: float) -> RuleNumbers:
        """Return the numbers per step of ``dt`` seconds."""
        plus, minus, x, y = (math.exp(-dt / tau) for tau in (self.tau_plus, self.tau_minus, self.tau_x, self.tau_y))
        sizes = (self.a_plus, self.a_minus, self.a3_plus, self.a3_minus)
        kinds = (int(self.bound == "multiplicative"), int(self.pairing == "nearest"))
        return RuleNumbers(plus, minus, x, y, *sizes, self.w_min, self.w_max, *kinds)


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Reward-modulated STDP: changes go into an eligibility, which a reward after the sample turns into weights.

    ``tau de/dt = -e``, plus what :class:`STDP` would change (its multiplicative factors use the weights before the
    sample); then ``w += rate (reward - mean) e``. Izhikevich (2007), "Solving the distal reward problem through linkage
    of STDP and dopamine signaling", with the reward of Florian (2007) at one instant.

    Attributes:
        tau: Time constant of the eligibility, seconds.
        rate: Learning rate.
        baseline: Share of each new reward in the running mean of rewards that is subtracted, 0 (nothing is) to 1.
    """

    tau: float = 0.5
    rate: float = 1.0
    baseline: float = 0.0

    def __post_init__(self) -> None:
        number("Reward", "tau", self.tau, 1e-9, 1e9)
        number("Reward", "rate", self.rate)
        number("Reward", "baseline", self.baseline, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Supervised STDP: a current that drives the neurons of a sample's class and holds back the others while it learns.

    Unit j belongs to class ``j % n_classes``. The current acts in :meth:`STDPLayer.fit` only. Reconstructed from the
    general idea of a teacher current (Legenstein, Naeger and Maass 2005), not one paper's protocol.

    Attributes:
        n_classes: Classes, 2 or more.
        current: Added to the potential of the right neurons in each step.
        suppress: Taken from the potential of all other neurons in each step.
    """

    n_classes: int
    current: float
    suppress: float = 0.0

    def __post_init__(self) -> None:
        number("Teacher", "n_classes", self.n_classes, 2, 2**31 - 1)
        number("Teacher", "current", self.current, 0.0)
        number("Teacher", "suppress", self.suppress, 0.0)


@dataclass(frozen=True, kw_only=True)
class Homeostasis:
    """Intrinsic plasticity: each neuron moves its own numbers after a sample so that its rate comes to a target.

    With ``e`` = spikes in the sample - ``target`` times its duration::

        v_threshold += rate e        tau_mem *= exp(-rate e)        logit(release) -= rate e

    A neuron that fires too often gets a higher threshold, a shorter memory, less sure synapses. All three use what the
    neuron itself knows. The threshold rule is the usual one (Diehl and Cook 2015 raise it at each spike); the rules
    for tau_mem and release are reconstructed by the same idea. Threshold and time constant stay within a factor of 20
    of their first values.

    Attributes:
        target: Spikes a second.
        rate: Learning rate, a spike.
        intrinsic: Which of ``"v_threshold"``, ``"tau_mem"``, ``"release"`` are moved.
    """

    target: float
    rate: float = 0.01
    intrinsic: tuple[Tuned, ...] = ("v_threshold",)

    def __post_init__(self) -> None:
        number("Homeostasis", "target", self.target, 0.0)
        number("Homeostasis", "rate", self.rate, 0.0)
        names: Iterable[str] = self.intrinsic
        if isinstance(names, str) or not names or not set(names) <= set(get_args(Tuned)):
            raise InputError(f"Homeostasis: intrinsic: expected some of {list(get_args(Tuned))}, got {names!r}")


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What is random in the neurons of a layer; the default is nothing.

    A synapse passes what arrives in a step with probability ``release``, times ``low + (high - low) u`` with u uniform:
    one draw for all coincident events of a source. A neuron fires with probability
    ``1 / (1 + exp(-(v - v_threshold) / temperature))``, or at ``v >= v_threshold`` if the temperature is 0.
    ``Chance(low=0)`` with a neuron without memory is that of Levy and Baxter (2002).

    Attributes:
        release: Above 0, up to 1.
        low: Smallest amplitude.
        high: Largest amplitude.
        temperature: 0 or more.
    """

    release: float = 1.0
    low: float = 1.0
    high: float = 1.0
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not number("Chance", "release", self.release, 0.0, 1.0) > 0:
            raise InputError(f"Chance: release: expected above 0, up to 1, got {self.release}")
        number("Chance", "low", self.low)
        number("Chance", "high", self.high, self.low)
        number("Chance", "temperature", self.temperature, 0.0)
