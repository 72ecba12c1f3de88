"""The meta-dynamic neuron: a quadratic membrane with a recovery variable and four numbers that can be learned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from snnsim.errors import InputError
from snnsim.neuron_base import Array, Neuron, Parameter, StepParameters, vector

__all__ = ["MetaDynamicNeuron"]


@dataclass(frozen=True, eq=False)
class MetaDynamicNeuron(Neuron):
    """Meta-dynamic neuron with delta synapses (Cheng, Zhang, Jia and Xu 2020, recalled and not read).

    Time is counted in units of ``time_unit`` seconds::

        dv/dt = v^2 - v - u + I
        du/dt = theta_v v - theta_u u
        at a spike (v >= v_threshold): v <- theta_r, u <- u + theta_s

    Arrivals add to ``v``; ``drive`` is per second as everywhere, so ``I = drive time_unit``. The four thetas of
    default are recalled from later work of the same group. Recalled are the equations; reconstructed, because the paper
    was not read, are the method of integration and the floor: Euler's method from the values before the step, and a
    membrane that is not taken below ``v_floor``. A step is refused unless ``rate (1 - 2 v_floor) <= 1`` and
    ``rate theta_u <= 1``: then a step cannot jump over the parabola, a strong inhibition makes no spike, and both
    variables stay finite. Per step, with ``rate = dt / time_unit`` and ``drive_step = drive dt``, in this order of
    operations::

        dv = (v v - v) - u
        du = theta_v v - theta_u u
        v <- max(((v + rate dv) + drive_step) + arrivals, v_floor)
        u <- u + rate du
        spike if v >= v_threshold; v <- theta_r; u <- u + theta_s; the t_ref / dt steps after a spike are skipped (u
        goes on)

    Below ``v = 1`` the membrane falls back to 0, above it runs up by itself: a threshold of 1 or less fires before.
    """

    kind: ClassVar[str] = "MetaDynamicNeuron"
    variables: ClassVar[tuple[str, ...]] = ("v", "u")
    time_unit: Parameter = 0.01
    theta_v: Parameter = -0.172
    theta_u: Parameter = 0.529
    theta_r: Parameter = 0.021
    theta_s: Parameter = 0.132
    v_threshold: Parameter = 0.5
    v_floor: Parameter = -1.0
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    rate: Parameter | None = None
    drive_step: Parameter | None = None

    @classmethod
    def from_step(cls, *, dt: float, rate: Parameter, drive_step: Parameter = 0.0, **values: Any) -> Self:
        """Build from the time units in a step and the drive per step, which become the authoritative numbers."""
        if np.any(np.asarray(rate) <= 0):
            raise InputError(f"{cls.kind}.rate: expected a positive number of time units a step, got {np.min(rate)}")
        unit = dt / np.asarray(rate, dtype=np.float64)
        drive = np.asarray(drive_step, dtype=np.float64) / dt
        values.pop("time_unit", None)
        values.pop("drive", None)
        return cls(time_unit=unit, drive=drive, rate=rate, drive_step=drive_step, dt=dt, **values)

    def _check(self) -> None:
        super()._check()
        theta_u, theta_r, floor = np.asarray(self.theta_u), np.asarray(self.theta_r), np.asarray(self.v_floor)
        if np.any(np.asarray(self.time_unit) <= 0):
            raise InputError(f"{self.kind}.time_unit: expected positive seconds, got {np.min(self.time_unit)}")
        if np.any(theta_u < 0):
            raise InputError(f"{self.kind}.theta_u: expected 0 or more, or u grows by itself; got {np.min(theta_u)}")
        if np.any(theta_r >= np.asarray(self.v_threshold)):
            raise InputError(f"{self.kind}.theta_r: must lie below v_threshold, or the neuron fires at every step")
        if np.any(theta_r < floor) or np.any(floor > 0):
            raise InputError(f"{self.kind}.v_floor: must lie at or below theta_r and the resting value 0")

    def step(self, size: int, dt: float) -> StepParameters:
        """Return the numbers per step; a step too long for the method is refused."""
        numbers = replace(super().step(size, dt), v_reset=vector(self.theta_r, size))
        rate = numbers.extra["rate"]
        longest = np.maximum(1 - 2 * vector(self.v_floor, size), vector(self.theta_u, size))
        if np.any(rate * longest > 1 + 1e-12):
            raise InputError(
                f"{self.kind}: a step of {dt:g} s is {np.max(rate):.4g} time units, at most {np.min(1 / longest):.4g} "
                "are safe with this v_floor and theta_u; use a smaller dt, a longer time_unit or a higher v_floor"
            )
        return numbers

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        numbers: dict[str, Any] = {
            "jump": self.theta_s,
            "rate": self.rate if given else dt / np.asarray(self.time_unit),
            "theta_v": self.theta_v,
            "theta_u": self.theta_u,
            "v_floor": self.v_floor,
        }
        return {name: vector(value, size) for name, value in numbers.items()}
