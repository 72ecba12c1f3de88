"""`snnsim demo` goes the whole way, and `snnsim report` draws what it left; on the toy and a small network."""

import json
from pathlib import Path
from typing import Any

import pytest

from snnsim.cli import demo
from snnsim.cli.main import run

RECIPE = """
name = "small"
summary = "a small network for tests"

[data]
dt = 0.01
channels = 20

[model]
hidden = [64]
batch_norm = true

[model.connection]
kind = "delayed"
max_delay = 0.2

[train]
epochs = 2
batch_size = 40

[train.weights]
optimiser = "adam"
lr = 1e-2

[train.positions]
optimiser = "adam"
lr = 0.1
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], str]:
    """The demo run twice: its folder, both JSON answers and what the first call said on standard error."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo")
    recipe = folder / "small.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    answers, said = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "RECIPE", str(recipe))
        patch.setattr(demo, "DATA", "toy")
        for _ in range(2):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                assert run(["demo", "--out", str(folder / "run"), "--json"]) == 0, err.getvalue()
            answers.append(json.loads(out.getvalue()))
            said.append(err.getvalue())
    return folder / "run", answers, said[0]


def test_demo_answers_with_all_that_was_measured(made: tuple[Path, list[dict[str, Any]], str]) -> None:
    folder, (first, _), _ = made
    assert first["engine"] == "clock"
    assert first["n_samples"] == 200
    assert first["accuracy"] == first["torch_accuracy"]
    assert first["mismatches"] == 0
    assert first["compared"] >= 1_000_000
    assert first["proof_holds"] is True
    assert first["spikes"] > 0
    assert first["changes"]
    assert list(first["stages"]) == ["data", "train", "freeze", "simulate", "export", "report"]
    for name in first["files"]:
        assert Path(name).exists()
    proof = json.loads((folder / "best.nir.proof.json").read_text())
    assert proof["compared"] == first["compared"]


def test_demo_says_each_stage(made: tuple[Path, list[dict[str, Any]], str]) -> None:
    said = made[2]
    places = [said.index(f"[{number}/6] {name}") for number, name in enumerate(made[1][0]["stages"], start=1)]
    assert places == sorted(places)
    assert "The proof holds." in said


def test_demo_again_uses_what_is_there(made: tuple[Path, list[dict[str, Any]], str]) -> None:
    folder, (first, second), _ = made
    assert second["accuracy"] == first["accuracy"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_demos_page_holds_the_result_and_the_proof(made: tuple[Path, list[dict[str, Any]], str]) -> None:
    folder, (first, _), _ = made
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{first['accuracy']:.1%}" in page
    assert "no spike differs" in page
    assert "before (line) and after training (filled)" in page
    assert "best-validation" in page


def test_each_look_at_the_test_set_is_in_the_manifest(made: tuple[Path, list[dict[str, Any]], str]) -> None:
    looks = [look["purpose"] for look in json.loads((made[0] / "manifest.json").read_text())["test_runs"]]
    assert looks == ["end of training", *["eval, engine clock", "report"] * 2]


def test_report_draws_the_run_again(
    made: tuple[Path, list[dict[str, Any]], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made[0]
    page = tmp_path / "again.html"
    words = ["report", str(folder), "--out", str(page), "--weights", "last", "--json"]
    assert run([*words, "--proof", str(folder / "best.nir.proof.json")]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(page)]
    assert "no spike differs" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "expected a run folder"),
        (["RUN", "--proof", "no.json"], "no.json: no such file"),
        (["RUN", "--proof", "RUN/result.json"], "expected a proof"),
        (["RUN", "--proof", "RUN/best.nir"], "proof"),
        (["RUN", "--data", "nothing-known"], "not known"),
        (["RUN", "--weights", "middle"], "middle"),
    ],
)
def test_report_refuses_in_one_sentence(
    words: list[str],
    sentence: str,
    made: tuple[Path, list[dict[str, Any]], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["report", *(word.replace("RUN", str(made[0])) for word in words)]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert sentence in err[-1]
    assert list(tmp_path.iterdir()) == []


def test_report_warns_of_other_data(
    made: tuple[Path, list[dict[str, Any]], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from snnsim.datasets import make_toy, write_heidelberg

    other = make_toy(n_train=8, n_test=8, seed=5)
    assert other.test is not None
    write_heidelberg(tmp_path / "other_train.h5", other.train)
    write_heidelberg(tmp_path / "other_test.h5", other.test)
    page = tmp_path / "other.html"
    assert run(["report", str(made[0]), "--data", str(tmp_path), "--out", str(page)]) == 0
    assert "is not the data that the run was trained on" in capsys.readouterr().err
    assert "8 test samples" in page.read_text(encoding="utf-8")
