"""Trainable neurons with an exponential synaptic current: CubaLIF and the readout CubaLI (torch)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnsim import grid
from snnsim import neurons as records
from snnsim.errors import InputError
from snnsim.kernels import dynamics
from snnsim.nn import fused_cuba
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.parameters import Heterogeneous, NeuronModule, Values
from snnsim.nn.spiking import Prepared, SpikingModule
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = ["CubaLI", "CubaLIF", "CubaLIFState", "CubaLIState"]


class CubaLIFState(NamedTuple):
    """State of CubaLIF neurons after a step.

    Attributes:
        v: Membrane after the reset, shape (batch, unit).
        i_syn: Synaptic current with the arrivals of the step, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
    """

    v: Tensor
    i_syn: Tensor
    refractory: Tensor


class CubaLIState(NamedTuple):
    """State of CubaLI neurons after a step: membrane and synaptic current, shape (batch, unit)."""

    v: Tensor
    i_syn: Tensor


def _kappa(rate_mem: Tensor, rate_syn: Tensor) -> Tensor:
    """Return the gain from current to membrane for ``dt / tau_mem`` and ``dt / tau_syn``, smooth where they meet."""
    x = rate_syn - rate_mem
    near = x.abs() < 1e-3
    far = torch.where(near, torch.ones_like(x), x)
    series = 1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5)))
    ratio = torch.where(near, series, -torch.expm1(-far) / far)
    return rate_mem * torch.exp(-rate_mem) * ratio


class _Current:
    """Decays and gain of a synaptic current, mixed into the two modules."""

    def _add_current(
        self: Any,
        tau_mem: Values,
        tau_syn: Values,
        beta: Values | None,
        alpha: Values | None,
        kappa: Values | None,
        learn: tuple[str, ...],
        heterogeneous: Heterogeneous,
        seed: int,
    ) -> None:
        self._add_decay("beta", "tau_mem", tau_mem, beta, learn, heterogeneous, seed)
        self._add_decay("alpha", "tau_syn", tau_syn, alpha, learn, heterogeneous, seed)
        self.own_kappa = kappa is not None
        if kappa is not None:
            if "tau_mem" in learn or "tau_syn" in learn:
                raise InputError(f"{self.label}: kappa given directly cannot follow learned time constants")
            self._add("kappa", kappa)
            return
        with np.errstate(divide="ignore"):
            taus = [-self.dt / np.log(self._base(name).numpy()) for name in ("beta", "alpha")]
        if beta is None and not heterogeneous:
            taus[0] = self._array("tau_mem", tau_mem)
        if alpha is None and not heterogeneous:
            taus[1] = self._array("tau_syn", tau_syn)
        if any(np.any(tau <= 0) or not np.all(np.isfinite(tau)) for tau in taus):
            raise InputError(
                f"{self.label}: beta and alpha must lie within (0, 1), or kappa be given: no gain follows from them"
            )
        self._add("kappa", grid.kappa(taus[0], taus[1], self.dt))

    def gain(self: Any) -> Tensor:
        """Return kappa, float64; it follows learned time constants and starts exactly at its base value."""
        base: Tensor = self._base("kappa")
        if not {"beta", "alpha"} & set(self._changes):
            return base
        start = _kappa(-torch.log(self._base("beta")), -torch.log(self._base("alpha")))
        now = _kappa(-torch.log(self._value("beta")), -torch.log(self._value("alpha")))
        return base + (now - start)

    def decays(self: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return beta, alpha and kappa as vectors of shape (unit,)."""
        return (
            self._vector(self._value("beta"), dtype),
            self._vector(self._value("alpha"), dtype),
            self._vector(self.gain(), dtype),
        )

    def _current_record(self: Any) -> dict[str, Any]:
        gain = self.gain().detach().cpu().numpy()
        return {
            "beta": self._number("beta"),
            "alpha": self._number("alpha"),
            "kappa": float(gain) if gain.ndim == 0 else gain.copy(),
        }


