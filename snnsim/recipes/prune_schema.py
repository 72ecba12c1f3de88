"""What a recipe may say about pruning: how synapses or neurons are chosen, how many stay, and when."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from snnsim.recipes.spec import Spec

__all__ = ["PruneSpec"]

PRUNE_KEYS: dict[str, tuple[str, ...]] = {
    "magnitude": ("unit", "scope", "distribution", "start", "every", "rounds", "rewind"),
    "random": ("distribution",),
    "snip": ("unit", "scope", "distribution"),
    "synflow": ("scope", "distribution", "rounds"),
    "activity": ("start", "every", "rounds", "rewind"),
    "neurons": ("start", "every", "rounds", "rewind"),
    "rigl": ("distribution", "fraction", "interval", "stop"),
    "deep-r": ("distribution", "temperature", "l1"),
}


class PruneSpec(Spec):
    """Pruning in training, see ``docs/sparse-training.md``; a method takes only the keys that it knows.

    Attributes:
        method: ``magnitude`` (smallest weights go), ``random``, ``snip`` and ``synflow`` (before training),
            ``activity`` (neurons with the lowest rates go), ``neurons`` (those with the smallest weights), ``rigl``
            and ``deep-r`` (a fixed number of synapses that move during training).
        keep: Share of the synapses (or neurons) of ``layers`` that stay.
        layers: ``layer1``, ``layer1 recurrence``, ..., ``readout``; empty: all hidden ones, the readout stays whole.
        unit: In layers with taps, whether a ``tap`` is kept by itself or a ``synapse`` with all its taps.
        scope: Whether every ``layer`` keeps that share, or all together (``global``).
        distribution: How a budget is shared out among layers: every layer the same share (``uniform``), or small layers
            more (``erdos-renyi``; ``erdos-renyi-kernel`` counts taps too). ``keep`` is then the share of all layers.
        start: Epoch, counted from 0, at whose beginning the first round comes.
        every: Epochs between rounds.
        rounds: Rounds; each removes the same part of what is left. In ``synflow`` all of them before training.
        rewind: Go back to the initial weights after every round, with a fresh optimiser.
        fraction: Share of the synapses that ``rigl`` replaces at first; it falls along a cosine.
        interval: Steps between its replacements.
        stop: Part of the run after which it replaces no more.
        temperature: Strength of the noise of ``deep-r``.
        l1: Strength of its pull to 0.
    """

    method: Literal["magnitude", "random", "snip", "synflow", "activity", "neurons", "rigl", "deep-r"]
    keep: float = Field(gt=0, le=1)
    layers: list[str] = Field(default_factory=list)
    unit: Literal["tap", "synapse"] = "tap"
    scope: Literal["layer", "global"] = "layer"
    distribution: Literal["uniform", "erdos-renyi", "erdos-renyi-kernel"] = "uniform"
    start: int = Field(default=0, ge=0)
    every: int = Field(default=1, ge=1)
    rounds: int = Field(default=1, ge=1)
    rewind: bool = False
    fraction: float = Field(default=0.3, gt=0, lt=1)
    interval: int = Field(default=100, ge=1)
    stop: float = Field(default=0.75, gt=0, le=1)
    temperature: float = Field(default=0.0, ge=0)
    l1: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> PruneSpec:
        fields = type(self).model_fields
        for key in fields:
            special = key not in ("method", "keep", "layers")
            if special and getattr(self, key) != fields[key].default and key not in PRUNE_KEYS[self.method]:
                known = ", ".join(("keep", "layers", *PRUNE_KEYS[self.method]))
                raise ValueError(f"method {self.method!r} has no {key!r}; it takes {known}")
        if self.scope == "global" and self.distribution != "uniform":
            raise ValueError(f"distribution {self.distribution!r} gives every layer its budget; use scope 'layer'")
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("layers names a layer twice")
        return self

    def last_epoch(self) -> int:
        """Return the epoch, counted from 0, at whose beginning the last round comes."""
        return self.start + self.every * (self.rounds - 1) if "every" in PRUNE_KEYS[self.method] else 0
