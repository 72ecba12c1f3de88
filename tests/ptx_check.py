"""Compile CUDA kernels for devices without having one, and look at what comes out.

    python -m tests.ptx_check kernels.json --arch 80 --arch 90

``kernels.json`` is what :mod:`tests.ptx_record` wrote. Every kernel in it is compiled with the types it ran with, to
PTX by NVVM and to machine code by ``ptxas``. It fails where

- a kernel does not compile,
- a kernel of the forward direction holds a fused multiply-add: it has one rounding where the CPU's kernels have two,
- a kernel spills registers beyond :data:`SPILLS`.

It needs ``numba-cuda`` and ``ptxas`` (``nvidia-cuda-nvcc``), no device and no driver: ``make ptx``.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FREE_ROUNDING = ("backward", "gradient", "profile")
"""Words in the names of kernels that agree with the CPU within rounding, not in their bits."""

FUSED = {"dropout_factors": 1}
"""Fused multiply-adds that a kernel of the forward direction may hold, because product and sum are exact anyway: a
uniform number joins 27 and 26 random bits."""

SPILLS: dict[str, int] = {}
"""Bytes that a kernel may spill."""

ARCHITECTURES = (75, 80, 90)
"""What is compiled for: the oldest of CUDA 13, A100, H100 and H200."""

THREADS = 256
"""Threads of a block for which occupancy is stated."""

SHARED = {75: 65536, 80: 167936, 86: 102400, 89: 102400, 90: 233472}
WARPS = {75: 32, 80: 64, 86: 48, 89: 48, 90: 64}
REGISTERS = 65536
"""What a multiprocessor has: shared memory in bytes and warps by compute capability, registers."""


@dataclass(frozen=True)
class Built:
    """One kernel for one architecture.

    Attributes:
        name: Module and kernel.
        types: Of its arguments.
        arch: Compute capability, such as 90.
        registers: A thread.
        spilled: Bytes stored and loaded because registers did not suffice.
        stack: Bytes of local memory a thread.
        shared: Bytes of shared memory a block.
        fused: Fused multiply-adds of floats.
    """

    name: str
    types: tuple[str, ...]
    arch: int
    registers: int
    spilled: int
    stack: int
    shared: int
    fused: int

    @property
    def occupancy(self) -> float:
        """Return the share of a multiprocessor's warps that can live at once, in blocks of 256 threads."""
        a_warp = -(-max(self.registers, 1) * 32 // 256) * 256
        warps = THREADS // 32
        blocks = min(WARPS[self.arch] // warps, REGISTERS // 4 // a_warp * 4 // warps)
        if self.shared:
            blocks = min(blocks, SHARED[self.arch] // (self.shared + 1024))
        return blocks * warps / WARPS[self.arch]

    @property
    def most_threads(self) -> int:
        """Return the threads of the largest block that can start: each warp lies whole in one of four parts."""
        a_warp = -(-max(self.registers, 1) * 32 // 256) * 256
        return min(1024, REGISTERS // 4 // a_warp * 4 * 32)

    def problems(self) -> list[str]:
        """Return what is wrong with it."""
        kernel = self.name.rpartition(".")[2]
        found = []
        if self.most_threads < THREADS:
            found.append(f"{self.registers} registers: at most {self.most_threads} threads a block")
        if self.fused > FUSED.get(kernel, 0) and not any(word in kernel for word in FREE_ROUNDING):
            found.append(f"{self.fused} fused multiply-adds")
        if self.spilled > SPILLS.get(kernel, 0):
            found.append(f"{self.spilled} bytes spilled, allowed are {SPILLS.get(kernel, 0)}")
        return found


def numba_type(text: str) -> Any:
    """Return the Numba type of a text that ``ptx_record.type_of`` made."""
    from numba import types

    if text.startswith("("):
        return types.Tuple([numba_type(item) for item in split(text[1:-1])])
    array = re.fullmatch(r"(\w+)\[(\d+)([CA])\]", text)
    if array:
        return types.Array(getattr(types, array[1]), int(array[2]), array[3])
    return getattr(types, text)


def split(text: str) -> list[str]:
    """Return the texts between spaces that no bracket encloses."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == " " and not depth:
            items.append("")
        else:
            items[-1] += letter
    return [item for item in items if item]


def pretend(arch: int) -> None:
    """Let Numba compile for an architecture although there is no such device."""

    class Device:
        compute_capability = divmod(arch, 10)

    for name in ("compiler", "dispatcher", "target"):
        module = importlib.import_module(f"numba.cuda.{name}")
        if hasattr(module, "get_current_device"):
            module.get_current_device = Device


def ptxas() -> Path:
    """Return the assembler that the package ``nvidia-cuda-nvcc`` brings."""
    for folder in map(Path, sys.path):
        for found in sorted(folder.glob("nvidia/*/bin/ptxas")):
            return found
    raise SystemExit("ptx_check: ptxas was not found; install it with: pip install nvidia-cuda-nvcc")


def build(row: dict[str, Any], arch: int, assembler: Path) -> Built:
    """Compile one kernel for one architecture."""
    from numba import cuda

    kernel: Any = importlib.import_module(row["module"])
    for part in row["kernel"].split("."):
        kernel = getattr(kernel, part)
    signature = tuple(numba_type(text) for text in row["types"])
    pretend(arch)
    text, _ = cuda.compile_ptx(kernel.py_func, signature, cc=divmod(arch, 10))
    with tempfile.TemporaryDirectory(prefix="snnsim-ptx-") as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(text)
        command = [str(assembler), "-v", f"-arch=sm_{arch}", str(file), "-o", str(Path(folder) / "kernel.cubin")]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr.strip().splitlines()[0])
    return read(row, arch, text, run.stderr)


def tried(work: tuple[dict[str, Any], int], assembler: Path) -> Built | str:
    """Compile one kernel for one architecture, or say why it does not compile."""
    try:
        return build(*work, assembler)
    except Exception as error:
        return " ".join(str(error).split())[:400]


def read(row: dict[str, Any], arch: int, text: str, words: str) -> Built:
    """Return what PTX and the words of ``ptxas -v`` say of a kernel."""

    def number(pattern: str) -> int:
        return max((int(found) for found in re.findall(pattern, words)), default=0)

    spilled = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    name = f"{row['module'].removeprefix('snnsim.kernels.')}.{row['kernel']}"
    return Built(
        name,
        tuple(row["types"]),
        arch,
        number(r"Used (\d+) registers"),
        spilled,
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes smem"),
        len(re.findall(r"\bfma\.rn(?:\.ftz)?\.f(?:32|64)\b", text)),
    )


def table(rows: list[Built]) -> str:
    """Return one line a kernel and precision: what the types with the most registers need."""
    most: dict[tuple[str, str, int], Built] = {}
    for row in rows:
        precision = "f64" if any("float64[" in text for text in row.types) else "f32"
        key = (row.name, precision, row.arch)
        if key not in most or row.registers > most[key].registers:
            most[key] = row
    wide = max((len(name) for name, _, _ in most), default=6)
    lines = [f"{'kernel':<{wide}}  arch  reg  spill  stack  shared   fma  occupancy"]
    for (name, precision, arch), row in sorted(most.items()):
        lines.append(
            f"{name:<{wide}}  {arch:>4}  {row.registers:>3}  {row.spilled:>5}  {row.stack:>5}  {row.shared:>6}  "
            f"{row.fused:>4}  {row.occupancy:>9.0%}  {precision}"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    """Compile everything, print the table and what is wrong; return 1 if anything is."""
    parser = argparse.ArgumentParser(prog="ptx_check", description="Compile CUDA kernels without a device.")
    parser.add_argument("record", type=Path, help="what tests.ptx_record wrote")
    parser.add_argument("--arch", type=int, action="append", choices=sorted(WARPS), help="compute capability")
    given = parser.parse_args(words)
    rows = json.loads(given.record.read_text(encoding="utf-8"))
    assembler = ptxas()
    built: list[Built] = []
    wrong: dict[str, list[int]] = {}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        work = list(itertools.product(rows, given.arch or ARCHITECTURES))
        for (row, arch), found in zip(work, pool.map(tried, work, itertools.repeat(assembler)), strict=True):
            if isinstance(found, Built):
                built.append(found)
            for problem in found.problems() if isinstance(found, Built) else [found]:
                place = f"{row['module']}.{row['kernel']}({', '.join(row['types'])}): {problem}"
                wrong.setdefault(place, []).append(arch)
    print(table(built))
    for line, architectures in wrong.items():
        print(f"WRONG  {line} (sm_{', sm_'.join(map(str, architectures))})")
    kernels = {(row["module"], row["kernel"]) for row in rows}
    print(f"{len(kernels)} kernels, {len(rows)} signatures, {len(built)} compiled, {len(wrong)} wrong")
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
