"""What other programs mean by the numbers in a NIR file: decay, gain, comparison, reset, latency.

NIR (Pedersen et al., Nature Communications 2024) stores differential equations. How they become steps is left to every
program, and every program answers otherwise. A :class:`Convention` is one program's answer. There are two of each
program: how its importer runs a file (``READERS``), and what its exporter puts into one (``WRITERS``); they need not
agree. The answers were taken from the named versions by running them, as the test-suite does again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError

__all__ = ["PLAIN", "READERS", "WRITERS", "Convention", "Reset", "convention_of", "decay_from_tau"]

Floats = npt.NDArray[np.float64]
Reset = Literal["zero", "subtract", "late-subtract"]


@dataclass(frozen=True)
class Convention:
    """How one program turns the differential equations of NIR into steps.

    Attributes:
        program: Name for people.
        version: The release it was taken from.
        decay: ``"euler"``: ``1 - dt / tau``; ``"exponential"``: ``exp(-dt / tau)``.
        tau_unit: ``"s"``; ``"steps"``: time constants are counted in steps; ``"s dt"``: in seconds times dt.
        gain: Gain of a neuron's input: ``"r"``: ``r (1 - decay)``; ``"leak"``: ``1 - decay``, r is not looked at;
            ``"one"``: 1.
        if_gain: Gain of an IF neuron's input: ``"r dt"`` or ``"one"``.
        current_gain: Gain of a synaptic current's input: ``"w_in"``: ``w_in (1 - decay)``; ``"one"``: 1.
        strict: Whether a neuron fires above its threshold only, not at it.
        reset: Kind of reset, for neurons whose file does not say: in the same step ``"zero"`` (to ``v_reset``) or
            ``"subtract"``; ``"late-subtract"``: the threshold is taken off in the update of the next step.
        current_reset: The same of CubaLIF neurons, if it differs.
        dt: The time step it cannot leave, or None.
        default_dt: The time step it takes when none is given, or None.
        narrow: Whether it rounds weights, biases, decays and thresholds to float32.
        late: Steps by which the spikes of a layer come later than its input.
        keeps_v_reset: Whether ``v_reset`` of the file is used; otherwise neurons are reset to 0.
        starts_at_reset: Whether a membrane starts at ``v_reset`` and leaks towards it.
        starts_at_leak: Whether the membrane of a LIF neuron starts at ``v_leak``.
        loops: Whether recurrent connections give the spikes of ``z[t - 1]``.
        remarks: What the numbers above do not say.
    """

    program: str
    version: str = ""
    decay: Literal["euler", "exponential"] = "euler"
    tau_unit: Literal["s", "steps", "s dt"] = "s"
    gain: Literal["r", "leak", "one"] = "r"
    if_gain: Literal["r dt", "one"] = "r dt"
    current_gain: Literal["w_in", "one"] = "w_in"
    strict: bool = False
    reset: Reset = "zero"
    current_reset: Reset | None = None
    dt: float | None = None
    default_dt: float | None = None
    narrow: bool = False
    late: int = 0
    keeps_v_reset: bool = True
    starts_at_reset: bool = False
    starts_at_leak: bool = False
    loops: bool = True
    remarks: tuple[str, ...] = ()

    def rounded(self, values: Floats) -> Floats:
        """Return numbers as the program keeps them."""
        return values.astype(np.float32).astype(np.float64) if self.narrow else values


PLAIN = Convention("snnsim")
"""Euler's rule, spikes at the threshold, resets as the metadata say: what :func:`read_nir` assumes by itself."""

_SEVERAL = "a neuron gives floor(v / threshold) spikes in a step there and one here: equal while it never gives two"

READERS: dict[str, Convention] = {
    "spikingjelly": Convention(
        "SpikingJelly",
        "2.0.0",
        default_dt=1e-4,
        starts_at_reset=True,
        remarks=("one tau, threshold and reset a population", "r is 1 or tau / dt", "no integrators"),
    ),
    "snntorch": Convention(
        "snnTorch",
        "1.0.0",
        strict=True,
        dt=1e-4,
        narrow=True,
        keeps_v_reset=False,
        loops=False,
        remarks=(
            "one threshold a population",
            "IF becomes a leaky neuron with beta = 0.9 and is refused here",
            "a loop is rewired so that the input passes through the recurrent weights and is refused here",
        ),
    ),
    "norse": Convention(
        "Norse",
        "1.1.0",
        gain="leak",
        if_gain="one",
        strict=True,
        default_dt=1e-3,
        narrow=True,
        keeps_v_reset=False,
        starts_at_leak=True,
        remarks=("r of IF and LIF is not looked at", "no integrators"),
    ),
    "sinabs": Convention(
        "Sinabs",
        "3.1.3",
        decay="exponential",
        tau_unit="steps",
        gain="one",
        if_gain="one",
        reset="subtract",
        narrow=True,
        remarks=(_SEVERAL, "IF neurons are clamped at minus the threshold: equal while none gets there"),
    ),
    "spyx": Convention(
        "Spyx",
        "1.0.0",
        gain="one",
        if_gain="one",
        current_gain="one",
        strict=True,
        reset="late-subtract",
        current_reset="subtract",
        default_dt=1.0,
        narrow=True,
        late=1,
        keeps_v_reset=False,
        remarks=("the spike is read from v before the update",),
    ),
}
"""How each program's importer runs a file."""

