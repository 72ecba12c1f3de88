"""Trainable Levy-Baxter neurons (torch): quantal synapses and a threshold, without memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from snnsim import neurons as records
from snnsim.nn.meta import StochasticModule
from snnsim.nn.parameters import Values
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = ["LevyBaxter"]


class LevyBaxter(StochasticModule):
    """Neurons without memory whose synapses release at random, with amplitudes from U[0, 1).

    The law is that of :class:`snnsim.neurons.LevyBaxter` (Levy & Baxter 2002). A synapse gives half its weight on
    average, so weights that were drawn for LIF drive them half as much.

    Args:
        size: Number of neurons.
        dt: Step in seconds; it gives records their time and has no influence on the law.
        v_threshold: Threshold, positive.
        release: Probability that a synapse releases, in (0, 1].
        drive_step: Added to the sum every step.
        mode: ``"stochastic"`` or ``"mean"``, in training and in evaluation.
        estimator: ``"straight-through"`` or ``"score"``, see :mod:`snnsim.nn.meta`.
        surrogate: Stand-in for the derivative of the spike.
        learn: Names among ``learnable``: ``v_threshold`` changes by a factor, ``release`` by its logit.

    Raises:
        InputError: A value is not acceptable.
    """

    kind = "LevyBaxter"
    learnable: ClassVar[tuple[str, ...]] = ("v_threshold", "release", "drive_step")

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        v_threshold: Values = 1.0,
        release: Values = 1.0,
        drive_step: Values = 0.0,
        mode: str = "stochastic",
        estimator: str = "straight-through",
        surrogate: Surrogate = ATan(5.0),  # noqa: B008 - immutable
        learn: Iterable[str] = (),
    ) -> None:
        super().__init__(size, dt)
        names = self._learn(learn)
        self._set_random(mode, estimator)
        self._set_spiking(
            v_threshold=v_threshold,
            v_reset=0.0,
            reset="zero",
            reset_amount=None,
            t_ref=0.0,
            surrogate=surrogate,
            detach_reset=True,
            learn=names,
        )
        self._add("release", release, "logit" if "release" in names else None)
        self._add("drive_step", drive_step, "gain" if "drive_step" in names else None)
        self.neuron()

    def law(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return release, lowest amplitude and span, float64, shape (unit,) each; differentiable if learned."""
        release = self._vector(self._value("release"), torch.float64)
        return release, torch.zeros_like(release), torch.ones_like(release)

    def certain(self) -> bool:
        """Return False: amplitudes are always drawn."""
        return False

    def _rows(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        threshold = self._vector(self.threshold(), dtype)
        nothing = torch.zeros(self.size, dtype=dtype)
        return (nothing, self._vector(self._value("drive_step"), dtype), threshold, nothing, threshold, nothing)

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        values = {name: self._number(name) for name in ("v_threshold", "release", "drive_step")}
        return records.LevyBaxter.from_step(dt=self.dt, mode=self.mode, **values)
