"""Safe files: atomic writing, checksums, canonical JSON.

Every file that snnsim writes goes to a temporary name in the same folder, is flushed to the disk and
then renamed, so a reader sees the old file or the whole new one and never a part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snnsim.errors import SnnsimFileError

__all__ = [
    "atomic_path",
    "cache_folder",
    "canonical_json",
    "sha256_bytes",
    "sha256_file",
    "sync_folder",
    "write_json",
    "write_text",
]


def cache_folder() -> Path:
    """Return the folder of the cache: ``$SNNSIM_CACHE``, else ``snnsim`` in the user's cache folder."""
    chosen = os.environ.get("SNNSIM_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snnsim"


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk (a rename is durable only after this)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` if the block succeeds.

    Raises:
        SnnsimFileError: The folder does not exist, is not writable, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be written ({error.strerror}); choose another place") from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, SnnsimFileError):
            raise
        reason = error.strerror or str(error)
        raise SnnsimFileError(path, "", f"could not be written ({reason}); nothing was left behind") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write readable JSON atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
