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

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import check_dt, decay, kappa

__all__ = ["IF", "LI", "LIF", "NEURONS", "AdaptiveLIF", "CubaLI", "CubaLIF", "Neuron", "Reset", "StepParameters"]

Reset = Literal["zero", "subtract"]
Array = npt.NDArray[np.float64]
Parameter = float | Array


@dataclass(frozen=True)
class StepParameters:
    """What a clock-driven engine needs of one population, float64 arrays of shape ``(size,)``.

    Attributes:
        spiking: Whether the population has a threshold.
        current: Whether arrivals go to a synaptic current (CubaLIF, CubaLI) instead of the membrane.
        beta: Membrane decay per step.
        drive_step: Added to the membrane every step.
        alpha: Synaptic decay per step (0 without current).
        kappa: Gain from current to membrane per step.
        drive_syn_step: Added to the current every step, ``drive_syn tau_syn (1 - alpha)``.
        drive_syn_to_v: Added to the membrane every step by ``drive_syn``.
        v_threshold: Threshold (``inf`` without spikes).
        strict: Fire at ``v > v_threshold`` instead of ``>=``.
        reset_zero: Reset to ``v_reset`` instead of subtracting ``reset_amount``.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        refractory_steps: Steps skipped after a spike, int64.
        adapt_decay: Decay per step of the adaptation variable (0 without).
        adapt_v: Coupling ``a`` from the membrane to adaptation, per step.
        adapt_spike: Jump ``b`` of adaptation at a spike.
        adapt_threshold: Factor from adaptation to the threshold.
    """

    spiking: bool
    current: bool
    beta: Array
    drive_step: Array
    alpha: Array
    kappa: Array
    drive_syn_step: Array
    drive_syn_to_v: Array
    v_threshold: Array
    strict: bool
    reset_zero: bool
    v_reset: Array
    reset_amount: Array
    refractory_steps: npt.NDArray[np.int64]
    adapt_decay: Array
    adapt_v: Array
    adapt_spike: Array
    adapt_threshold: Array


def _vector(value: Parameter, size: int) -> Array:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype=np.float64), (size,)))


_WORDS = ("reset", "strict", "dt")
_PER_STEP = ("beta", "alpha", "kappa", "adapt_decay", "drive_step", "drive_syn_step", "drive_syn_to_v")


