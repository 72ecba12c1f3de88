"""Trainable meta-dynamic neurons (torch): four thetas, one set a layer, a neuron or a type of neurons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim import neurons as records
from snnsim.errors import InputError
from snnsim.nn.parameters import Values
from snnsim.nn.spiking import Prepared, SpikingModule
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = ["MetaDynamicNeuron", "MetaDynamicState"]

THETAS = ("theta_v", "theta_u", "theta_r", "theta_s")
MARGIN = 1e-3  # between a learned theta_r and the threshold, potentials


class MetaDynamicState(NamedTuple):
    """State of meta-dynamic neurons after a step.

    Attributes:
        v: Membrane after the reset, shape (batch, unit).
        u: Recovery variable, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
    """

    v: Tensor
    u: Tensor
    refractory: Tensor


class MetaDynamicNeuron(SpikingModule[MetaDynamicState]):
    """Meta-dynamic neurons, the law of :class:`snnsim.neurons_meta_dynamic.MetaDynamicNeuron` (Cheng et al. 2020).

    ``dv/dt = v^2 - v - u + I``, ``du/dt = theta_v v - theta_u u`` in units of ``time_unit`` seconds; at a spike
    ``v <- theta_r`` and ``u <- u + theta_s``. The equations are recalled, the paper was not read; Euler's method and
    the floor of the membrane are this library's own. The gradient of a spike is the surrogate's; it flows through the
    jump of ``u`` and, unless ``detach_reset``, through the reset. At the floor the membrane passes no gradient.

    A theta is a number, an array (unit,), or, with ``types``, an array (type,) that the neurons of a type share: the
    "finite set of neuron types". Every step runs in torch; there is no fused kernel.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        time_unit: Seconds that the equations count as 1, a number or (unit,).
        theta_v: Coupling from the membrane to ``u``.
        theta_u: Decay of ``u``, 0 or more (above 0 to be learned).
        theta_r: Value of the membrane after a spike.
        theta_s: Jump of ``u`` at a spike.
        types: Type of every neuron, whole numbers from 0 on without a gap, shape (unit,).
        v_threshold: Firing threshold.
        v_floor: Lowest membrane.
        t_ref: Refractory period in seconds, rounded to steps.
        surrogate: Stand-in for the derivative of the spike.
        detach_reset: Whether the reset of the membrane passes no gradient to the spike.
        learn: Names among ``"theta_v"``, ``"theta_u"``, ``"theta_r"`` and ``"theta_s"``.

    Raises:
        InputError: A value is not acceptable, or the step is too long for the method.
    """

    kind = "MetaDynamicNeuron"
    learnable: ClassVar[tuple[str, ...]] = THETAS
    type_of: Tensor

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        time_unit: Values = 0.01,
        rate: Values | None = None,
        theta_v: Values = -0.172,
        theta_u: Values = 0.529,
        theta_r: Values = 0.021,
        theta_s: Values = 0.132,
        types: npt.ArrayLike | None = None,
        v_threshold: Values = 0.5,
        v_floor: Values = -1.0,
        t_ref: Values = 0.0,
        surrogate: Surrogate = ATan(5.0),  # noqa: B008 - immutable
        detach_reset: bool = True,
        learn: Iterable[str] = (),
    ) -> None:
        super().__init__(size, dt)
        self.n_types = 0
        if types is not None:
            self._set_types(types)
        names = self._learn(learn)
        unit = self._array("time_unit", time_unit)
        if np.any(unit <= 0):
            raise InputError(f"{self.label}: time_unit: expected positive seconds, got {np.min(unit)}")
        self._add("rate", self.dt / unit if rate is None else rate)
        for name, value in zip(THETAS, (theta_v, theta_u, theta_r, theta_s), strict=True):
            change = "ratio" if name == "theta_u" else "gain"
            self._add(name, value, change if name in names else None)  # type: ignore[arg-type]
        self._add("v_floor", v_floor)
        self._set_spiking(
            v_threshold=v_threshold,
            v_reset=0.0,
            reset="zero",
            reset_amount=None,
            t_ref=t_ref,
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=(),
        )
        self.neuron().step(self.size, self.dt)

    def _set_types(self, types: npt.ArrayLike) -> None:
        given = np.asarray(types)
        if given.shape != (self.size,) or given.dtype.kind not in "iu":
            raise InputError(
                f"{self.label}: types: expected {self.size} whole numbers, got {given.dtype} {given.shape}"
            )
        self.n_types = int(given.max()) + 1
        if given.min() < 0 or np.unique(given).size != self.n_types:
            raise InputError(f"{self.label}: types: expected numbers from 0 on without a gap, got {np.unique(given)}")
        self.register_buffer("type_of", torch.from_numpy(given.astype(np.int64)))

    def _array(self, name: str, value: Any) -> npt.NDArray[np.float64]:
        if not (self.n_types and name in THETAS):
            return super()._array(name, value)
        array = np.array(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
        if array.shape not in ((), (self.n_types,)) or not np.all(np.isfinite(array)):
            raise InputError(
                f"{self.label}: {name}: expected a finite number or one a type, shape ({self.n_types},), got shape "
                f"{array.shape}"
            )
        return np.broadcast_to(array, (self.n_types,)).copy()

    def _theta(self, name: str) -> Tensor:
        """Return a theta in float64, shape () or (unit,); differentiable if learned."""
        value = self._value(name)
        return value[self.type_of] if self.n_types else value

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep learned thetas where the law is safe.

        Couplings stay within 6 times their start (within 5 of 0 if they start there), ``theta_u`` within a factor of 20
        and below ``1 / rate``, ``theta_r`` between the floor and the threshold.
        """
        super().clamp_()
        for name in ("theta_u", "theta_r"):
            if name not in self._changes:
                continue
            if name == "theta_u":
                low, high = 0.0, (1 - MARGIN) / float(self._base("rate").max())
            else:
                low, high = float(self._base("v_floor").max()), float(self.threshold().min()) - MARGIN
            base = self._base(name)
            value = self._value(name).clamp(low, high)
            if name == "theta_u":
                offset = torch.log(value / base)
            else:
                offset = torch.where(base == 0, value, value / torch.where(base == 0, 1.0, base) - 1)
            parameter: Tensor = getattr(self, "theta_u_log" if name == "theta_u" else "theta_r_gain")
            moved = self._value(name) != value
            parameter.copy_(torch.where(moved, offset.to(parameter.dtype), parameter))

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> MetaDynamicState:
        """Return the zero state for ``batch`` samples."""
        v = torch.zeros(batch, self.size, dtype=dtype, device=self.device)
        return MetaDynamicState(v, torch.zeros_like(v), torch.zeros_like(v, dtype=torch.int32))

    def _dynamics(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        thetas = [self._vector(self._theta(name), dtype) for name in THETAS]
        return (self._vector(self._value("rate"), dtype), *thetas, self._vector(self._value("v_floor"), dtype))

    def advance(self, current: Tensor, state: MetaDynamicState, prepared: Prepared) -> tuple[Tensor, MetaDynamicState]:
        """Run one stretch of time, step by step; see :meth:`forward`."""
        spikes, _, end = self._run(current, state, False, prepared.vectors)
        return spikes, end

    def _steps(
        self, current: Tensor, state: MetaDynamicState | None, smooth: bool
    ) -> tuple[Tensor, Tensor, MetaDynamicState]:
        self._check_input(current)
        start = self.initial_state(current.shape[1], current.dtype) if state is None else state
        return self._run(current, start, smooth, self.prepare(current.dtype, state).vectors)

    def _run(
        self, current: Tensor, state: MetaDynamicState, smooth: bool, vectors: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, MetaDynamicState]:
        v, u, refractory = state
        rate, theta_v, theta_u, theta_r, theta_s, floor, threshold, *_ = vectors
        spikes, membrane = [], []
        for arrivals in current:
            free = refractory <= 0
            h = torch.where(free, torch.maximum((v + rate * ((v * v - v) - u)) + arrivals, floor), v)
            u = u + rate * (theta_v * v - theta_u * u)
            fired = self._fire(h, threshold, free, smooth)
            v = self._reset(h, fired, theta_r, theta_r)
            u = u + theta_s * fired
            refractory = self._wait(refractory, torch.zeros_like(fired) if smooth else fired)
            spikes.append(fired)
            membrane.append(v)
        end = MetaDynamicState(v, u, refractory)
        return self._stack(spikes, current), self._stack(membrane, current), end

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        thetas = {name: self._theta(name).detach().cpu().numpy().copy() for name in THETAS}
        spiking = self._spiking_record()
        return records.MetaDynamicNeuron.from_step(
            dt=self.dt,
            rate=self._number("rate"),
            v_threshold=spiking["v_threshold"],
            v_floor=self._number("v_floor"),
            t_ref=spiking["t_ref"],
            **{name: float(value) if value.ndim == 0 else value for name, value in thetas.items()},
        )
