"""The run folder: everything a training run leaves behind.

recipe.json        the recipe as it ran
manifest.json      seed, versions, digest and split of the data, sizes, every look at the test set
metrics.jsonl      one line an epoch, deterministic values only
timing.jsonl       one line an epoch, times
checkpoints/       the newest complete checkpoint (safetensors + JSON)
initial.safetensors  weights before the first update
pool.snn.h5        the pool that the run began with, where the recipe takes one from a file
best.safetensors   weights of the best validation epoch, with best.json
last.safetensors   weights of the last epoch
best.snn.h5        the same two, frozen
last.snn.h5
result.json        accuracies, labelled by how the epoch was chosen
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import write_json
from snnsim.recipes import Recipe, load_recipe
from snnsim.training.checkpoint import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from snnsim.recipes.schema import ModelSpec

__all__ = ["RunFolder", "versions"]

POOL = "pool.snn.h5"

LIBRARIES = ("torch", "numpy", "scipy", "numba", "h5py", "safetensors", "pydantic")


def versions() -> dict[str, str]:
    """Return the versions of Python, snnsim and the libraries that decide results."""
    result = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for name in ("snnsim", *LIBRARIES):
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            result[name] = "unknown"
    return result


class RunFolder:
    """Paths and files of one run.

    Args:
        path: The folder; made by :meth:`create`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: BinaryIO | None = None

    @property
    def metrics_path(self) -> Path:
        """The deterministic log."""
        return self.path / "metrics.jsonl"

    @property
    def timing_path(self) -> Path:
        """The log of times."""
        return self.path / "timing.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def exists(self) -> bool:
        """Return whether the folder holds a run."""
        return (self.path / "manifest.json").is_file()

    def check(self) -> None:
        """Refuse a folder that holds no run.

        Raises:
            SnnsimFileError: No run is there.
        """
        if not self.exists():
            raise SnnsimFileError(self.path, "", "expected a run folder with manifest.json; was the run started here?")

    def create(self, recipe: Recipe, manifest: dict[str, Any], initial: Mapping[str, Tensor]) -> None:
        """Make the folder, with the weights before the first update; the manifest is written last and makes it a run.

        Raises:
            SnnsimFileError: The folder is in use, or cannot be written.
        """
        known = {"recipe.json", "initial.safetensors", POOL, ".lock"}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            present = {item.name for item in self.path.iterdir() if not item.name.endswith(".part")}
        except OSError as error:
            raise SnnsimFileError(self.path, "", f"cannot be made ({error.strerror}); choose another --out") from error
        if present - known:
            raise SnnsimFileError(
                self.path, "", "the folder is not empty; choose another --out, or --resume to continue a run"
            )
        write_json(self.path / "recipe.json", recipe.to_dict())
        if recipe.model.pool is not None and recipe.model.pool.file is not None:
            try:
                shutil.copyfile(recipe.model.pool.file, self.path / POOL)
            except OSError as error:
                raise SnnsimFileError(recipe.model.pool.file, "", f"cannot be copied ({error.strerror})") from error
        save_tensors(self.path / "initial.safetensors", initial)
        write_json(self.path / "manifest.json", manifest)

    def lock(self) -> None:
        """Hold the folder for this process; the lock ends with the process, killed or not.

        Raises:
            InputError: Another process trains here.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "wb")  # noqa: SIM115  (held until release)
        except OSError as error:
            raise SnnsimFileError(
                self.path, "", f"cannot be written ({error.strerror}); choose another --out"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise InputError(
                f"{self.path}: another process is training in this folder; wait for it or stop it"
            ) from None

    def release(self) -> None:
        """Give the lock back; a folder in which no run was begun is removed again."""
        if self._lock is None:
            return
        self._lock.close()
        self._lock = None
        if not self.exists():
            (self.path / ".lock").unlink(missing_ok=True)
            with suppress(OSError):  # not empty: something else is there, which stays
                self.path.rmdir()

    def recipe(self) -> Recipe:
        """Read the recipe as it ran."""
        return load_recipe(self.path / "recipe.json")

    def model_spec(self, recipe: Recipe) -> ModelSpec:
        """Return the recipe's model; a pool from a file is that of the folder, whatever became of the file."""
        spec = recipe.model
        if spec.pool is None or spec.pool.file is None or not (self.path / POOL).is_file():
            return spec
        return spec.model_copy(update={"pool": spec.pool.model_copy(update={"file": str(self.path / POOL)})})

    def manifest(self) -> dict[str, Any]:
        """Read the manifest."""
        return self._read("manifest.json")

    def update_manifest(self, **changes: Any) -> None:
        """Change entries of the manifest."""
        write_json(self.path / "manifest.json", {**self.manifest(), **changes})

    def record_test_run(self, purpose: str, labels: list[str]) -> int:
        """Note in the manifest that the test set is about to be used; return how often it has been."""
        runs = [*self.manifest().get("test_runs", []), {"purpose": purpose, "labels": labels}]
        self.update_manifest(test_runs=runs, test_run_count=len(runs))
        return len(runs)

    def result(self) -> dict[str, Any] | None:
        """Read the result, or None if the run is not finished."""
        return self._read("result.json") if (self.path / "result.json").is_file() else None

    def metrics(self) -> list[dict[str, Any]]:
        """Read the epochs' metrics."""
        return read_lines(self.metrics_path)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SnnsimFileError(path, "", f"cannot be read ({error.strerror}); is this a run folder?") from error
        except ValueError as error:
            raise SnnsimFileError(path, "", f"is not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise SnnsimFileError(path, "", f"expected an object, got {type(value).__name__}")
        return value

    def append_metrics(self, record: dict[str, Any]) -> int:
        """Append one line of metrics, flushed to the disk; return the file's length in bytes."""
        return append_line(self.metrics_path, record)

    def append_timing(self, record: dict[str, Any]) -> None:
        """Append one line of times."""
        append_line(self.timing_path, {**record, "time": round(time.time(), 3)})

    def cut_metrics(self, length: int) -> None:
        """Shorten ``metrics.jsonl`` to the length stored in a checkpoint.

        Raises:
            SnnsimFileError: The file is shorter than that.
        """
        size = self.metrics_path.stat().st_size if self.metrics_path.exists() else 0
        if size < length:
            raise SnnsimFileError(
                self.metrics_path, "", f"expected at least {length} bytes, got {size}; was it changed? Start anew"
            )
        if size > length:
            os.truncate(self.metrics_path, length)


def append_line(path: Path, record: dict[str, Any]) -> int:
    """Append a JSON line, flush it to the disk and return the file's length."""
    try:
        with open(path, "ab") as stream:
            stream.write((json.dumps(record, sort_keys=True, allow_nan=False) + "\n").encode())
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()
    except OSError as error:
        raise SnnsimFileError(path, "", f"could not be written ({error.strerror})") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; a missing file has none."""
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise SnnsimFileError(path, f"line {number}", f"is not valid JSON ({error})") from error
    return records
