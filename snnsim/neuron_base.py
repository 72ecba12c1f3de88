"""What every neuron record has in common: fields, checks, equality, and its numbers per step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import check_dt, decay, kappa

__all__ = ["Array", "Neuron", "Parameter", "Reset", "StepParameters", "per_second", "tau_of", "vector"]

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
        extra: Numbers per step that only this kind of neuron has, by name, each ``(size,)``.
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
    extra: dict[str, Array] = field(default_factory=dict)


def vector(value: Parameter, size: int) -> Array:
    """Return a parameter as one number a neuron, ``(size,)``."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype=np.float64), (size,)))


_WORDS = ("reset", "strict", "mode", "dt", "solver", "substeps")
_PER_STEP = (
    *("beta", "alpha", "kappa", "adapt_decay", "drive_step", "drive_syn_step", "drive_syn_to_v"),
    *("alpha_exc", "alpha_inh", "kappa_exc", "kappa_inh"),
    "rate",
)
_TIMES = ("tau_mem", "tau_syn", "tau_adapt", "tau_exc", "tau_inh", "tau_w")
_DECAYS = ("beta", "alpha", "adapt_decay", "alpha_exc", "alpha_inh")


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
    """Base of all records. Two records are equal if they have the same type and the same values.

    Attributes:
        kind: Name of the law, as stored in files.
        spiking: Whether there is a threshold.
        current: Whether arrivals act on ``v`` through a synaptic variable, one step later, and not at once.
        variables: Names of the state variables, the membrane first; with ``current`` those that arrivals add to follow.
        receptors: Names of the places where synapses end; empty if there is only one.
        conductances: Whether arrivals add to conductances, which cannot be negative.
    """

    kind: ClassVar[str] = ""
    spiking: ClassVar[bool] = True
    current: ClassVar[bool] = False
    variables: ClassVar[tuple[str, ...]] = ("v",)
    receptors: ClassVar[tuple[str, ...]] = ()
    conductances: ClassVar[bool] = False
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
        if self.dt is not None and not per_step and not hasattr(self, "from_step"):
            raise InputError(f"{self.kind}.dt: its law is in continuous time and has no numbers per step; leave dt out")
        if self.dt is not None and len(given) < len(per_step):
            missing = next(name for name in per_step if name not in given)
            raise InputError(f"{self.kind}.{missing}: is missing beside dt; use {self.kind}.from_step(dt=...)")
        self.size()
        if self.dt is not None:
            object.__setattr__(self, "dt", check_dt(self.dt))
        self._check()

    def _check(self) -> None:
        for name in _TIMES:
            if hasattr(self, name) and self.dt is None and np.any(np.asarray(getattr(self, name)) <= 0):
                raise InputError(f"{self.kind}.{name}: expected positive seconds, got {np.min(getattr(self, name))}")
        if np.any(np.asarray(getattr(self, "adapt_threshold", 0.0)) < 0):
            raise InputError(
                f"{self.kind}.adapt_threshold: expected 0 (acts on the membrane) or more (on the threshold)"
            )
        for name in _DECAYS:
            value = getattr(self, name, None)
            if value is not None and (np.any(np.asarray(value) < 0) or np.any(np.asarray(value) > 1)):
                raise InputError(f"{self.kind}.{name}: expected a decay per step within [0, 1], got {value}")
        if np.any(np.asarray(getattr(self, "t_ref", 0.0)) < 0):
            raise InputError(f"{self.kind}.t_ref: expected non-negative seconds")
        if hasattr(self, "reset"):
            reset = self.reset
            if reset not in ("zero", "subtract"):
                raise InputError(f"{self.kind}.reset: expected 'zero' or 'subtract', got {reset!r}")
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

    def rest(self) -> dict[str, Parameter]:
        """Return what every variable is one step before step 0, a number or ``(size,)``; zero for most laws."""
        return dict.fromkeys(self.variables, 0.0)

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
            tau_mem = vector(p["tau_mem"], size) if not given else zero
            beta = vector(p["beta"], size) if given else decay(tau_mem, dt)
            drive_step = vector(p["drive_step"], size) if given else vector(p["drive"], size) * tau_mem * (1 - beta)
        elif self.spiking:
            beta = np.ones(size)
            drive_step = vector(p["drive_step"], size) if given else vector(p["drive"], size) * dt
        if "tau_syn" in p:
            tau_syn = vector(p["tau_syn"], size)
            alpha = vector(p["alpha"], size) if given else decay(tau_syn, dt)
            gain = vector(p["kappa"], size) if given else kappa(p["tau_mem"], p["tau_syn"], dt) * np.ones(size)
            if given:
                syn_step = vector(p["drive_syn_step"], size)
                syn_to_v = vector(p["drive_syn_to_v"], size)
            else:
                drive_syn = vector(p["drive_syn"], size)
                syn_step = drive_syn * tau_syn * (1 - alpha)
                syn_to_v = drive_syn * tau_syn * (1 - beta - gain)
        spiking = self.spiking
        threshold = vector(self._threshold(), size) if spiking else np.full(size, np.inf)
        amount = p.get("reset_amount")
        adaptive = "tau_adapt" in p
        if adaptive:
            tau_adapt = vector(p["tau_adapt"], size) if not given else zero
            adapt_decay = vector(p["adapt_decay"], size) if given else decay(tau_adapt, dt)
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
            v_reset=vector(p.get("v_reset", 0.0), size),
            reset_amount=vector(amount, size) if amount is not None else np.where(np.isinf(threshold), 0.0, threshold),
            refractory_steps=np.rint(vector(p.get("t_ref", 0.0), size) / dt).astype(np.int64),
            adapt_decay=adapt_decay,
            adapt_v=vector(p.get("adapt_v", 0.0), size),
            adapt_spike=vector(p.get("adapt_spike", 0.0), size),
            adapt_threshold=vector(p.get("adapt_threshold", 0.0), size),
            extra=self._extra(size, dt, given),
        )

    def _threshold(self) -> Parameter:
        """Return the membrane potential at which a neuron fires."""
        value: Parameter = self.v_threshold  # type: ignore[attr-defined]
        return value

    def _extra(self, size: int, dt: float, given: bool) -> dict[str, Array]:
        """Return the numbers per step that only this kind has; ``given``: they are stored in the record."""
        return {}


def tau_of(beta: Parameter, dt: float) -> Parameter:
    """Time constant of a decay per step; 0 decays at once, 1 never (reported as infinity's stand-in, 1e300 s)."""
    value = np.asarray(beta, dtype=np.float64)
    with np.errstate(divide="ignore"):
        tau = np.where(value <= 0, 1e-300, np.where(value >= 1, 1e300, -dt / np.log(np.clip(value, 1e-320, None))))
    return float(tau) if tau.ndim == 0 else tau


def per_second(drive_step: Parameter, tau: Parameter, beta: Parameter) -> Parameter:
    """Drive per second that moves the membrane by ``drive_step`` a step."""
    span = np.asarray(tau, dtype=np.float64) * (1 - np.asarray(beta, dtype=np.float64))
    safe = np.where(span <= 0, 1.0, span)
    value = np.where(np.asarray(drive_step) == 0, 0.0, np.asarray(drive_step, dtype=np.float64) / safe)
    return float(value) if value.ndim == 0 else value
