"""`snnsim doctor` tells what is there, what is missing and the command that fixes it."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from snnsim.cli import doctor
from snnsim.cli.main import run


def test_versions_are_those_installed() -> None:
    found = doctor.diagnose()
    for name in ("torch", "numpy", "numba", "h5py", "typer"):
        assert found["versions"][name] == metadata.version(name)
    assert found["cores"] >= 1
    assert found["free_gib"] >= 0


def test_every_extra_of_the_package_has_a_purpose() -> None:
    extras = set(metadata.metadata("snnsim").get_all("Provides-Extra") or ())
    assert extras == set(doctor.PURPOSES)
    assert set(doctor.diagnose()["extras"]) == extras


def test_a_missing_extra_is_a_note_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "nirtorch":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = doctor.diagnose()
    assert found["extras"]["nir"] is False
    assert [problem for problem in found["problems"] if "nirtorch" in problem["what"]] == [
        {
            "level": "note",
            "what": "extra 'nir' (export to and import from NIR): nirtorch not installed or too old",
            "fix": f"{doctor.sys.executable} -m pip install 'snnsim[nir]'",
        }
    ]
    assert run(["doctor"]) == 0
    assert "pip install 'snnsim[nir]'" in capsys.readouterr().out


def test_a_missing_core_library_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.0" if name == "torch" else real(name))
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "error: torch 1.0 is too old" in out
    assert "pip install 'torch>=2.6'" in out


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "kept"))
    assert doctor.diagnose()["cache"] == str(tmp_path / "kept")


def test_a_wrong_thread_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "many")
    assert any("NUMBA_NUM_THREADS is 'many'" in problem["what"] for problem in doctor.diagnose()["problems"])


@pytest.mark.parametrize(
    ("version", "numbers"), [("2.13.0+cpu", (2, 13, 0)), ("0.61", (0, 61)), ("3.0rc1", (3, 0)), ("odd", ())]
)
def test_release_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert doctor._numbers(version) == numbers


def test_json_holds_the_fixed_keys_and_the_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["accuracy"] is None
    assert value["python"]
    assert value["problems"] == doctor.diagnose()["problems"]
