"""`snnsim bench sparse`: training steps of a layer with few synapses."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from snnsim.cli.bench_options import Json, Rounds, Threads
from snnsim.cli.output import emit, note

__all__ = ["sparse"]


def sparse(
    steps: Annotated[int, typer.Option("--steps", min=1, help="Time steps.")] = 500,
    rounds: Rounds = 7,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Time training steps of a masked layer of 512 units, dense, by events and along its synapses, in turn."""
    from snnsim.bench.sparse import format_sparse_steps, measure_sparse_steps
    from snnsim.machine import usable_cores

    begin = time.perf_counter()
    count = threads or usable_cores()
    note(f"a layer of 512 units over {steps} steps on {count} threads ...")
    rows = measure_sparse_steps(count, steps, rounds=rounds)
    result = {
        "seconds": time.perf_counter() - begin,
        "threads": count,
        "n_steps": steps,
        "steps": [row.to_json() for row in rows],
    }
    emit(result, json, format_sparse_steps(rows, steps))
