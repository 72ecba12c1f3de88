"""What the documents point at exists, and the commands and code that they show are real."""

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from snnsim.cli.main import COMMANDS, application

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [str(path.relative_to(ROOT)) for path in PAGES]


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as code hosts make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        word = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        found.add(word)
    return found


def blocks(path: Path) -> list[str]:
    """Python code blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("https:", "mailto:")):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        assert file.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_python_blocks_parse_and_import_what_exists(path: Path) -> None:
    for block in blocks(path):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snnsim"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{path.name}: {node.module}.{alias.name}"


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_command_lines_parse(path: Path) -> None:
    for line in re.findall(r"^    (snnsim .+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        words = shlex.split(line, comments=True)[1:]
        if words[0].startswith("-") or "<" in line:
            continue
        assert words[0] in COMMANDS, line
        command: Any = typer.main.get_command(application(words[0])).commands[words[0]]  # type: ignore[attr-defined]
        rest = words[1:]
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, line
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[0], rest)


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make demo", "make test"):
        assert f"    {command}" in text


def test_nothing_names_a_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:work|root|home|Users|opt|farm)/\w")
    for path in [*PAGES, *(ROOT / "examples").glob("*.py"), ROOT / "Makefile", ROOT / "pyproject.toml"]:
        assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_the_architecture_page_has_the_same_table_as_the_import_test() -> None:
    from test_house_imports import GROUND, MAY_IMPORT, SAME_ROOM

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    text = text[text.index("## The rooms") : text.index("## What passes")]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| `")]
    drawn: dict[str, str] = {}
    for names, _, may in rows:
        for name in re.findall(r"`([\w]+)/?`", names.partition("(")[0]):
            drawn[name] = may
    assert set(drawn) - set(SAME_ROOM) == set(MAY_IMPORT)
    for room in set(MAY_IMPORT) - GROUND - {"cli"}:
        listed = {word.strip() for word in drawn[room].split(",")} - {"ground"}
        assert listed == MAY_IMPORT[room], room
