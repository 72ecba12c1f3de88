"""Data-parallel training: two processes equal one with the same batches, within rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.recipes import load_recipe
from snnsim.training import train
from snnsim.training.distributed import World

CHANGES = [
    "model.hidden=[12, 10]",
    "model.connection.max_delay=0.08",
    "model.initial_rate=0.03",
    "train.batch_size=16",
    "train.epochs=1",
    "train.weights.optimiser=sgd",
    "train.weights.schedule.kind=constant",
    "train.weights.lr=0.05",
    "train.positions.optimiser=sgd",
    "train.clip_norm=1.0",
]
SCRIPT = """
import json, os, sys
from snnsim.datasets.toy import make_toy
from snnsim.recipes import load_recipe
from snnsim.training import train
out, changes = sys.argv[1], json.loads(sys.argv[2])
train(load_recipe("shd-dcls", changes), make_toy(n_train=45, n_test=21), out, seed=2)
if os.path.isdir("/proc/self/task"):  # a thread of the processes' group that outlives it can abort the interpreter
    names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    assert not any("gloo" in name for name in names), names
"""


@pytest.mark.parametrize("padding", [pytest.param("counted", marks=pytest.mark.slow), "masked"])
def test_two_processes_equal_one(tmp_path: Path, padding: str) -> None:
    changes = [*CHANGES, f"train.padding={padding}"]
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.run(
        [*launch, str(script), str(tmp_path / "two"), json.dumps(changes)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    train(load_recipe("shd-dcls", changes), make_toy(n_train=45, n_test=21), tmp_path / "one", seed=2)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    moved = 0.0
    start = build(changes)
    for name, value in one.items():
        assert np.allclose(value, two[name], rtol=1e-4, atol=2e-5), name
        if not name.endswith("norm.weight"):  # scaled before the first update
            moved = max(moved, float(np.abs(value - start[name]).max()))
    assert moved > 1e-3
    lines = [json.loads((tmp_path / name / "metrics.jsonl").read_text()) for name in ("one", "two")]
    for key in ("loss", "train_accuracy", "valid_loss", "valid_accuracy", "rates", "synaptic_operations"):
        assert lines[1][key] == pytest.approx(lines[0][key], rel=1e-4), key
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[0]["results"] == results[1]["results"]
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two")]
    assert manifests[1]["processes"] == 2
    for a, b in zip(*(manifest["initial_rates"] for manifest in manifests), strict=True):
        assert a == pytest.approx(b, rel=1e-3)
        assert a["factor"] < 1


def build(changes: list[str]) -> dict[str, np.ndarray]:
    from snnsim.nn.model import build_model

    recipe = load_recipe("shd-dcls", changes)
    model = build_model(recipe.model, 40, 4, recipe.data.dt, 2)
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_parts_cover_a_batch_once() -> None:
    for size in (1, 2, 3, 5):
        for n in (5, 16, 17):
            parts = [range(n)[World(rank, size).part(n)] for rank in range(size)]
            assert [i for part in parts for i in part] == list(range(n))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_too_small_batches_are_refused() -> None:
    World(0, 2).check_batches(33, 31)
    with pytest.raises(InputError, match=r"last batch of an epoch has 1 sample\(s\)"):
        World(0, 2).check_batches(33, 16)
    with pytest.raises(InputError, match="fewer than the 4 processes"):
        World(0, 4).check_batches(100, 2)
