"""Neurons with a second variable that follows the membrane and pulls it back: they adapt, burst and resonate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from snnsim.errors import InputError
from snnsim.grid import decay
from snnsim.neuron_base import Array, Neuron, Parameter, StepParameters, vector

__all__ = ["AdEx", "Izhikevich"]

MAX_RISE = 80.0  # e^80 is still a float32 number


@dataclass(frozen=True, eq=False)
class AdEx(Neuron):
    """Adaptive exponential integrate-and-fire with exponential currents (NEST's ``aeif_psc_exp``).

    Brette and Gerstner 2005, equations 1 to 3, divided by the leak conductance::

        tau_mem dv/dt = -v + slope exp((v - v_t) / slope) - w + i_exc + i_inh + tau_mem drive
        tau_w dw/dt = a v - w
        di/dt = -i / tau                                                       for both receptors
        at a spike: v <- v_reset, w <- w + b

    Potentials are measured from rest, currents, w and b are potentials, a has no unit: with a leak of 30 nS, a = 4 nS
    is ``a=4/30`` and b = 80.5 pA is ``b=80.5/30`` mV. A neuron fires when v reaches the cut-off ``v_peak``, which may
    lie anywhere above ``v_t`` where the exponential has taken over. Heun's method for v and w, second order in dt; a
    step that begins above ``v_t`` is done in 8 parts, so that the run-up takes the time it should. Per step, in this
    order of operations::

        s = 1 / 8 if v > v_t else 1;  h = dt / tau_mem s;  k = dt / tau_w s
        x = i_exc;  y = i_inh;  i_exc <- alpha_exc i_exc;  i_inh <- alpha_inh i_inh
        1 / s times, or until v >= v_peak:
            p = min(v, v_peak)
            dv = ((((slope exp((p - v_t) (1 / slope)) - p) + x) + y) - w) + tau_mem drive
            dw = a p - w
            p = min(v + h dv, v_peak);  q = w + k dw;  x <- x + (i_exc - x0) s;  y <- y + (i_inh - y0) s
            v <- v + (0.5 h) (dv + (((((slope exp((p - v_t) (1 / slope)) - p) + x) + y) - q) + tau_mem drive))
            w <- w + (0.5 k) (dw + (a p - q))
        spike if v >= v_peak; v <- v_reset; w <- w + b; the t_ref / dt steps after a spike are skipped
        i <- i + arrivals                                                      for both receptors

    ``x0`` and ``y0`` are the currents before the step. During refractory steps v is held, currents and w go on. The
    exponential function is that of :mod:`snnsim.kernels.exponential`. An arrival at step k first moves ``v`` at k + 1.
    """

    kind: ClassVar[str] = "AdEx"
    current: ClassVar[bool] = True
    variables: ClassVar[tuple[str, ...]] = ("v", "i_exc", "i_inh", "w")
    receptors: ClassVar[tuple[str, ...]] = ("exc", "inh")
    tau_mem: Parameter = 281 / 30 * 0.001
    tau_exc: Parameter = 0.005
    tau_inh: Parameter = 0.005
    tau_w: Parameter = 0.144
    a: Parameter = 4 / 30
    b: Parameter = 80.5 / 30
    v_t: Parameter = 20.2
    slope: Parameter = 2.0
    v_peak: Parameter = 90.6
    v_reset: Parameter = 0.0
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0

    def _check(self) -> None:
        super()._check()
        slope, v_t, v_peak = np.asarray(self.slope), np.asarray(self.v_t), np.asarray(self.v_peak)
        if np.any(slope <= 0):
            raise InputError(f"{self.kind}.slope: expected a positive potential, got {np.min(slope)}")
        if np.any(v_peak <= v_t):
            raise InputError(f"{self.kind}.v_peak: must lie above v_t, where the exponential takes over")
        if np.any(np.asarray(self.v_reset) >= v_peak):
            raise InputError(f"{self.kind}.v_reset: must lie below v_peak, or the neuron fires at every step")
        if np.any((v_peak - v_t) > MAX_RISE * slope):
            rise = np.max((v_peak - v_t) / slope)
            raise InputError(
                f"{self.kind}.v_peak: expected at most {MAX_RISE:g} slopes above v_t, got {rise:.4g}; the exponential "
                "is so steep there that a lower cut-off moves no spike"
            )

    def _threshold(self) -> Parameter:
        return self.v_peak

    def step(self, size: int, dt: float) -> StepParameters:
        """Return the numbers per step; ``drive_step`` is the potential ``tau_mem drive``."""
        numbers = super().step(size, dt)
        return replace(numbers, drive_step=vector(self.drive, size) * vector(self.tau_mem, size))

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        numbers: dict[str, Any] = {
            "jump": self.b,
            "rate": dt / np.asarray(self.tau_mem),
            "rate_w": dt / np.asarray(self.tau_w),
            "alpha_exc": decay(self.tau_exc, dt),
            "alpha_inh": decay(self.tau_inh, dt),
            "v_t": self.v_t,
            "slope": self.slope,
            "steepness": 1 / np.asarray(self.slope),
            "a": self.a,
        }
        return {name: vector(value, size) for name, value in numbers.items()}


@dataclass(frozen=True, eq=False)
class Izhikevich(Neuron):
    """Izhikevich's simple model with delta synapses (NEST's ``izhikevich`` with ``consistent_integration``).

    Izhikevich 2003, equations 1 to 3. Potentials are absolute and in mV, and a, b, c, d are the published numbers,
    whose unit of time is the millisecond; ``drive`` is per second as everywhere, so a published input of 10 is
    ``drive=10_000``::

        dv/dt = 0.04 v^2 + 5 v + 140 - u + I                                   in mV and ms, I = drive / 1000
        du/dt = a (b v - u)
        at a spike: v <- c, u <- u + d

    Arrivals add to ``v``, in mV. Euler's method as in NEST, not the two half steps of the paper's programme. Per step,
    with h = 1000 dt and in this order of operations::

        dv = (((((0.04 v) v + 5 v) + 140) - u) + I)
        u <- u + (h a) (b v - u)                                               with v before the step
        v <- v + (h dv + arrivals)
        spike if v >= v_threshold; v <- c; u <- u + d; the t_ref / dt steps after a spike are skipped (u goes on)

    Runs begin where the paper's do, at ``v = -65`` and ``u = b v`` (:meth:`rest`).
    """

    kind: ClassVar[str] = "Izhikevich"
    variables: ClassVar[tuple[str, ...]] = ("v", "u")
    a: Parameter = 0.02
    b: Parameter = 0.2
    c: Parameter = -65.0
    d: Parameter = 8.0
    v_threshold: Parameter = 30.0
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0

    def _check(self) -> None:
        super()._check()
        if np.any(np.asarray(self.c) >= np.asarray(self.v_threshold)):
            raise InputError(f"{self.kind}.c: must lie below v_threshold, or the neuron fires at every step")

    def rest(self) -> dict[str, Parameter]:
        """Return the values before step 0 of the paper's programme: ``v = -65`` mV and ``u = b v``."""
        return {"v": -65.0, "u": self.b * -65.0}

    def step(self, size: int, dt: float) -> StepParameters:
        """Return the numbers per step; ``drive_step`` is the input I, in mV per ms."""
        numbers = super().step(size, dt)
        return replace(numbers, drive_step=vector(self.drive, size) / 1000, v_reset=vector(self.c, size))

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        h = 1000 * dt
        numbers: dict[str, Any] = {"jump": self.d, "rate": h, "rate_u": h * np.asarray(self.a), "b": self.b}
        return {name: vector(value, size) for name, value in numbers.items()}
