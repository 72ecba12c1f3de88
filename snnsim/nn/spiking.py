"""What all spiking modules share: threshold, reset, refractory period, surrogate."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels import dynamics
from snnsim.nn import fused
from snnsim.nn.context import Context
from snnsim.nn.cuda import asked_once, on_cuda
from snnsim.nn.parameters import NeuronModule, Values
from snnsim.nn.surrogates import Surrogate, spike

__all__ = ["Prepared", "SpikingModule", "SpikingState", "stack_rows", "vector_rows"]


class SpikingState(Protocol):
    """What the state of every kind of spiking neurons holds."""

    @property
    def refractory(self) -> Tensor:
        """Steps still to be skipped, int32, shape (batch, unit)."""


State = TypeVar("State", bound=SpikingState)


class Prepared(NamedTuple):
    """Numbers of a run, made once and used for every stretch of time.

    Attributes:
        vectors: Parameters in the dtype of the run, each of shape (unit,).
        rule: Reset, surrogate, and whether any neuron may be refractory.
    """

    vectors: tuple[Tensor, ...]
    rule: fused.SpikeRule


def stack_rows(kind: int, vectors: tuple[Tensor, ...]) -> Tensor:
    """Return the vectors of a :class:`Prepared` as kernels for several kinds want them, without gradient.

    Args:
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        vectors: Decays, gain and couplings, then threshold, v_reset and reset_amount, shape (unit,) each.

    Returns:
        Shape (9, unit).
    """
    rows = vectors[0].new_zeros(dynamics.PARAMETERS, vectors[0].shape[0])
    for row, vector in zip(vector_rows(kind), vectors, strict=True):
        rows[row] = vector.detach()
    if kind == dynamics.ADAPTIVE:
        rows[5] = (rows[8] <= 0).to(rows.dtype)
    return rows


def vector_rows(kind: int) -> tuple[int, ...]:
    """Return the row of every vector of a :class:`Prepared`."""
    return (*dynamics.ROWS[kind], 1, 2, 3)


class SpikingModule(NeuronModule, Generic[State]):
    """What all spiking neurons share: threshold, reset, refractory period, surrogate, and how they are run.

    A kind of neurons says what its state is (:meth:`initial_state`), what it computes in a fused kernel
    (:meth:`advance` with the numbers of ``_dynamics``) and the same step by step in plain torch (``_steps``).
    """

    reset: Literal["zero", "subtract"]
    refractory_steps: Tensor
    cuda_kernel: ClassVar[bool] = False
    """Whether :meth:`advance` runs on CUDA devices."""

    @abstractmethod
    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> State:
        """Return the zero state for ``batch`` samples."""

    @abstractmethod
    def advance(self, current: Tensor, state: State, prepared: Prepared) -> tuple[Tensor, State]:
        """Run the fused kernel over one stretch of time; see :meth:`forward`."""

    @abstractmethod
    def _dynamics(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return the decays and couplings as vectors of shape (unit,), in the order of the fused kernel."""

    @abstractmethod
    def _steps(self, current: Tensor, state: State | None, smooth: bool) -> tuple[Tensor, Tensor, State]:
        """Return spikes, the membrane after every step and the state after the last, step by step."""

    def forward(
        self, current: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        """Return spikes (time, batch, unit) and the state after the last step.

        Args:
            current: Arrivals, plus drive where the neurons have no synaptic current, shape (time, batch, unit).
            state: State before the first step; None is the zero state.
            context: Not used by neurons.
        """
        self._check_input(current)
        if (on_cuda(current) and not self.cuda_kernel) or current.device.type not in ("cpu", "cuda"):
            return self.reference_forward(current, state)
        start = self.initial_state(current.shape[1], current.dtype) if state is None else state
        return self.advance(current, start, self.prepare(current.dtype, state))

    def prepare(self, dtype: torch.dtype, state: State | None = None) -> Prepared:
        """Return what :meth:`advance` needs for any number of stretches that follow ``state``."""
        vectors = (*self._dynamics(dtype), *self._spike_vectors(dtype))
        given = state is not None and (on_cuda(state.refractory) or bool(state.refractory.any()))  # asking would wait
        return Prepared(vectors, self._rule(given))

    def reference_forward(
        self, current: Tensor, state: State | None = None, *, smooth: bool = False
    ) -> tuple[Tensor, State]:
        """Compute :meth:`forward` step by step in plain torch.

        Args:
            current: As in :meth:`forward`.
            state: As in :meth:`forward`.
            smooth: Replace the spike by the primitive of the surrogate, whose true gradient autograd finds.
        """
        spikes, _, end = self._steps(current, state, smooth)
        return spikes, end

    def trace(self, current: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """Return spikes, the membrane after every step (time, batch, unit) and the state; step by step."""
        return self._steps(current, state, False)

    def _set_spiking(
        self,
        *,
        v_threshold: Values,
        v_reset: Values,
        reset: str,
        reset_amount: Values | None,
        t_ref: Values,
        surrogate: Surrogate,
        detach_reset: bool,
        learn: tuple[str, ...],
    ) -> None:
        if reset not in ("zero", "subtract"):
            raise InputError(f"{self.label}: reset: expected 'zero' or 'subtract', got {reset!r}")
        if not isinstance(surrogate, Surrogate):
            raise InputError(f"{self.label}: surrogate: expected a record such as ATan(5.0), got {surrogate!r}")
        self.reset = "zero" if reset == "zero" else "subtract"
        self.surrogate = surrogate
        self.detach_reset = bool(detach_reset)
        if "v_reset" in learn and reset == "subtract":
            raise InputError(f"{self.label}: learn: v_reset does nothing with reset 'subtract'; use reset 'zero'")
        self._add("v_reset", v_reset, "below" if "v_reset" in learn else None)
        self._add("v_threshold", v_threshold, "distance" if "v_threshold" in learn else None)
        self.own_reset_amount = reset_amount is not None
        if reset_amount is not None:
            self._add("reset_amount", reset_amount)
        wait = self._array("t_ref", t_ref) / self.dt
        if np.any(wait < 0) or np.any(wait > 2**30):
            raise InputError(f"{self.label}: t_ref: expected non-negative seconds, got {t_ref!r}")
        steps = np.broadcast_to(np.rint(wait).astype(np.int32), (self.size,))
        self.register_buffer("refractory_steps", torch.from_numpy(steps.copy()))

    def threshold(self) -> Tensor:
        """Return the threshold, float64, shape () or (unit,); differentiable if learned."""
        return self._value("v_threshold")

    def _reset_amount(self) -> Tensor:
        return self._value("reset_amount") if self.own_reset_amount else self.threshold()

    def _spike_vectors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return threshold, reset value and reset amount as vectors of shape (unit,)."""
        return (
            self._vector(self.threshold(), dtype),
            self._vector(self._value("v_reset"), dtype),
            self._vector(self._reset_amount(), dtype),
        )

    @property
    def waits(self) -> bool:
        """Whether any neuron has a refractory period; a device is asked once."""
        return asked_once(self, "_waits", self.refractory_steps, lambda steps: bool(steps.any()))

    def _rule(self, state_given: bool) -> fused.SpikeRule:
        return fused.SpikeRule(
            reset_zero=self.reset == "zero",
            detach_reset=self.detach_reset,
            refractory=self.waits or state_given,
            surrogate=self.surrogate,
        )

    def _fire(self, h: Tensor, threshold: Tensor, free: Tensor, smooth: bool) -> Tensor:
        """Return the spikes of one step; ``smooth`` gives the primitive of the surrogate instead."""
        fired = self.surrogate.primitive(h - threshold) if smooth else spike(h - threshold, self.surrogate)
        return torch.where(free, fired, torch.zeros_like(fired))

    def _reset(self, h: Tensor, fired: Tensor, v_reset: Tensor, amount: Tensor) -> Tensor:
        """Return the membrane after the reset of one step."""
        kept = fired.detach() if self.detach_reset else fired
        if self.reset == "zero":
            return (1 - kept) * h + kept * v_reset
        return h - kept * amount

    def _wait(self, refractory: Tensor, fired: Tensor) -> Tensor:
        """Return the refractory counters after one step."""
        return torch.where(fired > 0, self.refractory_steps, (refractory - 1).clamp(min=0)).to(torch.int32)

    def _spiking_record(self) -> dict[str, Any]:
        steps = self.refractory_steps.cpu().numpy()
        t_ref = steps * self.dt
        return {
            "dt": self.dt,
            "v_threshold": self._number("v_threshold"),
            "v_reset": self._number("v_reset"),
            "reset": self.reset,
            "reset_amount": self._number("reset_amount") if self.own_reset_amount else None,
            "t_ref": float(t_ref[0]) if self.size and np.all(steps == steps[0]) else t_ref,
        }
