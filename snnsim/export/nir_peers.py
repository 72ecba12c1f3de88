"""NIR files run by the importers of other programs: SpikingJelly, snnTorch and Norse as they are.

Each importer makes its own modules of the file; they run step by step in float64. Where an importer keeps its numbers
in float32 they stay so rounded, and :func:`snnsim.export.nir_read.read_nir` with ``reader=`` is the network to compare
with. Nothing is added but casts: snnTorch's spikes are float32 whatever its weights are.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, MissingLibraryError
from snnsim.export.nir_fit import reader_convention
from snnsim.export.nir_judge import KINDS, read_by_nir

__all__ = ["PACKAGES", "PeerJudge"]

Array = npt.NDArray[np.float64]

PACKAGES = {"spikingjelly": "spikingjelly", "snntorch": "snntorch", "norse": "norse"}
"""Package of each program."""

IMPORTERS = {
    "spikingjelly": ("spikingjelly.activation_based.nir_exchange", "import_from_nir"),
    "snntorch": ("snntorch.import_nir", "import_from_nir"),
    "norse": ("norse.torch.utils.import_nir", "from_nir"),
}


class PeerJudge:
    """Run a NIR file with a program's own importer and return the spikes of every population.

    Args:
        path: The file.
        reader: ``"spikingjelly"``, ``"snntorch"`` or ``"norse"``.
        dt: Time step in seconds; default: the one in the file's metadata, else the program's.

    Attributes:
        name: What to call this judge in a report.
        latency: Steps by which each population is ahead of the network that was exported.

    Raises:
        InputError: Unknown program, or its importer refuses the file.
        MissingLibraryError: The program is not installed.
        SnnsimFileError: The nir package cannot read the file.
    """

    def __init__(self, path: str | Path, reader: str, dt: float | None = None) -> None:
        convention = reader_convention(reader)
        module, function = IMPORTERS[reader]
        try:
            import torch

            with _quiet():
                load: Callable[..., Any] = getattr(import_module(module), function)
        except ImportError as error:
            raise MissingLibraryError(str(error.name or reader), "nir,peers", f"running a file in {reader}") from error
        graph = read_by_nir(Path(path))
        stored = graph.metadata.get("dt")
        self.dt = float(dt or convention.dt or stored or convention.default_dt or 0.0)
        self.reader = reader
        self.name = f"{convention.program} {version(PACKAGES[reader])}"
        self.populations: dict[str, str] = {}
        self.latency: dict[str, int] = {}
        for name, node in graph.nodes.items():
            if type(node).__name__ in KINDS:
                said = node.metadata.get("population", name)
                self.populations[name] = said.decode("utf8") if isinstance(said, bytes) else str(said)
                self.latency[self.populations[name]] = int(node.metadata.get("latency_steps", 0))
        options: dict[str, Any] = {"dt": self.dt} if convention.dt is None else {}
        if reader == "spikingjelly":
            options["dtype"] = torch.float64
        try:
            with _quiet():
                self.program = load(graph, **options)
        except Exception as error:  # importers check with assertions and much else
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: {self.name} refuses it: {type(error).__name__}: {reason}") from error
        self.program.double()
        for part in self.program.modules():
            if isinstance(part, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)):
                part.register_forward_pre_hook(lambda module, arguments: (arguments[0].double(),))
        self._torch = torch

    def run(self, inputs: Array) -> dict[str, Array]:
        """Run all steps of ``inputs``.

        Args:
            inputs: Counts, shape (time, batch, unit).

        Returns:
            Spikes of every population, shape (time, batch, unit).

        Raises:
            InputError: The program cannot run what it imported.
        """
        torch = self._torch
        outputs: dict[str, list[Array]] = {label: [] for label in self.populations.values()}
        hooks = []
        for name, label in self.populations.items():

            def keep(module: Any, arguments: Any, result: Any, label: str = label) -> None:
                spikes = result[0] if isinstance(result, tuple) else result
                outputs[label].append(spikes.detach().double().numpy())

            module = dict(self.program.named_modules()).get(name.replace(".", "_"))
            if module is None:
                raise InputError(f"{self.name} made nothing of {label!r}")
            hooks.append(module.register_forward_hook(keep))
        for part in self.program.modules():
            for variable in ("mem", "syn"):
                if isinstance(getattr(part, variable, None), torch.Tensor):
                    setattr(part, variable, torch.zeros(0, dtype=torch.float64))
        try:
            with torch.no_grad(), _quiet():
                state = None
                for step in torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float64)):
                    *_, state = self.program(step, state)
        except Exception as error:  # the program's own code runs here; what it says is passed on
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.name} cannot run it: {type(error).__name__}: {reason}") from error
        finally:
            for hook in hooks:
                hook.remove()
        for label, steps in outputs.items():
            if len(steps) != inputs.shape[0]:
                raise InputError(f"{self.name} ran {label!r} in {len(steps)} of {inputs.shape[0]} steps")
        return {label: np.stack(steps) for label, steps in outputs.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what other programs print and warn of off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
