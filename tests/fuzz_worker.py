"""Fuzzing of file readers: seeded mutants, one reusable limited worker process.

Use it from any room::

    from fuzz_worker import FuzzReport, fuzz, mutants
    report = fuzz("test_data_fuzz:read_one", original_bytes, folder, suffix=".h5", count=1000, seed=0)
    report.check()

The reader runs in its own process, so a crash of a C library or an endless loop is counted and does not end the
tests. It must be a function ``path -> None`` that may raise nothing but a subclass of ``SnnsimError``.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from snnsim.errors import SnnsimError

MEMORY = 3 << 30
LONGEST = 2.0  # seconds of CPU time a mutant may take: the machine may be crowded, so not of the wall clock
WALL = 60.0


@dataclass
class FuzzReport:
    """What happened to the mutants."""

    read: int = 0
    refused: int = 0
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    sentences: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    starts: int = 0

    def check(self) -> None:
        assert not self.crashes, self.crashes[:5]
        assert not self.hangs, self.hangs[:5]
        assert not self.foreign, self.foreign[:5]
        assert self.refused > 0, "no mutant was refused: do the mutants change anything?"
        long = [text for text in self.sentences if "\n" in text or len(text) > 600]
        assert not long, long[:3]


def mutants(original: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``count`` seeded changes of a file: flipped bits, random bytes, cuts, repeats, extreme integers."""
    rng = np.random.default_rng(seed)
    size = len(original)
    extremes = [b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", b"\x00\x00\x00\x80" * 2]
    for i in range(count):
        data = bytearray(original)
        kind = ("flip", "bytes", "cut", "extreme", "repeat", "swap", "head")[i % 7]
        # half of the places lie in the first kilobytes, where headers are
        near = rng.random(4) < 0.5
        places = np.where(near, rng.integers(0, min(size, 4096), 4), rng.integers(0, size, 4))
        if kind == "flip":
            for place in places[: rng.integers(1, 5)]:
                data[place] ^= 1 << int(rng.integers(8))
        elif kind == "bytes":
            length = int(rng.integers(1, 64))
            data[places[0] : places[0] + length] = rng.bytes(length)
        elif kind == "cut":
            del data[int(places[0]) :]
        elif kind == "extreme":
            value = extremes[int(rng.integers(len(extremes)))][: int(rng.choice([1, 2, 4, 8]))]
            data[places[0] : places[0] + len(value)] = value
        elif kind == "repeat":
            a, b = sorted(int(place) for place in places[:2])
            data[b:b] = data[a : min(b, a + 512)]
        elif kind == "swap":
            a, b = int(places[0]), int(places[1])
            data[a : a + 16], data[b : b + 16] = data[b : b + 16], data[a : a + 16]
        else:
            for place in rng.integers(0, min(size, 512), int(rng.integers(1, 8))):
                data[int(place)] = int(rng.integers(256))
        yield f"{kind}-{seed}-{i}", bytes(data)


class Worker:
    """One process that reads files when told to; started again only after it died."""

    def __init__(self, reader: str) -> None:
        self.reader = reader
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
            environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
            self.process = subprocess.Popen(
                [sys.executable, __file__, self.reader], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            self.starts += 1
            assert self.answer() == {"ready": True}
        return self.process

    def answer(self) -> dict[str, object] | None:
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WALL)
        if not ready:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else {"died": True}

    def read(self, path: Path) -> dict[str, object]:
        process = self.start()
        assert process.stdin is not None
        process.stdin.write(f"{path}\n".encode())
        process.stdin.flush()
        answer = self.answer()
        if answer is None or "died" in answer:
            process.kill()
            code = process.wait()
            self.close()
            return {"hang": True} if answer is None else {"crash": code}
        return answer

    def close(self) -> None:
        if self.process is not None:
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    stream.close()
            self.process.wait(10)
            self.process = None


def fuzz(reader: str, original: bytes, folder: Path, *, suffix: str, count: int, seed: int) -> FuzzReport:
    """Read ``count`` mutants of ``original`` with ``reader`` ("module:function") and report."""
    return fuzz_files(reader, mutants(original, count, seed), folder, suffix=suffix)


def fuzz_files(reader: str, files: Iterable[tuple[str, bytes]], folder: Path, *, suffix: str) -> FuzzReport:
    """Read each of ``files`` (name, content) with ``reader`` ("module:function") and report."""
    report = FuzzReport()
    worker = Worker(reader)
    path = folder / f"mutant{suffix}"
    try:
        for name, data in files:
            path.write_bytes(data)
            answer = worker.read(path)
            if float(str(answer.get("seconds", 0))) > LONGEST:
                answer = worker.read(path)  # a child that ended counted with its whole life: now with a fresh one
            if "hang" in answer:
                report.hangs.append(name)
            elif "crash" in answer:
                report.crashes.append(f"{name}: exit status {answer['crash']}")
            elif "foreign" in answer:
                report.foreign.append(f"{name}: {answer['foreign']}")
            else:
                seconds = float(str(answer["seconds"]))
                report.slowest = max(report.slowest, seconds)
                if seconds > LONGEST:
                    report.hangs.append(f"{name}: {seconds:.1f} s")
                if "refused" in answer:
                    report.refused += 1
                    report.sentences[str(answer["refused"]).replace(str(path), "FILE")] += 1
                else:
                    report.read += 1
    finally:
        worker.close()
    report.starts = worker.starts
    return report


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def serve(reader: Callable[[Path], None]) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        start, wall = cpu_seconds(), time.perf_counter()
        try:
            reader(Path(line.rstrip("\n")))
            answer: dict[str, object] = {}
        except SnnsimError as error:
            answer = {"refused": str(error)}
        except Exception as error:
            answer = {"foreign": f"{type(error).__name__}: {error}"}
        # children count when they end: a reader with a worker of its own is limited by that worker
        answer["seconds"] = min(cpu_seconds() - start, time.perf_counter() - wall)
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    serve(getattr(importlib.import_module(module), function))
