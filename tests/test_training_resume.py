"""Resume: killed at any instant, also within the writing of a checkpoint, a run ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snnsim.errors import InputError, SnnsimFileError

WORKER = Path(__file__).with_name("training_worker.py")
COMPARED = (
    "metrics.jsonl",
    "initial.safetensors",
    "last.safetensors",
    "best.safetensors",
    "last.snn.h5",
    "best.snn.h5",
)


def start(out: Path, plan: dict[str, float], threads: int = 1) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(out), json.dumps(plan)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(out: Path, plan: dict[str, float], threads: int = 1) -> tuple[int, str]:
    process = start(out, plan, threads)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.decode()


def same_bytes(a: Path, b: Path) -> None:
    for name in COMPARED:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    ours, theirs = (sorted(item.name for item in (run / "checkpoints").iterdir()) for run in (a, b))
    assert ours == theirs
    assert len(ours) == 2
    for name in ours:
        assert (a / "checkpoints" / name).read_bytes() == (b / "checkpoints" / name).read_bytes(), name


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("resume") / "straight"
    code, errors = run(out, {"seconds": 1e9}, threads=2)
    assert code == 0, errors
    return out


def test_killed_five_times_ends_in_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for plan in ({"torn": 1}, {"torn": 2}, {"batch": 3}, {"torn": 3}, {"replace": 4}):
        code, errors = run(out, plan)
        assert code == -9, errors
    code, errors = run(out, {})
    assert code == 0, errors
    same_bytes(reference, out)
    before = {name: (out / name).read_bytes() for name in (*COMPARED, "result.json")}
    assert json.loads(before["result.json"])["test_run_count"] == 1

    from snnsim.training import load_run

    opened = load_run(out)
    assert [line["epoch"] for line in opened.metrics] == [1, 2, 3, 4]
    assert opened.manifest["test_run_count"] == 1
    scaled = opened.manifest["initial_rates"]  # the first kill came before the first checkpoint: found anew, once
    assert all(layer["factor"] < 1 for layer in scaled)
    assert scaled == load_run(reference).manifest["initial_rates"]


@pytest.mark.slow
def test_thirty_kills_end_in_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    out = tmp_path / "run"
    kinds = ("torn", "replace", "renamed", "unlink")
    inside = [{kinds[i % 4]: draw.randint(1, 3)} for i in range(8)]
    timed = [{"sleep": draw.uniform(0.0, 0.12)} for _ in range(22)]
    plans: list[dict[str, float]] = [*inside, *timed]
    draw.shuffle(plans)
    kills = within = finished = 0
    while kills < 30:
        plan = plans[kills % 30]
        process = start(out, {k: v for k, v in plan.items() if k != "sleep"})
        if "sleep" in plan:
            assert process.stdout is not None
            process.stdout.readline()  # the first batch: from here on at a random moment
            time.sleep(plan["sleep"])
            process.kill()
        _, errors = process.communicate(timeout=300)
        if process.returncode == 0:  # it ended before the kill: take the next round from a new folder
            same_bytes(reference, out)
            finished += 1
            out = tmp_path / f"run{finished}"
            continue
        assert process.returncode == -9, errors.decode()
        kills += 1
        within += "sleep" not in plan
    assert within >= 5
    code, errors_text = run(out, {})
    assert code == 0, errors_text
    same_bytes(reference, out)


def test_resume_refuses_another_run(reference: Path, tmp_path: Path) -> None:
    from training_worker import CHANGES

    from snnsim.datasets.toy import make_toy
    from snnsim.recipes import load_recipe
    from snnsim.training import train

    data = make_toy(n_train=80, n_test=20)
    recipe = load_recipe("shd-dcls", CHANGES)
    with pytest.raises(InputError, match="seed was 3, now 4"):
        train(recipe, data, reference, seed=4, resume=True)
    with pytest.raises(InputError, match=r"train.epochs was 4, now 5"):
        train(load_recipe("shd-dcls", [*CHANGES, "train.epochs=5"]), data, reference, seed=3, resume=True)
    with pytest.raises(InputError, match="data_digest"):
        train(recipe, make_toy(n_train=88, n_test=20), reference, seed=3, resume=True)
    with pytest.raises(SnnsimFileError, match="not empty; choose another --out, or --resume"):
        train(recipe, data, reference, seed=3)


def test_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    import torch

    from snnsim.training.checkpoint import newest_checkpoint, write_checkpoint

    folder = tmp_path / "checkpoints"
    assert newest_checkpoint(folder) is None
    for step in (1, 2):
        write_checkpoint(folder, step, {"a": torch.full((3,), float(step))}, {"epoch": step})
    assert sorted(path.name for path in folder.iterdir()) == ["000000002.json", "000000002.safetensors"]
    found = newest_checkpoint(folder)
    assert found is not None
    assert (found.step, found.values, found.tensors["a"].tolist()) == (2, {"epoch": 2}, [2.0] * 3)
    path = folder / "000000002.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(SnnsimFileError, match="does not match its stored SHA-256"):
        newest_checkpoint(folder)
    path.unlink()
    with pytest.raises(SnnsimFileError, match="cannot be read"):
        newest_checkpoint(folder)
    (folder / "000000002.json").write_text("{}")
    with pytest.raises(SnnsimFileError, match="is not a checkpoint"):
        newest_checkpoint(folder)


def test_an_unwritten_checkpoint_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from snnsim.training import checkpoint

    folder = tmp_path / "checkpoints"
    checkpoint.write_checkpoint(folder, 1, {"a": torch.ones(2)}, {})

    def full_disk(path: Path, value: object) -> None:
        raise SnnsimFileError(path, "", "could not be written (No space left on device)")

    monkeypatch.setattr(checkpoint, "write_json", full_disk)
    with pytest.raises(SnnsimFileError, match="No space left"):
        checkpoint.write_checkpoint(folder, 2, {"a": torch.zeros(2)}, {})
    found = checkpoint.newest_checkpoint(folder)
    assert found is not None
    assert found.step == 1
