"""Trainable neurons (torch): LIF, IF and the leaky-integrator readout; the others are imported here.

The laws are those of :mod:`snnsim.neurons`, on a grid of ``dt`` seconds; ``module.neuron()`` returns the
record with the numbers that the forward pass uses. A layer holds no hidden state: ``forward(current, state)``
returns ``(output, state)``; ``state=None`` is the zero initial state.

On the CPU and on CUDA devices all time steps run in one fused kernel; elsewhere, and in tests,
:meth:`reference_forward` computes the same step by step in plain torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from snnsim import neurons as records
from snnsim.kernels import dynamics
from snnsim.nn import fused
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.neurons_adaptive import AdaptiveLIF, AdaptiveLIFState
from snnsim.nn.neurons_conductance import ConductanceLIF, ConductanceState, ReceptorLinear
from snnsim.nn.neurons_cuba import CubaLI, CubaLIF, CubaLIFState, CubaLIState
from snnsim.nn.neurons_meta_dynamic import MetaDynamicNeuron, MetaDynamicState
from snnsim.nn.parameters import Heterogeneous, NeuronModule, Values
from snnsim.nn.spiking import Prepared, SpikingModule
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = [
    "IF",
    "LI",
    "LIF",
    "AdaptiveLIF",
    "AdaptiveLIFState",
    "ConductanceLIF",
    "ConductanceState",
    "CubaLI",
    "CubaLIF",
    "CubaLIFState",
    "CubaLIState",
    "LIFState",
    "LIState",
    "MetaDynamicNeuron",
    "MetaDynamicState",
    "ReceptorLinear",
]


class LIFState(NamedTuple):
    """State of LIF and IF neurons after a step.

    Attributes:
        v: Membrane after the reset, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
    """

    v: Tensor
    refractory: Tensor


class LIState(NamedTuple):
    """State of leaky integrators: membrane ``v``, shape (batch, unit)."""

    v: Tensor


class LIF(SpikingModule[LIFState]):
    """Leaky integrate-and-fire neurons with delta synapses.

    Per step: ``v <- beta v + current``; ``spike = v >= v_threshold``; reset in the same step (``zero``: to
    ``v_reset``, ``subtract``: by ``reset_amount``); the ``t_ref / dt`` steps after a spike hold ``v``.
    The gradient of the spike is the surrogate's ``g(v - v_threshold)``. With ``detach_reset`` the reset
    passes no gradient to the spike.

    Parameters are scalars or arrays of shape (unit,); a learned scalar is one number for the layer, a learned
    array one number a neuron. Time constants are learned as ``log(tau / tau_0)``, thresholds as the logarithm
    of their distance to ``v_reset``, reset values as that of their distance to the threshold (where both are
    learned, the threshold moves both), so all stay valid; at the start the values are exactly the given ones
    (PLIF of Fang et al. 2021 with another parametrisation).

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        tau_mem: Membrane time constant in seconds; ``beta = exp(-dt / tau_mem)``.
        beta: Decay per step; given directly it is authoritative and ``tau_mem`` is ignored.
        v_threshold: Firing threshold.
        v_reset: Value after a ``zero`` reset.
        reset: ``"zero"`` or ``"subtract"``.
        reset_amount: Amount of a ``subtract`` reset; default ``v_threshold``.
        t_ref: Refractory period in seconds, rounded to steps.
        surrogate: Stand-in for the derivative of the spike.
        detach_reset: Whether the reset passes no gradient.
        learn: Names among ``"tau_mem"``, ``"v_threshold"`` and, with reset ``"zero"``, ``"v_reset"``.
        heterogeneous: Draw the time constants by neuron around the given mean: ``"gamma"`` (shape 3, Perez-Nieves et
            al. 2021), ``"uniform"`` (0.5 to 1.5 times) or ``"lognormal"`` (sigma 0.5).
        seed: Seed of these draws.

    Raises:
        InputError: A value is not acceptable.
    """

    kind = "LIF"
    dynamics = dynamics.LIF
    cuda_kernel = True
    learnable: ClassVar[tuple[str, ...]] = ("tau_mem", "v_threshold", "v_reset")

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        tau_mem: Values = 0.02,
        beta: Values | None = None,
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
        self._add_decay("beta", "tau_mem", tau_mem, beta, names, heterogeneous, seed)
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

    def beta(self) -> Tensor:
        """Return the decay per step, float64, shape () or (unit,); differentiable if learned."""
        return self._value("beta")

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> LIFState:
        """Return the zero state for ``batch`` samples."""
        device = self.refractory_steps.device
        v = torch.zeros(batch, self.size, dtype=dtype, device=device)
        return LIFState(v, torch.zeros(batch, self.size, dtype=torch.int32, device=device))

    def _dynamics(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (self._vector(self._value("beta"), dtype),)

    def advance(self, current: Tensor, state: LIFState, prepared: Prepared) -> tuple[Tensor, LIFState]:
        """Run the fused kernel over one stretch of time; see :meth:`forward`."""
        spikes, v, refractory = fused.lif(
            current, state.v, state.refractory, self.refractory_steps, prepared.rule, *prepared.vectors
        )
        return spikes, LIFState(v, refractory)

    def _steps(self, current: Tensor, state: LIFState | None, smooth: bool) -> tuple[Tensor, Tensor, LIFState]:
        self._check_input(current)
        dtype = current.dtype
        v, refractory = self.initial_state(current.shape[1], dtype) if state is None else state
        beta, threshold = self._value("beta").to(dtype), self.threshold().to(dtype)
        v_reset, amount = self._value("v_reset").to(dtype), self._reset_amount().to(dtype)
        spikes, membrane = [], []
        for arrivals in current:
            free = refractory <= 0
            h = torch.where(free, beta * v + arrivals, v)
            fired = self._fire(h, threshold, free, smooth)
            v = self._reset(h, fired, v_reset, amount)
            refractory = self._wait(refractory, torch.zeros_like(fired) if smooth else fired)
            spikes.append(fired)
            membrane.append(v)
        return self._stack(spikes, current), self._stack(membrane, current), LIFState(v, refractory)

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step.

        The forward pass in float64 uses exactly these numbers, in float32 their nearest float32.
        """
        return records.LIF.from_step(beta=self._number("beta"), **self._spiking_record())


