"""The training loop: from a recipe and a data set to a run folder.

Nothing in it depends on wall time, thread count or what ran before: the order of samples, augmentation and
dropout are functions of (seed, epoch, sample id), schedules and sums are in the checkpoint. A run that was
killed at any instant and resumed ends in the same bits as one that was not.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from snnsim.datasets.dataset import Dataset
from snnsim.device import check_device
from snnsim.errors import InputError
from snnsim.files import sha256_file
from snnsim.nn.cuda import use_device
from snnsim.nn.memory import keep_freed_memory
from snnsim.recipes import Recipe, load_recipe
from snnsim.training.checkpoint import (
    load_tensors,
    newest_checkpoint,
    remove_others,
    save_tensors,
    write_checkpoint,
)
from snnsim.training.cuda_graph import StepGraph, check_graph
from snnsim.training.device_checks import Place, check_training
from snnsim.training.distributed import World, process_group, take_own_gpu
from snnsim.training.evaluation import evaluate_model
from snnsim.training.finish import TrainResult, finish
from snnsim.training.interrupt import TrainingInterrupted, stop_on_signal
from snnsim.training.memory import expected_memory, memory_warning
from snnsim.training.prefetch import ahead
from snnsim.training.prepare import prepare
from snnsim.training.run_folder import RunFolder, versions
from snnsim.training.runs import Run
from snnsim.training.trainer import Trainer

__all__ = ["Callback", "TrainingInterrupted", "train"]

Callback = Callable[[str, dict[str, Any]], None]
"""``callback(kind, facts)`` with kind ``start``, ``batch``, ``epoch``, ``warning`` or ``result``."""


def train(
    recipe: Recipe | str | Path,
    dataset: Dataset,
    out: str | Path,
    *,
    seed: int = 0,
    resume: bool = False,
    best_test: bool = False,
    checkpoint_seconds: float = 600.0,
    callback: Callback | None = None,
    start: Run | None = None,
    device: str = "cpu",
    cuda_graph: bool = False,
) -> TrainResult:
    """Train a recipe on a data set and leave a run folder.

    The test set is used once, at the end, on the last epoch's weights and on those of the best validation
    epoch; ``best_test`` evaluates it after every epoch as well and reports the best of these, labelled so.

    Args:
        recipe: Recipe, its name or its file.
        dataset: Data set with labels.
        out: Run folder; new, or with ``resume`` one that holds a stopped run.
        seed: Seed of weights, split, order, augmentation and dropout.
        resume: Continue the run in ``out`` if there is one; its end is the same bits.
        best_test: Also report the best epoch on the test set.
        checkpoint_seconds: Write a checkpoint within an epoch after this long; one is always written at its
            end. The result does not depend on it.
        callback: Told about the start, every batch, epoch, warning and the result.
        start: Run whose weights this one starts from (its best ones, if it had a validation set).
        device: ``cpu`` or ``cuda``. The run folder is the same, with tensors of the CPU; a run that is resumed on the
            other device goes on within rounding, not in the same bits.
        cuda_graph: Capture forward and backward pass of a full batch once an epoch and replay them, see
            :mod:`snnsim.training.cuda_graph`; only with ``cuda``.

    Returns:
        Labelled accuracies and the folder.

    Raises:
        InputError: Recipe, data and folder do not fit, or the loss is not finite.
        TrainingInterrupted: Ctrl-C; the run can be resumed.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    tell = callback or _silent
    if device == "cuda":
        take_own_gpu()
    check_device(device)
    if device != "cpu":
        check_training(recipe)
    if cuda_graph:
        check_graph(recipe, device, int(os.environ.get("WORLD_SIZE", "1")))
    with process_group(device) as world, use_device(device) as there, stop_on_signal() as stopped:
        folder = RunFolder(out)
        if world.leads:
            folder.lock()
        try:
            return _train(
                *(recipe, dataset, folder, seed, resume, best_test, checkpoint_seconds, tell, world, stopped, start),
                *(Place(device, there), cuda_graph),
            )
        finally:
            folder.release()


def _silent(kind: str, facts: dict[str, Any]) -> None:
    return


