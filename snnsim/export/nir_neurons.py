"""Neuron nodes of a NIR file as neuron records, by the convention of the program that wrote or runs the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.export.nir_conventions import PLAIN, Convention, Reset, decay_from_tau
from snnsim.export.nir_graph import Graph, Node
from snnsim.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron

__all__ = ["CELLS", "SILENT", "SPIKING", "Fields", "NeuronReader", "merge_thresholds"]

Floats = npt.NDArray[np.float64]

SPIKING = ("IF", "LIF", "CubaLIF", "Threshold")
SILENT = ("LI", "CubaLI", "I")
CELLS = (*SPIKING, *SILENT)
METADATA_TOLERANCE = 1e-9
NARROW_TOLERANCE = 1e-6
"""A gain this close to 1 is 1: it was computed in float64, or in float32."""


@dataclass(frozen=True)
class Fields:
    """The values of one node, checked when they are asked for."""

    path: Path
    name: str
    node: Node

    def error(self, text: str) -> InputError:
        """Return an error that names the node."""
        return InputError(f"{self.path}: node {self.name[:200]!r}: {text}")

    def value(self, key: str, default: Floats | None = None) -> Floats:
        """Return numbers of any shape, float64."""
        if key not in self.node.values:
            if default is None:
                raise self.error(f"{self.node.kind} has no {key!r}; is the file complete?")
            return default
        array = self.node.values[key]
        if array.dtype.kind not in "fiu":
            raise self.error(f"{key}: expected numbers, got {array.dtype}")
        return array.astype(np.float64)

    def vector(self, key: str, size: int, default: float | None = None) -> Floats:
        """Return one number a unit; a single one is repeated, an array of a map's shape flattened."""
        array = self.value(key, None if default is None else np.full(size, default))
        if array.size == 1:
            return np.full(size, array.reshape(-1)[0])
        if array.size != size:
            raise self.error(f"{key} has shape {array.shape}, expected ({size},)")
        return array.reshape(-1)

    def whole(self, key: str, default: int | None = None) -> int:
        """Return one whole number."""
        array = self.value(key, None if default is None else np.array(default, dtype=np.float64))
        if array.size != 1 or array.reshape(-1)[0] % 1 or abs(array.reshape(-1)[0]) > 1 << 31:
            raise self.error(f"{key}: expected one whole number, got {array.reshape(-1)[:4].tolist()}")
        return int(array.reshape(-1)[0])

    def each(self, key: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """Return ``count`` whole numbers; a single one is repeated."""
        array = self.value(key, None if default is None else np.array(default, dtype=np.float64)).reshape(-1)
        if array.size not in (1, count) or np.any(array % 1) or np.any(np.abs(array) > 1 << 31):
            raise self.error(f"{key}: expected {count} whole numbers, got {array[:4].tolist()}")
        return tuple(int(number) for number in np.broadcast_to(array, (count,)))


@dataclass(frozen=True)
class NeuronReader:
    """Makes neuron records.

    Attributes:
        convention: Whose file it is, or who runs it.
        dt: Time step in seconds that time constants are read with.
        step: Time step of the network in seconds.
        reset: Kind of reset for files that do not say, instead of the convention's.
        own: Whether snnsim wrote the file and its metadata count.
        rule: ``"euler"`` or ``"exponential"``.
    """

    convention: Convention
    dt: float
    step: float
    reset: Reset | None
    own: bool
    rule: str

    def record(self, fields: Fields, size: int, bias: Floats | None) -> tuple[Neuron, Floats]:
        """Return the neuron record and the gain of its input (weights are multiplied by it)."""
        kind, dt, c = fields.node.kind, self.step, self.convention
        constant = np.zeros(size) if bias is None else bias
        if kind == "Threshold":
            threshold = c.rounded(fields.vector("threshold", size))
            made = LIF.from_step(dt=dt, beta=0.0, drive_step=constant, v_threshold=threshold, strict=True)
            return made, np.ones(size)
        if kind in ("IF", "I"):
            gain = np.ones(size)
            if c.if_gain == "r dt":
                gain = self._snapped(fields.vector("r", size) * self.dt, fields, "r")
            if kind == "I":
                return LI.from_step(dt=dt, beta=1.0, drive_step=constant * gain), gain
            firing = self.firing(fields, size, np.ones(size), np.zeros(size))
            return IF.from_step(dt=dt, drive_step=constant * gain, **firing), gain
        leak = fields.vector("v_leak", size, 0.0)
        if kind in ("LIF", "LI"):
            beta, gain = self.decay(fields, "tau", "beta", size)
            if c.gain == "r":
                gain = self._snapped(gain * fields.vector("r", size, 1.0), fields, "tau")
            elif c.gain == "one":
                gain = np.ones(size)
            if kind == "LI":
                return LI.from_step(dt=dt, beta=beta, drive_step=constant * gain + leak * (1 - beta)), gain
            firing = self.firing(fields, size, beta, leak)
            if c.starts_at_reset and np.any(fields.vector("v_reset", size, 0.0)):
                leak = np.zeros(size)
            elif c.starts_at_leak and np.any(leak):  # potentials are counted from there
                leak = c.rounded(leak)
                firing |= {"v_threshold": firing["v_threshold"] - leak, "v_reset": firing["v_reset"] - leak}
                leak = np.zeros(size)
            return LIF.from_step(dt=dt, beta=beta, drive_step=constant * gain + leak * (1 - beta), **firing), gain
        return self._current(fields, size, constant, leak)

    def _current(self, fields: Fields, size: int, bias: Floats, leak: Floats) -> tuple[Neuron, Floats]:
        dt, c, kind = self.step, self.convention, fields.node.kind
        beta, gain_v = self.decay(fields, "tau_mem", "beta", size)
        alpha, gain_i = self.decay(fields, "tau_syn", "alpha", size)
        if c.gain == "r" or (c.gain == "leak" and c.current_gain == "w_in"):
            gain_v = self._snapped(gain_v * c.rounded(fields.vector("r", size, 1.0)), fields, "tau_mem")
        elif c.gain == "one":
            gain_v = np.ones(size)
        if c.current_gain == "w_in":
            gain_i = self._snapped(gain_i * c.rounded(fields.vector("w_in", size, 1.0)), fields, "tau_syn")
        else:
            gain_i = np.ones(size)
        if np.any(beta <= 0) or np.any(beta >= 1) or np.any(alpha <= 0) or np.any(alpha >= 1):
            raise fields.error("decays of 0 or 1 a step cannot be read; use time constants longer than dt")
        firing = self.firing(fields, size, beta, leak) if kind == "CubaLIF" else {}
        plain = CubaLI.from_step(dt=dt, beta=beta, alpha=alpha)
        kappa = self.stored(fields, "kappa", np.asarray(plain.kappa, dtype=np.float64))
        gain = gain_i * gain_v / kappa
        on_current, on_membrane = bias * gain, leak * (1 - beta)
        if np.any(on_current) and np.any(on_membrane):
            raise fields.error("a bias and a v_leak together cannot be read; fold one into the other")
        if c is not PLAIN and np.any(on_membrane):
            raise fields.error(f"a CubaLIF with a v_leak is not run as NIR says by {c.program}; fold it into a bias")
        record = CubaLIF if kind == "CubaLIF" else CubaLI
        made = record.from_step(
            dt=dt, beta=beta, alpha=alpha, kappa=kappa, drive_step=on_membrane, drive_syn_step=on_current, **firing
        )
        return made, gain

    def decay(self, fields: Fields, key: str, label: str, size: int) -> tuple[Floats, Floats]:
        """Return the decay a step and ``1 - decay``, from a time constant."""
        c, unit = self.convention, 1.0
        tau = fields.vector(key, size)
        if np.any(tau <= 0):
            raise fields.error(f"{key}: expected positive seconds, got {tau.min()}")
        if c.tau_unit == "steps":
            unit = self.dt
        elif c.tau_unit == "s dt":
            unit = 1 / self.dt
        stored = fields.node.values[key]
        if self.rule == "exponential":
            beta = np.exp(-self.dt / (c.rounded(tau) * unit))
            return self.stored(fields, label, beta), 1 - beta
        if np.any(tau * unit < self.dt * (1 - (1e-12 if stored.dtype != np.float32 else 1e-6))):
            raise fields.error(f"{key} = {tau.min() * unit} s is shorter than dt = {self.dt} s; pass a smaller dt")
        if c.gain == "leak" and c.narrow:  # keeps 1 / tau in float32 and multiplies it by dt in float32
            leak = (np.float32(self.dt) * (np.float32(1) / tau.astype(np.float32))).astype(np.float64)
            return 1 - leak, leak
        if stored.dtype == np.float32 and unit == 1.0 and c is not PLAIN:
            beta = np.broadcast_to(decay_from_tau(stored.reshape(-1), self.dt), (size,)).copy()
        else:
            beta = np.maximum(1 - self.dt / (tau * unit), 0.0)
        leak = self.dt / (tau * unit)
        return self.stored(fields, label, c.rounded(beta)), leak

    def _snapped(self, gain: Floats, fields: Fields, key: str) -> Floats:
        """Return gains that are 1 but for rounding as 1."""
        single = fields.node.values[key].dtype == np.float32
        return np.where(np.abs(gain - 1) < (NARROW_TOLERANCE if single else METADATA_TOLERANCE), 1.0, gain)

    def stored(self, fields: Fields, key: str, derived: Floats) -> Floats:
        """Return the exact number in the metadata if it agrees with the one derived from the standard fields."""
        value = fields.node.metadata.get(key) if self.own and self.convention is PLAIN else None
        if isinstance(value, np.ndarray) and value.shape == derived.shape and value.dtype.kind == "f":
            close = np.abs(value - derived) <= METADATA_TOLERANCE * np.maximum(np.abs(derived), 1)
            return np.where(close, value, derived)
        return derived

    def firing(self, fields: Fields, size: int, beta: Floats, leak: Floats) -> dict[str, Any]:
        """Return threshold, comparison and reset of a spiking neuron."""
        c, node = self.convention, fields.node
        threshold = c.rounded(fields.vector("v_threshold", size))
        v_reset = fields.vector("v_reset", size, 0.0)
        values: dict[str, Any] = {"v_threshold": threshold, "v_reset": np.zeros(size), "reset": "zero"}
        if c.strict:
            values["strict"] = True
        reset = self.reset or (c.current_reset if node.kind == "CubaLIF" else None) or c.reset
        if self.reset is None and c is PLAIN and str(node.metadata.get("reset", "zero")) == "subtract":
            reset = "subtract"
            amount = node.metadata.get("reset_amount")
            if isinstance(amount, np.ndarray) and amount.shape == (size,):
                values["reset_amount"] = amount
        if reset == "late-subtract":
            if np.any(beta <= 0):
                raise fields.error("a threshold taken off one step late cannot be read with a decay of 0")
            values |= {"reset": "subtract", "reset_amount": threshold / beta}
        elif reset == "subtract":
            values["reset"] = "subtract"
        elif c.starts_at_reset and np.any(v_reset):
            if node.kind == "CubaLIF" or (node.kind == "LIF" and not np.allclose(leak, v_reset, rtol=1e-6, atol=1e-12)):
                raise fields.error(f"{c.program} has neurons whose v_reset is not 0 only where it equals v_leak")
            values["v_threshold"] = threshold - v_reset  # potentials are counted from where it starts
        elif c.keeps_v_reset:
            values["v_reset"] = v_reset
        return values


def merge_thresholds(graph: Graph, before: dict[str, list[str]]) -> None:
    """Make one neuron of every integrator with nothing but a threshold behind it: it fires and is not reset.

    Args:
        graph: The graph, changed in place.
        before: The nodes before each node.
    """
    after: dict[str, list[str]] = {}
    for source, target in graph.edges:
        after.setdefault(source, []).append(target)
    for name, node in list(graph.nodes.items()):
        if node.kind != "Threshold" or "threshold" not in node.values or len(before[name]) != 1:
            continue
        source = before[name][0]
        old = graph.nodes[source]
        if old.kind != "LI" or after[source] != [name] or node.values["threshold"].dtype.kind != "f":
            continue
        threshold = np.nextafter(node.values["threshold"].astype(np.float64), np.inf)  # NIR: above it
        values = {**old.values, "v_threshold": threshold}
        metadata = {**old.metadata, "reset": "subtract", "reset_amount": np.zeros(threshold.size)}
        graph.nodes[source] = Node("LIF", values, metadata)
        graph.nodes[name] = Node("Identity")
