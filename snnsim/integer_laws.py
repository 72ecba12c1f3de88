"""Integer neuron laws: which numbers a population of each law and kind holds, and within which limits.

What the laws compute is defined in :mod:`snnsim.kernels.reference_integer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from snnsim.errors import InputError

__all__ = ["KINDS", "LAWS", "IntegerLaw", "law_of"]

KINDS = ("lif", "cubalif", "li", "cubali")
"""Kinds of population: with and without a threshold, with and without a synaptic current."""

Limits = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class IntegerLaw:
    """What a law's populations and projections may hold.

    Attributes:
        name: Name of the law.
        parameters: For each kind that the law knows, its parameters with the lowest and the highest value.
        weight: Lowest and highest weight.
        input_delay: Least delay of a projection from an input, in steps.
        delay: Least delay of a projection from a population, in steps.
        max_count: Most spikes of a neuron in a step.
    """

    name: str
    parameters: dict[str, Limits]
    weight: tuple[int, int]
    input_delay: int
    delay: int
    max_count: int


def _loihi2() -> dict[str, Limits]:
    state: Limits = {"v_decay": (0, 4096), "i_decay": (0, 4096), "bias": (-4096, 4095)}
    at_once: Limits = {**state, "i_decay": (4096, 4096)}
    threshold: Limits = {"v_threshold": (0, 2**17 - 1)}
    return {"lif": at_once | threshold, "cubalif": state | threshold, "li": at_once, "cubali": state}


def _xylo() -> dict[str, Limits]:
    return {
        "cubalif": {
            "dash_mem": (0, 15),
            "dash_syn": (0, 15),
            "v_threshold": (1, 2**15 - 1),
            "bias": (-(2**15), 2**15 - 1),
            "max_spikes": (1, 31),
        }
    }


def _fixed() -> dict[str, Limits]:
    word = (1 - 2**30, 2**30 - 1)
    factor = (0, 2**15)
    li: Limits = {"beta": factor, "drive": word, "shift": (0, 30)}
    current: Limits = {"alpha": factor, "drive_syn": word}
    spikes: Limits = {
        "v_threshold": word,
        "v_reset": word,
        "reset_amount": (0, 2**30 - 1),
        "reset_zero": (0, 1),
        "refractory_steps": (0, 2**16 - 1),
    }
    return {"lif": li | spikes, "cubalif": li | current | spikes, "li": li, "cubali": li | current}


LAWS: dict[str, IntegerLaw] = {
    "loihi2": IntegerLaw("loihi2", _loihi2(), weight=(-256, 254), input_delay=1, delay=1, max_count=1),
    "xylo": IntegerLaw("xylo", _xylo(), weight=(-128, 127), input_delay=0, delay=1, max_count=31),
    "fixed": IntegerLaw("fixed", _fixed(), weight=(-(2**15), 2**15 - 1), input_delay=0, delay=0, max_count=1),
}
"""Every law by name."""


def law_of(name: object) -> IntegerLaw:
    """Return the law called ``name``.

    Raises:
        InputError: There is none.
    """
    if not isinstance(name, str) or name not in LAWS:
        raise InputError(f"law: expected one of {sorted(LAWS)}, got {name!r}")
    return LAWS[name]
