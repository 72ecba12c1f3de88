"""A worker process for files that nobody has checked yet.

The HDF5 library was not written for hostile input: a damaged file can make it loop for seconds, ask for
gigabytes, or crash. Whatever parses such a file runs in here: one child process, reused from file to file,
with limits on CPU time and memory. A crash or an overrun costs the child, never the caller, and becomes one
:class:`~snnsim.errors.SnnsimFileError`. Files that are already in the cache never come here, so the
usual case pays nothing.

The two sides exchange lines of JSON over pipes; nothing is pickled.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnsim.errors import InputError, SnnsimFileError

__all__ = ["GuardWorker", "limits_for", "run_guarded"]

MEBI = 1 << 20
_COMMAND = "from snnsim.datasets.guard import _serve; _serve()"


def limits_for(size: int) -> tuple[float, int]:
    """Return the CPU seconds and the bytes of memory allowed for parsing a file of ``size`` bytes."""
    return 0.5 + size / (4 * MEBI), 768 * MEBI + 4 * size


class GuardWorker:
    """One limited child process that runs functions named ``"module:function"`` from this package.

    Args:
        wall_factor: Wall-clock limit of a call, as a multiple of its CPU limit (a call that waits instead of
            working, or a crowded machine), at least 10 s.
    """

    def __init__(self, wall_factor: float = 30.0) -> None:
        self.wall_factor = wall_factor
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def run(
        self,
        function: str,
        arguments: Mapping[str, Any],
        *,
        path: str | Path,
        cpu_seconds: float,
        memory: int,
    ) -> Any:
        """Call ``function(**arguments)`` in the worker and return its result.

        Args:
            function: ``"snnsim.module:function"``; takes and returns what JSON can hold.
            arguments: Keyword arguments.
            path: The file this is about, for messages.
            cpu_seconds: CPU time allowed.
            memory: Bytes of address space allowed on top of what the worker needs by itself.

        Raises:
            SnnsimFileError: The function raised one, or it crashed, ran out of time or out of memory.
            RuntimeError: The function raised anything else, which is a bug.
        """
        request = {"function": function, "arguments": dict(arguments), "cpu": cpu_seconds, "memory": int(memory)}
        with self._lock:
            if self._owner != os.getpid():  # a forked child must not talk over its parent's pipes
                self._process, self._owner = None, os.getpid()
            process = self._start()
            answer = self._exchange(process, json.dumps(request) + "\n", max(10.0, self.wall_factor * cpu_seconds))
            if answer is None:
                code = self._stop()
                raise SnnsimFileError(path, "", _death(code, cpu_seconds))
            if answer.get("restart"):
                self._stop()
        if "error" in answer:
            error = answer["error"]
            raise SnnsimFileError(error["path"], error["item"], error["reason"])
        if "bug" in answer:
            raise RuntimeError(f"{function} failed in the worker process:\n{answer['bug']}")
        return answer["result"]

    def close(self) -> None:
        """End the worker, if it runs."""
        with self._lock:
            if self._owner == os.getpid():
                self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and process.poll() is None:
            return process
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = "1"  # threads would take address space that the limit counts
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._process = process
        self.starts += 1
        if self._exchange(process, "", 60.0) != {"ready": True}:
            code = self._stop()
            raise InputError(f"the worker process that checks data files could not start (exit status {code})")
        return process

    def _exchange(self, process: subprocess.Popen[bytes], line: str, wall: float) -> dict[str, Any] | None:
        """Send one line and return the answer, or None if the worker died, fell silent or answered nonsense."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if line:
                process.stdin.write(line.encode())
                process.stdin.flush()
            end = time.monotonic() + wall
            data = b""
            descriptor = process.stdout.fileno()
            while not data.endswith(b"\n"):
                ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
                if not ready:
                    return None
                part = os.read(descriptor, 1 << 16)
                if not part:
                    return None
                data += part
            answer = json.loads(data)
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        code = process.poll()
        if code is None:
            try:
                code = process.wait(0.2)  # a dying process closes its pipes a moment before it can be waited for
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return code


def _death(code: int | None, cpu_seconds: float) -> str:
    if code is None or code == -getattr(signal, "SIGPROF", 27):
        return (
            f"took longer than {cpu_seconds:.1f} s of computing to read, which no sound file of its size needs; "
            f"it is damaged: get it again"
        )
    if code < 0:
        return f"crashed the library that reads it (signal {-code}); it is damaged: get it again"
    return f"made the process that reads it end (exit status {code}); it is damaged: get it again"


_worker: GuardWorker | None = None
_worker_lock = threading.Lock()


def run_guarded(function: str, arguments: Mapping[str, Any], *, path: str | Path) -> Any:
    """Run ``function`` on the file ``path`` in the shared worker, with limits that grow with the file's size.

    See :meth:`GuardWorker.run`.
    """
    global _worker
    with _worker_lock:
        if _worker is None:
            _worker = GuardWorker()
            atexit.register(_worker.close)
        worker = _worker
    cpu_seconds, memory = limits_for(Path(path).stat().st_size)
    return worker.run(function, arguments, path=path, cpu_seconds=cpu_seconds, memory=memory)


def _serve() -> None:
    """Answer requests until the other side closes the pipe (runs in the worker)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may mix with the answers
    import h5py
    import numpy

    del h5py, numpy  # imported so that no call pays for it out of its limits
    _send(answers, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            module, _, name = request["function"].partition(":")
            function = getattr(importlib.import_module(module), name)
            _limit(request["cpu"], request["memory"])
            answer: dict[str, Any] = {"result": function(**request["arguments"])}
        except SnnsimFileError as error:
            answer = {"error": {"path": str(error.path), "item": error.item, "reason": error.reason}}
        except MemoryError:
            path = str(request["arguments"].get("path", ""))
            reason = "asks for more memory than a file of its size can need; it is damaged: get it again"
            answer = {"error": {"path": path, "item": "", "reason": reason}, "restart": True}
        except Exception:  # a bug of ours: it must show as one on the other side
            answer = {"bug": traceback.format_exc()}
        finally:
            _limit(0.0, 0)
        _send(answers, answer)


def _send(stream: Any, answer: dict[str, Any]) -> None:
    stream.write((json.dumps(answer) + "\n").encode())
    stream.flush()


def _limit(cpu_seconds: float, memory: int) -> None:
    """Set the limits of the next call (0 lifts them); what the platform lacks is left out."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # ends the process, even inside the C library
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = used + memory if memory else hard
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
