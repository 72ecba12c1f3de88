"""Trainable neurons with conductance synapses (torch): the spiking form of liquid time-constant units.

The law is that of :class:`snnsim.neurons_synaptic.ConductanceLIF`. Its input has two halves, one a receptor, as
:class:`ReceptorLinear` gives it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snnsim import neurons as records
from snnsim.errors import InputError
from snnsim.grid import decay
from snnsim.kernels.delays import delayed_sum, pack_taps
from snnsim.kernels.reference_models import exponential
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.cuda_delays import device_delayed_sum
from snnsim.nn.cuda_spikes import spike_value
from snnsim.nn.delays import Linear
from snnsim.nn.parameters import Values
from snnsim.nn.products import row_product
from snnsim.nn.spiking import Prepared, SpikingModule
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = ["ConductanceLIF", "ConductanceState", "ReceptorLinear"]

LEAST_REVERSAL = -0.5  # a learned reversal potential keeps its sign


class _Exponential(torch.autograd.Function):
    """``exp(x)`` with the bits of :mod:`snnsim.kernels.exponential`; on a device torch's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.from_numpy(exponential(x.detach().numpy())) if x.device.type == "cpu" else torch.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradients[0] * cast(Tensor, y)


class _Decay(torch.autograd.Function):
    """``exp(-h / tau)`` and ``tau / h (1 - exp(-h / tau))`` with the bits of the record's own numbers."""

    @staticmethod
    def forward(ctx: Any, tau: Tensor, h: float) -> tuple[Tensor, Tensor]:
        if tau.is_cuda:  # the host is not asked: within rounding of the record's
            alpha, mean = torch.exp(-h / tau), -torch.expm1(-h / tau) * tau / h
        else:
            seconds = tau.detach().cpu().numpy()
            alpha = torch.from_numpy(np.array(decay(seconds, h))).to(tau.device)
            mean = torch.from_numpy(np.array(-np.expm1(-h / seconds) * seconds / h)).to(tau.device)
        ctx.save_for_backward(tau, alpha, mean)
        ctx.h = h
        return alpha, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        tau, alpha, mean = cast(tuple[Tensor, ...], ctx.saved_tensors)
        return gradients[0] * alpha * ctx.h / tau**2 + gradients[1] * (mean - alpha) / tau, None


class ConductanceState(NamedTuple):
    """State of neurons with conductances after a step.

    Attributes:
        v: Membrane after the reset, shape (batch, unit).
        g_exc: Excitatory conductance relative to the leak, shape (batch, unit).
        g_inh: Inhibitory conductance relative to the leak, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
    """

    v: Tensor
    g_exc: Tensor
    g_inh: Tensor
    refractory: Tensor


