"""Synapses that learn while a network runs: rules that belong to a run, not to a network.

``simulate(network, events, engine="event", plasticity=(PairSTDP("in->out", a_plus=0.01, a_minus=0.012, w_max=1.0),))``
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from snnsim.errors import InputError
from snnsim.network import Network, Sparse

__all__ = ["Bound", "PairSTDP", "Pairing", "check_plasticity"]

Bound = Literal["additive", "multiplicative"]
Pairing = Literal["all", "nearest"]


@dataclass(frozen=True, kw_only=True)
class PairSTDP:
    """Spike-timing dependent plasticity of pairs, in continuous time.

    A pair of an arrival at the synapse at ``t_pre`` (emission plus the whole delay: the delay is axonal) and a spike
    of the target at ``t_post`` changes the weight at the later of the two by::

        t_pre <= t_post:   a_plus exp(-(t_post - t_pre) / tau_plus)       times (w_max - w) if multiplicative
        t_post < t_pre:  - a_minus exp(-(t_pre - t_post) / tau_minus)     times (w - w_min) if multiplicative

    Pairs that change a weight at one instant are summed, then the weight is put into ``w_min .. w_max``. An arrival
    changes its synapse first and then acts with the new weight. Morrison, Diesmann and Gerstner (2008),
    "Phenomenological models of synaptic plasticity based on spike timing", sections 4.1 and 4.2.

    Attributes:
        projections: What learns: a projection by name (``"source->target"``) or place in ``network.projections``,
            or several.
        a_plus: Size of the potentiation, in units of the weight (additive) or of ``w_max - w`` (multiplicative).
        a_minus: Size of the depression, in units of the weight or of ``w - w_min``. Additive sizes may be negative.
        w_max: Largest weight.
        w_min: Smallest weight. Negative for inhibitory synapses, which learn as numbers: potentiation raises w.
        tau_plus: Time constant of potentiation, seconds.
        tau_minus: Time constant of depression, seconds.
        bound: ``"additive"`` or ``"multiplicative"``, as above.
        pairing: ``"all"`` pairs, or ``"nearest"``: an arrival pairs with the last spike before it, a spike with the
            last arrival up to it (the symmetric nearest-neighbour scheme).

    Raises:
        InputError: A value is out of range; the sentence says which.
    """

    projections: tuple[str | int, ...] | str | int = field(kw_only=False)
    a_plus: float
    a_minus: float
    w_max: float
    w_min: float = 0.0
    tau_plus: float = 0.020
    tau_minus: float = 0.020
    bound: Bound = "additive"
    pairing: Pairing = "all"

    def __post_init__(self) -> None:
        given: Any = self.projections
        names = (given,) if isinstance(given, (str, int, np.integer)) else given
        if not isinstance(names, Iterable):
            raise InputError(f"PairSTDP: projections: expected names or places, got {type(given).__name__}")
        names = tuple(int(item) if isinstance(item, np.integer) else item for item in names)
        if not names:
            raise InputError("PairSTDP: projections: expected at least one projection that learns")
        for item in names:
            if isinstance(item, bool) or not isinstance(item, (str, int)):
                raise InputError(f"PairSTDP: projections: expected a name such as 'in->out' or a place, got {item!r}")
        object.__setattr__(self, "projections", names)
        for name in ("a_plus", "a_minus", "w_max", "w_min", "tau_plus", "tau_minus"):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise InputError(f"PairSTDP: {name}: expected a finite number, got {value!r}")
            object.__setattr__(self, name, float(value))
        for name in ("tau_plus", "tau_minus"):
            if not 1e-200 < getattr(self, name) < 1e200:
                raise InputError(f"PairSTDP: {name}: expected seconds above 0, got {getattr(self, name)}")
        if self.w_min >= self.w_max:
            raise InputError(f"PairSTDP: expected w_min < w_max, got {self.w_min} and {self.w_max}")
        if self.bound not in get_args(Bound):
            raise InputError(f"PairSTDP: bound: expected one of {list(get_args(Bound))}, got {self.bound!r}")
        if self.pairing not in get_args(Pairing):
            raise InputError(f"PairSTDP: pairing: expected one of {list(get_args(Pairing))}, got {self.pairing!r}")
        if self.bound == "multiplicative" and min(self.a_plus, self.a_minus) < 0:
            raise InputError(
                "PairSTDP: multiplicative bounds need a_plus and a_minus of 0 or more, got "
                f"{self.a_plus} and {self.a_minus}; use bound='additive' for reversed windows"
            )


def check_plasticity(network: Network, rules: Iterable[PairSTDP] | PairSTDP) -> tuple[PairSTDP, ...]:
    """Return the rules after checking that they fit a network.

    Raises:
        InputError: A projection is unknown, named twice or cannot learn, or its weights lie outside the bounds.
    """
    rules = (rules,) if isinstance(rules, PairSTDP) else tuple(rules)
    named: dict[int, str | int] = {}
    for rule in rules:
        if not isinstance(rule, PairSTDP):
            raise InputError(f"plasticity: expected PairSTDP rules, got {type(rule).__name__}")
        assert isinstance(rule.projections, tuple)
        for item in rule.projections:
            place = network.projection_place(item)
            projection = network.projections[place]
            what = f"plasticity: projection {projection.name!r}"
            if place in named:
                raise InputError(f"{what}: expected one rule, it is named twice: as {named[place]!r} and {item!r}")
            named[place] = item
            target = network.population(projection.target)
            if not target.neuron.spiking:
                raise InputError(
                    f"{what}: its target {target.name!r} is {target.neuron.kind}, which never spikes, so no pairs "
                    "would change its weights; name a projection into spiking neurons"
                )
            weight = projection.weight.weight if isinstance(projection.weight, Sparse) else projection.weight
            values = np.asarray(weight)
            existing = values[values != 0]
            if existing.size and (existing.min() < rule.w_min or existing.max() > rule.w_max):
                raise InputError(
                    f"{what}: weights from {existing.min()} to {existing.max()} do not lie in the bounds "
                    f"{rule.w_min} to {rule.w_max} of its rule; change w_min and w_max or the weights"
                )
    return rules
