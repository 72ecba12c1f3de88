"""Neuron records: what a population computes, as frozen values without behaviour.

A record can be written in two ways. From continuous time, with time constants in seconds::

    LIF(tau_mem=0.02, v_threshold=1.0)

or, for a network that was trained or imported on a grid, from its numbers per step::

    LIF.from_step(dt=0.001, beta=0.95, drive_step=0.01)

In the second form the numbers per step are the authoritative ones and the time constants are derived from
them: a round trip through ``exp`` and ``log`` would change bits. :meth:`step` returns what an engine needs.

Parameters are scalars or arrays of shape ``(size,)``. Potentials are dimensionless (threshold 1 by
convention), times are seconds, ``drive`` is per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from snnsim.grid import kappa as kappa_of
from snnsim.neuron_base import Array, Neuron, Parameter, Reset, StepParameters, per_second, tau_of
from snnsim.neurons_meta_dynamic import MetaDynamicNeuron
from snnsim.neurons_recovery import AdEx, Izhikevich
from snnsim.neurons_stochastic import LevyBaxter, MetaNeuron
from snnsim.neurons_synaptic import AlphaCurrentLIF, ConductanceLIF, ExpCurrentLIF

__all__ = [
    "IF",
    "LI",
    "LIF",
    "NEURONS",
    "AdEx",
    "AdaptiveLIF",
    "AlphaCurrentLIF",
    "Array",
    "ConductanceLIF",
    "CubaLI",
    "CubaLIF",
    "ExpCurrentLIF",
    "Izhikevich",
    "LevyBaxter",
    "MetaDynamicNeuron",
    "MetaNeuron",
    "Neuron",
    "Parameter",
    "Reset",
    "StepParameters",
]


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """Integrate-and-fire: ``dv/dt = drive``; arrivals add to ``v``; no leak.

    Per step: ``v <- (v + drive_step) + arrivals``; spike if ``v >= v_threshold``; reset.
    """

    kind: ClassVar[str] = "IF"
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    reset: Reset = "zero"
    reset_amount: Parameter | None = None
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    strict: bool = False
    drive_step: Parameter | None = None

    @classmethod
    def from_step(cls, *, dt: float, drive_step: Parameter = 0.0, **values: Any) -> Self:
        """Build from the drive per step, which becomes the authoritative number."""
        return cls(drive=np.asarray(drive_step, dtype=np.float64) / dt, drive_step=drive_step, dt=dt, **values)


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """Leaky integrate-and-fire with delta synapses: ``dv/dt = -v / tau_mem + drive``; arrivals add to ``v``.

    Per step: ``v <- (beta v + drive_step) + arrivals`` with ``beta = exp(-dt / tau_mem)`` and
    ``drive_step = drive tau_mem (1 - beta)``; spike if ``v >= v_threshold``; reset in the same step
    (``zero``: to ``v_reset``; ``subtract``: by ``reset_amount``, default ``v_threshold``); the
    ``t_ref / dt`` steps after the spike are skipped.
    """

    kind: ClassVar[str] = "LIF"
    tau_mem: Parameter = 0.02
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    reset: Reset = "zero"
    reset_amount: Parameter | None = None
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    strict: bool = False
    beta: Parameter | None = None
    drive_step: Parameter | None = None

    @classmethod
    def from_step(cls, *, dt: float, beta: Parameter, drive_step: Parameter = 0.0, **values: Any) -> Self:
        """Build from the decay and drive per step, which become the authoritative numbers."""
        tau = tau_of(beta, dt)
        drive = per_second(drive_step, tau, beta)
        return cls(tau_mem=tau, drive=drive, beta=beta, drive_step=drive_step, dt=dt, **values)


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """Leaky integrator without threshold, the readout neuron: ``dv/dt = -v / tau_mem + drive``."""

    kind: ClassVar[str] = "LI"
    spiking: ClassVar[bool] = False
    tau_mem: Parameter = 0.02
    drive: Parameter = 0.0
    beta: Parameter | None = None
    drive_step: Parameter | None = None

    @classmethod
    def from_step(cls, *, dt: float, beta: Parameter, drive_step: Parameter = 0.0) -> Self:
        """Build from the decay and drive per step, which become the authoritative numbers."""
        tau = tau_of(beta, dt)
        drive = per_second(drive_step, tau, beta)
        return cls(tau_mem=tau, drive=drive, beta=beta, drive_step=drive_step, dt=dt)


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """LIF with an exponential synaptic current.

    ``tau_mem dv/dt = -v + i + tau_mem drive``, ``di/dt = -i / tau_syn + drive_syn``; arrivals add to ``i``.
    Per step: ``v <- beta v + kappa i + drive_step + drive_syn tau_syn (1 - beta - kappa)``;
    ``i <- alpha i + drive_syn tau_syn (1 - alpha)``; spike, reset; then ``i <- i + arrivals``. An arrival
    at step k first moves ``v`` at step k + 1.
    """

    kind: ClassVar[str] = "CubaLIF"
    variables: ClassVar[tuple[str, ...]] = ("v", "i")
    current: ClassVar[bool] = True
    tau_mem: Parameter = 0.02
    tau_syn: Parameter = 0.005
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    reset: Reset = "zero"
    reset_amount: Parameter | None = None
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    drive_syn: Parameter = 0.0
    strict: bool = False
    beta: Parameter | None = None
    alpha: Parameter | None = None
    kappa: Parameter | None = None
    drive_step: Parameter | None = None
    drive_syn_step: Parameter | None = None
    drive_syn_to_v: Parameter | None = None

    @classmethod
    def from_step(
        cls,
        *,
        dt: float,
        beta: Parameter,
        alpha: Parameter,
        kappa: Parameter | None = None,
        drive_step: Parameter = 0.0,
        drive_syn_step: Parameter = 0.0,
        drive_syn_to_v: Parameter = 0.0,
        **values: Any,
    ) -> Self:
        """Build from decays, gain and drives per step, which become the authoritative numbers."""
        tau_mem, tau_syn = tau_of(beta, dt), tau_of(alpha, dt)
        gain = kappa_of(tau_mem, tau_syn, dt) if kappa is None else kappa
        return cls(
            tau_mem=tau_mem,
            tau_syn=tau_syn,
            drive=per_second(drive_step, tau_mem, beta),
            drive_syn=per_second(drive_syn_step, tau_syn, alpha),
            beta=beta,
            alpha=alpha,
            kappa=gain,
            drive_step=drive_step,
            drive_syn_step=drive_syn_step,
            drive_syn_to_v=drive_syn_to_v,
            dt=dt,
            **values,
        )


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """CubaLIF without threshold: a readout with an exponential synaptic current."""

    kind: ClassVar[str] = "CubaLI"
    variables: ClassVar[tuple[str, ...]] = ("v", "i")
    spiking: ClassVar[bool] = False
    current: ClassVar[bool] = True
    tau_mem: Parameter = 0.02
    tau_syn: Parameter = 0.005
    drive: Parameter = 0.0
    drive_syn: Parameter = 0.0
    beta: Parameter | None = None
    alpha: Parameter | None = None
    kappa: Parameter | None = None
    drive_step: Parameter | None = None
    drive_syn_step: Parameter | None = None
    drive_syn_to_v: Parameter | None = None

    from_step: ClassVar[Any] = classmethod(CubaLIF.from_step.__func__)  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class AdaptiveLIF(Neuron):
    """LIF with one adaptation variable ``w`` that lowers the membrane or raises the threshold.

    Per step, with ``rho = exp(-dt / tau_adapt)`` and arrivals summed first, in this order of operations::

        v <- ((beta v + drive_step) + arrivals) - w              without the "- w" if adapt_threshold > 0
        spike if v >= v_threshold + adapt_threshold * w          just v_threshold if adapt_threshold = 0
        reset (``zero``: to v_reset; ``subtract``: by reset_amount, by default the constant v_threshold)
        w <- (rho w + adapt_v v) + adapt_spike * spike           (v after the reset)

    With ``adapt_threshold > 0`` the variable acts on the threshold only and not on the membrane (ALIF,
    Bellec et al. 2018); with ``adapt_threshold = 0`` it acts on the membrane (adLIF, Bittar & Garner 2022;
    SE-adLIF, Baronig et al. 2025). In an array each neuron has its own form. ``w`` starts at 0. During
    refractory steps ``v`` is held, there is no spike, and ``w <- rho w + adapt_v v`` goes on. ``adapt_v`` and
    ``adapt_spike`` are per step.
    """

    kind: ClassVar[str] = "AdaptiveLIF"
    variables: ClassVar[tuple[str, ...]] = ("v", "w")
    tau_mem: Parameter = 0.02
    tau_adapt: Parameter = 0.1
    adapt_v: Parameter = 0.0
    adapt_spike: Parameter = 0.0
    adapt_threshold: Parameter = 0.0
    v_threshold: Parameter = 1.0
    v_reset: Parameter = 0.0
    reset: Reset = "zero"
    reset_amount: Parameter | None = None
    t_ref: Parameter = 0.0
    drive: Parameter = 0.0
    strict: bool = False
    beta: Parameter | None = None
    adapt_decay: Parameter | None = None
    drive_step: Parameter | None = None

    @classmethod
    def from_step(
        cls, *, dt: float, beta: Parameter, adapt_decay: Parameter, drive_step: Parameter = 0.0, **values: Any
    ) -> Self:
        """Build from the decays and drive per step, which become the authoritative numbers."""
        tau = tau_of(beta, dt)
        return cls(
            tau_mem=tau,
            tau_adapt=tau_of(adapt_decay, dt),
            drive=per_second(drive_step, tau, beta),
            beta=beta,
            adapt_decay=adapt_decay,
            drive_step=drive_step,
            dt=dt,
            **values,
        )


_RECORDS: tuple[type[Neuron], ...] = (
    *(IF, LIF, LI, CubaLIF, CubaLI, AdaptiveLIF),
    *(ExpCurrentLIF, AlphaCurrentLIF, ConductanceLIF, AdEx, Izhikevich),
    *(MetaNeuron, LevyBaxter, MetaDynamicNeuron),
)

NEURONS: dict[str, type[Neuron]] = {record.kind: record for record in _RECORDS}
"""Every record by its kind, as stored in files."""
