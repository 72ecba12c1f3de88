"""The study of Lyapunov noise pruning as a whole: pools, tuning, runs; several processes; stopped, it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from snnsim.errors import InputError
from snnsim.files import write_json
from snnsim.machine import usable_cores
from snnsim.network import Network
from snnsim.studies.lnp import CELLS, Cell, Setting, Sizes, budget_of, cell_pool, settings
from snnsim.studies.lnp_tasks import Task
from snnsim.studies.workers import carried_out

__all__ = ["TUNING_SEED", "reproduce_lnp"]

Told = Callable[[int, int, str], None]
TUNING_SEED = 1000
"""Pools and series from here on choose settings; tested ones have seeds from 0."""


def _pool_path(folder: Path, cell: Cell, seed: int) -> Path:
    return folder / "pools" / f"{cell.name}-{seed}.snn.h5"


def _do(job: dict[str, Any], tasks: dict[str, Task], sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Make a pool, or run a task on one."""
    cell = Cell(**job["cell"])
    path = _pool_path(folder, cell, job["seed"])
    if job["do"] == "pool":
        budget = None
        if cell.baseline:
            budget = budget_of(Network.load(_pool_path(folder, cell.reference, job["seed"])))
        cell_pool(cell, sizes, job["seed"], budget).save(path)
        return job
    pool = Network.load(path)
    chosen = None if job["setting"] is None else [Setting(**job["setting"])]
    results = tasks[job["task"]].run(pool, job["seed"], chosen)
    return {**job, "results": results, "sparsity": pool.notes["study"]["sparsity"]}


def _key(record: dict[str, Any]) -> str:
    return json.dumps({name: record[name] for name in ("cell", "task", "seed", "setting")}, sort_keys=True)


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


def reproduce_lnp(
    tasks: Sequence[Task],
    out: str | Path,
    *,
    seeds: int = 5,
    sizes: Sizes | None = None,
    cells: Sequence[Cell] = CELLS,
    jobs: int | None = None,
    told: Told | None = None,
) -> dict[str, Any]:
    """Run the study, or what is missing of it, and write ``pools``, ``runs.jsonl``, ``study.json``, ``report.html``.

    Args:
        tasks: Of one ``sizes``.
        out: Folder; a second call with the same folder goes on.
        seeds: Pools of every cell, 2 or more.
        sizes: Of the study; default those of the first task.
        cells: Combinations; default all.
        jobs: Processes; default one a core. Results do not depend on it.
        told: Called after each job with how many are done, of how many, and what it was.

    Returns:
        What ``study.json`` holds: facts of the tasks, chosen settings, and runs.

    Raises:
        InputError: Fewer than two seeds, no task, a baseline without the cell whose budget it gets, or a folder of
            other sizes.
    """
    if seeds < 2:
        raise InputError(f"seeds: expected at least 2 for an interval, got {seeds}")
    by_name = {task.name: task for task in tasks}
    if not tasks or len(by_name) < len(tasks):
        raise InputError("tasks: expected tasks with different names, at least one")
    used = sizes or tasks[0].sizes
    if any(task.sizes != used for task in tasks):
        raise InputError("tasks: expected all of the study's sizes; make them anew with the same sizes")
    every = list(cells)
    missing = [cell for cell in every if cell.baseline and cell.reference not in every]
    if missing:
        raise InputError(f"cells: {missing[0].name} has the budget of {missing[0].reference.name}; add that")
    folder = Path(out)
    (folder / "pools").mkdir(parents=True, exist_ok=True)
    _same_sizes(folder, tasks)
    path = folder / "runs.jsonl"
    done = _read(path)
    tuned = range(TUNING_SEED, TUNING_SEED + used.tuning_seeds)
    pools = [_job("pool", cell, seed) for cell in every for seed in (*tuned, *range(seeds))]
    tune = [_job("run", cell, seed, task.name) for task in tasks for cell in every for seed in tuned]
    total = len(pools) + len(tune) + len(tasks) * len(every) * seeds
    count = 0

    def carry_out(listed: list[dict[str, Any]]) -> None:
        nonlocal count
        waiting = [job for job in listed if not _is_done(job, done, folder)]
        count += len(listed) - len(waiting)
        workers = min(jobs or usable_cores(), len(waiting))
        whole = not path.is_file() or path.read_bytes()[-1:] in (b"", b"\n")
        with open(path, "a", encoding="utf-8") as stream:
            if not whole:  # a line that was cut short ends here
                stream.write("\n")
            calls = [
                (job, {name: task for name, task in by_name.items() if name == job.get("task")}, used, folder)
                for job in waiting
            ]
            for record in carried_out(_do, calls, workers):
                if record["do"] == "run":
                    stream.write(json.dumps(record, sort_keys=True) + "\n")
                    stream.flush()
                    done[_key(record)] = record
                count += 1
                if told is not None:
                    told(count, total, f"{record['do']} {Cell(**record['cell']).name} {record['task'] or ''}")

    carry_out([job for job in pools if not Cell(**job["cell"]).baseline])
    carry_out([job for job in pools if Cell(**job["cell"]).baseline])
    carry_out(tune)
    best = {(task.name, cell.name): _best(task, cell, tuned, done) for task in tasks for cell in every}
    runs = [
        _job("run", cell, seed, task.name, best[task.name, cell.name])
        for task in tasks
        for seed in range(seeds)
        for cell in every
    ]
    carry_out(runs)
    result = {
        "seeds": seeds,
        "sizes": asdict(used),
        "tasks": [task.facts() for task in tasks],
        "settings": len(settings()),
        "chosen": {f"{name} {cell}": asdict(setting) for (name, cell), setting in best.items()},
        "runs": [_flat(done[_key(job)]) for job in runs],
    }
    write_json(folder / "study.json", result)
    from snnsim.studies.lnp_page import write_lnp_page

    write_lnp_page(folder / "report.html", result, folder / "pools")
    return result


def _job(do: str, cell: Cell, seed: int, task: str | None = None, setting: Setting | None = None) -> dict[str, Any]:
    """Return a job; a run without a setting tries all of them for tuning."""
    chosen = None if setting is None else asdict(setting)
    return {"do": do, "cell": asdict(cell), "seed": seed, "task": task, "setting": chosen}


def _is_done(job: dict[str, Any], done: dict[str, dict[str, Any]], folder: Path) -> bool:
    if job["do"] == "pool":
        return _pool_path(folder, Cell(**job["cell"]), job["seed"]).is_file()
    return _key(job) in done


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in record["results"][0].items() if name != "setting"}
    return {**{name: record[name] for name in ("cell", "task", "seed", "setting", "sparsity")}, **found}


def _best(task: Task, cell: Cell, tuned: range, done: dict[str, dict[str, Any]]) -> Setting:
    """Return the setting with the best mean over the tuning pools, the first among equals."""
    records = [done[_key(_job("run", cell, seed, task.name))]["results"] for seed in tuned]
    values = np.mean([[item[task.metric] for item in record] for record in records], axis=0)
    return Setting(**records[0][int(np.argmax(values))]["setting"])


def _same_sizes(folder: Path, tasks: Sequence[Task]) -> None:
    """Refuse a folder whose runs had other sizes: they would be taken for runs of this study."""
    known = folder / "sizes.json"
    now = {task.name: task.facts() for task in tasks}
    stored = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    sizes = next(iter(now.values()))["sizes"]
    if any(facts["sizes"] != sizes for facts in stored.values()) or any(
        stored[name] != now[name] for name in now.keys() & stored.keys()
    ):
        raise InputError(f"{folder}: holds a study of other sizes; choose another --out")
    write_json(known, {**stored, **now})
