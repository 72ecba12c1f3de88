"""Trainable adaptive LIF neurons (torch)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from snnsim import neurons as records
from snnsim.kernels import dynamics
from snnsim.nn import fused_adaptive
from snnsim.nn.parameters import Heterogeneous, Values
from snnsim.nn.spiking import Prepared, SpikingModule
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = ["AdaptiveLIF", "AdaptiveLIFState"]


class AdaptiveLIFState(NamedTuple):
    """State of adaptive neurons after a step.

    Attributes:
        v: Membrane after the reset, shape (batch, unit).
        w: Adaptation, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
    """

    v: Tensor
    w: Tensor
    refractory: Tensor


class AdaptiveLIF(SpikingModule[AdaptiveLIFState]):
    """LIF neurons with an adaptation variable ``w`` that lowers the membrane or raises the threshold.

    Per step, with ``rho = exp(-dt / tau_adapt)``: ``v <- beta v + current - w``;
    ``spike = v >= v_threshold``; reset; ``w <- rho w + adapt_v v + adapt_spike spike``. Where
    ``adapt_threshold > 0``, ``w`` is not subtracted but raises the threshold to
    ``v_threshold + adapt_threshold w`` (ALIF, Bellec et al. 2018); else it is adLIF (Bittar & Garner 2022; SE-adLIF,
    Baronig et al. 2025). A refractory neuron holds ``v`` while ``w`` goes on.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        tau_mem: Membrane time constant in seconds.
        tau_adapt: Time constant of the adaptation in seconds.
        adapt_v: Coupling from the membrane to ``w``, per step.
        adapt_spike: Jump of ``w`` at a spike.
        adapt_threshold: Factor from ``w`` to the threshold; 0 lets ``w`` act on the membrane.
        beta: Membrane decay per step; given directly it is authoritative.
        rho: Decay of the adaptation per step; given directly it is authoritative.
        v_threshold: As in :class:`~snnsim.nn.neurons.LIF`, like the following.
        v_reset: Value after a ``zero`` reset.
        reset: ``"zero"`` or ``"subtract"``.
        reset_amount: Amount of a ``subtract`` reset; default ``v_threshold``, without adaptation.
        t_ref: Refractory period in seconds.
        surrogate: Stand-in for the derivative of the spike.
        detach_reset: Whether the reset of ``v`` passes no gradient.
        learn: Names among ``"tau_mem"``, ``"tau_adapt"``, ``"adapt_v"``, ``"adapt_spike"``,
            ``"adapt_threshold"``, ``"v_threshold"`` and, with reset ``"zero"``, ``"v_reset"``. Couplings are learned as
            relative changes.
        heterogeneous: Draw both time constants by neuron.
        seed: Seed of these draws.
    """

    kind = "AdaptiveLIF"
    dynamics = dynamics.ADAPTIVE
    cuda_kernel = True
    learnable: ClassVar[tuple[str, ...]] = (
        "tau_mem",
        "tau_adapt",
        "adapt_v",
        "adapt_spike",
        "adapt_threshold",
        "v_threshold",
        "v_reset",
    )

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        tau_mem: Values = 0.02,
        tau_adapt: Values = 0.1,
        adapt_v: Values = 0.0,
        adapt_spike: Values = 0.0,
        adapt_threshold: Values = 0.0,
        beta: Values | None = None,
        rho: Values | None = None,
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
        self._add_decay("rho", "tau_adapt", tau_adapt, rho, names, heterogeneous, seed)
        self._add("adapt_v", adapt_v, "gain" if "adapt_v" in names else None)
        self._add("adapt_spike", adapt_spike, "gain" if "adapt_spike" in names else None)
        self._add("adapt_threshold", adapt_threshold, "ratio" if "adapt_threshold" in names else None)
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

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> AdaptiveLIFState:
        """Return the zero state for ``batch`` samples."""
        v = torch.zeros(batch, self.size, dtype=dtype, device=self.device)
        return AdaptiveLIFState(v, torch.zeros_like(v), torch.zeros_like(v, dtype=torch.int32))

    def _dynamics(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        names = ("beta", "rho", "adapt_v", "adapt_spike", "adapt_threshold")
        return tuple(self._vector(self._value(name), dtype) for name in names)

    def advance(self, current: Tensor, state: AdaptiveLIFState, prepared: Prepared) -> tuple[Tensor, AdaptiveLIFState]:
        """Run the fused kernel over one stretch of time; see :meth:`forward`."""
        spikes, *end = fused_adaptive.adaptive_lif(
            current,
            state.v,
            state.w,
            state.refractory,
            self.refractory_steps,
            prepared.rule,
            *prepared.vectors,
        )
        return spikes, AdaptiveLIFState(*end)

    def _steps(
        self, current: Tensor, state: AdaptiveLIFState | None, smooth: bool
    ) -> tuple[Tensor, Tensor, AdaptiveLIFState]:
        self._check_input(current)
        dtype = current.dtype
        v, w, refractory = self.initial_state(current.shape[1], dtype) if state is None else state
        beta, rho, adapt_v, adapt_spike, adapt_threshold = self._dynamics(dtype)
        threshold, v_reset, amount = self._spike_vectors(dtype)
        on_membrane = (adapt_threshold <= 0).to(dtype)
        spikes, membrane = [], []
        for arrivals in current:
            free = refractory <= 0
            h = torch.where(free, (beta * v + arrivals) - on_membrane * w, v)
            fired = self._fire(h, threshold + adapt_threshold * w, free, smooth)
            v = self._reset(h, fired, v_reset, amount)
            w = (rho * w + adapt_v * v) + adapt_spike * fired
            refractory = self._wait(refractory, torch.zeros_like(fired) if smooth else fired)
            spikes.append(fired)
            membrane.append(v)
        end = AdaptiveLIFState(v, w, refractory)
        return self._stack(spikes, current), self._stack(membrane, current), end

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        return records.AdaptiveLIF.from_step(
            beta=self._number("beta"),
            adapt_decay=self._number("rho"),
            adapt_v=self._number("adapt_v"),
            adapt_spike=self._number("adapt_spike"),
            adapt_threshold=self._number("adapt_threshold"),
            **self._spiking_record(),
        )
