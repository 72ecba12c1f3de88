"""What the machine has left for this process: memory and cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_memory", "usable_cores"]

_MEMORY_INFO = Path("/proc/meminfo")
_GROUPS = Path("/proc/self/cgroup")
_GROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable(folder: Path) -> int:
    """Return the bytes of file pages that a control group can drop at once."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split(" ", 1) for line in lines if " " in line)
    found = values.get("total_inactive_file") or values.get("inactive_file") or "0"
    return int(found) if found.isdigit() else 0


def _group_folders() -> Iterator[tuple[Path, str, str]]:
    """Yield the folders of the control groups around this process, with the names of their limit and their use."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            root, names = _GROUP_ROOT, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = _GROUP_ROOT / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / place.lstrip("/")
        for around in (folder, *folder.parents):
            if root in (around, *around.parents):
                yield around, *names


def available_memory() -> int | None:
    """Return the bytes this process can still take without swapping, or None where the system does not say.

    The least of what the kernel calls available and of what is left in every control group around the process.
    """
    found = []
    try:
        for line in _MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    except (OSError, ValueError, IndexError):
        pass
    for folder, limit_name, use_name in _group_folders():
        limit, use = _number(folder / limit_name), _number(folder / use_name)
        if limit is not None and use is not None:
            found.append(max(0, limit - use + _reclaimable(folder)))
    return min(found, default=None)
