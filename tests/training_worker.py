"""A small training run as a process of its own, which can kill itself at a planned instant.

    python training_worker.py OUT PLAN

PLAN is JSON: ``{}`` runs to the end; ``{"batch": n}`` kills at the n-th batch of this process; ``{"replace": n}``
kills just before the n-th rename of a file, ``{"renamed": n}`` just after it, ``{"torn": n}`` after half of the n-th
safetensors file was written, ``{"unlink": n}`` before the n-th removal of an old file. ``{"seconds": s}`` is the
time between checkpoints within an epoch, by default 0: one after every batch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

CHANGES = [
    "model.hidden=[12, 10]",
    "model.connection.max_delay=0.08",
    "model.connection.fix_epochs_fraction=0.25",
    "model.initial_rate=0.08",
    "model.neuron.learn=['v_threshold']",
    "train.batch_size=16",
    "train.epochs=4",
    "train.weights.schedule.unit=batch",
    "train.augment.channel_shift=0.05",
    "train.augment.drop=0.1",
]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def counted(plan: dict[str, int], name: str) -> Any:
    seen = 0

    def count() -> bool:
        nonlocal seen
        seen += 1
        return seen == plan.get(name)

    return count


def main(out: str, plan: dict[str, int]) -> None:
    from snnsim.datasets.toy import make_toy
    from snnsim.recipes import load_recipe
    from snnsim.training import checkpoint, train

    batch = counted(plan, "batch")

    def callback(kind: str, facts: dict[str, Any]) -> None:
        if kind == "batch":
            print("batch", flush=True)
            if batch():
                die()

    before, after, unlinked, torn = (counted(plan, name) for name in ("replace", "renamed", "unlink", "torn"))
    replace, unlink, save = os.replace, Path.unlink, checkpoint.save

    def killing_replace(source: Any, target: Any) -> None:
        if before():
            die()
        replace(source, target)
        if after():
            die()

    def killing_unlink(self: Path, missing_ok: bool = False) -> None:
        if self.parent.name == "checkpoints" and not self.name.startswith(".") and unlinked():
            die()
        unlink(self, missing_ok=missing_ok)

    def killing_save(tensors: Any) -> bytes:
        data: bytes = save(tensors)
        if torn():
            folder = Path(out) / "checkpoints"
            folder = folder if folder.is_dir() else Path(out)
            with open(folder / "half.safetensors.part", "wb") as stream:
                stream.write(data[: len(data) // 2])
                stream.flush()
            die()
        return data

    os.replace, Path.unlink, checkpoint.save = killing_replace, killing_unlink, killing_save  # type: ignore[assignment]
    seconds = float(plan.get("seconds", 0))
    data = make_toy(n_train=80, n_test=20)
    train(
        load_recipe("shd-dcls", CHANGES), data, out, seed=3, resume=True, checkpoint_seconds=seconds, callback=callback
    )


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