def _train(
    recipe: Recipe,
    dataset: Dataset,
    folder: RunFolder,
    seed: int,
    resume: bool,
    best_test: bool,
    checkpoint_seconds: float,
    tell: Callback,
    world: World,
    stopped: Callable[[], bool],
    start: Run | None,
    place: Place,
    cuda_graph: bool,
) -> TrainResult:
    keep_freed_memory()
    data = prepare(recipe, dataset, seed)
    if best_test and data.test is None:
        raise InputError(f"best_test: data set {data.name!r} has no test split")
    resumed = resume and folder.exists()
    origin = _origin(folder, start, resumed)
    if start is not None and recipe.train.stdp not in (None, start.recipe.train.stdp):
        raise InputError(
            "train.stdp: a run that starts from another one does not learn by STDP again, and that one learned "
            "otherwise; remove the table, or train without --from"
        )
    weights = None
    if origin is not None:
        weights = load_tensors(folder.path / "initial.safetensors") if start is None else start.model().state_dict()
    trainer = Trainer(recipe, data, seed, world, weights, place.device)
    moved = None
    if resumed:
        moved = _resume(trainer, folder, best_test, place)
    trainer.initialise()
    if world.leads and not resumed:
        trainer.check_rule(place.name != "cpu")
        manifest = {**_manifest(trainer, best_test), "from": origin, "devices": [place.facts()]}
        folder.create(recipe, manifest, dict(trainer.model.state_dict()))
    if cuda_graph:
        trainer.graph = StepGraph(trainer.model)
    world.wait()
    if resumed and trainer.pruner is not None and trainer.pruner.needs_initial:
        trainer.pruner.initial = load_tensors(folder.path / "initial.safetensors")
    if not world.leads:
        tell = _silent
    epochs = recipe.train.epochs
    facts = {"recipe": recipe, "data": data, "model": trainer.model, "epoch": trainer.epoch, "out": folder.path}
    memory = {}
    if place.name == "cpu":  # what a device needs has not been measured
        memory = expected_memory(trainer.model, recipe, trainer.longest(), -(-recipe.train.batch_size // world.size))
    tell(
        "start",
        {**facts, "initial_rates": trainer.initial_rates, "formulations": trainer.formulations, "memory": memory},
    )
    too_large = memory_warning(memory)
    for text in (too_large, moved):
        if text is not None:
            tell("warning", {"text": text})
    last_checkpoint = time.monotonic()

    def checkpoint() -> None:
        nonlocal last_checkpoint
        if world.leads:
            tensors, values = trainer.state()
            write_checkpoint(folder.checkpoints, trainer.step, tensors, values)
        last_checkpoint = time.monotonic()

    while trainer.epoch < epochs:
        began = time.perf_counter()
        trainer.begin_epoch()
        trainer.prune()
        first_sample = trainer.totals.samples
        known = len(trainer.totals.warnings)
        waits: list[float] = []
        for batch in ahead(trainer.batches.epoch(trainer.epoch, trainer.batch), waits):
            sums = trainer.train_batch(batch)
            for sentence in trainer.totals.warnings[known:]:
                tell("warning", {"text": sentence})
            known = len(trainer.totals.warnings)
            tell("batch", {"epoch": trainer.epoch, "batch": trainer.batch, "of": len(trainer.batches), **sums})
            within = trainer.batch < len(trainer.batches)
            if world.any(stopped()):
                checkpoint()
                raise TrainingInterrupted(f"stopped in epoch {trainer.epoch + 1} after batch {trainer.batch}")
            if within and world.any(world.leads and time.monotonic() - last_checkpoint >= checkpoint_seconds):
                checkpoint()
        samples = trainer.totals.samples - first_sample
        train_seconds = time.perf_counter() - began
        record = trainer.end_epoch()
        for sentence in record["warnings"][known:]:
            tell("warning", {"text": sentence})
        if best_test:
            _evaluate_test(trainer, record, folder)
        better = trainer.improves(record)
        if world.leads:
            if better:
                with trainer.on_grid():
                    save_tensors(folder.path / "best.safetensors", dict(trainer.model.state_dict()))
            trainer.metrics_length = folder.append_metrics(record)
        timing = {
            "epoch": record["epoch"],
            "seconds": time.perf_counter() - began,
            "samples_per_second": samples / max(train_seconds, 1e-9),
            "waiting_share": sum(waits) / max(train_seconds, 1e-9),
        }
        if world.leads:
            folder.append_timing(timing)
        checkpoint()
        tell("epoch", {**record, **timing, "epochs": epochs, "formulations": trainer.formulations})
    notes = {} if trainer.grid is None else {"quantize": trainer.grid.notes()}
    with trainer.on_grid():
        result = finish(folder, trainer.model, recipe, data, trainer.best, trainer.best_test, world, notes)
    tell("result", result.to_dict())
    return result


def _evaluate_test(trainer: Trainer, record: dict[str, Any], folder: RunFolder) -> None:
    """Evaluate the test set after an epoch, because the best test epoch was asked for."""
    data = trainer.data
    if data.test is None:
        return
    if trainer.world.leads:
        folder.record_test_run(f"epoch {record['epoch']}", ["best-test"])
    with trainer.on_grid():
        result = evaluate_model(trainer.model, data.test, trainer.recipe, data.pool, world=trainer.world)
    record["test_accuracy"] = result.accuracy
    if trainer.best_test is None or result.accuracy > trainer.best_test["accuracy"]:
        trainer.best_test = {"epoch": record["epoch"], "accuracy": result.accuracy}


def _origin(folder: RunFolder, start: Run | None, resumed: bool) -> dict[str, Any] | None:
    """Return which run this one starts from, for the manifest; a resumed run must start from the same one."""
    found = None
    if start is not None:
        found = {
            "folder": start.path.name,
            "weights": start.default,
            "sha256": hashlib.sha256((start.path / f"{start.default}.safetensors").read_bytes()).hexdigest(),
        }
    if not resumed:
        return found
    stored: dict[str, Any] | None = folder.manifest().get("from")
    if start is not None and stored != found:
        raise InputError(f"{folder.path}: cannot resume, it started from {stored}, now {found}")
    return stored


def _manifest(trainer: Trainer, best_test: bool) -> dict[str, Any]:
    data, model = trainer.data, trainer.model
    return {
        "schema": 1,
        "recipe": trainer.recipe.name,
        "variant": trainer.recipe.variant,
        "seed": trainer.seed,
        "best_test": best_test,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "processes": trainer.world.size,
        "process_id": os.getpid(),
        "started": round(time.time(), 3),
        "data": data.name,
        "data_digest": data.digest,
        "split": data.split,
        "n_train": len(data.train),
        "n_valid": 0 if data.valid is None else len(data.valid),
        "n_test": 0 if data.test is None else len(data.test),
        "n_units": data.n_units,
        "n_inputs": data.n_inputs,
        "n_classes": data.n_classes,
        "class_names": list(data.train.class_names),
        "pool": data.pool,
        "pool_file": _pool_digest(trainer.recipe),
        "least_steps": data.least_steps,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "initial_rates": [asdict(rate) for rate in trainer.initial_rates],
        "stdp": None if trainer.stdp is None else trainer.stdp.to_dict(),
        "formulations": trainer.formulations,
        "test_runs": [],
        "test_run_count": 0,
    }


def _pool_digest(recipe: Recipe) -> str | None:
    """Return the SHA-256 of the file that the recipe's pool comes from, or None."""
    pool = recipe.model.pool
    return None if pool is None or pool.file is None else sha256_file(pool.file)


def _resume(trainer: Trainer, folder: RunFolder, best_test: bool, place: Place) -> str | None:
    """Check that the folder holds this very run and go back to its newest checkpoint.

    Returns:
        A warning if it has been trained on another device so far, or None.
    """
    stored, manifest = folder.recipe(), folder.manifest()
    if stored != trainer.recipe:
        raise InputError(
            f"{folder.path}: cannot resume, the recipe differs: {_first_difference(stored, trainer.recipe)}"
        )
    facts: dict[str, Any] = {"seed": trainer.seed, "data_digest": trainer.data.digest, "best_test": best_test}
    devices = list(manifest.get("devices", [{"device": "cpu", "gpu": None}]))
    same = devices[-1] == place.facts()
    if same:
        facts["formulations"] = trainer.formulations
    if trainer.recipe.model.pool is not None:
        facts["pool_file"] = _pool_digest(trainer.recipe)
    for name, value in facts.items():
        if manifest.get(name) != value:
            raise InputError(f"{folder.path}: cannot resume, {name} was {manifest.get(name)!r}, now {value!r}")
    checkpoint = newest_checkpoint(folder.checkpoints)
    if checkpoint is not None:
        trainer.restore(checkpoint.step, checkpoint.tensors, checkpoint.values)
    if trainer.world.leads:
        folder.cut_metrics(trainer.metrics_length)
        remove_others(folder.checkpoints, checkpoint.step if checkpoint is not None else None)
        if not same:
            folder.update_manifest(devices=[*devices, place.facts()])
    if same:
        return None
    before, now = (item["gpu"] or item["device"] for item in (devices[-1], place.facts()))
    return f"this run was trained on {before} so far; on {now} it goes on within rounding, not in the same bits"


def _first_difference(a: Recipe, b: Recipe) -> str:
    def walk(left: Any, right: Any, path: str) -> str | None:
        if isinstance(left, dict) and isinstance(right, dict):
            for key in sorted({*left, *right}):
                found = walk(left.get(key), right.get(key), f"{path}.{key}" if path else key)
                if found:
                    return found
            return None
        return None if left == right else f"{path} was {left!r}, now {right!r}"

    return walk(a.to_dict(), b.to_dict(), "") or "in its text"
