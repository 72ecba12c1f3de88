"""Examples in docstrings run, and every public module says what it is for."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest
from test_house_imports import FILES, ROOT, module_name

WITH_EXAMPLES = [path for path in FILES if ">>> " in path.read_text(encoding="utf-8")]


def test_there_are_examples() -> None:
    assert WITH_EXAMPLES


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_docstrings_run(path: Path) -> None:
    result = doctest.testmod(importlib.import_module(module_name(path)))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_have_a_docstring_and_one_subject(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 650, "a file has one subject; split it"
