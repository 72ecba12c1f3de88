"""One side of `snnsim bench cuda` in a process of its own: ``cuda_worker.py FILE WAY``, then one command a line.

``FILE`` is one of the files in ``peers/``; its ``build(task)`` returns a function that does one step, or a dict:
``parts``, functions by name that together are one step and are timed apart, and ``facts``, a function that is called
once. ``versions()`` names what is measured, ``wait()`` waits for the device where torch is not what computes,
``peak()`` gives that library's own peak of memory. ``WAY`` is what stands after the colon of the side's name; the
task has it as ``way``. The file is run by path, so a side may live in another interpreter that has no snnsim: this
file imports the standard library, and torch only where the side has.

Commands are JSON objects: ``{"do": "build", "task": {...}}``, ``{"do": "turn", "seconds": 0.5}``, ``{"do": "drop"}``.
Each is answered by one line. On a device time is that between two CUDA events around a part; elsewhere wall time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MOST_STEPS = 200
WARM_SECONDS = 0.5
WARM_STEPS = 4
"""Steps before the first turn: libraries that compile do so in the first three; of a slow one two must do."""
WARM_MOST = 10.0


def load(path: str) -> Any:
    """Return the module in a file."""
    spec = importlib.util.spec_from_file_location(f"bench_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def used_bytes() -> int:
    """Return the memory in use on the device, by all processes, as the driver's library NVML tells; 0 without it."""

    class Memory(ctypes.Structure):
        _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    handle, memory = ctypes.c_void_p(), Memory()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(
        int(visible) if visible.isdigit() else 0, ctypes.byref(handle)
    ):
        return 0
    return 0 if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) else int(memory.used)


class Wall:
    """Times by the wall clock, after the side has waited for its device."""

    def __init__(self, side: Any) -> None:
        self.wait = getattr(side, "wait", lambda: None)
        self.marks: list[float] = []

    def mark(self) -> None:
        """Remember now."""
        self.wait()
        self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the time between the marks."""
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]


class Events:
    """Times between CUDA events on torch's current stream; nothing waits before the end."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Remember when the device has come here."""
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append(event)

    def seconds(self) -> list[float]:
        """Wait for the device and return the time between the marks."""
        self.torch.cuda.synchronize()
        pairs = zip(self.marks, self.marks[1:], strict=False)
        return [before.elapsed_time(after) / 1e3 for before, after in pairs]


class Worker:
    """What is built at the moment."""

    def __init__(self, side: Any, way: str) -> None:
        self.side, self.way = side, way
        self.parts: dict[str, Any] = {}
        self.step_seconds = 0.0
        self.wall = True

    def torch(self) -> Any:
        """Return torch where it has a device and the side computes with it, else None."""
        torch = sys.modules.get("torch")
        return torch if torch is not None and not hasattr(self.side, "wait") and torch.cuda.is_available() else None

    def open_device(self, device: str) -> None:
        """Make torch's context before memory is looked at: it belongs to no task."""
        if device != "cuda" or hasattr(self.side, "wait"):
            return
        with contextlib.suppress(ImportError):
            import torch

            if torch.cuda.is_available():
                torch.zeros(1, device="cuda")
                torch.cuda.synchronize()

    def build(self, task: dict[str, Any]) -> dict[str, Any]:
        """Build a task, do steps until everything is compiled, and say what memory the last one took."""
        self.open_device(task["device"])
        used = used_bytes()
        work = self.side.build({**task, "way": self.way})
        if callable(work):
            work = {"parts": {"step": work}}
        self.parts = work.get("parts", {})
        torch = self.torch() if task["device"] == "cuda" else None
        self.wall = torch is None or bool(work.get("wall"))
        answer: dict[str, Any] = {"versions": self.side.versions()}
        if torch is not None:
            torch.cuda.synchronize()
        self.step_seconds = 0.0
        start = time.perf_counter()
        for done in range(WARM_STEPS if self.parts else 0):
            if torch is not None and done:
                torch.cuda.reset_peak_memory_stats()
            begin = time.perf_counter()
            self.times()
            self.step_seconds = time.perf_counter() - begin
            if done and time.perf_counter() - start > WARM_MOST:
                break
        if "facts" in work:
            answer["facts"] = work["facts"]()
        if torch is not None:
            answer["peak"] = int(torch.cuda.max_memory_allocated())
        elif hasattr(self.side, "peak"):
            answer["peak"] = int(self.side.peak())
        answer["rise"] = max(0, used_bytes() - used)
        return answer

    def times(self, steps: int = 1) -> dict[str, float]:
        """Do steps and return the mean seconds of every part."""
        torch = self.torch()
        clock: Any = Wall(self.side) if self.wall or torch is None else Events(torch)
        clock.mark()
        for _ in range(steps):
            for part in self.parts.values():
                part()
                clock.mark()
        seconds, many = clock.seconds(), len(self.parts)
        return {name: sum(seconds[place::many]) / steps for place, name in enumerate(self.parts)}

    def turn(self, seconds: float) -> dict[str, Any]:
        """Do as many steps as fill a turn; a first one that is not counted finds the caches that others have left."""
        if self.step_seconds < WARM_SECONDS:
            self.times()
        steps = max(1, min(MOST_STEPS, int(seconds / max(self.step_seconds, 1e-6))))
        return {"seconds": self.times(steps), "steps": steps}

    def drop(self) -> dict[str, Any]:
        """Forget what is built and give its memory back."""
        self.parts = {}
        gc.collect()
        torch = self.torch()
        if torch is not None:
            torch.cuda.empty_cache()
        return {"dropped": True}


def sentence(error: BaseException) -> str:
    """Return an error in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def main() -> None:
    """Serve commands until the input ends."""
    sys.path.pop(0)  # this folder: its names are not meant for the libraries
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints does not belong among the answers
    worker = Worker(load(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        given = json.loads(line)
        try:
            if given["do"] == "build":
                answer = worker.build(given["task"])
            elif given["do"] == "turn":
                answer = worker.turn(given["seconds"])
            else:
                answer = worker.drop()
        except Exception as error:
            answer = {"error": sentence(error)}
            del error
            with contextlib.suppress(Exception):
                worker.drop()
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
