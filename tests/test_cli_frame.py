"""The frame of the command line: table, help, exit statuses, one sentence for a mistake, fixed JSON keys."""

import errno
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from snnsim.cli.main import COMMANDS, Command, application, run
from snnsim.cli.output import KEYS, emit, plain
from snnsim.errors import InputError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "cli.md"


def leaves(name: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands below a name of the table, groups opened."""
    top: Any = typer.main.get_command(application(name)).commands[name]  # type: ignore[attr-defined]

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield words, command
        else:
            for word, child in inner.items():
                yield from walk((*words, word), child)

    yield from walk((name,), top)


ALL = [(words, command) for name in COMMANDS for words, command in leaves(name)]
WORDS = [words for words, _ in ALL]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^\W*{name}\s", shown, re.MULTILINE), name


def test_no_words_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Usage: snnsim" in capsys.readouterr().out


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_each_command_has_help_with_one_example(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("-h", "--help"):
        assert run([*words, flag]) == 0
        shown = capsys.readouterr().out
        text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())
        assert f"Usage: snnsim {' '.join(words)}" in text
        assert text.count("Example: snnsim") == 1
        assert f"Example: snnsim {words[0]}" in text


def test_help_keeps_what_stands_in_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(out: Annotated[str, typer.Option("--out", help="Place [see snnsim[nir]].")] = "") -> None:
        """Do it [now]."""

    module = importlib.import_module("snnsim.cli.output")
    monkeypatch.setattr(module, "bracket", command, raising=False)
    monkeypatch.setitem(COMMANDS, "bracket", Command("snnsim.cli.output", "bracket", "Do.", "snnsim bracket"))
    assert run(["bracket", "-h"]) == 0
    shown = capsys.readouterr().out
    assert "Place [see snnsim[nir]]." in shown
    assert "Do it [now]." in shown


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words in WORDS])
def test_each_option_has_help(words: tuple[str, ...], command: Any) -> None:
    assert command.help, words
    for parameter in command.params:
        assert parameter.help, f"{words}: {parameter.name} has no help"


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words in WORDS])
def test_each_command_and_option_is_documented(words: tuple[str, ...], command: Any) -> None:
    text = DOCS.read_text(encoding="utf-8")
    heading = rf"^#+ `snnsim {' '.join(words)}`$"
    found = re.search(heading + r"\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/cli.md has no section headed `snnsim {' '.join(words)}`"
    section = found.group(1)
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert re.search(rf"`[^`]*{re.escape(option)}\b", section), f"{words}: {option} is not documented"


def test_documentation_names_no_unknown_command() -> None:
    headed = re.findall(r"^#+ `snnsim ([^`]+)`$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    known = {" ".join(words) for words in WORDS} | {words[0] for words in WORDS}
    assert set(headed) <= known


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_examples_of_the_table_parse(name: str) -> None:
    words = COMMANDS[name].example.split()
    assert words[:2] == ["snnsim", name]
    group = typer.main.get_command(application(name))
    group.make_context("snnsim", words[1:])  # parses the first level; the next line the command's own options
    command: Any = group.commands[name]  # type: ignore[attr-defined]
    rest = words[2:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(name, rest)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nope"], "No such command 'nope'"),
        (["doctor", "--nope"], "No such option: --nope"),
        (["doctor", "extra"], "unexpected extra argument"),
        (["--nope"], "No such option: --nope"),
        (["quantize"], "Missing argument"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert sentence in err
    assert err.rstrip().endswith("-h")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Put a command into the table that raises what it is given."""

    def install(error: BaseException) -> None:
        def command() -> None:
            raise error

        module = importlib.import_module("snnsim.cli.output")
        monkeypatch.setattr(module, "failing", command, raising=False)
        monkeypatch.setitem(COMMANDS, "failing", Command("snnsim.cli.output", "failing", "Fail.", "snnsim failing"))

    return install


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("dt: expected a positive number"), "dt: expected a positive number"),
        (FileNotFoundError(errno.ENOENT, "x", "gone.h5"), "gone.h5: no such file or folder"),
        (PermissionError(errno.EACCES, "x", "kept.h5"), "kept.h5: permission denied"),
        (IsADirectoryError(errno.EISDIR, "x", "runs"), "runs: expected a file"),
        (NotADirectoryError(errno.ENOTDIR, "x", "a.h5/b"), "a.h5/b: expected a folder"),
        (OSError(errno.ENOSPC, "x", "big.h5"), "no space left on the disk"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    error: Exception, sentence: str, failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert run(["failing"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("snnsim: ")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("lost"), OSError(errno.EIO, "disk")])
def test_a_bug_keeps_its_traceback(error: Exception, failing: Any) -> None:
    failing(error)
    with pytest.raises(type(error)):
        run(["failing"])


def test_interrupt_is_status_130_with_one_line(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert run(["failing"]) == 130
    assert capsys.readouterr().err.strip() == "snnsim: stopped"


def test_interrupted_training_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train() -> None:
        raise KeyboardInterrupt

    module = importlib.import_module("snnsim.cli.output")
    monkeypatch.setattr(module, "train", train, raising=False)
    monkeypatch.setitem(COMMANDS, "train", Command("snnsim.cli.output", "train", "Train.", "snnsim train"))
    assert run(["train"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"snnsim {version('snnsim')}"


def test_closed_pipe_is_no_traceback() -> None:
    script = f"'{sys.executable}' -m snnsim.cli.main --help | head -c 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_emit_json_holds_all_fixed_keys_first(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    emit({"accuracy": np.float64(0.5), "files": [Path("a")], "mine": float("nan"), "n_samples": np.int64(3)}, json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    value = json.loads(out)
    assert tuple(value)[: len(KEYS)] == KEYS
    assert value["accuracy"] == 0.5
    assert value["n_samples"] == 3
    assert value["files"] == ["a"]
    assert value["engine"] is None
    assert value["mine"] is None


def test_emit_text_lists_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"n_samples": 3, "accuracy": None})
    assert capsys.readouterr().out == "n samples: 3\n"
    emit({"n_samples": 3}, text="three samples")
    assert capsys.readouterr().out == "three samples\n"


def test_plain_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(TypeError, match="object"):
        plain(object())
