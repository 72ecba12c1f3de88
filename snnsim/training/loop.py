"""The training loop: from a recipe and a data set to a run folder.

Nothing in it depends on wall time, thread count or what ran before: the order of samples, augmentation and
dropout are functions of (seed, epoch, sample id), schedules and sums are in the checkpoint. A run that was
killed at any instant and resumed ends in the same bits as one that was not.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError
from snnsim.learning.bptt import training_loss
from snnsim.nn.context import Context
from snnsim.nn.formulation import choose_formulations, set_formulations
from snnsim.nn.initialise import LayerRate
from snnsim.nn.memory import keep_freed_memory
from snnsim.nn.model import SpikingModel, build_model
from snnsim.recipes import Recipe, load_recipe
from snnsim.training.checkpoint import (
    newest_checkpoint,
    remove_others,
    restore_state,
    save_tensors,
    training_state,
    write_checkpoint,
)
from snnsim.training.distributed import World, process_group
from snnsim.training.evaluation import evaluate_model, operations_a_sample
from snnsim.training.finish import TrainResult, finish
from snnsim.training.health import FIRST_STEPS, diagnose
from snnsim.training.initial import scale_to_rate
from snnsim.training.interrupt import TrainingInterrupted, stop_on_signal
from snnsim.training.prefetch import ahead
from snnsim.training.prepare import Prepared, input_density, prepare, stream
from snnsim.training.run_folder import RunFolder, versions
from snnsim.training.schedules import build_optimisers, clip_gradients, first_fixed_epoch, sigma_at

__all__ = ["Callback", "Trainer", "TrainingInterrupted", "train"]

Callback = Callable[[str, dict[str, Any]], None]
"""``callback(kind, facts)`` with kind ``start``, ``batch``, ``epoch``, ``warning`` or ``result``."""


@dataclass
class Totals:
    """Running sums of one epoch; part of a checkpoint that is written within an epoch."""

    loss: float = 0.0
    correct: float = 0.0
    samples: float = 0.0
    neuron_steps: float = 0.0
    inputs: float = 0.0
    rates: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Trainer:
    """Model, optimisers and data of one run, and one step of it.

    Args:
        recipe: Recipe.
        data: Prepared data.
        seed: Seed of weights, order, augmentation and dropout.
        world: This process among those that train together.
    """

    def __init__(self, recipe: Recipe, data: Prepared, seed: int, world: World | None = None) -> None:
        self.recipe = recipe
        self.data = data
        self.seed = seed
        self.world = world or World()
        self.model: SpikingModel = build_model(recipe.model, data.n_inputs, data.n_classes, recipe.data.dt, seed)
        self.density = input_density(data, recipe, self.model.tail_steps)
        self.formulations = choose_formulations(self.model, self.density, wish=recipe.train.formulation)
        self.batches = stream(data.train, recipe, data.pool, self.model.tail_steps, seed=seed, training=True)
        self.world.check_batches(len(data.train), recipe.train.batch_size)
        self.optimisers = build_optimisers(self.model, recipe.train, len(self.batches))
        self.sizes = [int(layer.connection.n_out) for layer in self.model.layers()[:-1]]
        self.step = 0
        self.epoch = 0
        self.batch = 0
        self.totals = Totals()
        self.best: dict[str, Any] | None = None
        self.best_test: dict[str, Any] | None = None
        self.named: list[int] = []
        self.metrics_length = 0
        self.initial_rates: list[LayerRate] = []

    def initialise(self) -> None:
        """Scale the hidden layers to the recipe's initial rate, if it has one and nothing has been learned yet."""
        if self.step == 0 and self.recipe.model.initial_rate is not None:
            self.begin_epoch()
            batch = next(self.batches.epoch(0))
            self.initial_rates = scale_to_rate(self.model, batch, self.recipe, self.seed, self.world)

    def begin_epoch(self) -> None:
        """Set the spread of the delay taps for this epoch, and fix the delays from the recipe's epoch on."""
        model, epochs = self.recipe.model, self.recipe.train.epochs
        spec = model.connection if model.connection.kind == "delayed" else model.readout_connection()
        self.model.set_sigma(sigma_at(self.epoch, spec, self.recipe.data.dt, epochs))
        if self.epoch >= first_fixed_epoch(spec, epochs):
            self.model.fix_delays()
        self.model.train()

    def forward_backward(self, batch: Any) -> dict[str, Any]:
        """Compute the loss and the gradients (summed over processes) of one batch.

        Returns:
            Sums over the whole batch: loss, correct, samples, neuron_steps, inputs, and rates times steps.
        """
        spec = self.recipe.train
        part = self.world.part(len(batch))
        mask = torch.from_numpy(np.ascontiguousarray(batch.mask[:, part]))
        labels = torch.from_numpy(batch.labels[part])
        target = labels
        if batch.other_labels is not None:
            target = torch.from_numpy(batch.targets(self.data.n_classes)[part])
        seen = mask if spec.padding == "masked" else None
        context = Context(seen, torch.from_numpy(batch.sample_id[part]), self.seed, self.epoch)
        x = torch.from_numpy(np.ascontiguousarray(batch.x[:, part]))
        output = self.model(x, None, context, record=spec.rate.strength > 0, checkpoint_steps=spec.checkpoint_steps)
        skip = self.model.readout.skip_steps
        loss, losses = training_loss(output, target, seen, spec, len(batch), skip)
        for group in self.optimisers:
            group.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.model)
        steps = float(mask.numel() if seen is None else int(batch.mask[:, part].sum()))
        correct = int((output.logits.detach().argmax(dim=1) == labels).sum())
        sums = self.world.sum(
            [
                float(losses.double().sum()),
                float(correct),
                float(labels.numel()),
                steps,
                float(np.count_nonzero(batch.x[:, part])),
                *(output.rates.double() * steps).tolist(),
            ]
        )
        keys = ("loss", "correct", "samples", "neuron_steps", "inputs")
        return {**dict(zip(keys, sums[:5], strict=True)), "rates": sums[5:]}

    def update(self) -> None:
        """Apply the gradients, keep parameters in range and advance the schedules that go by batch."""
        if self.recipe.train.clip_norm is not None:
            clip_gradients(self.model, self.recipe.train.clip_norm)
        for group in self.optimisers:
            group.optimiser.step()
        self.model.clamp_()
        for group in self.optimisers:
            group.advance("batch")

    def train_batch(self, batch: Any) -> dict[str, Any]:
        """Do one optimiser step and add its sums to the epoch's totals.

        Raises:
            InputError: The loss is not finite.
        """
        sums = self.forward_backward(batch)
        if not math.isfinite(sums["loss"]):
            raise InputError(
                f"training: the loss is {sums['loss']} in epoch {self.epoch + 1}, batch {self.batch + 1}; "
                "try a lower train.weights.lr or train.clip_norm = 1.0"
            )
        self.update()
        self.step += 1
        self.batch += 1
        totals = self.totals
        for key in ("loss", "correct", "samples", "neuron_steps", "inputs"):
            setattr(totals, key, getattr(totals, key) + sums[key])
        old = totals.rates or [0.0] * len(sums["rates"])
        totals.rates = [a + b for a, b in zip(old, sums["rates"], strict=True)]
        if self.step <= FIRST_STEPS:
            self.warn([rate / max(1.0, sums["neuron_steps"]) for rate in sums["rates"]])
        return sums

    def warn(self, rates: list[float]) -> None:
        """Add warnings about silent or saturated layers that have not been named yet."""
        for index, sentence in diagnose(rates, self.sizes):
            if index not in self.named:
                self.named.append(index)
                self.totals.warnings.append(f"step {self.step}: {sentence}")

    def end_epoch(self) -> dict[str, Any]:
        """Evaluate on the held-out samples, advance schedules that go by epoch, and return the metrics."""
        totals = self.totals
        rates = [value / max(1.0, totals.neuron_steps) for value in totals.rates]
        self.warn(rates)
        spikes = [value * size for value, size in zip(totals.rates, self.sizes, strict=True)]
        operations = operations_a_sample(self.model, totals.inputs, spikes, int(totals.samples))
        layers = self.model.delay_layers()
        record: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "loss": totals.loss / totals.samples,
            "train_accuracy": totals.correct / totals.samples,
            "rates": rates,
            "mean_delay": self.model.mean_delay() if layers else None,
            "sigma": float(layers[0].sigma) if layers else None,
            "synaptic_operations": operations,
            "lr": {group.name: group.lr for group in self.optimisers},
            "valid_loss": None,
            "valid_accuracy": None,
            "warnings": totals.warnings,
        }
        if self.data.valid is not None:
            result = evaluate_model(self.model, self.data.valid, self.recipe, self.data.pool, world=self.world)
            record |= {
                "valid_loss": result.loss,
                "valid_accuracy": result.accuracy,
                "rates": list(result.rates),
                "synaptic_operations": result.synaptic_operations,
            }
        for group in self.optimisers:
            group.advance("epoch")
        self.formulations = choose_formulations(self.model, self.density, rates, self.recipe.train.formulation)
        self.epoch += 1
        self.batch = 0
        self.totals = Totals()
        return record

    def improves(self, record: dict[str, Any]) -> bool:
        """Return whether this epoch is the best on the held-out samples so far (ties: the lower loss)."""
        if record["valid_accuracy"] is None:
            return False
        key = _selection_key(record, self.recipe.train.selection)
        if self.best is None or key > _selection_key(self.best, self.recipe.train.selection):
            self.best = {name: record[name] for name in ("epoch", "valid_accuracy", "valid_loss")}
            return True
        return False

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return arrays and values of a checkpoint."""
        tensors, optimisers = training_state(self.model, self.optimisers)
        return tensors, {
            "epoch": self.epoch,
            "batch": self.batch,
            "totals": asdict(self.totals),
            "best": self.best,
            "best_test": self.best_test,
            "named": self.named,
            "formulations": self.formulations,
            "metrics_length": self.metrics_length,
            "optimisers": optimisers,
        }

    def restore(self, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        restore_state(self.model, self.optimisers, tensors, values["optimisers"])
        self.step = step
        self.epoch, self.batch = int(values["epoch"]), int(values["batch"])
        self.totals = Totals(**values["totals"])
        self.best, self.best_test, self.named = values["best"], values["best_test"], list(values["named"])
        self.formulations = dict(values["formulations"])
        set_formulations(self.model, self.formulations)
        self.metrics_length = int(values["metrics_length"])


def _selection_key(record: dict[str, Any], selection: str) -> tuple[float, float]:
    accuracy, loss = float(record["valid_accuracy"]), float(record["valid_loss"])
    return (accuracy, -loss) if selection == "accuracy" else (-loss, accuracy)


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

    Returns:
        Labelled accuracies and the folder.

    Raises:
        InputError: Recipe, data and folder do not fit, or the loss is not finite.
        TrainingInterrupted: Ctrl-C; the run can be resumed.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    tell = callback or _silent
    with process_group() as world, stop_on_signal() as stopped:
        folder = RunFolder(out)
        if world.leads:
            folder.lock()
        try:
            return _train(recipe, dataset, folder, seed, resume, best_test, checkpoint_seconds, tell, world, stopped)
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
) -> TrainResult:
    keep_freed_memory()
    data = prepare(recipe, dataset, seed)
    if best_test and data.test is None:
        raise InputError(f"best_test: data set {data.name!r} has no test split")
    trainer = Trainer(recipe, data, seed, world)
    resumed = resume and folder.exists()
    if resumed:
        _resume(trainer, folder, best_test)
    trainer.initialise()
    if world.leads and not resumed:
        folder.create(recipe, _manifest(trainer, best_test))
    world.wait()
    if not world.leads:
        tell = _silent
    epochs = recipe.train.epochs
    facts = {"recipe": recipe, "data": data, "model": trainer.model, "epoch": trainer.epoch, "out": folder.path}
    tell("start", {**facts, "initial_rates": trainer.initial_rates, "formulations": trainer.formulations})
    last_checkpoint = time.monotonic()

    def checkpoint() -> None:
        nonlocal last_checkpoint
        if world.leads:
            tensors, values = trainer.state()
            write_checkpoint(folder.checkpoints, trainer.step, tensors, values)
        last_checkpoint = time.monotonic()

    while trainer.epoch < epochs:
        start = time.perf_counter()
        trainer.begin_epoch()
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
        train_seconds = time.perf_counter() - start
        record = trainer.end_epoch()
        for sentence in record["warnings"][known:]:
            tell("warning", {"text": sentence})
        if best_test:
            _evaluate_test(trainer, record, folder)
        better = trainer.improves(record)
        if world.leads:
            if better:
                save_tensors(folder.path / "best.safetensors", dict(trainer.model.state_dict()))
            trainer.metrics_length = folder.append_metrics(record)
        timing = {
            "epoch": record["epoch"],
            "seconds": time.perf_counter() - start,
            "samples_per_second": samples / max(train_seconds, 1e-9),
            "waiting_share": sum(waits) / max(train_seconds, 1e-9),
        }
        if world.leads:
            folder.append_timing(timing)
        checkpoint()
        tell("epoch", {**record, **timing, "epochs": epochs, "formulations": trainer.formulations})
    result = finish(folder, trainer.model, recipe, data, trainer.best, trainer.best_test, world)
    tell("result", result.to_dict())
    return result


def _evaluate_test(trainer: Trainer, record: dict[str, Any], folder: RunFolder) -> None:
    """Evaluate the test set after an epoch, because the best test epoch was asked for."""
    data = trainer.data
    if data.test is None:
        return
    if trainer.world.leads:
        folder.record_test_run(f"epoch {record['epoch']}", ["best-test"])
    result = evaluate_model(trainer.model, data.test, trainer.recipe, data.pool, world=trainer.world)
    record["test_accuracy"] = result.accuracy
    if trainer.best_test is None or result.accuracy > trainer.best_test["accuracy"]:
        trainer.best_test = {"epoch": record["epoch"], "accuracy": result.accuracy}


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
        "least_steps": data.least_steps,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "initial_rates": [asdict(rate) for rate in trainer.initial_rates],
        "formulations": trainer.formulations,
        "test_runs": [],
        "test_run_count": 0,
    }


def _resume(trainer: Trainer, folder: RunFolder, best_test: bool) -> None:
    """Check that the folder holds this very run and go back to its newest checkpoint."""
    stored, manifest = folder.recipe(), folder.manifest()
    if stored != trainer.recipe:
        raise InputError(
            f"{folder.path}: cannot resume, the recipe differs: {_first_difference(stored, trainer.recipe)}"
        )
    facts: dict[str, Any] = {"seed": trainer.seed, "data_digest": trainer.data.digest, "best_test": best_test}
    facts["formulations"] = trainer.formulations
    for name, value in facts.items():
        if manifest.get(name) != value:
            raise InputError(f"{folder.path}: cannot resume, {name} was {manifest.get(name)!r}, now {value!r}")
    checkpoint = newest_checkpoint(folder.checkpoints)
    if checkpoint is not None:
        trainer.restore(checkpoint.step, checkpoint.tensors, checkpoint.values)
    if trainer.world.leads:
        folder.cut_metrics(trainer.metrics_length)
        remove_others(folder.checkpoints, checkpoint.step if checkpoint is not None else None)


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
