"""Measure tasks on a CUDA device: every side lives in a process of its own for all of them, one works at a time.

A side loads its library and compiles its kernels once. For every task each side in turn builds it, does some steps to
warm up (the last gives its memory) and stands still; then all take turns, ``A B A B``. What cannot be measured is
named with how to install it; a side that takes too long, or runs out of memory, loses that task and no other.
"""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snnsim.bench.cuda_floor import Ceilings, floors, least_seconds
from snnsim.bench.cuda_tasks import HOW_TO_INSTALL, SIDES, CudaTask
from snnsim.errors import InputError

__all__ = ["CudaResult", "CudaSide", "Limits", "measure_cuda"]

HERE = Path(__file__).parent
LEAST = 5.0


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        rounds: Turns of every side.
        turn: A turn; one step at least.
        side: To build a task and warm up, or one turn.
        total: Everything; tasks that have not begun, or not ended, by then are left out and named.
    """

    rounds: int = 3
    turn: float = 0.4
    side: float = 90.0
    total: float = 570.0


@dataclass(frozen=True)
class CudaSide:
    """What one side took for a task.

    Attributes:
        name: Of the side.
        seconds: By part, the mean seconds of it in every turn.
        peak: Most bytes that its tensors had at once, as its library counts; 0 if it does not.
        rise: How far the memory in use on the device rose, as NVML tells: kernels and caches too; 0 without NVML.
        versions: Of what is measured.
        missing: Why it was not measured, with what to do, or empty.
    """

    name: str
    seconds: dict[str, tuple[float, ...]] = field(default_factory=dict)
    peak: int = 0
    rise: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    missing: str = ""

    def median(self, part: str) -> float:
        """Return the median seconds of a part over the turns."""
        return statistics.median(self.seconds[part])

    def ratios(self, ours: CudaSide, part: str) -> list[float]:
        """Return how many times longer a part took than ours, round by round."""
        pairs = zip(ours.seconds[part], self.seconds[part], strict=True)
        return [theirs / own for own, theirs in pairs]


@dataclass(frozen=True)
class CudaResult:
    """What a task gave.

    Attributes:
        task: The task.
        sides: What each side took, ours first.
        facts: What else is to be told.
        floor: Least seconds by part; empty where there is none, and in the simulator.
        missing: Why it was left out, or empty.
        simulated: Whether Numba's simulator ran it, so that times mean nothing.
    """

    task: CudaTask
    sides: tuple[CudaSide, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)
    missing: str = ""
    simulated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        rows: list[dict[str, Any]] = []
        for side in self.sides:
            row: dict[str, Any] = {"side": side.name, "missing": side.missing, "versions": side.versions}
            row |= {"peak_bytes": side.peak, "device_rise_bytes": side.rise, "parts": {}}
            for part, seconds in side.seconds.items():
                ratios = side.ratios(self.sides[0], part)
                row["parts"][part] = {
                    "median_seconds": side.median(part),
                    "seconds": list(seconds),
                    "ratio": statistics.median(ratios),
                    "ratio_range": [min(ratios), max(ratios)],
                }
            rows.append(row)
        task = self.task
        sizes = {"sizes": list(task.sizes), "n_steps": task.n_steps, "batch": task.batch, "scale": task.scale}
        return {
            "task": task.name,
            "missing": self.missing,
            **sizes,
            "floor_seconds": self.floor,
            "facts": self.facts,
        } | {"sides": rows}


class _Process:
    """The process of one side."""

    def __init__(self, name: str, python: str) -> None:
        base, _, way = name.partition(":")
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if base == "ours":  # this package, also where it runs from a source tree
            places = [str(HERE.parents[1]), *filter(None, [environment.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(places)
        command = [python, str(HERE / "cuda_worker.py"), str(HERE / "peers" / f"{SIDES[base]}.py"), way]
        self.name = name
        self.words = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would stop a library that talks much
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words, text=True, env=environment
            )
        except OSError as error:
            self.words.close()
            raise InputError(f"{python} cannot be started ({error.strerror})") from None

    def ask(self, limit: float, *wanted: str, **command: Any) -> dict[str, Any]:
        """Give a command and return its answer.

        Args:
            limit: Seconds to wait for it.
            wanted: What it must hold.
            command: The command.

        Raises:
            InputError: It fails, the process ends, or there is no answer in time.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise InputError(self._last_words()) from None
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        if not ready:
            self.end()
            raise InputError(f"it took longer than {limit:.0f} s")
        line = self.process.stdout.readline()
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not line:
            raise InputError(self._last_words())
        if isinstance(answer, dict) and "error" in answer:
            raise InputError(str(answer["error"]))
        if not isinstance(answer, dict) or any(name not in answer for name in wanted):
            raise InputError(f"it answered {line.strip()[:60]!r}, which is not {' and '.join(wanted)}")
        return answer

    def _last_words(self) -> str:
        self.words.seek(0)
        words = self.words.read().decode(errors="replace").strip().splitlines()
        return words[-1][:300] if words else "it ended without a word"

    @property
    def alive(self) -> bool:
        """Return whether it can be asked."""
        return self.process.poll() is None and not self.words.closed

    def end(self) -> None:
        """End the process; it may have ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.words):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue


class _Bench:
    """All processes of one run."""

    def __init__(self, pythons: Mapping[str, str], threads: int, limits: Limits, tell: Callable[[str], None]) -> None:
        self.pythons, self.threads, self.limits, self.tell = pythons, threads, limits, tell
        self.processes: dict[str, _Process] = {}
        self.absent: dict[str, str] = {}
        self.ceilings: Ceilings | None = None
        self.simulated = False
        self.deadline = time.perf_counter() + limits.total

    def process(self, name: str) -> _Process:
        """Return the living process of a side."""
        if name in self.absent:
            raise InputError(self.absent[name])
        if name not in self.processes or not self.processes[name].alive:
            if name in self.processes:
                self.processes[name].end()
            python = self.pythons.get(name) or self.pythons.get(name.partition(":")[0]) or sys.executable
            self.processes[name] = _Process(name, python)
        return self.processes[name]

    def within(self, seconds: float) -> float:
        """Return the seconds that a side may take: no more than are left, but a few."""
        return min(seconds, max(LEAST, self.deadline - time.perf_counter()))

    def end(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.end()

    def sentence(self, name: str, error: InputError) -> str:
        """Return why a side is missing; a library that is not installed is not asked again."""
        words = str(error)
        if "No module named" in words or "has no CuPy" in words:
            how = HOW_TO_INSTALL.get(name) or HOW_TO_INSTALL.get(name.partition(":")[0], "")
            words = f"{words} ({how})" if how else words
            self.absent.setdefault(name, words)
            return self.absent[name]
        return words

    def measure(self, task: CudaTask) -> CudaResult:
        """Measure one task on all its sides.

        Raises:
            InputError: Our own side fails.
        """
        built: dict[str, dict[str, Any]] = {}
        missing: dict[str, str] = {}
        try:
            return self._measured(task, built, missing)
        except InputError:
            self._stop("ours")
            raise
        finally:
            for name in built:
                if name not in missing and self.processes[name].alive:
                    with suppress(InputError):
                        self.processes[name].ask(self.limits.side, do="drop")

    def _stop(self, name: str) -> None:
        """End the process of a side that failed: an error of the device stays with its process."""
        if name in self.processes:
            self.processes[name].end()

    def _measured(self, task: CudaTask, built: dict[str, dict[str, Any]], missing: dict[str, str]) -> CudaResult:
        """Measure a task; what was built and who failed is written down for :meth:`measure`."""
        limits = self.limits
        for name in ("ours", *task.peers):
            self.tell(f"{task.name}: {name}")
            given = {**task.to_json("cuda", self.threads), "side": name}
            limit = self.within(limits.side * (3 if name == "ours" else 1))
            try:
                built[name] = self.process(name).ask(limit, "rise", "versions", do="build", task=given)
            except InputError as error:
                if name == "ours":
                    raise
                missing[name] = self.sentence(name, error)
                self._stop(name)
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in built}
        for _ in range(limits.rounds if task.kind not in ("ceilings", "precision") else 0):
            for name in built:
                if name in missing:
                    continue
                try:
                    answer = self.process(name).ask(self.within(limits.side), "seconds", do="turn", seconds=limits.turn)
                except InputError as error:
                    if name == "ours":
                        raise
                    missing[name] = str(error)
                    self._stop(name)
                else:
                    turns[name].append(dict(answer["seconds"]))
        facts = dict(built["ours"].get("facts", {}))
        if task.kind == "ceilings":
            self.simulated = facts["simulated"]
        if task.kind == "ceilings" and not self.simulated:
            self.ceilings = Ceilings(facts["copy_bytes"], facts["operations"])
        sides = [
            CudaSide(name, _parts(turns[name]), answer.get("peak", 0), answer["rise"], answer["versions"])
            for name, answer in built.items()
            if name not in missing
        ]
        sides += _engines(task, sides)
        ceilings = self.ceilings
        least = {} if ceilings is None else {part: least_seconds(row, ceilings) for part, row in floors(task).items()}
        sides += [CudaSide(name, missing=why) for name, why in missing.items()]
        return CudaResult(task, tuple(sides), facts, least, simulated=self.simulated)


def _parts(turns: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """Return seconds by part; where a library gives both passes together, backward is what is left of them."""
    rows = []
    for turn in turns:
        row = dict(turn)
        if "both" in row:
            row["backward"] = max(0.0, row.pop("both") - row["forward"])
        rows.append(row)
    return {part: tuple(row[part] for row in rows) for part in (rows[0] if rows else {})}


def _engines(task: CudaTask, sides: list[CudaSide]) -> list[CudaSide]:
    """Make sides of the two engines of a simulation, which one process has run in turn."""
    if task.kind != "sim":
        return []
    (ours,) = sides
    sides.clear()
    return [
        CudaSide('engine "cuda"', {"stretch": ours.seconds["cuda"]}, 0, ours.rise, ours.versions),
        CudaSide('engine "clock"', {"stretch": ours.seconds["clock"]}, 0, 0, ours.versions),
    ]


def measure_cuda(
    tasks: Sequence[CudaTask],
    *,
    limits: Limits | None = None,
    threads: int = 1,
    pythons: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
    told: Callable[[CudaResult], None] = lambda result: None,
) -> list[CudaResult]:
    """Measure tasks on this package and on every library that is there.

    Args:
        tasks: What to do, what the device can do at best first.
        limits: How long things may take.
        threads: Threads of the CPU, for the engine "clock" and for references.
        pythons: Interpreters of sides that live elsewhere.
        tell: Told what is being done.
        told: Given every result when it is there.

    Raises:
        InputError: What the device can do at best cannot be measured.
    """
    limits = limits or Limits()
    bench, done = _Bench(pythons or {}, threads, limits, tell), []
    try:
        for task in tasks:
            if time.perf_counter() > bench.deadline:
                result = CudaResult(
                    task, missing=f"no time was left of {limits.total:.0f} s; name it to measure it alone"
                )
            else:
                try:
                    result = bench.measure(task)
                except InputError as error:
                    if task.kind == "ceilings":
                        raise InputError(f"bench cuda: {error}") from error
                    result = CudaResult(task, missing=str(error))
            done.append(result)
            told(result)
    finally:
        bench.end()
    return done
