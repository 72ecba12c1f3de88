"""`snnsim doctor`: what is installed, what is missing and the command that fixes it.

Versions come from the installed metadata and nothing heavy is imported, so the answer comes at once.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer

from snnsim.cli.doctor_gpu import Gpu, find_gpu
from snnsim.cli.output import emit
from snnsim.files import cache_folder
from snnsim.machine import usable_cores

__all__ = ["Library", "diagnose", "doctor"]

PURPOSES = {
    "nir": "export to and import from NIR",
    "data": "downloads and readers of many event data sets",
    "audio": "reading flac, ogg and other audio",
    "vision": "the data set of handwritten digits",
    "speech": "making spoken digits with a speech synthesiser",
    "report": "pictures and report.html",
    "log": "TensorBoard logs",
    "peers": "import of SpikingJelly models, comparisons in tests",
    "sonata": "opening exported SONATA files in tests",
    "xylo": "proofs of Xylo exports by its simulator",
    "sanafe": "proofs of SANA-FE exports, energy estimates",
    "nest": "comparisons of simulated spikes with NEST in tests",
    "cuda": "kernels on NVIDIA GPUs",
    "dev": "tests, types and lint",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")
MINIMUM_PYTHON = (3, 11)
DISK_WARNING_GIB = 2.0


@dataclass(frozen=True)
class Library:
    """One requirement of snnsim.

    Attributes:
        name: Name on the package index.
        extra: The extra that installs it, ``""`` if always installed.
        wanted: Version range, for example ``">=2.0"``.
        version: Installed version, None if missing.
        enough: Whether the installed version lies above the lower bound.
    """

    name: str
    extra: str
    wanted: str
    version: str | None
    enough: bool


def _numbers(version: str) -> tuple[int, ...]:
    """Release numbers of a version: ``2.13.0+cpu`` gives (2, 13, 0)."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release.group().split(".")) if release else ()


def _libraries() -> list[Library]:
    found = []
    for requirement in metadata.requires("snnsim") or ():
        match = re.match(r"([A-Za-z0-9._-]+)\s*([^;]*)(?:;.*extra\s*==\s*['\"]([^'\"]+)['\"])?", requirement)
        if match is None:
            continue
        name, wanted, extra = match.group(1), match.group(2).strip(), match.group(3) or ""
        try:
            version: str | None = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        lower = re.search(r">=\s*([\d.]+)", wanted)
        enough = version is not None and (lower is None or _numbers(version) >= _numbers(lower.group(1)))
        found.append(Library(name, extra, wanted, version, enough))
    return found


def _cpu() -> str:
    """Model name of the processor, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the standard library knows less
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _existing(folder: Path) -> Path:
    """Nearest folder that exists at or above ``folder``."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _problems(libraries: list[Library], cache: Path, free_gib: float, gpu: Gpu) -> list[dict[str, str]]:
    problems = []

    def add(level: str, what: str, fix: str) -> None:
        problems.append({"level": level, "what": what, "fix": fix})

    install = f"{sys.executable} -m pip install"

    if sys.version_info < MINIMUM_PYTHON:
        add("error", f"Python {platform.python_version()} is older than 3.11", "install Python 3.11 or newer")
    core = [library for library in libraries if not library.extra and not library.enough]
    for library in core:
        state = "is missing" if library.version is None else f"{library.version} is too old"
        add("error", f"{library.name} {state}", f"{install} '{library.name}{library.wanted}'")
    for extra, purpose in PURPOSES.items():
        lacking = [library.name for library in libraries if library.extra == extra and not library.enough]
        if lacking:
            what = f"extra '{extra}' ({purpose}): {', '.join(lacking)} not installed or too old"
            add("note", what, f"{install} 'snnsim[{extra}]'")
    if not os.access(_existing(cache), os.W_OK):
        add("error", f"the cache folder {cache} is not writable", "set SNNSIM_CACHE to a folder that is")
    if free_gib < DISK_WARNING_GIB:
        add("warning", f"only {free_gib:.1f} GiB free at {cache}", "free some space or set SNNSIM_CACHE")
    if gpu.problem is not None:
        what, _, fix = gpu.problem.partition("; ")
        add("note" if gpu.name is None else "warning", f"--device cuda: {what}", fix or "use the CPU")
    for name in THREAD_VARIABLES:
        value = os.environ.get(name, "")
        if value and (not value.isdigit() or int(value) < 1):
            add("error", f"{name} is {value!r}, expected a positive number", f"unset {name}")
    return problems


def diagnose() -> dict[str, Any]:
    """Collect what `snnsim doctor` prints, as plain values.

    Returns:
        ``python``, ``cpu``, ``cores``, ``memory_gib``, ``threads`` (variables that are set), ``cache``,
        ``free_gib``, ``gpu`` (name, memory, versions of CUDA, or why not), ``versions`` (name to version or None),
        ``extras`` (extra to whether it is complete), ``torch_installed`` and ``problems`` (``level``, ``what``,
        ``fix``).
    """
    libraries = _libraries()
    cache = cache_folder()
    free_gib = round(shutil.disk_usage(_existing(cache)).free / 2**30, 1)
    gpu = find_gpu()
    extras: dict[str, bool] = {}
    for library in libraries:
        if library.extra:
            extras[library.extra] = extras.get(library.extra, True) and library.enough
    return {
        "snnsim": metadata.version("snnsim"),
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if os.environ.get(name)},
        "cache": str(cache),
        "free_gib": free_gib,
        "gpu": gpu.to_dict(),
        "versions": {library.name: library.version for library in libraries},
        "extras": extras,
        "torch_installed": util.find_spec("torch") is not None,
        "problems": _problems(libraries, cache, free_gib, gpu),
    }


def _text(found: dict[str, Any]) -> str:
    versions = found["versions"]
    threads = ", ".join(f"{name}={value}" for name, value in found["threads"].items()) or "all cores"
    memory = f", {found['memory_gib']} GiB memory" if found["memory_gib"] else ""
    lines = [
        f"snnsim {found['snnsim']} on Python {found['python']} ({found['executable']})",
        f"  machine   {found['cpu']}, {found['cores']} cores{memory}, {found['system']}",
        f"  gpu       {Gpu(**found['gpu']).line()}",
        f"  threads   {threads}",
        f"  cache     {found['cache']} ({found['free_gib']} GiB free)",
        "",
        "libraries",
    ]
    core = [library for library in _libraries() if not library.extra]
    lines += [f"  {library.name:<12} {library.version or 'missing'}" for library in core]
    lines += ["", "extras"]
    for extra, complete in found["extras"].items():
        names = [library.name for library in _libraries() if library.extra == extra]
        state = ", ".join(f"{name} {versions[name] or 'missing'}" for name in names)
        lines.append(f"  {'+' if complete else '-'} {extra:<8} {PURPOSES.get(extra, '')}: {state}")
    lines.append("")
    if not found["problems"]:
        lines.append("Everything is there.")
    for problem in found["problems"]:
        lines.append(f"{problem['level']}: {problem['what']}\n    fix: {problem['fix']}")
    return "\n".join(lines)


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what is installed, what is missing and the command that fixes it.

    Ends with status 1 if something that every command needs is missing.
    """
    found = diagnose()
    emit(found, json=json, text=_text(found))
    if any(problem["level"] == "error" for problem in found["problems"]):
        raise typer.Exit(1)
