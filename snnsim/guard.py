"""A worker process for files that nobody has checked yet.

The HDF5 library was not written for hostile input: a damaged file can make it loop for seconds, ask for
gigabytes, or crash. Whatever parses such a file runs in here: one child process, reused from file to file,
with limits on CPU time and memory. A crash or an overrun costs the child, never the caller, and becomes one
:class:`~snnsim.errors.SnnsimFileError`. The caller gets plain values and arrays (a :class:`Parcel`) and never opens
the file with the library itself.

The two sides exchange lines of JSON over pipes, and arrays as bytes in a nameless temporary file; nothing is pickled.
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
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError

__all__ = ["GuardWorker", "Parcel", "limits_for", "run_guarded"]

MEBI = 1 << 20
_COMMAND = "import sys; from snnsim.guard import _serve; _serve(int(sys.argv[1]))"


@dataclass(frozen=True)
class Parcel:
    """A result with arrays, as a guarded function returns it and its caller gets it.

    Attributes:
        value: What JSON can hold.
        arrays: Arrays of numbers, of any shape; they come out with native byte order.
    """

    value: Any = None
    arrays: list[npt.NDArray[Any]] = field(default_factory=list)


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
        self._spool: Any = None
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
        imports: Sequence[str] = (),
    ) -> Any:
        """Call ``function(**arguments)`` in the worker and return its result.

        Args:
            function: ``"snnsim.module:function"``; takes what JSON can hold and returns that or a :class:`Parcel`.
            arguments: Keyword arguments.
            path: The file this is about, for messages.
            cpu_seconds: CPU time allowed.
            memory: Bytes of address space allowed on top of what the worker needs by itself.
            imports: Modules that the function imports itself; loading them does not count.

        Raises:
            SnnsimFileError: The function raised one, or it crashed, ran out of time or out of memory.
            InputError: The function raised one.
            RuntimeError: The function raised anything else, which is a bug.
        """
        request = {
            "function": function,
            "arguments": dict(arguments),
            "cpu": cpu_seconds,
            "memory": int(memory),
            "imports": list(imports),
        }
        with self._lock:
            if self._owner != os.getpid():  # a forked child must not talk over its parent's pipes
                self._process, self._spool, self._owner = None, None, os.getpid()
            process = self._start()
            try:
                answer = self._exchange(process, json.dumps(request) + "\n", max(10.0, self.wall_factor * cpu_seconds))
                if answer is None:
                    raise SnnsimFileError(path, "", _death(self._stop(), cpu_seconds))
                arrays = self._take(answer["arrays"]) if "arrays" in answer else None
            except BaseException:  # interrupted: the next call must not get this one's answer
                self._stop()
                raise
            if answer.get("restart"):
                self._stop()
        if "error" in answer:
            error = answer["error"]
            raise SnnsimFileError(error["path"] or path, error["item"], error["reason"])
        if "refused" in answer:
            raise InputError(answer["refused"])
        if "bug" in answer:
            raise RuntimeError(f"{function} failed in the worker process:\n{answer['bug']}")
        return answer["result"] if arrays is None else Parcel(answer["result"], arrays)

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
        try:
            self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed with the worker)
            spool = self._spool.fileno()
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, str(spool)],  # -P: no modules from the working folder
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=(spool,),
            )
        except OSError as error:
            self._stop()
            raise InputError(f"the worker process that reads files could not start ({error.strerror})") from error
        self._process = process
        self.starts += 1
        if self._exchange(process, "", 60.0) != {"ready": True}:
            code = self._stop()
            raise InputError(f"the worker process that reads files could not start (exit status {code})")
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
            data = bytearray()
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

    def _take(self, listed: list[tuple[str, list[int]]]) -> list[npt.NDArray[Any]]:
        """Read the arrays of an answer out of the temporary file, and empty it."""
        assert self._spool is not None
        arrays = []
        self._spool.seek(0)
        for kind, shape in listed:
            array: npt.NDArray[Any] = np.empty(shape, dtype=np.dtype(kind))
            view = array.reshape(-1).view(np.uint8).data
            while view:
                count = self._spool.readinto(view)
                if not count:
                    raise RuntimeError("the worker process handed over less than it listed")
                view = view[count:]
            arrays.append(array.astype(array.dtype.newbyteorder("="), copy=False))
        self._spool.truncate(0)
        return arrays

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if self._spool is not None:
            self._spool.close()
            self._spool = None
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
            "it is damaged: get it again"
        )
    if code < 0:
        return f"crashed the library that reads it (signal {-code}); it is damaged: get it again"
    return f"made the process that reads it end (exit status {code}); it is damaged: get it again"


_worker: GuardWorker | None = None
_worker_lock = threading.Lock()


def run_guarded(
    function: str,
    arguments: Mapping[str, Any],
    *,
    path: str | Path,
    limits: Callable[[int], tuple[float, int]] = limits_for,
    imports: Sequence[str] = (),
) -> Any:
    """Run ``function`` on the file ``path`` in the shared worker, with limits that grow with the file's size.

    Paths among the arguments must be absolute: the worker may have started in another working folder.

    Args:
        function: See :meth:`GuardWorker.run`.
        arguments: See :meth:`GuardWorker.run`.
        path: The file.
        limits: Gives seconds and bytes of memory for a size in bytes, as :func:`limits_for` does.
        imports: See :meth:`GuardWorker.run`.

    Raises:
        SnnsimFileError: The file cannot be read, or see :meth:`GuardWorker.run`.
        InputError: See :meth:`GuardWorker.run`.
    """
    global _worker
    with _worker_lock:
        if _worker is None:
            _worker = GuardWorker()
            atexit.register(_worker.close)
        worker = _worker
    try:
        cpu_seconds, memory = limits(Path(path).stat().st_size)
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror})") from error
    return worker.run(function, arguments, path=path, cpu_seconds=cpu_seconds, memory=memory, imports=imports)


def _serve(spool: int) -> None:
    """Answer requests until the other side closes the pipe (runs in the worker)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may mix with the answers
    import h5py

    del h5py  # imported so that no call pays for it out of its limits
    _send(answers, {"ready": True})
    with os.fdopen(spool, "wb") as arrays:
        for line in sys.stdin.buffer:
            _send(answers, _answer(json.loads(line), arrays))


