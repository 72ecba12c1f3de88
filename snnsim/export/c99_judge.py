"""The judge of a C99 export: the system's compiler makes a program of the written files, and that program runs.

Nothing of snnsim computes here; samples go in and spikes come out through pipes. See ``c99_host.c.in`` for the format.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import sha256_file

__all__ = ["FLAGS", "C99Judge", "C99Run", "Compiler", "CompilerMissingError", "find_compiler", "pack_samples"]

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
"""How the sources are compiled for a proof."""

SECONDS = 600
Array = npt.NDArray[Any]


class CompilerMissingError(InputError):
    """No C compiler was found, so nothing can be compiled and compared."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler: its command, and the first line of what it says about itself."""

    command: str
    version: str


def find_compiler() -> Compiler:
    """Return the compiler in ``$CC``, else ``cc``, ``gcc`` or ``clang``.

    Raises:
        CompilerMissingError: There is none.
    """
    given = os.environ.get("CC", "").strip()
    for name in [given] if given else ["cc", "gcc", "clang"]:
        path = shutil.which(name)
        if path is not None:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
            return Compiler(path, said.splitlines()[0] if said else name)
    looked = f"$CC is {given!r}, which is no program" if given else "looked for cc, gcc and clang"
    raise CompilerMissingError(f"no C compiler found ({looked}): install one, for example gcc, or set CC")


@dataclass(frozen=True, eq=False)
class C99Run:
    """What the program gave.

    Attributes:
        spikes: By population with a threshold, bool ``(time, sample, neuron)``.
        scores: int64 ``(sample, class)``, or None without a readout.
        membranes: By population after the last step, int64 ``(sample, neuron)``.
        operations: Synapses walked, int64 ``(sample,)``.
        updates: Neurons updated, int64 ``(sample,)``.
        ticks: Ticks of the processor's counter in the step function, int64 ``(sample,)``; 0 where there is none.
    """

    spikes: dict[str, npt.NDArray[np.bool_]]
    scores: npt.NDArray[np.int64] | None
    membranes: dict[str, npt.NDArray[np.int64]]
    operations: npt.NDArray[np.int64]
    updates: npt.NDArray[np.int64]
    ticks: npt.NDArray[np.int64]


def pack_samples(counts: Array, n_steps: npt.ArrayLike | None = None) -> bytes:
    """Return counts ``(time, sample, unit)`` in the format that the host program reads; all steps, or so many each."""
    samples, size = counts.shape[1:]
    each = np.broadcast_to(counts.shape[0] if n_steps is None else n_steps, samples)
    parts = [np.uint32(samples).tobytes()]
    units = np.arange(size, dtype=np.uint16)
    for sample in range(samples):
        parts.append(np.uint32(each[sample]).tobytes())
        for row in counts[: each[sample], sample]:
            listed = np.repeat(units, row)
            parts.append(np.uint32(listed.size).tobytes() + listed.tobytes())
    return b"".join(parts)


