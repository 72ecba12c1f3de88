"""NEST as the judge of a SONATA folder: the folder's own script runs in a process of its own, from the files alone.

Nothing of snnsim computes there. The judge writes the input of every sample as a SONATA file of spikes, calls
``run_nest.py``, and reads the files that it leaves behind. The script takes the latency of a population off its
results, so they lie on the network's own steps.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, MissingLibraryError, SnnsimFileError
from snnsim.export.sonata_folder import Spikes, write_spikes

__all__ = ["SonataJudge"]

SCRIPT = "run_nest.py"


class SonataJudge:
    """Run a SONATA folder with NEST and return what every population gave out.

    Args:
        path: The folder.

    Attributes:
        name: What to call this judge in a report.
        executed_by: For every population, NEST's model.
        latency: Empty: the results lie on the network's steps.

    Raises:
        MissingLibraryError: NEST is not installed.
        InputError: The network has several inputs.
        SnnsimFileError: This is no SONATA folder of snnsim.
    """

    def __init__(self, path: str | Path) -> None:
        if importlib.util.find_spec("nest") is None:
            raise MissingLibraryError("nest-simulator", "nest", "running a SONATA folder with NEST")
        from importlib.metadata import version

        from snnsim.export.sonata_read import read_tables

        self.path = Path(path)
        if not (self.path / SCRIPT).is_file():
            raise SnnsimFileError(path, SCRIPT, "is missing; only folders that snnsim wrote can be run")
        tables = read_tables(self.path)
        self.step = tables.step
        inputs = [item for item in tables.nodes if not item.model]
        if len(inputs) != 1:
            raise InputError(f"{path}: has {len(inputs)} inputs; a proof runs networks with one")
        self.input = inputs[0].name
        self.populations = {item.name: item for item in tables.nodes if item.model}
        self.name = f"NEST {version('nest-simulator')}"
        self.executed_by = {item.label: f"NEST {item.model}" for item in self.populations.values()}
        self.latency: Mapping[str, int] = {}

    def run(self, inputs: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        """Run every sample from the zero state.

        Args:
            inputs: Counts, shape (time, batch, unit).

        Returns:
            For every population spikes, or the membrane of one without threshold, shape (time, batch, unit).

        Raises:
            InputError: NEST refused the network.
        """
        n_steps, batch, _ = inputs.shape
        result = {item.label: np.zeros((n_steps, batch, item.size)) for item in self.populations.values()}
        with tempfile.TemporaryDirectory(prefix="snnsim-sonata-") as name:
            folder = Path(name)
            files = []
            for sample in range(batch):
                when, unit = np.nonzero(inputs[:, sample])
                repeat = inputs[when, sample, unit].astype(np.int64)
                spikes = Spikes(self.input, np.repeat(when * self.step, repeat), np.repeat(unit, repeat))
                files.append(folder / f"input_{sample}.h5")
                write_spikes(files[-1], [spikes])
            words = ["--output", str(folder), "--steps", str(n_steps), "--input", *map(str, files)]
            self._call(words)
            for sample in range(batch):
                suffix = f"_{sample}" if batch > 1 else ""
                self._take(folder, suffix, sample, result)
        return result

    def _call(self, words: list[str]) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", str((self.path / SCRIPT).resolve()), *words],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
            raise InputError(f"{self.path}: NEST cannot run it: {said[-1][:300]}")

    def _take(self, folder: Path, suffix: str, sample: int, result: dict[str, npt.NDArray[np.float64]]) -> None:
        """Read what one sample gave."""
        import h5py

        with h5py.File(folder / f"spikes{suffix}.h5") as spikes, h5py.File(folder / f"membrane{suffix}.h5") as traces:
            for item in self.populations.values():
                if item.spiking:
                    group: Any = spikes["spikes"][item.name]
                    steps = np.rint(group["timestamps"][:] / self.step).astype(np.int64)
                    np.add.at(result[item.label][:, sample], (steps, group["node_ids"][:].astype(np.int64)), 1.0)
                else:
                    result[item.label][:, sample] = traces["report"][item.name]["data_float64"][:]
