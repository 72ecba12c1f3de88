"""The worker process for files that nobody has checked: limits, errors, arrays."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnsim import guard
from snnsim.errors import InputError, SnnsimFileError
from snnsim.guard import GuardWorker, Parcel, run_guarded


def spin(path: str) -> None:
    while True:
        struct.calcsize("d")


def crash(path: str) -> None:
    os.abort()


def hunger(path: str) -> int:
    return len(bytearray(60 << 30))


def add(path: str, a: int) -> int:
    return a + 1


def refuse(path: str, kind: str) -> None:
    raise InputError("kind: expected another") if kind == "input" else SnnsimFileError(path, "item", "is wrong")


def mistake(path: str) -> None:
    raise KeyError("a bug")


def leave(path: str) -> None:
    print("a library talks")
    raise SystemExit(3)


def parcel(path: str, scale: float) -> Parcel:
    return Parcel({"scale": scale}, [array * scale for array in samples()])


def unfit(path: str) -> Parcel:
    return Parcel(None, [np.array(["text"], dtype=object)])


def modules(path: str) -> list[str]:
    import sys

    return sorted(name for name in ("torch", "numba", "stray") if name in sys.modules)


def samples() -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        rng.normal(size=(300, 70)),
        np.arange(5, dtype=">i4"),
        np.zeros((0, 3)),
        np.float64(2.5).reshape(()),
        np.arange(12, dtype=np.int64).reshape(3, 4).T,
        np.arange(9, dtype=np.float16),
    ]


@pytest.fixture
def worker() -> Iterator[GuardWorker]:
    made = GuardWorker()
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def call(worker: GuardWorker, path: Path, name: str, **arguments: Any) -> Any:
    function = f"{__name__}:{name}"
    return worker.run(function, {"path": str(path), **arguments}, path=path, cpu_seconds=0.3, memory=1 << 30)


def test_loops_crashes_and_hunger_cost_the_worker_only(worker: GuardWorker, path: Path) -> None:
    assert call(worker, path, "add", a=1) == 2
    assert call(worker, path, "add", a=2) == 3
    assert worker.starts == 1
    with pytest.raises(SnnsimFileError, match=r"took longer than 0\.3 s of computing"):
        call(worker, path, "spin")
    assert call(worker, path, "add", a=3) == 4
    with pytest.raises(SnnsimFileError, match=r"crashed the library that reads it .signal 6"):
        call(worker, path, "crash")
    with pytest.raises(SnnsimFileError, match="asks for more memory") as caught:
        call(worker, path, "hunger")
    assert caught.value.path == path
    assert call(worker, path, "add", a=4) == 5
    assert worker.starts == 4
    with pytest.raises(SnnsimFileError, match=r"made the process that reads it end .exit status 3"):
        call(worker, path, "leave")


def test_errors_come_out_as_what_they_were(worker: GuardWorker, path: Path) -> None:
    with pytest.raises(InputError, match="kind: expected another"):
        call(worker, path, "refuse", kind="input")
    with pytest.raises(SnnsimFileError, match="item: is wrong") as caught:
        call(worker, path, "refuse", kind="file")
    assert caught.value.path == path
    with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
        call(worker, path, "mistake")
    with pytest.raises(RuntimeError, match="arrays of numbers, not of object"):
        call(worker, path, "unfit")
    assert worker.starts == 1


def test_arrays_come_out_as_they_went_in(worker: GuardWorker, path: Path) -> None:
    for scale in (3.0, 1.0):
        found = call(worker, path, "parcel", scale=scale)
        assert found.value == {"scale": scale}
        for array, expected in zip(found.arrays, samples(), strict=True):
            assert array.shape == expected.shape
            assert array.dtype == (expected * scale).dtype.newbyteorder("=")
            assert np.array_equal(array, expected * scale)
            array.flags.writeable = True
    assert call(worker, path, "add", a=1) == 2


def test_an_interrupted_call_leaves_no_answer_to_the_next(
    worker: GuardWorker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(worker, path, "add", a=1) == 2

    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(guard.select, "select", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(worker, path, "parcel", scale=2.0)
    assert call(worker, path, "add", a=5) == 6


def test_the_worker_loads_nothing_heavy_and_nothing_from_the_working_folder(
    worker: GuardWorker, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "h5py.py").write_text("raise SystemExit('a stranger')")
    assert call(worker, path, "modules") == []


def test_a_missing_file_is_one_sentence(path: Path) -> None:
    with pytest.raises(SnnsimFileError, match=r"cannot be read .No such file"):
        run_guarded(f"{__name__}:add", {"path": str(path), "a": 1}, path=path)


def test_a_worker_that_cannot_start_says_so(worker: GuardWorker, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.sys, "executable", str(path))
    with pytest.raises(InputError, match="could not start"):
        call(worker, path, "add", a=1)
