"""Independent programs that judge integer exports, each run as a process of its own on arrays in npz files.

A program is a script of this package without an import of snnsim, run by the interpreter that holds its libraries: the
one given, else the one in ``SNNSIM_PYTHON_<NAME>``, else our own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError

__all__ = ["ORACLES", "Oracle", "OracleMissingError", "interpreter_of"]

Array = npt.NDArray[Any]


class OracleMissingError(InputError):
    """The interpreter given has not the libraries of the program, so nothing can be compared."""


@dataclass(frozen=True)
class Oracle:
    """A program.

    Attributes:
        name: Name, as in ``--python NAME=PATH``.
        script: File beside this one.
        modules: What it imports; looked for before it runs.
        title: For people.
        remedy: How to get it.
        seconds: Wall-clock limit of a run.
    """

    name: str
    script: str
    modules: tuple[str, ...]
    title: str
    remedy: str
    seconds: float = 3600.0

    def interpreter(self, given: Mapping[str, str] | None) -> str:
        """Return the interpreter that has the libraries.

        Raises:
            OracleMissingError: It has not.
        """
        command = interpreter_of(self.name, given)
        code = "import importlib.util as u, sys\n"
        code += f"sys.exit(any(u.find_spec(n) is None for n in {self.modules!r}))"
        try:
            missing = subprocess.run([command, "-c", code], capture_output=True, timeout=60, check=False).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OracleMissingError(f"{self.title}: the interpreter {command} cannot be run ({error})") from error
        if missing:
            raise OracleMissingError(
                f"{self.title} is not installed for {command}: {self.remedy}, then name its interpreter with "
                f"--python {self.name}=PATH or SNNSIM_PYTHON_{self.name.upper().replace('-', '_')}"
            )
        return command

    def run(self, model: Path, inputs: dict[str, Array], command: str) -> dict[str, Array]:
        """Run the program on a model file and arrays; return the arrays it wrote.

        Raises:
            InputError: It failed; its last line is in the message.
        """
        with TemporaryDirectory(prefix="snnsim-oracle-") as folder:
            given, found = Path(folder) / "in.npz", Path(folder) / "out.npz"
            np.savez(given, **inputs)  # type: ignore[arg-type]
            script = Path(__file__).with_name(self.script)
            environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
            try:
                done = subprocess.run(
                    [command, "-P", str(script), str(Path(model).absolute()), str(given), str(found)],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=self.seconds,
                    check=False,
                    cwd=folder,
                    env=environment,
                )
            except subprocess.TimeoutExpired as error:
                raise InputError(f"{self.title} took longer than {self.seconds:.0f} s; run fewer samples") from error
            if done.returncode or not found.exists():
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise InputError(f"{self.title} failed on {model.name}: {last}")
            with np.load(found, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}


ORACLES = {
    "lava": Oracle(
        "lava",
        "lava_runner.py",
        ("lava", "torch", "h5py"),
        "Lava's fixed-point simulator",
        "build its environment with  make lava-env",
    ),
    "xylo": Oracle("xylo", "xylo_runner.py", ("xylosim",), "xylosim", "pip install 'snnsim[xylo]'"),
    "sana-fe": Oracle("sana-fe", "sana_fe_runner.py", ("sanafe",), "SANA-FE", "pip install 'snnsim[sanafe]'"),
}
"""Every program by name."""


def interpreter_of(name: str, given: Mapping[str, str] | None) -> str:
    """Return the interpreter for a program: the one given, the one in the environment, or ours."""
    if given and name in given:
        return given[name]
    return os.environ.get(f"SNNSIM_PYTHON_{name.upper().replace('-', '_')}") or sys.executable