class CubaLIF(_Current, SpikingModule[CubaLIFState]):
    """Leaky integrate-and-fire neurons with an exponential synaptic current.

    Per step: ``v <- beta v + kappa i``; ``i <- alpha i``; ``spike = v >= v_threshold``; reset;
    ``i <- i + current``: an input at step k first moves ``v`` at step k + 1. ``kappa`` is the exact gain of
    ``tau_mem dv/dt = -v + i``, ``tau_syn di/dt = -i`` over one step. A refractory neuron holds ``v`` while
    ``i`` goes on.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        tau_mem: Membrane time constant in seconds.
        tau_syn: Synaptic time constant in seconds.
        beta: Membrane decay per step; given directly it is authoritative.
        alpha: Synaptic decay per step; given directly it is authoritative.
        kappa: Gain from current to membrane; by default it follows from the decays.
        v_threshold: As in :class:`~snnsim.nn.neurons.LIF`, like the following.
        v_reset: Value after a ``zero`` reset.
        reset: ``"zero"`` or ``"subtract"``.
        reset_amount: Amount of a ``subtract`` reset.
        t_ref: Refractory period in seconds.
        surrogate: Stand-in for the derivative of the spike.
        detach_reset: Whether the reset passes no gradient.
        learn: Names among ``"tau_mem"``, ``"tau_syn"``, ``"v_threshold"`` and, with reset ``"zero"``, ``"v_reset"``.
        heterogeneous: Draw both time constants by neuron.
        seed: Seed of these draws.
    """

    kind = "CubaLIF"
    dynamics = dynamics.CUBA
    cuda_kernel = True
    learnable: ClassVar[tuple[str, ...]] = ("tau_mem", "tau_syn", "v_threshold", "v_reset")

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        tau_mem: Values = 0.02,
        tau_syn: Values = 0.005,
        beta: Values | None = None,
        alpha: Values | None = None,
        kappa: Values | None = None,
        v_threshold: Values = 1.0,
        v_reset: Values = 0.0,
        reset: str = "zero",
        reset_amount: Values | None = None,
        t_ref: Values = 0.0,
        surrogate: Surrogate = ATan(5.0),  # noqa: B008 - immutable
        detach_reset: bool = True,
        learn: Iterable[str] = (),
        heterogeneous: Heterogeneous = None,
        seed: int = 0,
    ) -> None:
        super().__init__(size, dt)
        names = self._learn(learn)
        self._add_current(tau_mem, tau_syn, beta, alpha, kappa, names, heterogeneous, seed)
        self._set_spiking(
            v_threshold=v_threshold,
            v_reset=v_reset,
            reset=reset,
            reset_amount=reset_amount,
            t_ref=t_ref,
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=names,
        )
        self.neuron()

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> CubaLIFState:
        """Return the zero state for ``batch`` samples."""
        v = torch.zeros(batch, self.size, dtype=dtype, device=self.device)
        return CubaLIFState(v, torch.zeros_like(v), torch.zeros_like(v, dtype=torch.int32))

    def _dynamics(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(self.decays(dtype))

    def advance(self, current: Tensor, state: CubaLIFState, prepared: Prepared) -> tuple[Tensor, CubaLIFState]:
        """Run the fused kernel over one stretch of time; see :meth:`forward`."""
        spikes, *end = fused_cuba.cubalif(
            current,
            state.v,
            state.i_syn,
            state.refractory,
            self.refractory_steps,
            prepared.rule,
            *prepared.vectors,
        )
        return spikes, CubaLIFState(*end)

    def _steps(self, current: Tensor, state: CubaLIFState | None, smooth: bool) -> tuple[Tensor, Tensor, CubaLIFState]:
        self._check_input(current)
        dtype = current.dtype
        v, i_syn, refractory = self.initial_state(current.shape[1], dtype) if state is None else state
        beta, alpha, kappa = self.decays(dtype)
        threshold, v_reset, amount = self._spike_vectors(dtype)
        spikes, membrane = [], []
        for arrivals in current:
            free = refractory <= 0
            h = torch.where(free, beta * v + kappa * i_syn, v)
            fired = self._fire(h, threshold, free, smooth)
            v = self._reset(h, fired, v_reset, amount)
            i_syn = alpha * i_syn + arrivals
            refractory = self._wait(refractory, torch.zeros_like(fired) if smooth else fired)
            spikes.append(fired)
            membrane.append(v)
        end = CubaLIFState(v, i_syn, refractory)
        return self._stack(spikes, current), self._stack(membrane, current), end

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        return records.CubaLIF.from_step(**self._current_record(), **self._spiking_record())


class CubaLI(_Current, NeuronModule):
    """CubaLIF without threshold, a readout: the output is ``v``.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        tau_mem: Membrane time constant in seconds.
        tau_syn: Synaptic time constant in seconds.
        beta: Membrane decay per step; given directly it is authoritative.
        alpha: Synaptic decay per step; given directly it is authoritative.
        kappa: Gain from current to membrane; by default it follows from the decays.
        learn: Names among ``"tau_mem"`` and ``"tau_syn"``.
        heterogeneous: Draw both time constants by neuron.
        seed: Seed of these draws.
    """

    kind = "CubaLI"
    dynamics = dynamics.CUBA
    learnable: ClassVar[tuple[str, ...]] = ("tau_mem", "tau_syn")

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        tau_mem: Values = 0.02,
        tau_syn: Values = 0.005,
        beta: Values | None = None,
        alpha: Values | None = None,
        kappa: Values | None = None,
        learn: Iterable[str] = (),
        heterogeneous: Heterogeneous = None,
        seed: int = 0,
    ) -> None:
        super().__init__(size, dt)
        self._add_current(tau_mem, tau_syn, beta, alpha, kappa, self._learn(learn), heterogeneous, seed)
        self.neuron()

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> CubaLIState:
        """Return the zero state for ``batch`` samples."""
        v = torch.zeros(batch, self.size, dtype=dtype, device=self.device)
        return CubaLIState(v, torch.zeros_like(v))

    def forward(
        self, current: Tensor, state: CubaLIState | None = None, context: Context | None = None
    ) -> tuple[Tensor, CubaLIState]:
        """Return the membrane of every step (time, batch, unit) and the state after the last.

        Args:
            current: Arrivals, shape (time, batch, unit).
            state: State before the first step; None is the zero state.
            context: Not used by neurons.
        """
        self._check_input(current)
        if current.device.type != "cpu" and not on_cuda(current):
            return self.reference_forward(current, state)
        start = self.initial_state(current.shape[1], current.dtype) if state is None else state
        trace, v, i_syn = fused_cuba.cubali(current, start.v, start.i_syn, *self.decays(current.dtype))
        return trace, CubaLIState(v, i_syn)

    def reference_forward(
        self, current: Tensor, state: CubaLIState | None = None, *, smooth: bool = False
    ) -> tuple[Tensor, CubaLIState]:
        """Compute :meth:`forward` step by step in plain torch; ``smooth`` changes nothing without spikes."""
        self._check_input(current)
        v, i_syn = self.initial_state(current.shape[1], current.dtype) if state is None else state
        beta, alpha, kappa = self.decays(current.dtype)
        membrane = []
        for arrivals in current:
            v = beta * v + kappa * i_syn
            i_syn = alpha * i_syn + arrivals
            membrane.append(v)
        return self._stack(membrane, current), CubaLIState(v, i_syn)

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        record: records.Neuron = records.CubaLI.from_step(dt=self.dt, **self._current_record())
        return record