def _freeze(value: Any, what: str) -> float | Array | None:
    """Return a parameter as a float or a read-only float64 array."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{what}: expected a number or an array of numbers, got {value!r}")
    if array.ndim > 1:
        raise InputError(f"{what}: expected a scalar or an array of shape (size,), got shape {array.shape}")
    array = np.array(array, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{what}: expected finite numbers, got nan or infinity")
    array.setflags(write=False)
    return float(array) if array.ndim == 0 else array


@dataclass(frozen=True, eq=False)
class Neuron:
    """Base of all records. Two records are equal if they have the same type and the same values."""

    kind: ClassVar[str] = ""
    spiking: ClassVar[bool] = True
    current: ClassVar[bool] = False
    derived: ClassVar[dict[str, str]] = {}

    dt: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name not in _WORDS:
                value = _freeze(getattr(self, item.name), f"{self.kind}.{item.name}")
                if value is None and item.default is not None:
                    raise InputError(f"{self.kind}.{item.name}: expected a number or an array of numbers, got None")
                object.__setattr__(self, item.name, value)
        if hasattr(self, "strict"):
            if not isinstance(self.strict, (bool, np.bool_)):
                raise InputError(f"{self.kind}.strict: expected True or False, got {self.strict!r}")
            object.__setattr__(self, "strict", bool(self.strict))
        per_step = [item.name for item in fields(self) if item.name in _PER_STEP]
        given = [name for name in per_step if getattr(self, name) is not None]
        if self.dt is None and given:
            raise InputError(
                f"{self.kind}.{given[0]}: a number per step needs its dt; use {self.kind}.from_step(dt=...)"
            )
        if self.dt is not None and len(given) < len(per_step):
            missing = next(name for name in per_step if name not in given)
            raise InputError(f"{self.kind}.{missing}: is missing beside dt; use {self.kind}.from_step(dt=...)")
        self.size()
        if self.dt is not None:
            object.__setattr__(self, "dt", check_dt(self.dt))
        self._check()

    def _check(self) -> None:
        for name in ("tau_mem", "tau_syn", "tau_adapt"):
            if hasattr(self, name) and self.dt is None and np.any(np.asarray(getattr(self, name)) <= 0):
                raise InputError(f"{self.kind}.{name}: expected positive seconds, got {np.min(getattr(self, name))}")
        if np.any(np.asarray(getattr(self, "adapt_threshold", 0.0)) < 0):
            raise InputError(
                f"{self.kind}.adapt_threshold: expected 0 (acts on the membrane) or more (on the threshold)"
            )
        for name in ("beta", "alpha", "adapt_decay"):
            value = getattr(self, name, None)
            if value is not None and (np.any(np.asarray(value) < 0) or np.any(np.asarray(value) > 1)):
                raise InputError(f"{self.kind}.{name}: expected a decay per step within [0, 1], got {value}")
        if hasattr(self, "reset"):
            reset = self.reset
            if reset not in ("zero", "subtract"):
                raise InputError(f"{self.kind}.reset: expected 'zero' or 'subtract', got {reset!r}")
            if np.any(np.asarray(self.t_ref) < 0):  # type: ignore[attr-defined]
                raise InputError(f"{self.kind}.t_ref: expected non-negative seconds")
            if reset == "zero" and np.any(np.asarray(self.v_reset) >= np.asarray(self.v_threshold)):  # type: ignore[attr-defined]
                raise InputError(f"{self.kind}.v_reset: must lie below v_threshold, or the neuron fires at every step")

    def parameters(self) -> dict[str, Any]:
        """Return every field by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def size(self) -> int | None:
        """Return the population size that array parameters imply, or None if all are scalars."""
        sizes = {value.shape[0] for value in self.parameters().values() if isinstance(value, np.ndarray)}
        if len(sizes) > 1:
            raise InputError(f"{self.kind}: parameter arrays have different lengths {sorted(sizes)}")
        return sizes.pop() if sizes else None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        mine, theirs = self.parameters(), other.parameters()
        return all(np.array_equal(np.asarray(mine[name]), np.asarray(theirs[name])) for name in mine)

    def __hash__(self) -> int:
        return hash((self.kind, self.dt))

    def _grid(self, dt: float) -> bool:
        """Return whether the stored numbers per step hold for ``dt``; refuse another grid."""
        if self.dt is None:
            return False
        if not math.isclose(self.dt, dt, rel_tol=1e-12):
            raise InputError(
                f"{self.kind}: its numbers per step hold for dt = {self.dt} s, asked for {dt} s; run it at its own dt"
            )
        return True

    def step(self, size: int, dt: float) -> StepParameters:
        """Return the numbers per step for ``size`` neurons at ``dt`` seconds."""
        given = self._grid(check_dt(dt))
        p: dict[str, Any] = self.parameters()
        zero = np.zeros(size)
        beta = zero
        drive_step = zero
        alpha, gain, syn_step, syn_to_v = zero, zero, zero, zero
        if "tau_mem" in p:
            tau_mem = _vector(p["tau_mem"], size) if not given else zero
            beta = _vector(p["beta"], size) if given else decay(tau_mem, dt)
            drive_step = _vector(p["drive_step"], size) if given else _vector(p["drive"], size) * tau_mem * (1 - beta)
        elif self.spiking:
            beta = np.ones(size)
            drive_step = _vector(p["drive_step"], size) if given else _vector(p["drive"], size) * dt
        if self.current:
            tau_syn = _vector(p["tau_syn"], size)
            alpha = _vector(p["alpha"], size) if given else decay(tau_syn, dt)
            gain = _vector(p["kappa"], size) if given else kappa(p["tau_mem"], p["tau_syn"], dt) * np.ones(size)
            if given:
                syn_step = _vector(p["drive_syn_step"], size)
                syn_to_v = _vector(p["drive_syn_to_v"], size)
            else:
                drive_syn = _vector(p["drive_syn"], size)
                syn_step = drive_syn * tau_syn * (1 - alpha)
                syn_to_v = drive_syn * tau_syn * (1 - beta - gain)
        spiking = self.spiking
        threshold = _vector(p["v_threshold"], size) if spiking else np.full(size, np.inf)
        amount = p.get("reset_amount")
        adaptive = "tau_adapt" in p
        if adaptive:
            tau_adapt = _vector(p["tau_adapt"], size) if not given else zero
            adapt_decay = _vector(p["adapt_decay"], size) if given else decay(tau_adapt, dt)
        else:
            adapt_decay = zero
        return StepParameters(
            spiking=spiking,
            current=self.current,
            beta=beta,
            drive_step=drive_step,
            alpha=alpha,
            kappa=gain,
            drive_syn_step=syn_step,
            drive_syn_to_v=syn_to_v,
            v_threshold=threshold,
            strict=bool(p.get("strict", False)),
            reset_zero=p.get("reset", "zero") == "zero",
            v_reset=_vector(p.get("v_reset", 0.0), size),
            reset_amount=_vector(amount, size) if amount is not None else np.where(np.isinf(threshold), 0.0, threshold),
            refractory_steps=np.rint(_vector(p.get("t_ref", 0.0), size) / dt).astype(np.int64),
            adapt_decay=adapt_decay,
            adapt_v=_vector(p.get("adapt_v", 0.0), size),
            adapt_spike=_vector(p.get("adapt_spike", 0.0), size),
            adapt_threshold=_vector(p.get("adapt_threshold", 0.0), size),
        )