class C99Judge:
    """The compiled program of one export folder; a context that removes it.

    Args:
        folder: What :func:`snnsim.export.c99.write_c99` wrote.
        flags: Flags of the compiler.
        compiler: Default: :func:`find_compiler`.

    Raises:
        CompilerMissingError: There is no compiler.
        InputError: The compiler refuses the sources; its first complaint is in the message.
        SnnsimFileError: The folder does not hold an export.
    """

    def __init__(self, folder: str | Path, *, flags: tuple[str, ...] = FLAGS, compiler: Compiler | None = None) -> None:
        folder = Path(folder)
        try:
            self.description = json.loads((folder / "export.json").read_text(encoding="utf-8"))
            self.prefix = str(self.description["prefix"])
            layers = self.description["layers"]
            self.layers = [(str(item["title"]), int(item["size"]), bool(item["spiking"])) for item in layers]
            self.classes = int(self.description["classes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SnnsimFileError(
                folder / "export.json", "", f"expected the folder of a c99 export ({error})"
            ) from None
        self.compiler = compiler or find_compiler()
        self.flags = flags
        sources = [f"{self.prefix}.h", f"{self.prefix}.c", f"{self.prefix}_host.c"]
        self.hashes = {name: sha256_file(folder / name) for name in sources}
        self._kept = TemporaryDirectory(prefix="snnsim-c99-")
        self.place = Path(self._kept.name)
        for name in sources:
            shutil.copyfile(folder / name, self.place / name)
        self.program = self.place / "host"
        upper = self.prefix.upper()
        try:
            self._compile([*flags, f"-D{upper}_COUNT", *sources[1:], "-o", self.program.name])
        except BaseException:
            self.close()
            raise
        self.name = f"{self.prefix}.c compiled by {self.compiler.version}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the program."""
        self._kept.cleanup()

    def _compile(self, arguments: list[str]) -> None:
        try:
            done = subprocess.run(
                [self.compiler.command, *arguments],
                cwd=self.place,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"c99: {self.compiler.version} took longer than {SECONDS} s; prune the network") from error
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
            raise InputError(f"c99: {self.compiler.version} refuses the sources: {first}")

    def run(self, counts: Array, n_steps: npt.ArrayLike | None = None) -> C99Run:
        """Run samples of counts ``(time, sample, unit)``, for all steps or for ``n_steps`` of each, ``(sample,)``."""
        done = self.execute(pack_samples(counts, n_steps))
        each = np.broadcast_to(counts.shape[0] if n_steps is None else n_steps, counts.shape[1])
        return self._parse(done.stdout, counts.shape[0], each)

    def execute(self, data: bytes, *before: str, program: str = "") -> subprocess.CompletedProcess[bytes]:
        """Run the program on packed samples, under another command if one is given before it.

        Raises:
            InputError: It ends with an error, or not in time.
        """
        words = [*before, program or str(self.program)]
        try:
            done = subprocess.run(words, input=data, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"c99: the program took longer than {SECONDS} s; run fewer or shorter samples") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[:300]
            raise InputError(f"c99: the program ended with status {done.returncode} {said}")
        return done

    def _parse(self, data: bytes, n_steps: int, each: Array) -> C99Run:
        samples = each.size
        spiking = [(title, size) for title, size, fires in self.layers if fires]
        spikes = {title: np.zeros((n_steps, samples, size), np.bool_) for title, size in spiking}
        scores = np.zeros((samples, self.classes), np.int64)
        membranes = {title: np.zeros((samples, size), np.int64) for title, size, _ in self.layers}
        counters = np.zeros((samples, 3), np.int64)
        place = 0
        try:
            for sample in range(samples):
                for step in range(each[sample]):
                    for title, _ in spiking:
                        number = int.from_bytes(data[place : place + 2], sys.byteorder)
                        if number:
                            units = np.frombuffer(data, np.uint16, number, place + 2)
                            spikes[title][step, sample, units] = True
                        place += 2 + 2 * number
                scores[sample] = np.frombuffer(data, np.int64, self.classes, place)
                place += 8 * self.classes
                for title, size, _ in self.layers:
                    membranes[title][sample] = np.frombuffer(data, np.int32, size, place)
                    place += 4 * size
                counters[sample] = np.frombuffer(data, np.int64, 3, place)
                place += 24
        except (ValueError, IndexError) as error:
            raise InputError(f"c99: the program's output ends too soon or makes no sense ({error})") from None
        if place != len(data):
            raise InputError(f"c99: the program wrote {len(data)} bytes, expected {place}")
        return C99Run(spikes, scores if self.classes else None, membranes, *counters.T)

    def sizes(self, flags: tuple[str, ...] = ("-std=c99", "-Os")) -> dict[str, int] | None:
        """Return bytes of code and constants (text), of data and of memory (bss) of the network alone, by ``size``.

        None where that program is missing.
        """
        tool = shutil.which("size")
        if tool is None:
            return None
        self._compile([*flags, "-c", f"{self.prefix}.c", "-o", "alone.o"])
        said = subprocess.run([tool, "alone.o"], cwd=self.place, capture_output=True, text=True, check=True).stdout
        text, data, bss = said.splitlines()[1].split()[:3]
        return {"text": int(text), "data": int(data), "bss": int(bss)}

    def symbols(self, flags: tuple[str, ...] = ("-std=c99", "-Os")) -> dict[str, int] | None:
        """Return the bytes of every array in the object, without the prefix, by ``nm``; None where that is missing."""
        tool = shutil.which("nm")
        if tool is None:
            return None
        self._compile([*flags, "-c", f"{self.prefix}.c", "-o", "alone.o"])
        said = subprocess.run(
            [tool, "-S", "alone.o"], cwd=self.place, capture_output=True, text=True, check=True
        ).stdout
        rows = re.findall(rf"^[0-9a-f]+ ([0-9a-f]+) [bBdDrR] {self.prefix}_(\w+)$", said, re.MULTILINE)
        return {name: int(size, 16) for size, name in rows}

    def cost(self, counts: Array) -> tuple[float | None, float | None]:
        """Return host instructions and ticks of the host's counter a sample within the step function.

        The program is compiled again, without counting operations. Instructions are counted by valgrind, on the samples
        given; None where it is missing. Ticks are the median of the samples; None where the host has no counter.
        """
        sources = (f"{self.prefix}.c", f"{self.prefix}_host.c")
        self._compile([*self.flags, *sources, "-o", "plain"])
        program, data = str(self.place / "plain"), pack_samples(counts)
        done = self.execute(data, program=program)
        ticks = float(
            np.median(self._parse(done.stdout, counts.shape[0], np.full(counts.shape[1], counts.shape[0])).ticks)
        )
        tool = shutil.which("valgrind")
        if tool is None:
            return None, ticks or None
        options = ("--tool=callgrind", "--callgrind-out-file=/dev/null", f"--toggle-collect={self.prefix}_step")
        found = re.search(rb"Collected : (\d+)", self.execute(data, tool, *options, program=program).stderr)
        return int(found.group(1)) / counts.shape[1] if found else None, ticks or None
