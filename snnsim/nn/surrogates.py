"""Surrogate gradients: smooth stand-ins for the derivative of a spike.

The forward pass fires at ``v >= v_threshold``; the backward pass multiplies by ``g(x)`` with
``x = v - v_threshold`` (Neftci, Mostafa & Zenke 2019). Every record knows ``g`` (:meth:`derivative`), its
integral from minus infinity (:meth:`primitive`, for spiking-off runs and gradient checks) and the numbers by
which the fused kernels compute it (``code`` and ``parameters``).

Two surrogates with equal parameters are not comparable: compare them at equal half-width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.errors import InputError

__all__ = [
    "SURROGATES",
    "ATan",
    "Boxcar",
    "Exponential",
    "MultiGaussian",
    "Sigmoid",
    "SuperSpike",
    "Surrogate",
    "Triangle",
    "make_surrogate",
    "spike",
]

Values = TypeVar("Values", Tensor, npt.NDArray[Any])


def _library(x: Any) -> Any:
    return torch if isinstance(x, Tensor) else np


def _erf(x: Any) -> Any:
    if isinstance(x, Tensor):
        return torch.erf(x)
    from scipy.special import erf

    return erf(x)


@dataclass(frozen=True)
class Surrogate(ABC):
    """Abstract base of all surrogates. Parameters are positive numbers; records are immutable and comparable."""

    code: ClassVar[int] = -1

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise InputError(f"{type(self).__name__}.{item.name}: expected a positive finite number, got {value!r}")
            object.__setattr__(self, item.name, float(value))

    @property
    def parameters(self) -> tuple[float, ...]:
        """The parameters in the order of the fields."""
        return tuple(getattr(self, item.name) for item in fields(self))

    @abstractmethod
    def derivative(self, x: Values) -> Values:
        """Return ``g(x)`` for ``x = v - v_threshold``, any shape, same type and dtype."""

    @abstractmethod
    def primitive(self, x: Values) -> Values:
        """Return the integral of ``g`` from minus infinity to ``x``: the smoothed spike."""


@dataclass(frozen=True)
class ATan(Surrogate):
    """Arc tangent: ``g(x) = (alpha / 2) / (1 + (pi alpha x / 2)^2)``; peak ``alpha / 2``, area 1 (Fang et al. 2021)."""

    code: ClassVar[int] = 0
    alpha: float = 2.0

    def derivative(self, x: Values) -> Values:
        """Return ``g(x)``."""
        z = (math.pi * self.alpha / 2) * x
        return (self.alpha / 2) / (1 + z * z)

    def primitive(self, x: Values) -> Values:
        """Return ``atan(pi alpha x / 2) / pi + 1/2``."""
        return cast(Values, _library(x).arctan((math.pi * self.alpha / 2) * x) / math.pi + 0.5)


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    """Fast sigmoid: ``g(x) = 1 / (1 + slope |x|)^2``; peak 1, area ``2 / slope`` (Zenke & Ganguli 2018)."""

    code: ClassVar[int] = 1
    slope: float = 10.0

    def derivative(self, x: Values) -> Values:
        """Return ``g(x)``."""
        return 1 / (1 + self.slope * abs(x)) ** 2

    def primitive(self, x: Values) -> Values:
        """Return ``x / (1 + slope |x|) + 1 / slope``."""
        smoothed: Values = x / (1 + self.slope * abs(x)) + 1 / self.slope
        return smoothed


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """Logistic: ``g(x) = alpha s (1 - s)`` with ``s = 1 / (1 + exp(-alpha x))``; peak ``alpha / 4``, area 1."""

    code: ClassVar[int] = 2
    alpha: float = 4.0

    def derivative(self, x: Values) -> Values:
        """Return ``g(x)``, computed from ``exp(-alpha |x|)`` so that it never overflows."""
        e = _library(x).exp(-self.alpha * abs(x))
        return cast(Values, self.alpha * e / (1 + e) ** 2)

    def primitive(self, x: Values) -> Values:
        """Return ``1 / (1 + exp(-alpha x))``."""
        return cast(Values, 0.5 * (1 + _library(x).tanh((0.5 * self.alpha) * x)))


@dataclass(frozen=True)
class Triangle(Surrogate):
    """Triangle: ``g(x) = scale max(0, alpha - alpha^2 |x|)``; peak ``scale alpha``, area ``scale``.

    ``Triangle(1 / v_threshold, scale=0.3)`` is the pseudo-derivative of Bellec et al. 2018.
    """

    code: ClassVar[int] = 3
    alpha: float = 1.0
    scale: float = 1.0

    def derivative(self, x: Values) -> Values:
        """Return ``g(x)``."""
        return self.scale * (self.alpha - self.alpha**2 * abs(x)).clip(0, None)

    def primitive(self, x: Values) -> Values:
        """Return the integral, a piecewise parabola from 0 to ``scale``."""
        z = (self.alpha * x).clip(-1, 1)
        return self.scale * (0.5 + z - 0.5 * z * abs(z))


@dataclass(frozen=True)
class MultiGaussian(Surrogate):
    """Sum of three Gaussians with negative flanks (Yin, Corradi & Bohte 2021).

    ``g(x) = scale ((1 + h) N(x; 0, sigma) - h N(x; sigma, s sigma) - h N(x; -sigma, s sigma))``;
    area ``scale (1 - h)``. The original multiplies by ``scale = 0.5``.
    """

    code: ClassVar[int] = 4
    sigma: float = 0.5
    h: float = 0.15
    s: float = 6.0
    scale: float = 1.0

    def derivative(self, x: Values) -> Values:
        """Return ``g(x)``."""
        wide = self.s * self.sigma
        exp = _library(x).exp
        narrow = (1 + self.h) / self.sigma * exp(-0.5 * (x / self.sigma) ** 2)
        flanks = exp(-0.5 * ((x - self.sigma) / wide) ** 2) + exp(-0.5 * ((x + self.sigma) / wide) ** 2)
        return cast(Values, self.scale / math.sqrt(2 * math.pi) * (narrow - self.h / wide * flanks))

    def primitive(self, x: Values) -> Values:
        """Return the integral, from error functions."""
        wide = self.s * self.sigma
        root = math.sqrt(2)

        def normal(z: Any) -> Any:
            return 0.5 * (1 + _erf(z / root))

        flanks = normal((x - self.sigma) / wide) + normal((x + self.sigma) / wide)
        return cast(Values, self.scale * ((1 + self.h) * normal(x / self.sigma) - self.h * flanks))


@dataclass(frozen=True)
class Exponential(Surrogate):
    """Two-sided exponential of SLAYER: ``g(x) = (alpha c / 2) exp(-alpha |x|)``; peak ``alpha c / 2``, area ``c``.

    Shrestha & Orchard 2018; SE-adLIF (Baronig et al. 2025) uses ``alpha = 5``, ``c = 0.4``.
    """

    code: ClassVar[int] = 5
    alpha: float = 5.0
    c: float = 0.4

    def derivative(self, x: Values) -> Values:
        """Return ``g(x)``."""
        return cast(Values, (0.5 * self.alpha * self.c) * _library(x).exp(-self.alpha * abs(x)))

    def primitive(self, x: Values) -> Values:
        """Return the integral, 0 to ``c``."""
        library = _library(x)
        return cast(Values, 0.5 * self.c * (1 - library.sign(x) * library.expm1(-self.alpha * abs(x))))


@dataclass(frozen=True)
class Boxcar(Surrogate):
    """Rectangle: ``g(x) = 1 / width`` for ``|x| <= width / 2``, else 0; area 1 (Bittar & Garner 2022, width 1)."""

    code: ClassVar[int] = 6
    width: float = 1.0

    def derivative(self, x: Values) -> Values:
        """Return ``g(x)``."""
        library = _library(x)
        inside = abs(x) <= self.width / 2
        return cast(Values, library.where(inside, library.full_like(x, 1 / self.width), library.zeros_like(x)))

    def primitive(self, x: Values) -> Values:
        """Return the integral, a ramp from 0 to 1."""
        return (x / self.width + 0.5).clip(0, 1)


SURROGATES: dict[str, type[Surrogate]] = {
    kind.__name__: kind for kind in (ATan, SuperSpike, Sigmoid, Triangle, MultiGaussian, Exponential, Boxcar)
}
"""Every surrogate by the name that recipes use."""


def make_surrogate(name: str, **parameters: float) -> Surrogate:
    """Return the surrogate of that name, for recipes and files.

    Raises:
        InputError: The name or a parameter is unknown.
    """
    if name not in SURROGATES:
        raise InputError(f"surrogate: expected one of {', '.join(SURROGATES)}, got {name!r}")
    kind = SURROGATES[name]
    known = [item.name for item in fields(kind)]
    for key in parameters:
        if key not in known:
            raise InputError(f"surrogate {name}: expected parameters {', '.join(known)}, got {key!r}")
    return kind(**parameters)


class _Spike(torch.autograd.Function):
    """Heaviside forward, surrogate backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.surrogate.derivative(x), None


def spike(x: Tensor, surrogate: Surrogate) -> Tensor:
    """Return 1 where ``x = v - v_threshold >= 0``, else 0; its gradient is exactly ``g(x)`` times upstream.

    Args:
        x: Distance to threshold, any shape.
        surrogate: The stand-in for the derivative.
    """
    return cast(Tensor, _Spike.apply(x, surrogate))  # type: ignore[no-untyped-call]
