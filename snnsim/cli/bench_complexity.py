"""`snnsim bench complexity`: how fast Lempel-Ziv words are counted."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from snnsim.cli.output import emit, note

__all__ = ["complexity"]


def complexity(
    symbols: Annotated[
        int, typer.Option("--symbols", min=1000, help="Symbols of the short strings; the long ones have ten times.")
    ] = 100_000,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time Lempel-Ziv word counts along the length and against a plain quadratic scan (processor time, one thread)."""
    from snnsim.bench.complexity import format_growth, measure_growth

    begin = time.perf_counter()
    note("strings of both lengths in turn ...")
    rows = measure_growth(symbols)
    result = {"seconds": time.perf_counter() - begin, "rows": [row.to_json() for row in rows]}
    emit(result, json, format_growth(rows, symbols))