class IF(LIF):
    """Integrate-and-fire neurons without leak: :class:`LIF` with ``beta = 1``.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        v_threshold: As in :class:`LIF`, like the following.
        v_reset: Value after a ``zero`` reset.
        reset: ``"zero"`` or ``"subtract"``.
        reset_amount: Amount of a ``subtract`` reset.
        t_ref: Refractory period in seconds.
        surrogate: Stand-in for the derivative of the spike.
        detach_reset: Whether the reset passes no gradient.
        learn: ``"v_threshold"`` or nothing.
    """

    kind = "IF"
    learnable: ClassVar[tuple[str, ...]] = ("v_threshold", "v_reset")

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        v_threshold: Values = 1.0,
        v_reset: Values = 0.0,
        reset: str = "zero",
        reset_amount: Values | None = None,
        t_ref: Values = 0.0,
        surrogate: Surrogate = ATan(5.0),  # noqa: B008 - immutable
        detach_reset: bool = True,
        learn: Iterable[str] = (),
    ) -> None:
        super().__init__(
            size,
            dt=dt,
            beta=1.0,
            v_threshold=v_threshold,
            v_reset=v_reset,
            reset=reset,
            reset_amount=reset_amount,
            t_ref=t_ref,
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
        )

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        return records.IF.from_step(**self._spiking_record())


class LI(NeuronModule):
    """Leaky integrators, the readout: ``v <- beta v + current``; the output is ``v``.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        tau_mem: Membrane time constant in seconds.
        beta: Decay per step; given directly it is authoritative.
        learn: ``"tau_mem"`` or nothing.
        heterogeneous: As in :class:`LIF`.
        seed: Seed of these draws.
    """

    kind = "LI"
    dynamics = dynamics.LIF
    learnable: ClassVar[tuple[str, ...]] = ("tau_mem",)

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        tau_mem: Values = 0.02,
        beta: Values | None = None,
        learn: Iterable[str] = (),
        heterogeneous: Heterogeneous = None,
        seed: int = 0,
    ) -> None:
        super().__init__(size, dt)
        self._add_decay("beta", "tau_mem", tau_mem, beta, self._learn(learn), heterogeneous, seed)
        self.neuron()

    def beta(self) -> Tensor:
        """Return the decay per step, float64, shape () or (unit,); differentiable if learned."""
        return self._value("beta")

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> LIState:
        """Return the zero state for ``batch`` samples."""
        return LIState(torch.zeros(batch, self.size, dtype=dtype, device=self.device))

    def forward(
        self, current: Tensor, state: LIState | None = None, context: Context | None = None
    ) -> tuple[Tensor, LIState]:
        """Return the membrane of every step (time, batch, unit) and the state after the last.

        Args:
            current: Arrivals plus drive, shape (time, batch, unit).
            state: State before the first step; None is the zero state.
            context: Not used by neurons.
        """
        self._check_input(current)
        if current.device.type != "cpu" and not on_cuda(current):
            return self.reference_forward(current, state)
        start = self.initial_state(current.shape[1], current.dtype) if state is None else state
        trace, v = fused.li(current, start.v, self._vector(self._value("beta"), current.dtype))
        return trace, LIState(v)

    def reference_forward(
        self, current: Tensor, state: LIState | None = None, *, smooth: bool = False
    ) -> tuple[Tensor, LIState]:
        """Compute :meth:`forward` step by step in plain torch; ``smooth`` changes nothing without spikes."""
        self._check_input(current)
        v = (self.initial_state(current.shape[1], current.dtype) if state is None else state).v
        beta = self._value("beta").to(current.dtype)
        membrane = []
        for arrivals in current:
            v = beta * v + arrivals
            membrane.append(v)
        return self._stack(membrane, current), LIState(v)

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        return records.LI.from_step(dt=self.dt, beta=self._number("beta"))
