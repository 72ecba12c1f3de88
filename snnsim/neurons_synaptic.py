"""Neurons whose excitatory and inhibitory synapses have time courses of their own, as networks of biology use them.

Potentials are measured from rest: a published threshold of -50 mV with a leak at -65 mV is ``v_threshold=15``
if weights and currents are in mV too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from snnsim.grid import decay, kappa
from snnsim.neuron_base import Array, Neuron, Parameter, Reset, per_second, tau_of, vector

__all__ = ["ExpCurrentLIF"]


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
