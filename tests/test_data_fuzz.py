"""Seeded mutants of a data file: read or refused in one sentence, never a crash, a hang or another exception."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_worker import fuzz

from snnsim.datasets.heidelberg import read_heidelberg, write_heidelberg
from snnsim.events import Events


def read_one(path: Path) -> None:
    """Read a mutant as a user does, and look at what came out."""
    events = read_heidelberg(path)
    Events(**{name: getattr(events, name) for name in Events.__dataclass_fields__})


def small_file(folder: Path) -> bytes:
    rng = np.random.default_rng(0)
    times = [np.sort(rng.random(k)).astype(np.float16).astype(float) for k in rng.integers(20, 60, 12)]
    units = [rng.integers(0, 70, t.size) for t in times]
    events = Events.from_lists(
        times, units, 70, rng.integers(0, 3, 12), speakers=rng.integers(0, 4, 12), class_names=("a", "b", "c")
    )
    write_heidelberg(folder / "good.h5", events)
    return (folder / "good.h5").read_bytes()


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutants_of_a_data_file(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    report = fuzz("test_data_fuzz:read_one", small_file(tmp_path), tmp_path, suffix=".h5", count=count, seed=count)
    print(f"read {report.read}, refused {report.refused}, slowest {report.slowest:.2f} s, starts {report.starts}")
    report.check()
    assert report.read > 0
    assert not list((tmp_path / "cache").rglob("*.part"))
