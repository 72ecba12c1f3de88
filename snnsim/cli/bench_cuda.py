"""`snnsim bench cuda`: training and simulation on a CUDA device beside other libraries on the same one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from snnsim.cli.bench_options import Json, Pythons, Threads, interpreters
from snnsim.cli.output import emit, note

__all__ = ["cuda"]


def cuda(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Which tasks, by name or group; all by default (ten minutes). A wrong name lists them."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: does everything run?")] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of every side; the range is over these.")] = 3,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.0, help="Most minutes; what is left out is named.")
    ] = 9.5,
    out: Annotated[Path | None, typer.Option("--out", help="Write a page in Markdown, again after every task.")] = None,
    threads: Threads = None,
    pythons: Pythons = None,
    json: Json = False,
) -> None:
    """Time training and simulation on a CUDA device beside other libraries, in turn; what is missing is named."""
    from snnsim.bench.cuda_run import CudaResult, Limits, measure_cuda
    from snnsim.bench.cuda_table import format_cuda, report_cuda
    from snnsim.bench.cuda_tasks import choose_cuda_tasks
    from snnsim.device import check_device, simulated
    from snnsim.errors import InputError
    from snnsim.files import write_text
    from snnsim.machine import usable_cores

    begin = time.perf_counter()
    tasks = choose_cuda_tasks(names)
    elsewhere = interpreters(pythons, (peer for task in tasks for peer in task.peers))
    check_device("cuda", "bench")
    toy = simulated()
    if toy and not quick:
        raise InputError("bench cuda: expected --quick in Numba's simulator, which takes hours for real sizes")
    if quick:
        tasks = [task.quick(toy) for task in tasks]
    limits = Limits(rounds=rounds, turn=0.0 if toy else 0.4, total=60 * minutes)
    results: list[CudaResult] = []

    def told(result: CudaResult) -> None:
        results.append(result)
        if not json:
            print(format_cuda(result), flush=True)
        if out is not None:
            write_text(out, report_cuda(results, rounds))

    if toy:  # other libraries have no simulator
        from dataclasses import replace

        tasks = [replace(task, peers=()) for task in tasks]
    measure_cuda(tasks, limits=limits, threads=threads or usable_cores(), pythons=elsewhere, tell=note, told=told)
    result = {
        "seconds": time.perf_counter() - begin,
        "simulated": toy,
        "rounds": rounds,
        "results": [item.to_json() for item in results],
    }
    if json:
        emit(result, json, "")