class ConductanceLIF(SpikingModule[ConductanceState]):
    """LIF neurons with an excitatory and an inhibitory conductance, whose time constant depends on their input.

    ``tau_mem dv/dt = -v + g_exc (e_exc - v) + g_inh (e_inh - v)``, ``dg/dt = -g / tau``; arrivals add to g and first
    move v one step later. Solver, sub-steps and order of operations are those of
    :class:`snnsim.neurons_synaptic.ConductanceLIF`, bit for bit in float64 on the CPU. With ``solver="fused"`` this is
    a liquid time-constant unit (Hasani et al. 2021) with a threshold, whose graded synapses are replaced by gates that
    spikes open; that form is reconstructed.

    The input has shape (time, batch, 2 unit): arrivals of the excitatory receptor, then of the inhibitory one, none of
    them negative. Every step runs in torch; there is no fused kernel.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        tau_mem: Time constant of the membrane without input, seconds.
        tau_exc: Time constant of the excitatory conductance, seconds.
        tau_inh: Time constant of the inhibitory conductance, seconds.
        e_exc: Excitatory reversal potential, measured from rest; above the threshold, or no input makes a spike.
        e_inh: Inhibitory reversal potential.
        v_threshold: Firing threshold.
        v_reset: Value after a spike.
        t_ref: Refractory period in seconds, rounded to steps.
        solver: ``"exact"`` or ``"fused"``.
        substeps: Parts of a step.
        surrogate: Stand-in for the derivative of the spike.
        detach_reset: Whether the reset passes no gradient.
        learn: Names among ``"tau_mem"``, ``"tau_exc"``, ``"tau_inh"``, ``"e_exc"``, ``"e_inh"`` and ``"v_threshold"``.

    Raises:
        InputError: A value is not acceptable.
    """

    kind = "ConductanceLIF"
    learnable: ClassVar[tuple[str, ...]] = ("tau_mem", "tau_exc", "tau_inh", "e_exc", "e_inh", "v_threshold")

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        tau_mem: Values = 0.02,
        tau_exc: Values = 0.005,
        tau_inh: Values = 0.01,
        e_exc: Values = 6.0,
        e_inh: Values = -2.0,
        v_threshold: Values = 1.0,
        v_reset: Values = 0.0,
        t_ref: Values = 0.0,
        solver: Literal["exact", "fused"] = "exact",
        substeps: int = 1,
        surrogate: Surrogate = ATan(5.0),  # noqa: B008 - immutable
        detach_reset: bool = True,
        learn: Iterable[str] = (),
    ) -> None:
        super().__init__(size, dt)
        names = self._learn(learn)
        self.solver: Literal["exact", "fused"] = solver
        self.substeps = substeps
        for name, tau in (("tau_mem", tau_mem), ("tau_exc", tau_exc), ("tau_inh", tau_inh)):
            self._add(name, tau, "ratio" if name in names else None)
        for name, value in (("e_exc", e_exc), ("e_inh", e_inh)):
            self._add(name, value, "gain" if name in names else None)
        self._set_spiking(
            v_threshold=v_threshold,
            v_reset=v_reset,
            reset="zero",
            reset_amount=None,
            t_ref=t_ref,
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=names,
        )
        if bool(torch.any(self._value("e_exc") <= self.threshold())):
            raise InputError(
                f"{self.label}: e_exc: must lie above v_threshold, or no input makes a spike; raise e_exc or lower "
                "v_threshold"
            )
        self.neuron()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep learned values sane after an optimiser step: time constants and the distance from reset to threshold
        within a factor of 20, reversal potentials within half and 6 times their start."""
        super().clamp_()
        for name in ("e_exc", "e_inh"):
            if name in self._changes:
                parameter: Tensor = getattr(self, f"{name}_gain")
                parameter.copy_(torch.where(self._base(name) == 0, parameter, parameter.clamp(min=LEAST_REVERSAL)))

    def _check_input(self, current: Tensor) -> None:
        if current.dim() != 3 or current.shape[2] != 2 * self.size:
            raise InputError(
                f"{self.label}: expected input of shape (time, batch, {2 * self.size}), excitatory then inhibitory "
                f"arrivals, got {tuple(current.shape)}; use ReceptorLinear"
            )
        if current.dtype not in (torch.float32, torch.float64):
            raise InputError(f"{self.label}: expected float32 or float64 input, got {current.dtype}")

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> ConductanceState:
        """Return the zero state for ``batch`` samples."""
        v = torch.zeros(batch, self.size, dtype=dtype, device=self.device)
        return ConductanceState(v, torch.zeros_like(v), torch.zeros_like(v), torch.zeros_like(v, dtype=torch.int32))

    def _dynamics(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        h = self.dt / self.substeps
        numbers = [h / self._value("tau_mem"), self._value("e_exc"), self._value("e_inh")]
        for name in ("tau_exc", "tau_inh"):
            numbers += _Decay.apply(self._value(name), h)  # type: ignore[no-untyped-call]
        return tuple(self._vector(value, dtype) for value in numbers)

    def advance(self, current: Tensor, state: ConductanceState, prepared: Prepared) -> tuple[Tensor, ConductanceState]:
        """Run one stretch of time, step by step; see :meth:`forward`."""
        spikes, _, end = self._run(current, state, False, prepared.vectors)
        return spikes, end

    def _steps(
        self, current: Tensor, state: ConductanceState | None, smooth: bool
    ) -> tuple[Tensor, Tensor, ConductanceState]:
        self._check_input(current)
        start = self.initial_state(current.shape[1], current.dtype) if state is None else state
        return self._run(current, start, smooth, self.prepare(current.dtype, state).vectors)

    def _run(
        self, current: Tensor, state: ConductanceState, smooth: bool, vectors: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, ConductanceState]:
        v, g_exc, g_inh, refractory = state
        rate, e_exc, e_inh, alpha_exc, mean_of_exc, alpha_inh, mean_of_inh, threshold, v_reset, _ = vectors
        spikes, membrane = [], []
        for arrivals in current:
            free = refractory <= 0
            h = v
            for _part in range(self.substeps):
                mean_exc, mean_inh = mean_of_exc * g_exc, mean_of_inh * g_inh
                total = (1.0 + mean_exc) + mean_inh
                pull = mean_exc * e_exc + mean_inh * e_inh
                if self.solver == "fused":
                    h = (h + rate * pull) / (1.0 + rate * total)
                else:
                    end = pull / total
                    h = end + (h - end) * _Exponential.apply(-(rate * total))  # type: ignore[no-untyped-call]
                g_exc, g_inh = alpha_exc * g_exc, alpha_inh * g_inh
            h = torch.where(free, h, v)
            fired = self._fire(h, threshold, free, smooth)
            v = self._reset(h, fired, v_reset, v_reset)
            refractory = self._wait(refractory, torch.zeros_like(fired) if smooth else fired)
            g_exc, g_inh = g_exc + arrivals[:, : self.size], g_inh + arrivals[:, self.size :]
            spikes.append(fired)
            membrane.append(v)
        state = ConductanceState(v, g_exc, g_inh, refractory)
        empty = current.new_zeros(0, current.shape[1], self.size)
        if not spikes:
            return empty, empty, state
        return torch.stack(spikes), torch.stack(membrane), state

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons in continuous time; its numbers per step are those of the forward pass."""
        spiking = self._spiking_record()
        names = ("tau_mem", "tau_exc", "tau_inh", "e_exc", "e_inh", "v_threshold", "v_reset")
        return records.ConductanceLIF(
            **{name: self._number(name) for name in names},
            t_ref=spiking["t_ref"],
            solver=self.solver,
            substeps=self.substeps,
        )


