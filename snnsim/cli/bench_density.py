"""`snnsim bench density`: time and memory of the engines along the share of synapses that a mask has left."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from snnsim.cli.bench_options import Json, Rounds
from snnsim.cli.output import emit, note

__all__ = ["density"]


def density(
    kinds: Annotated[
        list[str] | None, typer.Argument(help="Kinds of networks: lif, cuba, delays; all by default.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="clock, event-grid or event; may be repeated, all by default.")
    ] = None,
    units: Annotated[
        int | None, typer.Option("--units", min=1, help="Units of a layer; 2048, for engine event 1024 by default.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps of 1 ms; 2000, for engine event 200 by default.")
    ] = None,
    rounds: Rounds = 5,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure resident memory too.")] = True,
    json: Json = False,
) -> None:
    """Time frozen networks of which a mask has left 100 to 5 % of the synapses, on one thread in turn."""
    from snnsim.bench.density import DENSITY_ENGINES, format_density, kinds_of, measure_density

    begin = time.perf_counter()
    curves = measure_density(
        kinds_of(kinds),
        engine or DENSITY_ENGINES,
        units=units,
        steps=steps,
        rounds=rounds,
        memory=memory,
        tell=note,
    )
    result = {"seconds": time.perf_counter() - begin, "curves": [curve.to_json() for curve in curves]}
    emit(result, json, format_density(curves))
