"""The end of a run: store and freeze the weights, use the test set once, label the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnsim.files import write_json
from snnsim.nn.model import build_model
from snnsim.nn.trained import TrainedModel
from snnsim.recipes import Recipe
from snnsim.training.checkpoint import load_tensors, save_tensors
from snnsim.training.distributed import World
from snnsim.training.evaluation import evaluate_model
from snnsim.training.prepare import Prepared
from snnsim.training.run_folder import RunFolder
from snnsim.training.upload import device_of

__all__ = ["LABELS", "TrainResult", "finish"]

LABELS = ("last-epoch", "best-validation", "best-test")


@dataclass(frozen=True)
class TrainResult:
    """Labelled outcome of a run.

    Attributes:
        path: Run folder.
        results: For each label (``last-epoch``, ``best-validation``, and on request ``best-test``) a dict with
            ``epoch``, and where there is such a split ``test_accuracy`` and ``valid_accuracy``.
        test_run_count: How often the test set has been used in this run.
        spikes: Hidden spikes a test sample (of the reported weights), or None.
        synaptic_operations: Synaptic operations a test sample, or None.
    """

    path: Path
    results: dict[str, dict[str, Any]]
    test_run_count: int
    n_test: int
    spikes: float | None
    synaptic_operations: float | None

    @property
    def label(self) -> str:
        """Return the label of the headline result: never one chosen on the test set."""
        return "best-validation" if "best-validation" in self.results else "last-epoch"

    @property
    def accuracy(self) -> float | None:
        """Return the headline accuracy: on the test set, or on the held-out samples if there is none."""
        chosen = self.results[self.label]
        value = chosen.get("test_accuracy")
        return chosen.get("valid_accuracy") if value is None else value

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "label": self.label,
            "accuracy": self.accuracy,
            "results": self.results,
            "test_run_count": self.test_run_count,
            "n_test": self.n_test,
            "spikes": self.spikes,
            "synaptic_operations": self.synaptic_operations,
        }

    @classmethod
    def from_dict(cls, path: Path, values: dict[str, Any]) -> TrainResult:
        """Read back what :meth:`to_dict` gave."""
        names = ("results", "test_run_count", "n_test", "spikes", "synaptic_operations")
        return cls(path=path, **{name: values[name] for name in names})


def finish(
    folder: RunFolder,
    model: TrainedModel,
    recipe: Recipe,
    data: Prepared,
    best: dict[str, Any] | None,
    best_test: dict[str, Any] | None,
    world: World,
    notes: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Store and freeze last and best weights and evaluate them on the test set; a finished run is only read."""
    world.wait()
    stored = folder.result()
    if stored is not None:
        return TrainResult.from_dict(folder.path, stored)
    candidates: dict[str, TrainedModel] = {"last-epoch": model}
    if world.leads:
        save_tensors(folder.path / "last.safetensors", dict(model.state_dict()))
    world.wait()
    if best is not None:
        chosen = build_model(folder.model_spec(recipe), data.n_inputs, data.n_classes, recipe.data.dt)
        chosen.load_state_dict(load_tensors(folder.path / "best.safetensors"))
        chosen.to(device_of(model))
        candidates["best-validation"] = chosen
    if world.leads:
        _freeze(folder, candidates, recipe.train.learning != "eventprop", notes or {})
    lines = folder.metrics()
    results: dict[str, dict[str, Any]] = {
        "last-epoch": {"epoch": recipe.train.epochs, "valid_accuracy": lines[-1]["valid_accuracy"]}
    }
    if best is not None:
        epoch = best["epoch"]
        results["best-validation"] = {"epoch": epoch, "valid_accuracy": lines[epoch - 1]["valid_accuracy"]}
    spikes = operations = None
    if data.test is not None:
        if world.leads:
            folder.record_test_run("end of training", list(candidates))
        for label, candidate in candidates.items():
            outcome = evaluate_model(candidate, data.test, recipe, data.pool, world=world)
            results[label]["test_accuracy"] = outcome.accuracy
            spikes = outcome.spikes / outcome.n_samples
            operations = outcome.synaptic_operations
    if best_test is not None:
        results["best-test"] = {"epoch": best_test["epoch"], "test_accuracy": best_test["accuracy"]}
    world.wait()
    result = TrainResult(
        path=folder.path,
        results=results,
        test_run_count=int(folder.manifest()["test_run_count"]),
        n_test=0 if data.test is None else len(data.test),
        spikes=spikes,
        synaptic_operations=operations,
    )
    if world.leads:
        write_json(folder.path / "result.json", result.to_dict())
    world.wait()
    return result


def _freeze(
    folder: RunFolder, candidates: dict[str, TrainedModel], round_delays: bool, notes: Mapping[str, Any]
) -> None:
    from snnsim.nn.conv_model import ConvSpikingModel
    from snnsim.nn.freeze import freeze

    names = {"last-epoch": "last", "best-validation": "best"}
    for label, candidate in candidates.items():
        if isinstance(candidate, ConvSpikingModel):
            continue  # a synapse for every use of a shared weight: made when somebody asks for it
        training = candidate.training
        candidate.eval()
        network = freeze(candidate, round_delays=round_delays)
        network.replace(notes={**network.notes, **notes}).save(folder.path / f"{names[label]}.snn.h5")
        candidate.train(training)
