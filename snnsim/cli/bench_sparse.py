"""`snnsim bench sparse`: training steps of layers with few synapses."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from snnsim.cli.bench_options import Json, Rounds, Threads
from snnsim.cli.output import emit, note

__all__ = ["sparse"]


def sparse(
    layer: Annotated[str, typer.Option("--layer", help="linear (with LIF neurons), delay or recurrent.")] = "linear",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Time steps.")] = 500,
    rounds: Rounds = 7,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Time training steps of a masked layer of 512 units, dense, by events and along its synapses, in turn."""
    from snnsim.bench.sparse import format_sparse_steps, measure_sparse_steps
    from snnsim.bench.sparse_layers import format_layer_steps, measure_layer_steps
    from snnsim.machine import usable_cores

    begin = time.perf_counter()
    count = threads or usable_cores()
    note(f"a {layer} layer of 512 units over {steps} steps on {count} threads ...")
    if layer == "linear":
        rows = measure_sparse_steps(count, steps, rounds=rounds)
        values, text = [row.to_json() for row in rows], format_sparse_steps(rows, steps)
    else:
        others = measure_layer_steps(layer, count, steps, rounds=rounds)
        values, text = [row.to_json() for row in others], format_layer_steps(others, steps)
    result = {
        "seconds": time.perf_counter() - begin,
        "threads": count,
        "n_steps": steps,
        "layer": layer,
        "steps": values,
    }
    emit(result, json, text)
