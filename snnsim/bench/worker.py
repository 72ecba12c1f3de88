"""One side of a comparison in a process of its own: ``worker.py FILE TASK``, then one command a line.

``FILE`` is one of the files in ``peers/``; it defines ``build(task)``, which returns a function that does one step,
and ``versions()``. ``TASK`` is a JSON object, see :mod:`snnsim.bench.tasks`. The file is run by path, so a side may
live in another interpreter that has no snnsim: this file imports the standard library only.

It first does a small task, so that code is loaded and compiled, then reports how far the resident memory rises in the
first steps of the real one. Each line ``step`` on its input is answered by the seconds of one step: the mean of as many
as fill a turn, so that a short step is measured in the midst of others, as it runs in training, and not with the caches
that another side has left.

``build`` of a side that simulates is also given :func:`snnsim.bench.networks.build_net`, so that all sides build from
the same numbers. A step of a simulation is a stretch; it returns a dict: ``seconds``, what it took; ``spikes``, one
number a population; ``events``, the synaptic events; where it was more than one stretch ``stretches``; where the first
stretch was another one ``first``, a dict of the same kind; where the simulator lives in a further process ``memory``,
its bytes. Then the memory is what stays after the network is built and the first stretch is done, and a turn has as
many stretches as the task says.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

NETWORKS = Path(__file__).parent / "networks.py"
STEPS_FOR_MEMORY = 2
TURN_SECONDS = 0.3


def load(path: str) -> Any:
    """Return the module in a file."""
    spec = importlib.util.spec_from_file_location(f"bench_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def resident_bytes() -> int:
    """Return the resident memory of this process, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def peak_rise(step: Callable[[], object], steps: int = STEPS_FOR_MEMORY) -> int:
    """Run steps and return how far the resident memory rose above what it was, in bytes; a thread samples it."""
    begin = peak = resident_bytes()
    stopped = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stopped.wait(0.001):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for _ in range(steps):
            step()
    finally:
        stopped.set()
        watcher.join()
    return max(peak, resident_bytes()) - begin


def settled_bytes() -> int:
    """Return the resident memory after giving back what is free."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


def simulate_turn(step: Callable[[], Any], stretches: int) -> dict[str, Any]:
    """Simulate stretches, 0: as many as fill a turn; return the mean seconds of one and the sums of the rest."""
    seconds, done, events = 0.0, 0, 0
    spikes: list[int] = []
    begin = time.perf_counter()
    while done < stretches or (not stretches and time.perf_counter() - begin < TURN_SECONDS):
        facts = step()
        seconds += facts["seconds"]
        done += facts.get("stretches", 1)
        events += facts["events"]
        spikes = [a + b for a, b in zip(spikes or [0] * len(facts["spikes"]), facts["spikes"], strict=True)]
    return {"seconds": seconds / done, "stretches": done, "events": events, "spikes": spikes}


def main() -> None:
    """Serve commands until the input ends."""
    sys.path.pop(0)  # this folder: its names are not meant for the libraries
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints does not belong among the answers
    side = load(sys.argv[1])
    task = json.loads(sys.argv[2])
    simulates = task["what"] == "simulate"
    build = partial(side.build, build_net=load(str(NETWORKS)).build_net) if simulates else side.build
    build(task["small"])()
    before = settled_bytes() if simulates else 0
    step = build(task)
    answer: dict[str, Any] = {}
    if simulates:
        facts = step()
        answer["first"] = facts.get("first", facts)
        rise = facts.get("memory") or settled_bytes() - before
    else:
        settled_bytes()  # what importing and compiling left free would hide a part of the rise
        rise = peak_rise(step)
    print(json.dumps({"memory_rise": rise, "versions": side.versions(), **answer}), file=answers)
    for line in sys.stdin:
        if line.strip() != "step":
            break
        if simulates:
            print(json.dumps(simulate_turn(step, task["turn"])), file=answers)
            continue
        begin, steps = time.perf_counter(), 0
        while time.perf_counter() - begin < TURN_SECONDS:
            step()
            steps += 1
        print(json.dumps({"seconds": (time.perf_counter() - begin) / steps}), file=answers)


if __name__ == "__main__":
    main()
