"""The study as a whole: all runs, on several processes, each kept in a file, so that a stopped study goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.sources import make_sources
from snnsim.errors import InputError
from snnsim.files import write_json
from snnsim.machine import usable_cores
from snnsim.studies.meta_neuron import (
    DECISIONS,
    FEATURES,
    Cell,
    Material,
    Sizes,
    cells,
    classify,
    material,
    run_cell,
    settings,
)
from snnsim.studies.workers import carried_out

__all__ = ["SOURCE_SETS", "reproduce_meta_neuron", "source_material"]

Told = Callable[[int, int, dict[str, Any]], None]
SOURCE_SETS = ("structure", "rates")
"""Sets of sources in the study: three of equal rate and another structure, two of another rate."""


def source_material(kind: str, n_train: int = 200, n_test: int = 200) -> Material:
    """Return a set of sources on 20 channels, 500 steps of 1 ms."""
    made = make_sources(kind, n_train=n_train, n_test=n_test, n_steps=500, n_units=20)
    return material(made, Sizes(dt=0.001, channels=20, per_class=10))


def _do(task: dict[str, Any], data: Material, folder: Path) -> dict[str, Any]:
    cell = Cell(**task["cell"])
    return run_cell(cell, data, task["setting"], task["seed"], folder, tuning=task["tuning"])


def _key(record: dict[str, Any]) -> str:
    names = ("data", "cell", "setting", "seed", "tuning")
    return json.dumps({name: record[name] for name in names}, sort_keys=True)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the runs that are done; a last line that was cut short is left out."""
    found: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                found[_key(record)] = record
            except (ValueError, KeyError):
                continue
    return found


def reproduce_meta_neuron(
    materials: Sequence[Material],
    out: str | Path,
    *,
    seeds: int = 5,
    chosen: Sequence[Cell] | None = None,
    jobs: int | None = None,
    told: Told | None = None,
) -> dict[str, Any]:
    """Run the study, or what is missing of it, and write ``runs.jsonl``, ``study.json`` and ``report.html``.

    Args:
        materials: Data sets.
        out: Folder; a second call with the same folder goes on.
        seeds: Seeds of every combination, 2 or more.
        chosen: Combinations; default all.
        jobs: Processes of one thread each; default one a core. Results do not depend on it.
        told: Called after each run with how many are done, of how many, and the run.

    Returns:
        What ``study.json`` holds: chosen settings, runs, and the inputs' own accuracy by data set.

    Raises:
        InputError: Fewer than two seeds, no data, or a folder of other sizes.
    """
    if seeds < 2:
        raise InputError(f"seeds: expected at least 2 for an interval, got {seeds}")
    if not materials or len({data.name for data in materials}) < len(materials):
        raise InputError("materials: expected data sets with different names, at least one")
    every = list(cells() if chosen is None else chosen)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.jsonl"
    _same_sizes(folder, materials)
    done = _read(path)
    tune = [_task(data, cell, s, 1000, True) for data in materials for cell in every for s in _tuned(cell)]
    total = len(tune) + len(materials) * len(every) * seeds
    count = 0

    def carry_out(tasks: list[dict[str, Any]]) -> None:
        nonlocal count
        by_name = {data.name: data for data in materials}
        waiting = [task for task in tasks if _key(task) not in done]
        count += len(tasks) - len(waiting)
        workers = min(jobs or usable_cores(), len(waiting))
        with open(path, "a", encoding="utf-8") as stream:
            calls = [(task, by_name[task["data"]], folder) for task in waiting]
            for record in carried_out(_do, calls, workers):
                stream.write(json.dumps(record, sort_keys=True) + "\n")
                stream.flush()
                done[_key(record)] = record
                count += 1
                if told is not None:
                    told(count, total, record)

    carry_out(tune)
    best = {(data.name, cell.name): _best(data, cell, done) for data in materials for cell in every}
    runs = [
        _task(data, cell, best[data.name, cell.name], seed, False)
        for data in materials
        for cell in every
        for seed in range(seeds)
    ]
    carry_out(runs)
    result = {
        "seeds": seeds,
        "data": [_facts(data) for data in materials],
        "inputs": {data.name: classify(data.train, data.test, data.sizes.dt)["accuracy"] for data in materials},
        "chosen": {f"{name} {cell}": setting for (name, cell), setting in best.items()},
        "runs": [done[_key(task)] for task in runs],
    }
    write_json(folder / "study.json", result)
    from snnsim.studies.meta_neuron_page import write_study_page

    write_study_page(folder / "report.html", result)
    return result


def _same_sizes(folder: Path, materials: Sequence[Material]) -> None:
    """Refuse a folder whose runs had other sizes: they would be taken for runs of this study."""
    from dataclasses import asdict

    known = folder / "sizes.json"
    now = {data.name: {**asdict(data.sizes), **_facts(data)} for data in materials}
    stored = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    for name in now.keys() & stored.keys():
        if stored[name] != now[name]:
            raise InputError(f"{folder}: holds runs on {name!r} of other sizes; choose another --out")
    write_json(known, {**stored, **now})


def _task(data: Material, cell: Cell, setting: dict[str, float], seed: int, tuning: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {"data": data.name, "cell": asdict(cell), "setting": setting, "seed": seed, "tuning": tuning}


def _tuned(cell: Cell) -> list[dict[str, float]]:
    return settings(cell) if len(settings(cell)) > 1 else []


def _best(data: Material, cell: Cell, done: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the setting with the best mean accuracy over all features and decisions, the first among equals."""
    options = settings(cell)
    if len(options) == 1:
        return options[0]

    def score(setting: dict[str, float]) -> float:
        accuracy = done[_key(_task(data, cell, setting, 1000, True))]["accuracy"]
        return float(np.mean([accuracy[rule][name] for rule in DECISIONS for name in FEATURES]))

    return max(options, key=score)


def _facts(data: Material) -> dict[str, Any]:
    return {
        "name": data.name,
        "classes": data.n_classes,
        "train": len(data.train),
        "held_out": len(data.valid),
        "test": len(data.test),
        "channels": data.train.n_units,
        "neurons": data.n_units,
        "dt": data.sizes.dt,
    }


def as_material(dataset: Dataset) -> Material:
    """Return a data set of speech in the study's usual sizes: 3 neurons a class, or 6 where classes are few."""
    return material(dataset, Sizes(per_class=3 if dataset.n_classes >= 16 else 6))
