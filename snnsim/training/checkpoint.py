"""Checkpoints: safetensors for arrays, JSON for the rest, never half-written.

A checkpoint is two files, ``<step>.safetensors`` and ``<step>.json``. Each is written atomically, the JSON
last; only a JSON whose arrays are there with the stated SHA-256 counts. The checkpoint before is removed
after the new one is complete, so that a kill at any instant leaves a whole one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from snnsim.errors import SnnsimFileError
from snnsim.files import atomic_path, sha256_bytes, sha256_file, write_json
from snnsim.training.schedules import GroupOptimiser

__all__ = [
    "Checkpoint",
    "load_tensors",
    "newest_checkpoint",
    "remove_others",
    "restore_state",
    "save_tensors",
    "training_state",
    "write_checkpoint",
]

SCHEMA = 2


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        step: Optimiser steps done.
        tensors: Model, buffers and optimiser arrays by name.
        values: Everything else: epoch, batch, schedules, running sums, length of ``metrics.jsonl``.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors as safetensors, atomically; return the file's SHA-256 and that of every array.

    They are stored as tensors of the CPU, wherever they are.
    """
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    data = save(contiguous)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    arrays = {
        name: {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "sha256": sha256_bytes(np.ascontiguousarray(value.numpy()).tobytes()),
        }
        for name, value in contiguous.items()
    }
    return {"sha256": sha256_bytes(data), "arrays": arrays}


def load_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, checking its SHA-256 if given.

    Raises:
        SnnsimFileError: The file is missing, damaged or does not match.
    """
    try:
        if sha256 is not None and sha256_file(path) != sha256:
            raise SnnsimFileError(path, "", "does not match its stored SHA-256; the file was changed or damaged")
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise SnnsimFileError(path, "", f"is not a whole safetensors file ({error})") from error


def training_state(model: nn.Module, optimisers: list[GroupOptimiser]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all arrays and all plain values that a training run needs to go on exactly.

    Returns:
        Tensors named ``model/...`` and ``optimiser/GROUP/INDEX/NAME``; and, for every group, the optimiser's
        parameter groups and the scheduler's state as JSON values.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    values: dict[str, Any] = {}
    for group in optimisers:
        state = group.optimiser.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser/{group.name}/{index}/{name}"] = value
                else:
                    scalars.setdefault(str(index), {})[name] = value
        values[group.name] = {
            "param_groups": state["param_groups"],
            "scalars": scalars,
            "scheduler": {key: value for key, value in group.scheduler.state_dict().items() if _is_plain(value)},
        }
    return tensors, values


def restore_state(
    model: nn.Module, optimisers: list[GroupOptimiser], tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """Put the arrays and values of :func:`training_state` back into a model and its optimisers."""
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model/")})
    for group in optimisers:
        stored = values[group.name]
        state: dict[int, dict[str, Any]] = {}
        prefix = f"optimiser/{group.name}/"
        for name, value in tensors.items():
            if name.startswith(prefix):
                index, key = name[len(prefix) :].split("/")
                state.setdefault(int(index), {})[key] = value
        for index, entries in stored["scalars"].items():
            state.setdefault(int(index), {}).update(entries)
        groups = [
            {key: tuple(value) if key == "betas" else value for key, value in entry.items()}
            for entry in stored["param_groups"]
        ]
        group.optimiser.load_state_dict({"state": state, "param_groups": groups})
        group.scheduler.load_state_dict(stored["scheduler"])


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def write_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Path:
    """Write checkpoint ``step`` and then remove the ones before it.

    Args:
        folder: Folder of checkpoints; made if missing.
        step: Optimiser steps done; names the files.
        tensors: Arrays.
        values: JSON values.

    Returns:
        The JSON file.

    Raises:
        SnnsimFileError: The folder is not writable or the disk is full; the checkpoint before is still whole.
    """
    stem = f"{step:09d}"
    info = save_tensors(folder / f"{stem}.safetensors", tensors)
    path = folder / f"{stem}.json"
    write_json(path, {"schema": SCHEMA, "step": step, "tensors": info, "values": dict(values)})
    remove_others(folder, step)
    return path


def remove_others(folder: Path, step: int | None) -> None:
    """Remove all files but those of checkpoint ``step``: older checkpoints and what a kill left half-written."""
    if folder.is_dir():
        for item in folder.iterdir():
            if step is None or not item.name.startswith(f"{step:09d}."):
                item.unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest complete checkpoint, or None if there is none.

    A JSON without its arrays cannot arise from a kill; it is an error, not skipped.

    Raises:
        SnnsimFileError: The newest checkpoint is damaged.
    """
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
    if not files:
        return None
    path = files[-1]
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, step, sha256 = record["schema"], int(record["step"]), record["tensors"]["sha256"]
        values = dict(record["values"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SnnsimFileError(path, "", f"is not a checkpoint ({error}); start the run anew") from error
    if schema != SCHEMA:
        raise SnnsimFileError(path, "schema", f"expected {SCHEMA}, got {schema}; written by another version")
    return Checkpoint(step, load_tensors(path.with_suffix(".safetensors"), sha256), values)