def _answer(request: dict[str, Any], spool: IO[bytes]) -> dict[str, Any]:
    """Run one request within its limits and return the answer; arrays go to the temporary file."""
    try:
        module, _, name = request["function"].partition(":")
        for needed in request["imports"]:
            importlib.import_module(needed)
        function = getattr(importlib.import_module(module), name)
        try:
            _limit(request["cpu"], request["memory"])
            result = function(**request["arguments"])
        finally:
            _limit(0.0, 0)
        return _pack(result, spool)
    except SnnsimFileError as error:
        return {"error": {"path": str(error.path), "item": error.item, "reason": error.reason}}
    except InputError as error:
        return {"refused": str(error)}
    except MemoryError:
        reason = "asks for more memory than a file of its size can need; it is damaged: get it again"
        return {"error": {"path": "", "item": "", "reason": reason}, "restart": True}
    except Exception:  # a bug of ours: it must show as one on the other side
        return {"bug": traceback.format_exc()}


def _pack(result: Any, spool: IO[bytes]) -> dict[str, Any]:
    if not isinstance(result, Parcel):
        return {"result": result}
    listed = []
    spool.seek(0)
    try:
        for array in result.arrays:
            if array.dtype.kind not in "fiub":
                raise TypeError(f"a parcel holds arrays of numbers, not of {array.dtype}")
            spool.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            listed.append((array.dtype.str, list(array.shape)))
        spool.flush()
    except OSError as error:
        reason = f"needs room for temporary files ({error.strerror}); free space or set TMPDIR"
        return {"error": {"path": "", "item": "", "reason": reason}, "restart": True}
    return {"result": result.value, "arrays": listed}


def _send(stream: IO[bytes], answer: dict[str, Any]) -> None:
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