WRITERS: dict[str, Convention] = {
    "spikingjelly": Convention("SpikingJelly", "2.0.0", default_dt=1e-4, starts_at_reset=True),
    "snntorch": Convention(
        "snnTorch",
        "1.0.0",
        strict=True,
        reset="late-subtract",
        dt=1e-4,
        keeps_v_reset=False,
        remarks=(
            "the file does not say how a neuron is reset: Leaky's default is taken; pass reset if it is another",
            "with reset_delay=False, what stays above the threshold after a subtraction is reset twice there",
        ),
    ),
    "norse": Convention(
        "Norse",
        "1.1.0",
        tau_unit="s dt",
        gain="leak",
        if_gain="one",
        current_gain="one",
        strict=True,
        default_dt=1e-3,
        keeps_v_reset=False,
        starts_at_leak=True,
        remarks=("tau is stored as dt times the time constant, which its own importer reads as the time constant",),
    ),
    "sinabs": Convention(
        "Sinabs",
        "3.1.3",
        decay="exponential",
        tau_unit="steps",
        gain="one",
        if_gain="one",
        reset="subtract",
        remarks=(_SEVERAL,),
    ),
    "spyx": Convention(
        "Spyx",
        "1.0.0",
        gain="one",
        if_gain="one",
        current_gain="one",
        strict=True,
        reset="late-subtract",
        current_reset="subtract",
        default_dt=1.0,
        late=1,
        keeps_v_reset=False,
        remarks=("the spike is read from v before the update",),
    ),
}
"""What each program's exporter puts into a file."""


def convention_of(convention: str | None, reader: str | None) -> Convention:
    """Return the convention that two options of :func:`snnsim.export.nir_read.read_nir` name.

    Raises:
        InputError: Both are given, or one is unknown.
    """
    if convention is not None and reader is not None:
        raise InputError("convention and reader: pass one; the first says who wrote the file, the second who runs it")
    for option, value, table in (("convention", convention, WRITERS), ("reader", reader, READERS)):
        if value is not None and value not in table:
            raise InputError(f"{option}: expected one of {', '.join(sorted(table))}, got {value!r}")
    if convention is not None:
        return WRITERS[convention]
    return READERS[reader] if reader is not None else PLAIN


def decay_from_tau(tau: npt.NDArray[np.floating], dt: float) -> Floats:
    """Return ``1 - dt / tau``, for a float32 ``tau`` the float32 decay that was turned into it.

    A program that keeps its decay in float32 stores ``dt / (1 - beta)``, rounded. Of the float32 numbers near
    ``1 - dt / tau`` those that give the stored one are looked at, and the one with the shortest decimal is taken.
    For decays of a half and more there is only one.

    Args:
        tau: Time constants in seconds, any shape, float32 or float64, at least ``dt``.
        dt: Time step in seconds.

    >>> float(decay_from_tau(np.float32([1e-4]) / (np.float32([1.0]) - np.float32([0.3])), 1e-4)[0])
    0.30000001192092896
    """
    if tau.dtype != np.float32:
        return np.maximum(1 - dt / tau.astype(np.float64), 0.0)
    stored, inverse = np.unique(tau.reshape(-1), return_inverse=True)
    found = np.empty(stored.size)
    for place, value in enumerate(stored):
        start = np.float32(max(1 - dt / float(value), 0.0))
        near = [start]
        for direction in (-np.inf, np.inf):
            step = start
            for _ in range(6):
                step = np.nextafter(step, np.float32(direction))
                near.append(step)
        fitting = [x for x in near if 0 <= x < 1 and np.float32(dt) / (np.float32(1) - x) == value] or [start]
        found[place] = min(fitting, key=lambda x: (len(str(x)), abs(float(x) - float(start))))
    decays: Floats = found[inverse.reshape(-1)].reshape(tau.shape)
    return decays
