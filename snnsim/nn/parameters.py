"""Parameters of neuron modules: exact base values, and learned offsets that cannot leave the valid range.

Every quantity has a base value in float64. Its bits are kept in an int64 buffer, so that neither ``.float()``
nor ``.double()`` changes them. A learned quantity adds one torch parameter that starts at 0 and moves the
base: the logarithm of a ratio (time constants, positive factors) or of the distance to the reset value
(thresholds; reset values by their distance to the threshold), the logit (probabilities), or a relative change
(couplings; absolute where the base is 0). At 0 the base value comes back bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.grid import check_dt, decay
from snnsim.kernels import dynamics
from snnsim.neuron_base import tau_of
from snnsim.neurons import Neuron

__all__ = ["Heterogeneous", "NeuronModule", "Values", "draw_time_constants"]

Values = float | npt.ArrayLike
Heterogeneous = Literal["gamma", "uniform", "lognormal"] | None
Change = Literal["decay", "ratio", "distance", "below", "gain", "logit"]

_SUFFIX: dict[str, str] = {"decay": "log", "ratio": "log", "distance": "log", "below": "log", "gain": "gain"}
_SUFFIX["logit"] = "logit"
_LIMIT: dict[str, float] = {"decay": 3.0, "ratio": 3.0, "distance": 3.0, "below": 3.0, "gain": 5.0, "logit": 8.0}


def draw_time_constants(
    mean: float, size: int, dt: float, kind: str, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw one time constant a neuron around ``mean`` (s); none is shorter than ``2 dt`` or half the mean's own.

    ``gamma``: shape 3, scale ``mean / 3`` (Perez-Nieves et al. 2021); ``uniform``: 0.5 to 1.5 times the mean;
    ``lognormal``: sigma 0.5 with that mean.
    """
    if kind == "gamma":
        tau = rng.gamma(3.0, mean / 3.0, size)
    elif kind == "uniform":
        tau = rng.uniform(0.5 * mean, 1.5 * mean, size)
    elif kind == "lognormal":
        tau = mean * np.exp(0.5 * rng.standard_normal(size) - 0.125)
    else:
        raise InputError(f"heterogeneous: expected 'gamma', 'uniform', 'lognormal' or None, got {kind!r}")
    return np.maximum(tau, min(2.0 * dt, mean))