class ReceptorLinear(nn.Module):
    """Connection to both receptors of :class:`ConductanceLIF`: the conductances are the absolute values of its weights.

    ``y[t] = (x[t] |exc_weight|^T, x[t] |inh_weight|^T)``: what is learned may take any sign, what acts is never
    negative, and whether a synapse excites lies in its receptor. At weight 0 a synapse has no gradient.

    Args:
        n_in: Number of sources.
        n_out: Number of targets.
        scale: Initial conductances are uniform in 0 to ``scale / n_in``, half of it for the inhibitory ones.
        generator: torch generator for the initial weights.

    Attributes:
        exc_weight: Parameter, shape (n_out, n_in).
        inh_weight: Parameter, shape (n_out, n_in).
        bias: None; a conductance has no bias.
    """

    bias = None

    def __init__(self, n_in: int, n_out: int, *, scale: float = 4.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        made = Linear(n_in, n_out)  # checks the sizes
        if not scale > 0:
            raise InputError(f"ReceptorLinear: scale: expected a positive number, got {scale}")
        self.n_in, self.n_out = made.n_in, made.n_out
        high = scale / n_in
        self.exc_weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(0, high, generator=generator))
        self.inh_weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(0, high / 2, generator=generator))

    @property
    def weight(self) -> Tensor:
        """Conductances, excitatory and then inhibitory, shape (2 n_out, n_in), not negative."""
        return torch.cat([self.exc_weight, self.inh_weight]).abs()

    def forward(self, x: Tensor, state: None = None, context: Context | None = None) -> tuple[Tensor, None]:
        """Map (time, batch, n_in) to (time, batch, 2 n_out); there is no state.

        In evaluation without gradient sums run in the canonical order of sources, so that bits do not depend on the
        batch.
        """
        if x.dim() != 3 or x.shape[2] != self.n_in:
            raise InputError(
                f"ReceptorLinear: expected input of shape (time, batch, {self.n_in}), got {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"ReceptorLinear: expected input of float32 or float64, got {x.dtype}; convert it")
        weight = self.weight
        if torch.is_grad_enabled() or self.training:
            rows = row_product(x.flatten(0, 1), weight, spike_value(x))
            return rows.view(x.shape[0], x.shape[1], 2 * self.n_out), None
        if on_cuda(x):
            return device_delayed_sum(x, weight.to(x.dtype).unsqueeze(2)), None
        taps = weight.to(x.dtype).unsqueeze(2).numpy()
        packed, steps = pack_taps(taps, np.zeros(taps.shape, np.int64))
        return torch.from_numpy(delayed_sum(x.contiguous().numpy(), packed, steps, torch.get_num_threads())), None

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.n_in} -> 2 x {self.n_out}"