def _tau(beta: Parameter, dt: float) -> Parameter:
    """Time constant of a decay per step; 0 decays at once, 1 never (reported as infinity's stand-in, 1e300 s)."""
    value = np.asarray(beta, dtype=np.float64)
    with np.errstate(divide="ignore"):
        tau = np.where(value <= 0, 1e-300, np.where(value >= 1, 1e300, -dt / np.log(np.clip(value, 1e-320, None))))
    return float(tau) if tau.ndim == 0 else tau


def _per_second(drive_step: Parameter, tau: Parameter, beta: Parameter) -> Parameter:
    """Drive per second that moves the membrane by ``drive_step`` a step."""
    span = np.asarray(tau, dtype=np.float64) * (1 - np.asarray(beta, dtype=np.float64))
    safe = np.where(span <= 0, 1.0, span)
    value = np.where(np.asarray(drive_step) == 0, 0.0, np.asarray(drive_step, dtype=np.float64) / safe)
    return float(value) if value.ndim == 0 else value


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
        tau = _tau(beta, dt)
        drive = _per_second(drive_step, tau, beta)
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
        tau = _tau(beta, dt)
        drive = _per_second(drive_step, tau, beta)
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
        tau_mem, tau_syn = _tau(beta, dt), _tau(alpha, dt)
        gain = _kappa(tau_mem, tau_syn, dt) if kappa is None else kappa
        return cls(
            tau_mem=tau_mem,
            tau_syn=tau_syn,
            drive=_per_second(drive_step, tau_mem, beta),
            drive_syn=_per_second(drive_syn_step, tau_syn, alpha),
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
        tau = _tau(beta, dt)
        return cls(
            tau_mem=tau,
            tau_adapt=_tau(adapt_decay, dt),
            drive=_per_second(drive_step, tau, beta),
            beta=beta,
            adapt_decay=adapt_decay,
            drive_step=drive_step,
            dt=dt,
            **values,
        )


_kappa = kappa

NEURONS: dict[str, type[Neuron]] = {record.kind: record for record in (IF, LIF, LI, CubaLIF, CubaLI, AdaptiveLIF)}
"""Every record by its kind, as stored in files."""
