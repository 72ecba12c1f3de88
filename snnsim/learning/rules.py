"""From the name in a recipe to a learning rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from snnsim.errors import InputError
from snnsim.learning.bptt import BPTT
from snnsim.learning.eprop import EProp
from snnsim.learning.eventprop import EventProp
from snnsim.learning.ottt import OTTT
from snnsim.learning.protocol import Rule
from snnsim.learning.ridge import Ridge
from snnsim.learning.rtrl import RTRL
from snnsim.learning.sltt import SLTT, SLTTK

if TYPE_CHECKING:
    from snnsim.recipes.schema import TrainSpec

__all__ = ["make_rule"]

RULES: dict[str, Callable[[TrainSpec], Rule]] = {
    "bptt": lambda spec: BPTT(spec.checkpoint_steps),
    "eventprop": lambda spec: EventProp(
        spec.rule.shaping, spec.rule.clip, spec.rule.spike_strength, spec.rule.spike_target, spec.rule.wake
    ),
    "sltt": lambda spec: SLTT(spec.rule.two_pass, spec.rule.chunk_steps, spec.rule.norm),
    "sltt-k": lambda spec: SLTTK(
        *(spec.rule.steps or 0, spec.rule.rescale, spec.rule.two_pass, spec.rule.chunk_steps, spec.rule.norm)
    ),
    "ottt": lambda spec: OTTT(spec.rule.two_pass),
    "rtrl": lambda spec: RTRL(spec.rule.two_pass),
    "e-prop": lambda spec: EProp(spec.rule.two_pass, spec.rule.feedback),
    "ridge": lambda spec: Ridge(spec.rule.ridge),
}


def make_rule(spec: TrainSpec) -> Rule:
    """Return the learning rule of a recipe's training table.

    Raises:
        InputError: There is no such rule.
    """
    if spec.learning not in RULES:
        raise InputError(f"train.learning: expected one of {', '.join(RULES)}, got {spec.learning!r}")
    return RULES[spec.learning](spec)
