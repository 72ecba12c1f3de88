"""Options that the commands of `snnsim bench` share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from snnsim.errors import InputError

__all__ = ["Json", "Names", "Pythons", "Rounds", "Threads", "interpreters"]

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Which tasks, by name; all by default (some minutes). A wrong name lists them."),
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Turns of every side; the range is over these.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of every side; all cores by default.")]
Pythons = Annotated[
    list[str] | None,
    typer.Option(
        "--python",
        metavar="PEER=PATH",
        help="Interpreter of a peer (such as spyx or brian2) that lives elsewhere; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def interpreters(entries: Iterable[str] | None, peers: Iterable[str]) -> dict[str, str]:
    """Return the interpreter of each peer that lives elsewhere.

    Args:
        entries: Such as ``"spyx=/path/to/python"``.
        peers: Peers that are compared with.

    Raises:
        InputError: An entry is no executable file, or there is no such peer.
    """
    found = {}
    known = sorted(set(peers))
    for entry in entries or []:
        name, equals, path = entry.partition("=")
        if not equals or not os.access(path, os.X_OK) or not Path(path).is_file():
            raise InputError(f"--python: expected PEER=PATH of an interpreter, got {entry!r}")
        if name not in known:
            raise InputError(f"--python: expected one of the peers {', '.join(known)}, got {name!r}")
        found[name] = path
    return found