class NeuronModule(nn.Module, ABC):
    """Abstract base of the trainable neurons: size, step, exact and learned parameters."""

    kind: ClassVar[str] = ""
    dynamics: ClassVar[int] = dynamics.LIF
    learnable: ClassVar[tuple[str, ...]] = ()

    def __init__(self, size: int, dt: float) -> None:
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise InputError(f"{self.kind}: size: expected a positive number of neurons, got {size!r}")
        self.size = int(size)
        self.dt = check_dt(dt)
        self._changes: dict[str, tuple[Change, str]] = {}

    @property
    def label(self) -> str:
        """How errors name this module."""
        return f"{self.kind}({self.size})"

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.buffers()).device

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        learned = ", ".join(name for _, name in self._changes.values())
        return f"{self.size}, dt={self.dt}" + (f", learn=({learned})" if learned else "")

    @abstractmethod
    def neuron(self) -> Neuron:
        """Return the record of these neurons with the float64 numbers per step."""

    def _learn(self, names: Iterable[str]) -> tuple[str, ...]:
        chosen = (names,) if isinstance(names, str) else tuple(names)
        for name in chosen:
            if name not in self.learnable:
                raise InputError(f"{self.label}: learn: expected names among {self.learnable}, got {name!r}")
        return chosen

    def _array(self, name: str, value: Any) -> npt.NDArray[np.float64]:
        array = np.array(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
        if array.shape not in ((), (self.size,)):
            raise InputError(
                f"{self.label}: {name}: expected a number or an array of shape ({self.size},), got shape {array.shape}"
            )
        if not np.all(np.isfinite(array)):
            raise InputError(f"{self.label}: {name}: expected finite numbers, got nan or infinity")
        return array

    def _add(self, name: str, value: Any, change: Change | None = None, parameter: str | None = None) -> None:
        """Register a quantity; ``change`` says how its learned offset acts, None keeps it fixed."""
        array = self._array(name, value)
        self.register_buffer(f"{name}_bits", torch.from_numpy(array.reshape(-1).view(np.int64)).reshape(array.shape))
        if change is None:
            return
        shown = parameter or name
        if change == "logit" and (np.any(array <= 0) or np.any(array >= 1)):
            raise InputError(f"{self.label}: {shown}: a learned value must start inside (0, 1), got {array}")
        if change == "decay" and (np.any(array <= 0) or np.any(array >= 1)):
            raise InputError(f"{self.label}: cannot learn {shown} of a decay per step that is 0 or 1")
        if change == "ratio" and np.any(array <= 0):
            raise InputError(f"{self.label}: {shown}: a learned value must start above 0, got {np.min(array)}")
        self._changes[name] = (change, shown)
        self.register_parameter(f"{shown}_{_SUFFIX[change]}", nn.Parameter(torch.zeros(array.shape)))

    def _add_decay(
        self,
        name: str,
        tau_name: str,
        tau: Values,
        given: Values | None,
        learn: tuple[str, ...],
        heterogeneous: Heterogeneous,
        seed: int,
    ) -> None:
        """Register a decay per step, from a time constant in seconds or given directly."""
        if given is not None:
            if heterogeneous is not None:
                raise InputError(f"{self.label}: heterogeneous draws {tau_name}; leave {name} out")
            array = self._array(name, given)
            if np.any(array < 0) or np.any(array > 1):
                raise InputError(f"{self.label}: {name}: expected a decay per step within [0, 1], got {given}")
        else:
            seconds = self._array(tau_name, tau)
            if np.any(seconds <= 0):
                raise InputError(f"{self.label}: {tau_name}: expected positive seconds, got {np.min(seconds)}")
            if heterogeneous is not None:
                if seconds.ndim:
                    raise InputError(f"{self.label}: heterogeneous needs one mean {tau_name}, got an array")
                key = int.from_bytes(tau_name.encode(), "little")
                rng = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, key])
                seconds = draw_time_constants(float(seconds), self.size, self.dt, heterogeneous, rng)
            array = decay(seconds, self.dt)
        self._add(name, array, "decay" if tau_name in learn else None, tau_name)

    def _base(self, name: str) -> Tensor:
        bits: Tensor = getattr(self, f"{name}_bits")
        return bits.view(torch.float64)

    def _value(self, name: str) -> Tensor:
        """Return a quantity in float64, shape () or (unit,); differentiable if learned."""
        base = self._base(name)
        if name not in self._changes:
            return base
        change, shown = self._changes[name]
        offset: Tensor = getattr(self, f"{shown}_{_SUFFIX[change]}").to(torch.float64)
        if change == "decay":
            # exp(-r exp(-offset)) with r = -log(base), written so that offset 0 gives base itself
            return (base * torch.exp(torch.log(base) * torch.expm1(-offset))).clamp(max=1.0)
        if change == "ratio":
            return base * torch.exp(offset)
        if change == "distance":
            return base + (base - self._base("v_reset")) * torch.expm1(offset)
        if change == "below":  # the distance to the threshold is the first one times exp(offset), wherever that moves
            top = self._base("v_threshold")
            return (base + (self._value("v_threshold") - top)) - (top - base) * torch.expm1(offset)
        if change == "logit":
            grown = torch.expm1(offset)  # logit(value) = logit(base) + offset, base itself at 0
            return base + base * (1 - base) * grown / (1 + base * grown)
        return torch.where(base == 0, offset, base * (1 + offset))

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep learned values sane after an optimiser step: factors within ``exp(3)`` = 20, couplings within 6."""
        for change, shown in self._changes.values():
            getattr(self, f"{shown}_{_SUFFIX[change]}").clamp_(-_LIMIT[change], _LIMIT[change])

    def _number(self, name: str) -> Any:
        """Return a quantity as a float or a float64 array, for records."""
        array = self._value(name).detach().cpu().numpy()
        return float(array) if array.ndim == 0 else array.copy()

    @torch.no_grad()
    def fix(self, name: str, value: npt.ArrayLike) -> None:
        """Give a quantity another base value, of its own shape; what had been learned of it is forgotten."""
        bits: Tensor = getattr(self, f"{name}_bits")
        array = np.broadcast_to(self._array(name, value), tuple(bits.shape)).copy()
        bits.copy_(torch.from_numpy(array.reshape(-1).view(np.int64)).reshape(bits.shape))
        if name in self._changes:
            change, shown = self._changes[name]
            getattr(self, f"{shown}_{_SUFFIX[change]}").zero_()

    def number(self, name: str) -> Any:
        """Return a quantity as it stands, a float or a float64 array of shape (unit,)."""
        return self._number(name)

    def learned_values(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return what is learned by name, as it stands now: shape () or (unit,), time constants in seconds."""
        found = {}
        for name, (change, shown) in self._changes.items():
            value = np.asarray(self._number(name), dtype=np.float64)
            found[shown] = np.asarray(tau_of(value, self.dt), dtype=np.float64) if change == "decay" else value
        return found

    def _vector(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a quantity as a contiguous vector of shape (unit,) in the dtype of the run."""
        return value.to(dtype).expand(self.size).contiguous()

    def _check_input(self, current: Tensor) -> None:
        if current.dim() != 3 or current.shape[2] != self.size:
            raise InputError(
                f"{self.label}: expected input of shape (time, batch, {self.size}), got {tuple(current.shape)}"
            )
        if current.dtype not in (torch.float32, torch.float64):
            raise InputError(f"{self.label}: expected float32 or float64 input, got {current.dtype}")

    def _stack(self, rows: list[Tensor], like: Tensor) -> Tensor:
        return torch.stack(rows) if rows else torch.zeros_like(like)
