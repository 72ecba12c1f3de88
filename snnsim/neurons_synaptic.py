"""Neurons whose excitatory and inhibitory synapses have time courses of their own, as networks of biology use them.

Potentials are measured from rest: a published threshold of -50 mV with a leak at -65 mV is ``v_threshold=15``
if weights and currents are in mV too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from snnsim.errors import InputError
from snnsim.grid import decay, kappa, kappa_rise
from snnsim.neuron_base import Array, Neuron, Parameter, Reset, StepParameters, per_second, tau_of, vector

__all__ = ["AlphaCurrentLIF", "ConductanceLIF", "ExpCurrentLIF"]

MAX_SUBSTEPS = 1000


@dataclass(frozen=True, eq=False)
class ExpCurrentLIF(Neuron):
    """LIF with exponential currents of two time constants (NEST's ``iaf_psc_exp``).

    ``tau_mem dv/dt = -v + i_exc + i_inh + tau_mem drive``, ``di_exc/dt = -i_exc / tau_exc``,
    ``di_inh/dt = -i_inh / tau_inh``; arrivals add to the current of the receptor their projection names, ``"exc"`` or
    ``"inh"``; an inhibitory weight is negative. Per step, in this order of operations::

        v <- ((beta v + kappa_exc i_exc) + kappa_inh i_inh) + drive_step
        i_exc <- alpha_exc i_exc;  i_inh <- alpha_inh i_inh
        spike if v >= v_threshold; reset; the t_ref / dt steps after a spike are skipped (currents go on)
        i_exc <- i_exc + arrivals;  i_inh <- i_inh + arrivals

    ``kappa`` is the exact gain over a step, :func:`snnsim.grid.kappa`. An arrival at step k first moves ``v`` at k + 1.
    """

    kind: ClassVar[str] = "ExpCurrentLIF"
    current: ClassVar[bool] = True
    variables: ClassVar[tuple[str, ...]] = ("v", "i_exc", "i_inh")
    receptors: ClassVar[tuple[str, ...]] = ("exc", "inh")
    tau_mem: Parameter = 0.02
    tau_exc: Parameter = 0.005
    tau_inh: Parameter = 0.005
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    reset: Reset = "zero"
    reset_amount: Parameter | None = None
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    strict: bool = False
    beta: Parameter | None = None
    alpha_exc: Parameter | None = None
    alpha_inh: Parameter | None = None
    kappa_exc: Parameter | None = None
    kappa_inh: Parameter | None = None
    drive_step: Parameter | None = None

    @classmethod
    def from_step(
        cls,
        *,
        dt: float,
        beta: Parameter,
        alpha_exc: Parameter,
        alpha_inh: Parameter,
        kappa_exc: Parameter | None = None,
        kappa_inh: Parameter | None = None,
        drive_step: Parameter = 0.0,
        **values: Any,
    ) -> Self:
        """Build from decays, gains and drive per step, which become the authoritative numbers."""
        tau_mem, tau_exc, tau_inh = tau_of(beta, dt), tau_of(alpha_exc, dt), tau_of(alpha_inh, dt)
        return cls(
            tau_mem=tau_mem,
            tau_exc=tau_exc,
            tau_inh=tau_inh,
            drive=per_second(drive_step, tau_mem, beta),
            beta=beta,
            alpha_exc=alpha_exc,
            alpha_inh=alpha_inh,
            kappa_exc=kappa(tau_mem, tau_exc, dt) if kappa_exc is None else kappa_exc,
            kappa_inh=kappa(tau_mem, tau_inh, dt) if kappa_inh is None else kappa_inh,
            drive_step=drive_step,
            dt=dt,
            **values,
        )

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        numbers: dict[str, Any] = {}
        for name in self.receptors:
            tau = getattr(self, f"tau_{name}")
            alpha, gain = getattr(self, f"alpha_{name}"), getattr(self, f"kappa_{name}")
            numbers[f"alpha_{name}"] = alpha if given else decay(tau, dt)
            numbers[f"kappa_{name}"] = gain if given else kappa(self.tau_mem, tau, dt)
        return {name: vector(np.asarray(value), size) for name, value in numbers.items()}


@dataclass(frozen=True, eq=False)
class AlphaCurrentLIF(Neuron):
    """LIF with alpha-shaped currents of two time constants (NEST's ``iaf_psc_alpha``).

    ``tau_mem dv/dt = -v + i_exc + i_inh + tau_mem drive`` and, for both receptors, ``tau di/dt = -i + e rise``,
    ``tau d(rise)/dt = -rise``; arrivals add to ``rise``. An arrival of weight w gives the current
    ``w (t / tau) exp(1 - t / tau)``, whose peak is w, at ``t = tau`` (Rall 1967). Solved exactly (Rotter and
    Diesmann 1999), also at equal time constants. Per step, in this order of operations::

        v <- beta v
        v <- (v + kappa_rise_exc rise_exc) + kappa_exc i_exc
        v <- (v + kappa_rise_inh rise_inh) + kappa_inh i_inh
        v <- v + drive_step
        i <- alpha i + (e dt / tau alpha) rise;  rise <- alpha rise            for both receptors
        spike if v >= v_threshold; reset; the t_ref / dt steps after a spike are skipped (currents go on)
        rise <- rise + arrivals                                                for both receptors

    ``kappa`` and ``kappa_rise`` are those of :mod:`snnsim.grid`. An arrival at step k first moves ``v`` at k + 1.
    """

    kind: ClassVar[str] = "AlphaCurrentLIF"
    current: ClassVar[bool] = True
    variables: ClassVar[tuple[str, ...]] = ("v", "rise_exc", "rise_inh", "i_exc", "i_inh")
    receptors: ClassVar[tuple[str, ...]] = ("exc", "inh")
    tau_mem: Parameter = 0.02
    tau_exc: Parameter = 0.002
    tau_inh: Parameter = 0.002
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    reset: Reset = "zero"
    reset_amount: Parameter | None = None
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    strict: bool = False

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        numbers: dict[str, Any] = {"jump": 0.0}
        for name in self.receptors:
            tau = np.asarray(getattr(self, f"tau_{name}"))
            numbers[f"alpha_{name}"] = decay(tau, dt)
            numbers[f"kappa_{name}"] = kappa(self.tau_mem, tau, dt)
            numbers[f"rise_{name}"] = np.e * dt / tau * decay(tau, dt)
            numbers[f"kappa_rise_{name}"] = kappa_rise(self.tau_mem, tau, dt)
        return {name: vector(value, size) for name, value in numbers.items()}


@dataclass(frozen=True, eq=False)
class ConductanceLIF(Neuron):
    """LIF with exponential conductances of two time constants (NEST's ``iaf_cond_exp``, PyNN's ``IF_cond_exp``).

    ``tau_mem dv/dt = -v + g_exc (e_exc - v) + g_inh (e_inh - v) + tau_mem drive``,
    ``dg/dt = -g / tau``; arrivals add to the conductance of the receptor their projection names. Conductances are
    relative to the leak, so they have no unit: 6 nS with a leak of 10 nS is a weight of 0.6. Weights are not negative:
    a synapse inhibits because ``e_inh`` lies below the threshold. Potentials, reversal potentials included, are
    measured from rest.

    Conductances change the time constant of the membrane, ``tau_mem / (1 + g_exc + g_inh)``: this is the spiking form
    of the liquid time-constant unit (Hasani et al. 2021), reconstructed, and trained as
    :class:`snnsim.nn.neurons_conductance.ConductanceLIF`.

    A step is cut into ``substeps`` parts of ``h = dt / substeps`` seconds. With ``solver="exact"`` a part solves the
    equation exactly for conductances that keep the mean they have over the part (exponential Euler with the first term
    of the Magnus series: second order in h). With ``solver="fused"`` it takes the semi-implicit step of Hasani et al.
    with the same means, which is of first order, without an exponential, and stays between the lowest and the highest
    of v, 0, e_exc and e_inh for any h as well. Per step, in this order of operations::

        substeps times, with alpha = exp(-h / tau):
            mean = tau / h (1 - alpha) g                                       for both receptors
            total = (1 + mean_exc) + mean_inh
            pull = (mean_exc e_exc + mean_inh e_inh) + tau_mem drive
            exact:  v_end = pull / total;  v <- v_end + (v - v_end) exp(-(h / tau_mem total))
            fused:  v <- (v + h / tau_mem pull) / (1 + h / tau_mem total)
            g <- alpha g                                                       for both receptors
        spike if v >= v_threshold; v <- v_reset; the t_ref / dt steps after a spike are skipped (conductances go on)
        g <- g + arrivals                                                      for both receptors

    The exponential function is that of :mod:`snnsim.kernels.exponential`. An arrival at step k first moves ``v`` at
    k + 1.
    """

    kind: ClassVar[str] = "ConductanceLIF"
    current: ClassVar[bool] = True
    variables: ClassVar[tuple[str, ...]] = ("v", "g_exc", "g_inh")
    receptors: ClassVar[tuple[str, ...]] = ("exc", "inh")
    conductances: ClassVar[bool] = True
    tau_mem: Parameter = 0.02
    tau_exc: Parameter = 0.005
    tau_inh: Parameter = 0.01
    e_exc: Parameter = 6.0
    e_inh: Parameter = -2.0
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    solver: Literal["exact", "fused"] = "exact"
    substeps: int = 1

    def _check(self) -> None:
        super()._check()
        if self.solver not in ("exact", "fused"):
            raise InputError(f"{self.kind}.solver: expected 'exact' or 'fused', got {self.solver!r}")
        if isinstance(self.substeps, bool) or not isinstance(self.substeps, (int, np.integer)):
            raise InputError(f"{self.kind}.substeps: expected a whole number, got {self.substeps!r}")
        if not 1 <= self.substeps <= MAX_SUBSTEPS:
            raise InputError(f"{self.kind}.substeps: expected 1 to {MAX_SUBSTEPS}, got {self.substeps}")
        object.__setattr__(self, "substeps", int(self.substeps))
        if np.any(np.asarray(self.v_reset) >= np.asarray(self.v_threshold)):
            raise InputError(f"{self.kind}.v_reset: must lie below v_threshold, or the neuron fires at every step")

    def step(self, size: int, dt: float) -> StepParameters:
        """Return the numbers per step; ``drive_step`` is the potential ``tau_mem drive``."""
        numbers = super().step(size, dt)
        return replace(numbers, drive_step=vector(self.drive, size) * vector(self.tau_mem, size))

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        numbers: dict[str, Any] = {
            "jump": 0.0,
            "rate": dt / self.substeps / np.asarray(self.tau_mem),
            "e_exc": self.e_exc,
            "e_inh": self.e_inh,
            "substeps": float(self.substeps),
            "fused": float(self.solver == "fused"),
        }
        h = dt / self.substeps
        for name in self.receptors:
            tau = np.asarray(getattr(self, f"tau_{name}"))
            numbers[f"alpha_{name}"] = decay(tau, h)
            numbers[f"mean_{name}"] = -np.expm1(-h / tau) * tau / h
        return {name: vector(value, size) for name, value in numbers.items()}
