"""Training steps of a delay layer and of a recurrent layer with few synapses, beside the same steps done densely."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from snnsim.bench.sparse import BATCH, RATE, ROUNDS, UNITS, in_turn, on_threads
from snnsim.errors import InputError
from snnsim.nn.delays import DelayedLinear
from snnsim.nn.neurons import LIF
from snnsim.nn.recurrent import Recurrent

__all__ = ["LAYER_DENSITIES", "LAYER_WAYS", "LayerStep", "format_layer_steps", "measure_layer_steps"]

Layer = Literal["delay", "recurrent"]

LAYER_DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.5)
LAYER_WAYS: dict[str, tuple[str, ...]] = {
    "delay": ("frequency", "sparse"),
    "recurrent": ("dense", "events", "sparse"),
}
"""Ways of computing by kind of layer: the dense one first."""

DELAYS = 24
"""Longest delay in steps."""


@dataclass(frozen=True)
class LayerStep:
    """A training step of one layer, forward and backward, with the gradients of the input and of all parameters.

    Attributes:
        layer: ``delay`` (DCLS, 25 slots, one tap, widest Gaussian) or ``recurrent`` (LIF, one delay of a step).
        density: Share of synapses that the mask left.
        rate: Spikes a neuron and step of the recurrent layer, events an input and step of the delay layer.
        seconds: Median seconds by way of computing.
        ratios: Time of the dense step over that of the sparse one, round by round.
        difference: Largest relative difference of a gradient between them, in the norm.
    """

    layer: str
    density: float
    rate: float
    seconds: dict[str, float]
    ratios: tuple[float, ...]
    difference: float

    @property
    def ratio(self) -> float:
        """Return the median ratio."""
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "ratio": self.ratio}


def _layer(kind: str, units: int, density: float, generator: torch.Generator) -> DelayedLinear | Recurrent:
    module: DelayedLinear | Recurrent
    if kind == "delay":
        module = DelayedLinear(units, units, max_delay_steps=DELAYS, generator=generator)
    else:
        weight = torch.randn(units, units, generator=generator) * (0.1 / (density * units)) ** 0.5
        module = Recurrent(LIF(units, dt=0.001), weight)
    module.set_mask(torch.rand(units, units, generator=generator) < density)
    return module.train()


def measure_layer_steps(
    kind: str,
    threads: int,
    n_steps: int,
    *,
    units: int = UNITS,
    batch: int = BATCH,
    densities: Sequence[float] = LAYER_DENSITIES,
    rounds: int = ROUNDS,
) -> list[LayerStep]:
    """Time training steps of a masked layer of ``units`` sources and targets in all ways it has, in turn.

    Args:
        kind: ``delay`` or ``recurrent``.
        threads: Threads.
        n_steps: Time steps.
        units: Sources and targets.
        batch: Samples.
        densities: Shares of synapses.
        rounds: Measurements of each; the median counts.

    Raises:
        InputError: There is no such kind.
    """
    if kind not in LAYER_WAYS:
        raise InputError(f"bench sparse: expected a layer linear, {', '.join(LAYER_WAYS)}, got {kind!r}")
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(n_steps, batch, units, generator=generator)
    x = (chance * 0.25 if kind == "recurrent" else (chance < RATE).float()).requires_grad_()
    upstream = torch.randn(n_steps, batch, units, generator=generator)
    done = []
    with on_threads(threads):
        for density in densities:
            module = _layer(kind, units, density, generator)
            grads: dict[str, list[Tensor]] = {}
            fired: list[float] = []

            def work(way: str, module: Any = module, grads: Any = grads, fired: list[float] = fired) -> None:
                module.formulation = way
                y, _ = module(x)
                fired.append(float(y.detach().mean()))
                grads[way] = list(torch.autograd.grad(y, (x, *module.parameters()), upstream))

            ways = LAYER_WAYS[kind]
            times = in_turn(ways, work, rounds)
            worst = max(
                float((a.double() - b.double()).norm() / b.double().norm())
                for a, b in zip(grads["sparse"], grads[ways[0]], strict=True)
            )
            done.append(
                LayerStep(
                    kind,
                    density,
                    fired[-1] if kind == "recurrent" else RATE,
                    {way: statistics.median(seconds) for way, seconds in zip(ways, times, strict=True)},
                    tuple(a / b for a, b in zip(times[0], times[-1], strict=True)),
                    worst,
                )
            )
    return done


def format_layer_steps(rows: Sequence[LayerStep], n_steps: int) -> str:
    """Return a table of steps."""
    ways = LAYER_WAYS[rows[0].layer]
    lines = [f"{rows[0].layer} layer of {UNITS} units, batch {BATCH}, T = {n_steps}, forward and backward, ms a step"]
    lines.append(f"{'density':>8} {'rate':>6} " + " ".join(f"{way:>10}" for way in ways) + f"   {ways[0]} / sparse")
    for row in rows:
        ms = " ".join(f"{row.seconds[way] * 1e3:10.1f}" for way in ways)
        spread = f"{row.ratio:.2f} ({min(row.ratios):.2f}-{max(row.ratios):.2f})"
        lines.append(f"{row.density:>8.0%} {row.rate:>6.1%} {ms}   {spread}")
    lines.append(f"largest difference of a gradient: {max(row.difference for row in rows):.1e} of its norm")
    return "\n".join(lines)
