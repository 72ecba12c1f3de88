"""Sources of spike trains for `snnsim data make sources`."""

from __future__ import annotations

import time
from pathlib import Path

from snnsim.cli.output import emit
from snnsim.errors import SnnsimFileError

__all__ = ["make_source_files"]


def make_source_files(
    out: Path, kind: str, n_train: int, n_test: int, n_steps: int, channels: int, seed: int, json: bool
) -> None:
    """Write a labelled set as two files in SHD's layout and say what it holds."""
    begin = time.perf_counter()
    from snnsim.datasets.heidelberg_write import write_heidelberg
    from snnsim.datasets.sources import make_sources

    files = {split: out / f"{kind}_{split}.h5" for split in ("train", "test")}
    for other in sorted(out.glob("*.h5")) if out.is_dir() else []:
        raise SnnsimFileError(other, "", "exists already; remove it or choose another folder")
    made = make_sources(kind, n_train=n_train, n_test=n_test, n_steps=n_steps, n_units=channels, seed=seed)
    for split, path in files.items():
        write_heidelberg(path, made.parts[split])
    lines = [f"{name}: {source}" for name, source in made.notes["sources"].items()]
    spikes = sum(part.n_events for part in made.parts.values()) / (n_train + n_test)
    lines += [
        f"{files['train']}: {n_train} samples to train",
        f"{files['test']}: {n_test} samples to test, other random numbers",
        f"{spikes:.0f} spikes a sample, {n_steps} steps of 1 ms",
        f"use it with --data {out}",
    ]
    result = {
        "n_samples": n_train + n_test,
        "spikes": spikes,
        "seconds": time.perf_counter() - begin,
        "files": [str(path) for path in files.values()],
        "data": str(out),
        "sources": made.notes["sources"],
    }
    emit(result, json, "\n".join(lines))
