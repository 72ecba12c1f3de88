"""An independent program that runs a NIR file: nirtorch's interpreter with SpikingJelly's neurons.

Nothing of snnsim computes here. The file is read by the ``nir`` package (in the limited process of
:mod:`snnsim.guard`, as every file from anywhere), wired by ``nirtorch`` and run, in float64, by the modules that
SpikingJelly's own NIR import makes. That import lacks three things, which are added below as a few lines of torch
each: ``Delay`` (a shift register), integrators without threshold, and neurons whose parameters differ within a
population. The report of a proof says which node was run by what.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, MissingLibraryError, SnnsimFileError
from snnsim.export.nir_graph import file_errors, nir_limits
from snnsim.guard import Parcel, run_guarded

if TYPE_CHECKING:
    import torch

__all__ = ["KINDS", "NirJudge", "read_by_nir", "unpack_by_nir"]

Array = npt.NDArray[np.float64]

KINDS = ("IF", "LIF", "CubaLIF", "LI", "CubaLI", "I")
"""Neuron nodes, those with a threshold first."""


class NirJudge:
    """Run a NIR file step by step and return the spikes of every population.

    Args:
        path: The file.
        dt: Time step in seconds; default: the one in the file's metadata.

    Attributes:
        name: What to call this judge in a report.
        executed_by: For every neuron and delay node, the code that runs it.
        latency: Steps by which each population is ahead of the network that was exported.

    Raises:
        MissingLibraryError: nir, nirtorch, torch or spikingjelly is not installed.
        InputError: The file holds a node that none of them can run.
        SnnsimFileError: The nir package cannot read the file.
    """

    def __init__(self, path: str | Path, dt: float | None = None) -> None:
        try:
            import nir
            import nirtorch
            import torch
            from spikingjelly.activation_based.nir_exchange.from_nir import _NodeMapper
        except ImportError as error:
            raise MissingLibraryError(
                str(error.name or "nir"), "nir,peers", "running a NIR file with an independent program"
            ) from error
        graph = read_by_nir(Path(path))
        stored = graph.metadata.get("dt")
        if dt is None and stored is None:
            raise InputError(f"{path}: holds no time step; pass dt in seconds")
        self.dt = float(stored if dt is None else dt)
        self.name = f"nirtorch {_version('nirtorch')} with SpikingJelly {_version('spikingjelly')}"
        self.executed_by: dict[str, str] = {}
        self.populations: dict[str, str] = {}
        self.latency: dict[str, int] = {}
        self.spiking: dict[str, bool] = {}
        inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
        if len(inputs) != 1:
            raise InputError(f"{path}: has {len(inputs)} inputs; nirtorch runs graphs with one")
        for name, node in graph.nodes.items():
            if type(node).__name__ in KINDS:
                label = _text(node.metadata.get("population", name))
                self.populations[name] = label
                self.latency[label] = int(node.metadata.get("latency_steps", 0))
                self.spiking[label] = type(node).__name__ in KINDS[:3]
        modules = _modules(torch)
        mapper = _NodeMapper(self.dt).map_dict
        names = {id(node): name for name, node in graph.nodes.items()}

        def neuron(node: Any) -> Any:
            kind = type(node)
            subtract = _text(node.metadata.get("reset", "zero")) == "subtract"
            moved = np.any(np.asarray(getattr(node, "v_reset", 0.0)))  # SpikingJelly would start there, not at 0
            if kind in mapper and not subtract and not moved:
                try:
                    module = mapper[kind](node)
                    self.executed_by[names[id(node)]] = f"SpikingJelly {type(module.module).__name__}"
                    return module
                except ValueError:
                    pass
            self.executed_by[names[id(node)]] = f"one line of torch for {kind.__name__}"
            return modules["neuron"](node, self.dt, subtract)

        def delay(node: Any) -> Any:
            self.executed_by[names[id(node)]] = "shift register"
            return modules["delay"](np.rint(node.delay / self.dt).astype(np.int64))

        kinds = tuple(getattr(nir, kind) for kind in KINDS)
        table = {**mapper, **dict.fromkeys(kinds, neuron), nir.Delay: delay}
        try:
            self.program = nirtorch.nir_to_torch(graph, table, dtype=torch.float64)
        except (ValueError, NotImplementedError) as error:
            raise InputError(f"{path}: cannot be run: {error}") from error
        self._torch = torch

    def run(self, inputs: Array) -> dict[str, Array]:
        """Run all steps of ``inputs``.

        Args:
            inputs: Counts, shape (time, batch, unit).

        Returns:
            For every population what it gave out, shape (time, batch, unit): spikes, or the membrane of a
            population without threshold. Time is the file's: a population of latency L is L steps early.
        """
        torch = self._torch
        outputs: dict[str, list[Array]] = {label: [] for label in self.populations.values()}
        hooks = []
        for name, label in self.populations.items():

            def keep(module: Any, arguments: Any, result: Any, label: str = label) -> None:
                outputs[label].append(result[0].numpy())

            hooks.append(self.program.get_submodule(name).register_forward_hook(keep))
        try:
            with torch.no_grad(), _without_triton_note():
                state = None
                for step in torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float64)):
                    *_, state = self.program(step, state)
        finally:
            for hook in hooks:
                hook.remove()
        result = {}
        for label, steps in outputs.items():
            stacked = np.stack(steps)
            if stacked.ndim != 3 or stacked.shape[:2] != inputs.shape[:2]:
                raise InputError(f"judge: {label!r} gave shape {stacked.shape}; it does not take part in every step")
            if self.spiking[label] and not np.isin(stacked, (0.0, 1.0)).all():
                raise InputError(f"judge: {label!r} gave values other than 0 and 1; was its neuron passed through?")
            result[label] = stacked
        return result


@contextmanager
def _without_triton_note() -> Iterator[None]:
    """Keep torch from saying on the screen that there is no Triton, when SpikingJelly loads its kernels."""
    logger = logging.getLogger("torch._library.triton")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def read_by_nir(path: Path) -> Any:
    """Return the graph that ``nir.read`` gives; the file is opened in the limited process."""
    import nir

    arguments = {"path": os.path.abspath(path), "shown": str(path)}
    parcel = run_guarded(
        f"{__name__}:unpack_by_nir", arguments, path=path, limits=nir_limits, imports=["nir.serialization"]
    )

    def join(value: dict[str, Any]) -> Any:
        if "group" in value:
            return {key: join(item) for key, item in value["group"].items()}
        if "array" in value:
            array = parcel.arrays[value["array"]]
            return array[()] if array.ndim == 0 else array
        return np.array(value["words"], dtype=object) if "words" in value else value["text"]

    return nir.dict2NIRNode(join(parcel.value) | {"type_check": True})


def unpack_by_nir(path: str, shown: str) -> Parcel:
    """Read a NIR file with the nir package (runs in the limited process).

    Args:
        path: The file.
        shown: The name to use in messages.

    Returns:
        The dictionary from which ``nir.read`` makes its nodes, each value as ``{"group": ...}``, ``{"text": ...}``,
        ``{"words": ...}`` or ``{"array": number}``, and the arrays.
    """
    import h5py
    import nir
    from nir.serialization import hdf2dict

    arrays: list[npt.NDArray[Any]] = []

    def split(value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return {"group": {key: split(item) for key, item in value.items()}}
        if isinstance(value, str):
            return {"text": value}
        array = np.asarray(value)
        if array.dtype.kind in "OS":
            return {"words": np.vectorize(_text, otypes=[object])(array).tolist()}
        arrays.append(array)
        return {"array": len(arrays) - 1}

    try:
        with file_errors(Path(shown)), h5py.File(path, "r") as file:
            values = hdf2dict(file["node"])
            tree = split(values)
            nir.dict2NIRNode(values | {"type_check": True})
    except (SnnsimFileError, MemoryError):
        raise
    except Exception as error:  # the package checks with assertions
        reason = " ".join(str(error).split())[:160]
        raise SnnsimFileError(shown, "", f"the nir package cannot read it: {reason}") from error
    return Parcel(tree, arrays)


def _text(value: Any) -> str:
    return value.decode("utf8") if isinstance(value, bytes) else str(value)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _modules(torch: Any) -> dict[str, Any]:
    """Return the module classes that SpikingJelly's map lacks (made here because torch is imported late)."""

    class Delay(torch.nn.Module):  # type: ignore[misc]
        """Shift register: row r leaves ``steps[r]`` calls after it came."""

        def __init__(self, steps: npt.NDArray[np.int64]) -> None:
            super().__init__()
            self.steps = torch.from_numpy(steps)
            self.length = int(steps.max(initial=0)) + 1

        def forward(self, x: torch.Tensor, state: Any = None) -> Any:
            register, now = (x.new_zeros(self.length, *x.shape), 0) if state is None else state
            register[now % self.length] = x
            slot = ((now - self.steps) % self.length).expand(1, *x.shape)
            return register.gather(0, slot)[0], (register, now + 1)

    class Neuron(torch.nn.Module):  # type: ignore[misc]
        """Euler's rule for any NIR neuron, parameters per neuron."""

        def __init__(self, node: Any, dt: float, subtract: bool) -> None:
            super().__init__()
            self.kind = type(node).__name__
            self.subtract = subtract

            def constant(name: str, default: Any = None) -> Any:
                value = getattr(node, name, default)
                return torch.from_numpy(np.array(value, dtype=np.float64))

            tau = constant("tau_mem" if self.kind.startswith("Cuba") else "tau", np.inf)
            leaky = self.kind not in ("IF", "I")
            self.rate = dt / tau if leaky else torch.zeros(1, dtype=torch.float64)
            self.gain = constant("r") * (self.rate if leaky else dt)
            self.leak = constant("v_leak", 0.0)
            self.current = self.kind.startswith("Cuba")
            self.alpha = 1 - dt / constant("tau_syn") if self.current else None
            self.gain_in = constant("w_in") * dt / constant("tau_syn") if self.current else None
            self.threshold = constant("v_threshold") if self.kind in KINDS[:3] else None
            self.reset = constant("v_reset", 0.0)
            amount = node.metadata.get("reset_amount")
            self.amount = self.threshold if amount is None else torch.from_numpy(np.array(amount, dtype=np.float64))

        def forward(self, x: torch.Tensor, state: Any = None) -> Any:
            v, i = (torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
            if self.current:
                i = self.alpha * i + self.gain_in * x
                x = i
            v = v + self.rate * (self.leak - v) + self.gain * x
            if self.threshold is None:
                return v, (v, i)
            spikes = (v >= self.threshold).to(v.dtype)
            v = v - spikes * self.amount if self.subtract else torch.where(spikes > 0, self.reset, v)
            return spikes, (v, i)

    return {"delay": Delay, "neuron": Neuron}
