"""Data: spike files, audio, event cameras, generators; a memory-mapped cache; batches, splits, augmentation.

>>> from snnsim.datasets import frame, open_dataset
>>> data = open_dataset("toy")
>>> framed = frame(data.train, "zero", dt=0.01)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnsim.datasets.augment import Augment
    from snnsim.datasets.batches import Batch, BatchStream
    from snnsim.datasets.dataset import Dataset, frame, list_datasets, open_dataset
    from snnsim.datasets.heidelberg import read_heidelberg
    from snnsim.datasets.heidelberg_write import write_heidelberg
    from snnsim.datasets.splits import Holdout, split_validation, validation_events
    from snnsim.datasets.toy import make_toy

__all__ = [
    "Augment",
    "Batch",
    "BatchStream",
    "Dataset",
    "Holdout",
    "frame",
    "list_datasets",
    "make_toy",
    "open_dataset",
    "read_heidelberg",
    "split_validation",
    "validation_events",
    "write_heidelberg",
]

_HOME = {
    "Augment": "augment",
    "Batch": "batches",
    "BatchStream": "batches",
    "Dataset": "dataset",
    "Holdout": "splits",
    "frame": "dataset",
    "list_datasets": "dataset",
    "make_toy": "toy",
    "open_dataset": "dataset",
    "read_heidelberg": "heidelberg",
    "split_validation": "splits",
    "validation_events": "splits",
    "write_heidelberg": "heidelberg_write",
}


def __getattr__(name: str) -> Any:
    """Import a name from its module when it is first used, so that importing this package stays quick."""
    if name in _HOME:
        return getattr(importlib.import_module(f"snnsim.datasets.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
