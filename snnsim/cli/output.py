"""What a command prints: text for people or one JSON object for programs, progress on standard error."""

from __future__ import annotations

import json as json_module
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

__all__ = ["KEYS", "columns", "emit", "note", "plain", "progress_bar"]

KEYS = (
    "accuracy",
    "n_samples",
    "engine",
    "spikes",
    "synaptic_operations",
    "mismatches",
    "compared",
    "seconds",
    "files",
    "changes",
)
"""Keys that every ``--json`` object holds, null where a command has nothing to say."""


def plain(value: Any) -> Any:
    """Turn a result into JSON's own types: NumPy values, paths, tuples; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    raise TypeError(f"cannot print a {type(value).__name__} as JSON")


def emit(result: Mapping[str, Any], json: bool = False, text: str = "") -> None:
    """Print a command's result to standard output.

    Args:
        result: Values by name. The fixed keys of :data:`KEYS` come first, null where missing; a command may
            add keys of its own after them.
        json: Print one JSON object on one line instead of text.
        text: What people read; by default one ``name: value`` line for each value that is there.
    """
    if json:
        ordered = {key: result.get(key) for key in KEYS} | dict(result)
        typer.echo(json_module.dumps(plain(ordered), allow_nan=False))
        return
    if not text:
        lines = [(key.replace("_", " "), plain(value)) for key, value in result.items() if value is not None]
        text = "\n".join(f"{key}: {value}" for key, value in lines)
    typer.echo(text)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of text as lines with aligned columns, words on the left and all that follows them on the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    left = [not any(row[k][:1].isdigit() for row in rows) for k in range(len(widths))]
    return [
        "  ".join(
            cell.ljust(width) if words else cell.rjust(width)
            for cell, width, words in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]


def note(text: str) -> None:
    """Print one line of progress to standard error."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on standard error while something runs, if a person is looking; else yield None.

    Args:
        total: How many there are to do.
        what: Of what, a plural.

    Yields:
        A function that is told how many more are done.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)
