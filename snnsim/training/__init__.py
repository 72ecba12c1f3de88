"""Training: from a recipe and a data set to a run folder, exactly resumable.

from snnsim.datasets import open_dataset
from snnsim.training import load_run, train

result = train("spoken-digits", open_dataset("spoken-digits"), "runs/first")
model = load_run("runs/first").model()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnsim.training.evaluation import EvalResult, evaluate, evaluate_model, evaluate_network
    from snnsim.training.finish import TrainResult
    from snnsim.training.loop import TrainingInterrupted, train
    from snnsim.training.lr_range import RangeResult, lr_range_test
    from snnsim.training.reproduction import ReproduceResult, reproduce
    from snnsim.training.runs import Run, load_run

__all__ = [
    "EvalResult",
    "RangeResult",
    "ReproduceResult",
    "Run",
    "TrainResult",
    "TrainingInterrupted",
    "evaluate",
    "evaluate_model",
    "evaluate_network",
    "load_run",
    "lr_range_test",
    "reproduce",
    "train",
]

_HOMES = {
    "EvalResult": "evaluation",
    "RangeResult": "lr_range",
    "ReproduceResult": "reproduction",
    "Run": "runs",
    "TrainResult": "finish",
    "TrainingInterrupted": "loop",
    "evaluate": "evaluation",
    "evaluate_model": "evaluation",
    "evaluate_network": "evaluation",
    "load_run": "runs",
    "lr_range_test": "lr_range",
    "reproduce": "reproduction",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first used (torch is slow to import)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
