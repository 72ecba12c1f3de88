"""Measure the sides of a task in turn: each lives in its own process, and only the one that is measured runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from snnsim.bench.tasks import Task
from snnsim.errors import InputError

__all__ = ["Comparison", "Side", "Work", "compare", "format_comparison"]

HERE = Path(__file__).parent


class Work(Protocol):
    """What is compared: a :class:`snnsim.bench.tasks.Task` or a :class:`snnsim.bench.sim_tasks.SimTask`."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    @property
    def peers(self) -> tuple[str, ...]:
        """Sides to compare with."""
        ...

    def to_json(self, threads: int) -> dict[str, Any]:
        """Return what a worker wants."""
        ...


W = TypeVar("W", bound=Work)


@dataclass(frozen=True)
class Side:
    """What one library took for a task.

    Attributes:
        name: File in ``peers/``, ``ours`` is this package; after a colon a learning rule other than the task's.
        seconds: Wall seconds of a step in every turn.
        memory_rise: How far resident memory rose in its first two steps, bytes; of a simulation, what stays.
        versions: Of the library and what it computes with.
        missing: Why it could not be measured, or empty.
        first: What happened in the first stretch of a simulation.
        turns: What happened in every turn of a simulation.
    """

    name: str
    seconds: tuple[float, ...] = ()
    memory_rise: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    missing: str = ""
    first: dict[str, Any] = field(default_factory=dict)
    turns: tuple[dict[str, Any], ...] = ()

    @property
    def median(self) -> float:
        """Return the median seconds of a step."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Comparison(Generic[W]):
    """All sides of a task, ours first."""

    task: W
    sides: tuple[Side, ...]

    def ratios(self, side: Side) -> list[float]:
        """Return how many times longer a side took than ours, round by round."""
        return [theirs / ours for ours, theirs in zip(self.sides[0].seconds, side.seconds, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        rows = []
        for side in self.sides:
            row: dict[str, Any] = {"side": side.name, "versions": side.versions, "missing": side.missing}
            if not side.missing:
                row["memory_rise"] = side.memory_rise
            if side.seconds:
                ratios = self.ratios(side)
                row |= {
                    "median_seconds": side.median,
                    "seconds": list(side.seconds),
                    "ratio": statistics.median(ratios),
                    "ratio_range": [min(ratios), max(ratios)],
                }
            rows.append(row)
        work = {"operations": self.task.least_operations()} if isinstance(self.task, Task) else {}
        return {"task": self.task.name, **work, "sides": rows}


class _Worker:
    """A side's process; it is stopped while others are measured, so that its waiting threads take no time."""

    def __init__(self, name: str, task: Work, threads: int, rounds: int, python: str) -> None:
        file, _, learning = name.partition(":")
        given = {**task.to_json(threads), "rounds": rounds}
        if learning:
            given = {**given, "learning": learning, "small": {**given["small"], "learning": learning}}
        command = [python, str(HERE / "worker.py"), str(HERE / "peers" / f"{file}.py"), json.dumps(given)]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        for library in ("OMP", "MKL", "OPENBLAS"):
            environment[f"{library}_NUM_THREADS"] = str(threads)
        if file != "ours":  # the way of waiting that suits this package is not forced on others
            environment.pop("OMP_WAIT_POLICY", None)
        self.words = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would stop a library that talks much
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.words,
                text=True,
                env=environment,
            )
        except OSError as error:
            self.words.close()
            raise InputError(f"{python} cannot be started ({error.strerror})") from None
        try:
            first = self._answer("memory_rise", "versions")
        except InputError:
            self.end()
            raise
        self.memory_rise, self.versions = int(first["memory_rise"]), dict(first["versions"])
        self.first = dict(first.get("first", {}))
        self.process.send_signal(signal.SIGSTOP)

    def _answer(self, *names: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.words.seek(0)
            words = self.words.read().decode(errors="replace").strip().splitlines()
            raise InputError(re.sub(r"^snnsim[\w.]*: ", "", words[-1]) if words else "it ended without a word")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or any(name not in answer for name in names):
            raise InputError(f"it answered {line.strip()[:60]!r}, which is not {' and '.join(names)}")
        return answer

    def step(self) -> dict[str, Any]:
        """Take a turn and return the seconds of a step in it, and of a simulation what happened."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise InputError("it ended between two steps") from None
        answer = self._answer("seconds")
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.words):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def compare(
    task: W,
    *,
    rounds: int = 5,
    threads: int = 2,
    pythons: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Comparison[W]:
    """Measure a task on this package and on every peer that is there, in turns of a step or more.

    Args:
        task: What to do.
        rounds: Turns of every side; 0 measures memory only.
        threads: Threads of every side.
        pythons: Interpreters of sides that live elsewhere.
        tell: Told what is being done.

    Raises:
        InputError: Our own side fails.
    """
    workers: dict[str, _Worker] = {}
    missing: dict[str, str] = {}
    turns: dict[str, list[dict[str, Any]]] = {}
    try:
        for name in ("ours", *task.peers):
            tell(f"{task.name}: starting {name}")
            try:
                workers[name] = _Worker(
                    name, task, threads, rounds, (pythons or {}).get(name.partition(":")[0], sys.executable)
                )
            except InputError as error:
                if name == "ours":
                    raise InputError(f"bench {task.name}: {error}") from error
                missing[name] = str(error)
        if rounds:
            tell(f"{task.name}: {rounds} rounds in turn")
        turns = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                if name not in missing:
                    try:
                        turns[name].append(worker.step())
                    except InputError as error:
                        if name == "ours":
                            raise InputError(f"bench {task.name}: {error}") from error
                        missing[name] = str(error)
    finally:
        for worker in workers.values():
            worker.end()
    sides = [
        Side(
            name,
            tuple(float(turn["seconds"]) for turn in turns[name]),
            worker.memory_rise,
            worker.versions,
            first=worker.first,
            turns=tuple(turns[name]),
        )
        for name, worker in workers.items()
        if name not in missing
    ]
    return Comparison(task, (*sides, *(Side(name, missing=why) for name, why in missing.items())))


def format_comparison(comparison: Comparison[Task], multiply: float = 0.0) -> str:
    """Return a comparison as a small table of text.

    Args:
        comparison: What was measured.
        multiply: Operations a second that this machine reaches in a product, to show how far ours is from it.
    """
    task, ours = comparison.task, comparison.sides[0]
    sizes = "-".join(map(str, task.sizes))
    lines = [f"{task.name}: {task.summary}; {sizes}, batch {task.batch}"]
    if task.n_steps:
        lines[0] += f", T = {task.n_steps}"
    wide = max(13, *(len(side.name) for side in comparison.sides))
    for side in comparison.sides:
        if side.missing:
            lines.append(f"  {side.name:<{wide}} not measured: {side.missing}")
            continue
        text = f"  {side.name:<{wide}} " + (f"{side.median * 1e3:9.1f} ms  " if side.seconds else "")
        text += f"{side.memory_rise / 2**20:6.0f} MiB"
        if side is not ours:
            if side.seconds:
                ratios = comparison.ratios(side)
                text += f"   {statistics.median(ratios):5.2f} x ours ({min(ratios):.2f}-{max(ratios):.2f}),"
            text += f" ours takes {ours.memory_rise / max(1, side.memory_rise):.2f} of its memory"
        elif multiply and ours.seconds and task.least_operations():
            floor = task.least_operations() / multiply
            text += f"   {ours.median / floor:5.2f} x the floor of its products ({floor * 1e3:.1f} ms)"
        lines.append(text)
    return "\n".join(lines)
