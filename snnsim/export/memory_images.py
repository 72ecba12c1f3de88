"""Memory images for ``$readmemh``: one text file of hexadecimal words a table, and an index that says what they are.

A word is one line; negative numbers are two's complement of the table's width. The tables and the narrow types are
those of the C source, see :mod:`snnsim.export.c99_layout`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import SnnsimFileError
from snnsim.export.c99_layout import Layout, Numbers, Table
from snnsim.files import sha256_bytes, write_json, write_text

__all__ = ["INDEX", "read_images", "write_images"]

INDEX = "index.json"
SCHEMA = 1


def write_images(layout: Layout, folder: str | Path, digest: str) -> list[Path]:
    """Write every table as ``NAME.mem`` and the index as ``index.json``; return the files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listed, written = [], []
    for table in layout.tables():
        text = _text(table)
        path = folder / f"{table.name}.mem"
        write_text(path, text)
        written.append(path)
        listed.append(
            {
                "name": table.name,
                "file": path.name,
                "words": int(table.values.size),
                "bits": table.bits,
                "signed": table.signed,
                "what": table.what,
                "sha256": sha256_bytes(text.encode()),
            }
        )
    index = {
        "schema": SCHEMA,
        "law": "fixed",
        "network": digest,
        "tables": listed,
        "inputs": [{"name": name, "size": size} for name, size in layout.inputs],
        "populations": [
            {
                "name": item.name,
                "size": item.size,
                "kind": item.kind,
                "parameters": {name: _named(value) for name, value in item.parameters.items()},
                "ring": {"slots": item.slots, "bits": item.ring_bits},
                "v_bits": item.v_bits,
                "i_bits": item.i_bits if item.current else 0,
            }
            for item in layout.populations
        ],
        "projections": [
            {
                "source": item.source,
                "target": item.target,
                "n_source": item.n_source,
                "n_target": item.n_target,
                "begin": None if item.begin is None else item.begin.name,
                "unit": None if item.unit is None else item.unit.name,
                "weight": item.weight.name,
                "delay": _named(item.delay),
            }
            for item in layout.projections
        ],
    }
    write_json(folder / INDEX, index)
    return [*written, folder / INDEX]


def _named(value: Numbers) -> int | str:
    """Return a number, or the name of its table."""
    return value.name if isinstance(value, Table) else value


def _text(table: Table) -> str:
    digits, top = table.bits // 4, 1 << table.bits
    words = "".join(f"{int(value) % top:0{digits}x}\n" for value in table.values)
    return f"// {table.name}: {table.values.size} words of {table.bits} bits\n{words}"


def read_images(folder: str | Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.int64]]]:
    """Read memory images back, as ``$readmemh`` would.

    Returns:
        The index, and the tables by name, int64 ``(words,)``.

    Raises:
        SnnsimFileError: A file is missing, was changed, or does not hold what the index says.
    """
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        listed = [(str(item["name"]), str(item["file"]), item) for item in index["tables"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SnnsimFileError(path, "", f"expected an index of memory images ({error})") from None
    tables = {}
    for name, file, item in listed:
        place = Path(folder) / Path(file).name
        try:
            text = place.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise SnnsimFileError(place, name, f"cannot be read ({error})") from None
        if sha256_bytes(text.encode()) != item.get("sha256"):
            raise SnnsimFileError(place, name, "does not have the SHA-256 of the index; export it again")
        try:
            bits, signed = int(item["bits"]), bool(item["signed"])
            words = [int(line, 16) for line in text.splitlines() if line and not line.startswith("//")]
        except (KeyError, ValueError, TypeError) as error:
            raise SnnsimFileError(place, name, f"expected one hexadecimal word a line ({error})") from None
        if len(words) != item.get("words") or any(not 0 <= word < 1 << bits for word in words):
            raise SnnsimFileError(place, name, f"expected {item.get('words')} words of {bits} bits, got {len(words)}")
        values = np.array(words, np.int64)
        if signed:
            values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
        tables[name] = values
    return index, tables
